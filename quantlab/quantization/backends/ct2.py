"""CTranslate2: conversion to its format and decoding with its engine, as in faster-whisper.

int8 is symmetric with one scale per output channel, and activations are quantized to 8 bit per row at every call.
Embeddings and convolutions are int8 too. The library quantizes a model as a whole.
Source: https://opennmt.net/CTranslate2/quantization.html
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from quantlab.models.convert.from_ctranslate2 import MODEL, vocabulary
from quantlab.models.files import read_json
from quantlab.models.formats.ctranslate2 import BLOCK, LINEARS
from quantlab.models.tokens import END, NO_TIMES, START
from quantlab.quantization.base import why_not_among, why_not_installed
from quantlab.quantization.engine_files import folder_for, readable
from quantlab.quantization.select import HEAD
from quantlab.util.errors import CheckpointError, ConfigError, shortened

if TYPE_CHECKING:
    import torch
    from transformers import WhisperForConditionalGeneration

    from quantlab.config.schema import QuantConfig
    from quantlab.engines import Engine
    from quantlab.models.decoding import Decoding
    from quantlab.models.formats.ctranslate2 import Variable
    from quantlab.quantization.base import Converted
    from quantlab.quantization.tensors import Held, Stored

DISTRIBUTIONS = ("ctranslate2",)
READS = ("bits", "format", "granularity", "symmetric")
NO_EMBEDDING = "CTranslate2 always quantizes the embedding"
UNQUANTIZED = "float32"  # the compute type of quant.scheme=none
# other compute types → stored bits per weight; the type after int8_ is that of everything that is not int8
BITS = {
    "float16": 16,
    "bfloat16": 16,
    "int8": 8,
    "int8_float32": 8,
    "int8_float16": 8,
    "int8_bfloat16": 8,
}
CPU_TYPES = ("int8", "int8_float32")  # the library has no 16-bit floats on CPUs
# 16-bit format of a file → the compute type that the library uses for it on a CPU by default
WIDENED = {"float16": "float32", "bfloat16": "float32", "int8_float16": "int8_float32", "int8_bfloat16": "int8_float32"}
HEAD_LAYER = "decoder/projection"


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Check the compute types of the device, and that the whole model is quantized."""
    if device == "cpu" and quant.format in BITS and quant.format not in CPU_TYPES:
        return f"CTranslate2 computes in {quant.format} on CUDA only: set device=cuda, or quant=ct2_int8"
    return why_no_engine(device) or (
        None if quant.scheme == "none" else _why_no_such_type(quant) or why_not_in_part(quant)
    )


def why_no_engine(device: str) -> str | None:
    """Why CTranslate2 cannot run on the device, for any model."""
    if device == "mps":
        return "CTranslate2 runs on cpu and cuda, not on mps: set device=cpu"
    return why_not_installed("ctranslate2", "ctranslate2")


def _why_no_such_type(quant: QuantConfig) -> str | None:
    if quant.format is None:
        return f"CTranslate2 needs quant.format, one of {', '.join(BITS)}"
    who = f"CTranslate2's {quant.format}"
    return why_not_among("format", quant.format, BITS, "CTranslate2") or (
        why_not_among("bits", quant.bits, [BITS[quant.format]], who)
        or why_not_among("scheme", quant.scheme, [_scheme(quant.format)], who)
        or why_not_among("granularity", quant.granularity, _of_int8(quant, "per-channel"), who)
        or why_not_among("symmetric", quant.symmetric, _of_int8(quant, True), who)
    )


def _of_int8(quant: QuantConfig, value: object) -> list[object]:
    return [value] if str(quant.format).startswith("int8") else []


def _scheme(format: str) -> str:
    return "dynamic" if format.startswith("int8") else "weight-only"


def why_not_in_part(quant: QuantConfig) -> str | None:
    """Why only a part of the model cannot be quantized: the library cannot skip modules."""
    if quant.target == "all" and not quant.skip and quant.head:
        return None
    return "CTranslate2 quantizes all of a model: set quant.target=all, quant.skip=[] and quant.head=true"


