"""Conversion of an OpenAI checkpoint (`base.pt`).

It is a pickle, read by `torch.load(weights_only=True)`, which creates only tensors and plain containers and executes
nothing. This runs in its own process, so that a broken file cannot harm the caller.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from quantlab.models import tokens
from quantlab.models.convert.letters import letters, special
from quantlab.models.convert.parts import Parameter, Shape, check_parameters, write_texts, write_weights
from quantlab.models.files import MOST_BYTES
from quantlab.models.formats.ggml.names import tensor_in_file
from quantlab.records.schema import to_json
from quantlab.util import hub
from quantlab.util.errors import CheckpointError, ConfigError, Unavailable, shortened
from quantlab.util.files import opened, read_bytes

if TYPE_CHECKING:
    from torch import Tensor

STARTS = (b"PK\x03\x04", b"\x80")  # first bytes written by `torch.save`, now and before torch 1.6
DIMS = {  # OpenAI's names → those of Shape
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_head": "decoder_heads",
    "n_text_layer": "decoder_layers",
}
ASSETS = ("gpt2.tiktoken", "multilingual.tiktoken")  # in the package's whisper/assets
TOKENIZER = ("tokenizer.json", "vocab.json", "added_tokens.json")
PICKLE_BYTES = 16 << 20  # limit for scanning names; OpenAI's pickles have 0.1 MB
PATIENCE_S = 600
REFUSED = 3  # exit code of the process: its last line says why


@dataclass(frozen=True)
class Words:
    """The texts of tokens by id, one character per byte."""

    by_end: Mapping[int, Mapping[int, str]]  # id of the end token → texts before it
    digest: str


def quantized_as(path: Path) -> str | None:
    """Always None: OpenAI publishes floats, and `write` refuses anything else.

    Raises:
        ValueError: the file is from another program.
    """
    _check_archive(path)
    return None


def words(path: Path, repo: str | None, revision: str | None) -> Words:
    """Token texts from the package openai-whisper, without importing it, else from a repository in the hub's cache.

    Raises:
        Unavailable: neither is present.
    """
    found = _package_words() or _repository_words(repo, revision)
    if not found:
        other = f"fetch {repo}" if repo else "name the model, e.g. model=base, and fetch it"
        raise Unavailable(
            f"{path} has no tokenizer: pip install openai-whisper, whose tokenizer is then used; or "
            f"{other} (quantlab fetch model=…, without model.path), whose tokenizer is then used"
        )
    return Words(found, hashlib.sha256(to_json([[end, sorted(texts.items())] for end, texts in
                                                sorted(found.items())]).encode()).hexdigest())  # fmt: skip


def _package_words() -> dict[int, dict[int, str]]:
    spec = importlib.util.find_spec("whisper")
    found = {}
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for name in ASSETS:
            if (path := Path(folder) / "assets" / name).is_file():
                texts = _ranks(path)
                found[len(texts)] = texts
    return found


def _ranks(path: Path) -> dict[int, str]:
    """Read a tiktoken file: one line per token with its bytes in base64 and its id."""
    pairs = (line.split() for line in read_bytes(path, MOST_BYTES).splitlines() if line)
    return {int(pair[-1]): letters(base64.b64decode(pair[0]) if len(pair) > 1 else b"") for pair in pairs}


def _repository_words(repo: str | None, revision: str | None) -> dict[int, dict[int, str]]:
    if repo is None:
        return {}
    try:
        with hub.cache_only():
            folder = hub.snapshot(repo, revision, "model", TOKENIZER, _has_tokenizer, "")
    except (Unavailable, ConfigError):
        return {}
    texts = tokens.words(folder)
    end = next((id for id, text in texts.items() if text == tokens.END), 0)
    return {end: {id: text for id, text in texts.items() if id < end}}


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))


def write(path: Path, folder: Path, words: Words) -> None:
    """Convert a checkpoint file to a folder.

    Raises:
        ValueError: it is incomplete, or not a Whisper model that transformers can compute.
        CheckpointError: the available tokenizer is of another model.
        OSError: it cannot be read.
    """
    shape = Shape(**_written(path, folder))
    marks = special(shape.vocab_size)
    texts = words.by_end.get(min(marks))
    if texts is None or len(texts) < min(marks):
        raise CheckpointError(
            f"{path} has {shape.vocab_size} tokens, but the available tokenizer is of another model: "
            f"model={'base_en' if min(marks) == tokens.END_OF_ENGLISH else 'base'}, or the like, names one that fits"
        )
    write_texts(folder, shape, texts, marks)


def _written(path: Path, folder: Path) -> dict[str, int]:
    """Convert the weights in a separate process; returns the sizes of the model."""
    _check_archive(path)
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(path.absolute()), str(folder)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"it was not read within {PATIENCE_S} s") from None
    if done.returncode == REFUSED:
        raise ValueError(done.stderr.rstrip().rpartition("\n")[2])
    if done.returncode:
        raise ValueError(f"the process that read it ended with code {done.returncode}")
    return dict(json.loads(done.stdout))


def _check_archive(path: Path) -> None:
    """Refuse compressed archives, and pickles of other programs before anything reads them."""
    with opened(path) as file:
        start = file.read(PICKLE_BYTES)
        if start.startswith(STARTS[0]):
            start = _pickle(file, size=file.seek(0, os.SEEK_END))
    if b"model_state_dict" not in start or b"dims" not in start:
        raise ValueError(
            "it lacks OpenAI's dims and model_state_dict, and a pickle can run any code when it is read: "
            "convert it where it is trusted to a transformers folder (`save_pretrained`), and give that folder"
        )


def _pickle(file: BinaryIO, size: int) -> bytes:
    try:
        with zipfile.ZipFile(file) as archive:
            items = archive.infolist()
            if any(item.compress_type for item in items) or sum(item.file_size for item in items) > size:
                raise ValueError("its archive is compressed, unlike those of torch.save")
            found = next((item for item in items if item.filename.endswith("/data.pkl")), None)
            return archive.open(found).read(PICKLE_BYTES) if found else b""
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(f"its archive is broken: {error}") from None


def main(path: Path, folder: Path) -> None:
    """Entry point of the process: write the weights to the folder, and the sizes to stdout.

    Raises:
        ValueError: it is not an OpenAI checkpoint.
    """
    dims, held = _loaded(path)
    sizes: dict[str, Any] = {mine: dims.get(theirs) for theirs, mine in DIMS.items()}
    width = sizes["d_model"]
    sizes["ffn_dim"] = 4 * width if isinstance(width, int) else None
    shape = Shape(**sizes)
    names = {parameter: tensor_in_file(parameter) for parameter in shape.parameters()}
    check_parameters(
        {name: tuple(tensor.shape) for name, tensor in held.items()},
        {names[parameter]: size for parameter, size in shape.parameters().items()},
    )
    write_weights(folder / "model.safetensors", ((name, _parameter(held[names[name]])) for name in names))
    print(json.dumps(sizes))


def _loaded(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    import torch

    with opened(path) as file:
        mapped = file.read(len(STARTS[0])) == STARTS[0]  # the older format cannot be mapped
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # broken files raise many types
        raise ValueError(f"torch.load(weights_only=True) refuses it: {type(error).__name__}: {error}") from None
    dims, held = (found.get(key) if isinstance(found, dict) else None for key in ("dims", "model_state_dict"))
    if not isinstance(dims, dict) or not isinstance(held, dict):
        raise ValueError("it lacks OpenAI's dims and model_state_dict")
    for name, tensor in held.items():
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout == torch.strided
        if not isinstance(name, str) or not plain or tensor.dtype not in _floats():
            raise ValueError(f"{shortened(name)} is not a tensor of floats")
    if sum(tensor.nbytes for tensor in held.values()) > path.stat().st_size:
        raise ValueError("its tensors are larger than the file")
    return dims, held


def _floats() -> dict[Any, str]:
    import torch

    return {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def _parameter(tensor: Tensor) -> Parameter:
    import torch

    return Parameter(
        _floats()[tensor.dtype], tuple(tensor.shape), lambda: tensor.detach().contiguous().view(torch.uint8).numpy()
    )


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:3]))
    except (ValueError, OSError) as error:
        sys.stderr.write(" ".join(str(error).split())[:500] + "\n")
        sys.exit(REFUSED)
