"""What a checkpoint's folder must hold: the layout that `save_pretrained` of transformers writes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from quantlab.content import Digests
from quantlab.errors import ConfigError
from quantlab.record import to_json

INDEX = "model.safetensors.index.json"
CONTENT = (  # decides what a checkpoint computes, besides its safetensors
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


def content_hash(folder: Path) -> str:
    """Of every file that decides what the checkpoint computes, wherever the folder lies; hex."""
    names = [*(name for name in CONTENT if (folder / name).is_file()), *weight_files(folder)]
    with Digests() as digests:
        found = [[name, digests.of(folder / name)] for name in names]
    return hashlib.sha256(to_json(found).encode()).hexdigest()


def is_complete(folder: Path) -> bool:
    """Whether `check` has nothing to say."""
    with contextlib.suppress(ConfigError):
        check(folder)
        return True
    return False


def check(folder: Path) -> None:
    """Refuse a folder that is no Whisper checkpoint, before anything is read from it.

    Raises:
        ConfigError: what is missing or wrong, and what to do.
    """
    whisper_config(folder)
    weight_files(folder)
    for what, names in {
        "feature extractor": ("preprocessor_config.json", "processor_config.json"),
        "tokenizer": ("tokenizer.json", "vocab.json"),
    }.items():
        if not any((folder / name).is_file() for name in names):
            raise ConfigError(
                f"{folder} has no {what}: neither {' nor '.join(names)}; "
                "copy it from the checkpoint this one was trained from"
            )


def whisper_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json.

    Raises:
        ConfigError: there is none, or it is not a Whisper's.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(f"{folder} has no config.json: no checkpoint in the layout of transformers") from None
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error}") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "whisper":
        raise ConfigError(f"{path}: model_type is {kind!r}; quantlab measures 'whisper'")
    if config.get("quantization_config"):
        raise ConfigError(f"{path}: the checkpoint is quantized already; give the unquantized one")
    return config


def weight_files(folder: Path) -> list[str]:
    """The safetensors of a checkpoint: one, or an index and the shards that it names.

    Raises:
        ConfigError: there are none, or only pickles.
    """
    if (folder / "model.safetensors").is_file():
        return ["model.safetensors"]
    if (folder / INDEX).is_file():
        return [INDEX, *_shards(folder)]
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    if pickles:
        raise ConfigError(
            f"{folder} has only {pickles[0]}, a pickle, which can run any code when it is read; "
            "convert it where it is trusted: load it there and `save_pretrained` it"
        )
    raise ConfigError(f"{folder} has no model.safetensors")


def _shards(folder: Path) -> list[str]:
    try:
        names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{folder / INDEX} is no index of shards: {error!r}") from None
    missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
    if missing:
        raise ConfigError(f"{folder} lacks {some(missing)}, which {INDEX} names")
    return names


def words(folder: Path) -> dict[int, str]:
    """Token id → its text in the folder's tokenizer.json, a letter for each byte; nothing where there is none."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return {}
    raw = json.loads(path.read_text(encoding="utf-8"))
    return {id: text for text, id in raw["model"]["vocab"].items()} | {
        item["id"]: item["content"] for item in raw["added_tokens"]
    }


def some(names: Iterable[object]) -> str:
    """The first five, and how many more."""
    named = sorted(map(str, names))
    return ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
