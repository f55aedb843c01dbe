"""Checks of a checkpoint folder in the layout of `save_pretrained`."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from quantlab.config.schema import Architecture, bounds
from quantlab.config.types import Family
from quantlab.models import tokens
from quantlab.models.files import (
    MOST_BYTES,
    check_floats,
    check_names,
    check_regular,
    is_there,
    read_any_json,
    read_json,
)
from quantlab.models.foreign import why_not_a_checkpoint
from quantlab.models.kinds import KINDS, types_of
from quantlab.records.schema import to_json
from quantlab.util.errors import CheckpointError, ConfigError, shortened
from quantlab.util.files import Digests

INDEX = "model.safetensors.index.json"
CONTENT = (  # files that determine what a checkpoint computes, besides its safetensors
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "normalizer.json",
    "vocab.json",
    "merges.txt",
)
NAMES_FILES = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
               "tokenizer_config.json", INDEX)  # fmt: skip
SHAPE = {  # keys of config.json → fields of Architecture, which set the limits
    **{key: key for key in Architecture.model_fields if key not in ("attention_heads", "ffn_dim")},
    **{f"{part}_attention_heads": "attention_heads" for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": "ffn_dim" for part in ("encoder", "decoder")},
}
ATTENTION = (None, "eager", "sdpa")  # transformers fetches and runs code for other names


def content_hash(folder: Path) -> str:
    """Hash of all files that determine what the checkpoint computes, independent of the folder's location; hex."""
    names = [*(name for name in CONTENT if (folder / name).is_file()), *weight_files(folder)]
    with Digests() as digests:
        found = [[name, digests.of(folder / name)] for name in names]
    return hashlib.sha256(to_json(found).encode()).hexdigest()


def is_complete(folder: Path, family: Family = "whisper") -> bool:
    """Whether `check` passes."""
    with contextlib.suppress(ConfigError):
        check(folder, family)
        return True
    return False


def check(folder: Path, family: Family = "whisper") -> tokens.Tokens | None:
    """Refuse a folder that is not a checkpoint of the family, before anything is loaded.

    Returns:
        The special tokens of a Whisper.

    Raises:
        CheckpointError: the message says what is missing or wrong, and what to do.
    """
    if what := why_not_a_checkpoint(folder):
        raise CheckpointError(f"{folder} {what}")
    config = whisper_config(folder) if family == "whisper" else config_of(folder, family)
    weights = weight_files(folder)
    for name in CONTENT:
        if is_there(folder / name):
            check_regular(folder / name, MOST_BYTES)
    for name in NAMES_FILES:
        if is_there(folder / name):
            check_names(folder / name, read_json(folder / name))
    for name in weights:
        if name != INDEX:
            check_floats(folder / name)
    for what, names in {
        "feature extractor": ("preprocessor_config.json", "processor_config.json"),
        "tokenizer": ("tokenizer.json", "vocab.json"),
    }.items():
        if not any((folder / name).is_file() for name in names):
            raise CheckpointError(
                f"{folder} has no {what}: neither {' nor '.join(names)}; "
                "copy it from the checkpoint this one was trained from"
            )
    return tokens.read(folder, config) if family == "whisper" else None


@contextlib.contextmanager
def view(folder: Path) -> Iterator[Path]:
    """A temporary folder of links to the checked files only, for the libraries to read."""
    names = [*(name for name in CONTENT if is_there(folder / name)), *weight_files(folder)]
    with tempfile.TemporaryDirectory(prefix="quantlab-") as made:
        for name in names:
            (Path(made) / name).symlink_to((folder / name).resolve())
        yield Path(made)


def whisper_config(folder: Path) -> dict[str, Any]:
    """The config.json of a Whisper, with its numbers checked.

    Raises:
        CheckpointError: there is none, or it is not for Whisper.
    """
    path, config = folder / "config.json", config_of(folder, "whisper")
    for key, field in SHAPE.items():
        least, most = bounds(Architecture, field)
        if type(config.get(key)) is not int or not least <= config[key] <= most:
            raise CheckpointError(
                f"{path}: {key}={shortened(config.get(key))}: expected a whole number from {least} to {most:,}"
            )
    return config


def check_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json, whichever family it is for.

    Raises:
        CheckpointError: as `config_of`.
    """
    kind = read_json(folder / "config.json").get("model_type")
    family = KINDS[kind].family if isinstance(kind, str) and kind in KINDS else "whisper"
    return whisper_config(folder) if family == "whisper" else config_of(folder, family)


def config_of(folder: Path, family: Family) -> dict[str, Any]:
    """The folder's config.json.

    Raises:
        CheckpointError: there is none, or it is not for this family.
    """
    path = folder / "config.json"
    if not is_there(path):
        raise CheckpointError(
            f"{folder} has no config.json: model.path is a checkpoint of transformers, a folder of CTranslate2, a "
            "ggml-*.bin or OpenAI's .pt"
        )
    config = read_any_json(path)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(config, dict) or kind not in types_of(family):
        raise CheckpointError(f"{path}: model_type is {shortened(kind)}; {_expected(kind, family)}")
    if config.get("quantization_config"):
        raise CheckpointError(f"{path}: the checkpoint is already quantized; give the unquantized one")
    if "transformers_weights" in config:
        raise CheckpointError(f"{path}: transformers_weights: the weights must be in model.safetensors")
    for key in ("attn_implementation", "_attn_implementation"):
        if config.get(key) not in ATTENTION:
            raise CheckpointError(f"{path}: {key}={shortened(config[key])}: expected eager, sdpa or null")
    return config


def _expected(kind: object, family: Family) -> str:
    """The end of a sentence about another `model_type`."""
    if isinstance(kind, str) and kind in KINDS:
        return f"model.family={family} reads {' and '.join(types_of(family))}: set model.family={KINDS[kind].family}"
    return f"quantlab measures {', '.join(map(repr, KINDS))}"


def weight_files(folder: Path) -> list[str]:
    """The safetensors files of a checkpoint: one file, or an index and its shards.

    Raises:
        CheckpointError: there are none, or only pickles, or the index names other files.
    """
    if is_there(folder / "model.safetensors"):
        return ["model.safetensors"]
    if is_there(folder / INDEX):
        return [INDEX, *_shards(folder)]
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    if pickles:
        raise CheckpointError(
            f"{folder} has only {pickles[0]}, a pickle, which can run any code when it is read; "
            "convert it where it is trusted: load it there and call `save_pretrained`"
        )
    raise CheckpointError(f"{folder} has no model.safetensors")


def _shards(folder: Path) -> list[str]:
    index = read_json(folder / INDEX)
    named = index.get("weight_map")
    if not isinstance(named, dict) or not named:
        raise CheckpointError(f"{folder / INDEX} is not an index of shards: it has no weight_map")
    for name in named.values():
        if not isinstance(name, str) or not name.isprintable() or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{folder / INDEX} names {shortened(name)}: only .safetensors are read of a checkpoint"
            )
    names = sorted(set(named.values()))
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} lacks {some(missing)}, which {INDEX} names")
    return names


def some(names: Iterable[object]) -> str:
    """The first five names, and the number of others."""
    named = sorted(map(str, names))
    return ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
