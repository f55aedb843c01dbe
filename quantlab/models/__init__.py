"""Checkpoints: shipped, local folder, hub at a pinned revision, or random weights of an architecture.

Nothing from outside is executed: safetensors only, no pickle, no code from a repository. Whatever the source, a
checkpoint is loaded from a local folder after that folder was checked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from quantlab.config.schema import Architecture, ModelConfig
from quantlab.config.types import Dtype
from quantlab.models import caches, convert, pretrained, random_weights
from quantlab.models import folder as folders
from quantlab.models.convert import Original
from quantlab.models.foreign import EXPECTED, why_not_a_checkpoint
from quantlab.models.linears import linears
from quantlab.models.named import check_name
from quantlab.models.tokens import Tokens
from quantlab.records.schema import OriginalFile, to_json
from quantlab.util import hub
from quantlab.util.errors import CheckpointError, ConfigError, Unavailable, did_you_mean
from quantlab.util.resources import ASSETS

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
HUB_FILES = ("*.json", "merges.txt", "model.safetensors", "model-*-of-*.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A model, in eval mode on the CPU, with its tokenizer and feature extractor; of transformers' classes."""

    model: Any
    feature_extractor: Any
    tokenizer: Any  # None for random weights, whose output is not text


def texts(tokenizer: Any, rows: Sequence[Sequence[int]]) -> list[str]:
    """The text of each row of token ids, as an `Engine` gives them: those of CTC are without repetitions already."""
    found: list[str] = tokenizer.batch_decode(rows, skip_special_tokens=True, group_tokens=False)
    return found


def fingerprint(model: ModelConfig, seed: int, quantized_too: bool = False, checked: bool = False) -> str:
    """Identity of weights and tokenizer without loading them: content, commit, or architecture and seed.

    Args:
        model: which.
        seed: of random weights.
        quantized_too: see `locate`.
        checked: the folder passed its checks before; only test whether its content is unchanged, by the file system
            metadata of each file, see `files.Digests`.

    Raises:
        ConfigError: the folder does not hold a checkpoint.
    """
    if model.weights == "random":
        return "random:" + hashlib.sha256(to_json([random_weights.shape(model), seed]).encode()).hexdigest()
    if model.source == "hub" and model.path is None:
        return f"{model.repo}@{hub.commit(_repo(model), model.revision, 'model')}"
    return "sha256:" + folders.content_hash((_find if checked else locate)(model, quantized_too))


def load(model: ModelConfig, seed: int, dtype: Dtype = "float32", quantized_too: bool = False) -> Checkpoint:
    """Load a checkpoint, or create one with random weights.

    Args:
        model: which.
        seed: seed of random weights; unused for others.
        dtype: dtype of all parameters and buffers. The checkpoint is loaded and checked in fp32 first.
        quantized_too: see `locate`.

    Raises:
        ConfigError: the folder is not a checkpoint of model.family, or its tensors do not match its architecture.
        Unavailable: the checkpoint is neither on this machine nor on a reachable hub.
    """
    import torch

    if model.weights == "random":
        recogniser, feature_extractor = random_weights.make(model, seed)
        tokenizer = None  # random weights output no text
    else:
        recogniser, processor = pretrained.load(locate(model, quantized_too), model.family)
        feature_extractor, tokenizer = processor.feature_extractor, processor.tokenizer
    return Checkpoint(recogniser.to(getattr(torch, dtype)), feature_extractor, tokenizer)


def locate(model: ModelConfig, quantized_too: bool = False) -> Path:
    """The checked folder of a pretrained checkpoint, after download or conversion if needed.

    Args:
        model: which.
        quantized_too: accept a file that is already quantized; its folder then holds the dequantized values.

    Raises: as `load`.
    """
    folder = _find(model, quantized_too)
    folders.check(folder, model.family)
    return folder


def _find(model: ModelConfig, quantized_too: bool) -> Path:
    """`locate`, unchecked but for the model's name."""
    if model.path is not None:
        folder = _from_path(model, Path(model.path).expanduser(), quantized_too)
    elif model.source == "shipped":
        folder = shipped(model.name)
    else:
        advice = _fetch_advice(model)
        is_complete = partial(folders.is_complete, family=model.family)
        folder = hub.snapshot(_repo(model), model.revision, "model", HUB_FILES, is_complete, advice)
    if (folder / "config.json").is_file():
        check_name(model, folder)
    return folder