def described(folder: Path) -> dict[str, object]:
    """The values of the keys of `quant` for an existing folder.

    Raises:
        CheckpointError: its matrices have several types, or an unknown one.
    """
    from quantlab.models.formats.ctranslate2 import variables

    with readable(folder, "CTranslate2"):
        found = variables(folder / MODEL)
    matrices = {item.dtype for item in found if item.name.endswith("/weight") and _linears_in(_layer(item))}
    rest = {item.dtype for item in found if item.name.endswith("/gamma")}  # layer norms stay floats
    format = "_".join([*matrices, *(rest if matrices == {"int8"} else ())])
    if format not in (UNQUANTIZED, *BITS):
        types = ", ".join(sorted(matrices | rest)) or "none at all"
        raise CheckpointError(
            f"{folder}: its weights are {types}; known are int8 and one type of floats, or floats alone"
        )
    whole = format.startswith("int8")
    return {
        "format": format,
        "bits": BITS.get(format, 32),
        "scheme": _scheme(format),
        "granularity": "per-channel" if whole else None,
        "symmetric": True if whole else None,
    }


def convert(
    model: WhisperForConditionalGeneration,
    quant: QuantConfig,
    names: tuple[str, ...],
    device: torch.device,
    decoding: Decoding,
    threads: int,
    keep: Path | None = None,
) -> Converted:
    """Convert with the library's converter, load the file, and read its tensors for the receipt.

    Raises:
        ConfigError: the device lacks the compute type, or the library does not support `decoding`.
    """
    asked = quant.format or UNQUANTIZED  # see why_unsupported
    _check_prompt(model, decoding)
    with folder_for(keep) as folder:
        _write(model, folder, asked)
        return _load_and_read(folder, asked, asked, device, decoding, threads)


def load(
    folder: Path,
    model: WhisperForConditionalGeneration,
    quant: QuantConfig,
    device: torch.device,
    decoding: Decoding,
    threads: int,
) -> Converted:
    """See `Loader`. On a CPU, 16-bit floats are computed in fp32, which is the library's default."""
    stored = str(quant.format)
    _check_prompt(model, decoding)
    _check_tokens(folder, decoding)
    computed = WIDENED.get(stored, stored) if device.type == "cpu" else stored
    return _load_and_read(folder, stored, computed, device, decoding, threads)


def _load_and_read(
    folder: Path, stored: str, computed: str, device: torch.device, decoding: Decoding, threads: int
) -> Converted:
    """Load a folder, and read its file's tensors for the receipt."""
    from quantlab.engines.ctranslate2 import CTranslate2
    from quantlab.models.formats.ctranslate2 import variables
    from quantlab.quantization.base import Converted

    loaded = _load(folder, computed, device, threads)
    linears, others = _sort_tensors(variables(folder / MODEL))
    note = f" (asked for {computed})" if loaded.compute_type != computed else ""
    note += f" (stored in {stored})" if stored != computed else ""
    return Converted(
        engine=CTranslate2(loaded, device, decoding),
        linears=linears,
        others=others,
        kernel=f"CTranslate2 {loaded.compute_type}{note}",
    )


def _check_tokens(folder: Path, decoding: Decoding) -> None:
    """Check the tokens that the engine finds by text, and the suppressed first tokens in config.json.

    Raises:
        CheckpointError: they differ from the tokenizer's.
    """
    with readable(folder, "CTranslate2"):
        words = vocabulary(folder)
    special = {END: decoding.end, START: decoding.prompt[0], NO_TIMES: decoding.prompt[-1]}
    for text, id in special.items():
        if words[id : id + 1] != [text]:
            raise CheckpointError(f"{folder}: {text} is token {id} of its tokenizer, but another one of its vocabulary")
    found = read_json(folder / "config.json").get("suppress_ids_begin") or []
    if sorted(found) != sorted(decoding.suppressed_first):
        raise CheckpointError(
            f"{folder / 'config.json'}: suppress_ids_begin={shortened(found)}, by its tokenizer it is "
            f"{sorted(decoding.suppressed_first)}"
        )


def _check_prompt(model: WhisperForConditionalGeneration, decoding: Decoding) -> None:
    """Check the prompt: the library writes timestamps unless it ends with `<|notimestamps|>`."""
    if decoding.prompt[-1] != getattr(model.generation_config, "no_timestamps_token_id", None):
        raise ConfigError("CTranslate2 needs a model whose generation_config has no_timestamps_token_id")
    if decoding.min_new_tokens not in (0, decoding.max_new_tokens):
        raise ConfigError(
            f"CTranslate2 can decode until the end token or exactly {decoding.max_new_tokens} tokens, "
            f"not at least {decoding.min_new_tokens}"
        )