def _from_path(model: ModelConfig, path: Path, quantized_too: bool) -> Path:
    if found := convert.original(path):
        if found.quantized and not quantized_too:
            raise CheckpointError(
                f"{path} is already quantized ({found.quantized_as}): measure it unchanged with quant=as_shipped, "
                "or give the checkpoint it was made from"
            )
        return convert.converted(found, model.repo, model.revision)
    if not path.is_dir():
        raise ConfigError(f"model.path={path} {_why_unusable(path)}")
    return path


def original(model: ModelConfig) -> Original | None:
    """The checkpoint file of another program at `model.path`; None for a transformers folder.

    Raises:
        CheckpointError: the file is incomplete.
    """
    return convert.original(Path(model.path).expanduser()) if model.path is not None else None


def recorded(model: ModelConfig) -> OriginalFile | None:
    """The entry of `original` in a record."""
    found = None if model.weights == "random" else original(model)
    if found is None:
        return None
    return OriginalFile(name=found.name, format=found.format, sha256=found.sha256, quantized_as=found.quantized_as)


def shipped(name: str) -> Path:
    """The folder of a shipped checkpoint.

    Raises:
        ConfigError: no checkpoint of that name is shipped.
    """
    there = {path.parent.name: path.parent for path in ASSETS.glob("*/config.json")}
    if name not in there:
        raise ConfigError(
            f"model.name={name!r}: no such checkpoint ships with quantlab{did_you_mean(name, list(there))}; "
            "a local folder is given by model.path=FOLDER"
        )
    return there[name]


def feature_extractor(model: ModelConfig, quantized_too: bool = False) -> Any:
    """The feature extractor of a checkpoint, without loading the weights.

    Raises: as `load`.
    """
    if model.weights == "random":
        return random_weights.feature_extractor(model)
    return pretrained.processor(locate(model, quantized_too), model.family).feature_extractor


def _why_unusable(path: Path) -> str:
    """The end of a sentence that says what is wrong with a `model.path`."""
    if what := why_not_a_checkpoint(path):
        return what
    hub_id = f"; for a hub repository: model=base model.repo={path} model.revision=null, without model.path"
    return f"does not exist; {EXPECTED}{hub_id if HUB_ID.fullmatch(str(path)) else ''}"


def special_tokens(model: ModelConfig) -> Tokens | None:
    """The special tokens of a Whisper; None if it is not on this machine yet, or has random weights.

    Raises:
        CheckpointError: the folder is not a checkpoint.
    """
    if model.weights == "random":
        return None
    try:
        with hub.cache_only():
            return folders.check(locate(model, quantized_too=True), model.family)
    except Unavailable:
        return None


def linear_weights(model: ModelConfig) -> dict[str, int] | None:
    """Number of weights of each Linear module of a Whisper, without loading them; None if it is not on this machine.

    Raises:
        CheckpointError: the folder is not a checkpoint.
    """
    found = _shape(model)
    return None if found is None else linears(found)


def parameters(model: ModelConfig) -> int | None:
    """Number of parameters of a Whisper, without loading weights; None if it is not on this machine yet.

    Raises:
        CheckpointError: the folder is not a checkpoint.
    """
    if (found := _shape(model)) is None:
        return None
    return Architecture(**{field: found[key] for key, field in folders.SHAPE.items()}).parameters


def _shape(model: ModelConfig) -> Mapping[str, Any] | None:
    """The config.json of a Whisper; None if it is not on this machine yet."""
    if model.family != "whisper":
        return None
    if model.weights == "random":
        return random_weights.shape(model)
    try:
        with hub.cache_only():
            return folders.whisper_config(locate(model, quantized_too=True))
    except Unavailable:
        return None


def _fetch_advice(model: ModelConfig) -> str:
    return caches.hint(_repo(model)) + (
        f"fetch it where the hub is reachable, with the same arguments: quantlab fetch model={model.name} …; "
        "or set model.path=FOLDER to a copy of it (model=nano ships with quantlab, and model.weights=random needs no "
        "checkpoint)"
    )


def _repo(model: ModelConfig) -> str:
    assert model.repo is not None  # ensured by ModelConfig
    return model.repo