def reload(folder: Path, quant: QuantConfig, device: torch.device, decoding: Decoding, threads: int) -> Engine:
    """See `Converter`."""
    from quantlab.engines.ctranslate2 import CTranslate2

    return CTranslate2(_load(folder, quant.format or UNQUANTIZED, device, threads), device, decoding)


def _write(model: WhisperForConditionalGeneration, folder: Path, compute_type: str) -> None:
    """Write `model.bin`, `config.json` and `vocabulary.json` of a model in memory.

    The words come from the folder's tokenizer if there is one, so that faster-whisper and CTranslate2 accept the
    folder like any other.
    """
    from ctranslate2.converters import TransformersConverter

    from quantlab.models.tokens import words

    class FromMemory(TransformersConverter):
        def load_model(self, *_: object, **__: object) -> Any:
            return copy.deepcopy(model)  # the converter scales float32 weights in place

        def load_tokenizer(self, *_: object, **__: object) -> Any:
            return SimpleNamespace(get_vocab=lambda: _vocabulary(model, words(folder)))

    with tempfile.TemporaryDirectory() as source, tempfile.TemporaryDirectory(dir=folder) as converted:
        model.config.save_pretrained(source)
        FromMemory(source).convert(converted, quantization=compute_type, force=True)  # clears its folder first
        for path in Path(converted).iterdir():
            path.replace(folder / path.name)


def _vocabulary(model: WhisperForConditionalGeneration, words: Mapping[int, str]) -> dict[str, int]:
    """Text → token id, with OpenAI's names for tokens that the engine looks up; the texts of others do not matter."""
    tokens: Any = model.generation_config
    named = {
        **words,
        tokens.eos_token_id: "<|endoftext|>",
        tokens.decoder_start_token_id: "<|startoftranscript|>",
        tokens.no_timestamps_token_id: "<|notimestamps|>",
    }
    return {named.get(id, f"<{id}>"): id for id in range(model.config.vocab_size)}


def _load(folder: Path, asked: str, device: torch.device, threads: int) -> Any:
    import ctranslate2
    from ctranslate2.models import Whisper

    index = device.index or 0
    supported = ctranslate2.get_supported_compute_types(device.type, index)
    if asked not in supported:
        raise ConfigError(f"CTranslate2 has no quant.format={asked} on this {device}: {', '.join(sorted(supported))}")
    loaded = Whisper(
        str(folder), device=device.type, device_index=index, compute_type=asked, inter_threads=1, intra_threads=threads
    )
    # `int8` means int8 with the model's own float type
    if loaded.compute_type != asked and not (asked == "int8" and loaded.compute_type.startswith("int8_")):
        raise ConfigError(f"CTranslate2 computes in {loaded.compute_type} on this {device}, not in {asked} as asked")
    return loaded


def _sort_tensors(found: list[Variable]) -> tuple[dict[str, Held], tuple[Stored, ...]]:
    """Sort tensors into Linear modules by their names in transformers, and all others."""
    from quantlab.quantization.tensors import Held

    layers: dict[str, list[Variable]] = {}
    for variable in found:
        layers.setdefault(_layer(variable), []).append(variable)
    linears: dict[str, Held] = {}
    others: list[Stored] = []
    for layer, held in layers.items():
        names = _linears_in(layer)
        for part, name in enumerate(names):
            linears[name] = Held(layer, tuple(_rows(variable, part, len(names)) for variable in held))
        if not names:
            others += [_rows(variable, 0, 1) for variable in held]
    return linears, tuple(others)


def _layer(variable: Variable) -> str:
    return variable.name.rpartition("/")[0]


def _linears_in(layer: str) -> tuple[str, ...]:
    """Names in transformers of the modules stacked in a layer of the file; empty for other layers."""
    if layer == HEAD_LAYER:
        return (HEAD,)
    if (block := BLOCK.fullmatch(layer)) is None:
        return ()
    part, index, below = block.groups()
    return tuple(f"model.{part}.layers.{index}.{name}" for name in LINEARS.get(below, ()))


def _rows(variable: Variable, part: int, parts: int) -> Stored:
    """One of the equal row blocks of a tensor; weight, scale and bias have one row per output."""
    from quantlab.quantization.tensors import Stored

    name = variable.name.rpartition("/")[2]
    return Stored(name, variable.dtype, variable.bytes // parts, (variable.stored_as, part))
