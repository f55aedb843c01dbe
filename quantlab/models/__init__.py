"""Checkpoints: the shipped one, a folder, the hub at a pinned revision, or random weights of an architecture.

Nothing from outside is executed: safetensors only, no pickle, no code of a repository. Whatever the source, a
checkpoint is loaded from a folder that was checked first, so there is one way in and no network in it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantlab import hub
from quantlab.config import Dtype, ModelConfig
from quantlab.errors import ConfigError, Unavailable, did_you_mean
from quantlab.models import folder as folders
from quantlab.models import pretrained, random_weights
from quantlab.models.foreign import what_it_is
from quantlab.record import to_json

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

ASSETS = Path(__file__).parents[1] / "assets"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
HUB_FILES = ("*.json", "merges.txt", "model.safetensors", "model-*-of-*.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A recogniser, in eval mode on the CPU."""

    model: WhisperForConditionalGeneration
    feature_extractor: WhisperFeatureExtractor
    tokenizer: WhisperTokenizer | None  # null when weights are random: there is no text to make


def fingerprint(model: ModelConfig, seed: int) -> str:
    """What weights and text depend on, without loading them: content, commit, or architecture and seed.

    Raises:
        ConfigError: the folder does not hold a checkpoint.
    """
    if model.weights == "random":
        return "random:" + hashlib.sha256(to_json([random_weights.shape(model), seed]).encode()).hexdigest()
    if model.source == "hub" and model.path is None:
        return f"{model.repo}@{hub.commit(_repo(model), model.revision, 'model')}"
    return "sha256:" + folders.content_hash(locate(model))


def load(model: ModelConfig, seed: int, dtype: Dtype = "float32") -> Checkpoint:
    """Load a checkpoint, or make one.

    Args:
        model: which.
        seed: of random weights; unused for others.
        dtype: of all that the recogniser holds. It is loaded and checked in fp32 first, whatever type its file has.

    Raises:
        ConfigError: the folder is no checkpoint of a Whisper, or its tensors are not its architecture's.
        Unavailable: it is neither on this machine nor on a hub that can be reached.
    """
    import torch

    if model.weights == "random":
        recogniser, feature_extractor = random_weights.make(model, seed)
        tokenizer = None
    else:
        recogniser, processor = pretrained.load(locate(model))
        feature_extractor, tokenizer = processor.feature_extractor, processor.tokenizer
    return Checkpoint(recogniser.to(getattr(torch, dtype)), feature_extractor, tokenizer)


def locate(model: ModelConfig) -> Path:
    """The folder of a pretrained checkpoint, checked; fetched from the hub if need be.

    Raises: as `load`.
    """
    if model.path is not None:
        folder = Path(model.path).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"model.path={folder} {_no_folder(folder)}")
    elif model.source == "shipped":
        folder = shipped(model.name)
    else:
        folder = hub.snapshot(_repo(model), model.revision, "model", HUB_FILES, folders.is_complete, _ways_out(model))
    folders.check(folder)
    return folder


def shipped(name: str) -> Path:
    """The folder of a checkpoint that came with the package.

    Raises:
        ConfigError: none of that name did.
    """
    there = {path.parent.name: path.parent for path in ASSETS.glob("*/config.json")}
    if name not in there:
        raise ConfigError(
            f"model.name={name!r}: no such checkpoint ships with quantlab{did_you_mean(name, list(there))}; "
            "a folder of your own is model.path=FOLDER"
        )
    return there[name]


def feature_extractor(model: ModelConfig) -> WhisperFeatureExtractor:
    """What `load` gives of it, without the weights.

    Raises: as `load`.
    """
    if model.weights == "random":
        return random_weights.feature_extractor(model)
    return pretrained.processor(locate(model)).feature_extractor


def _no_folder(path: Path) -> str:
    """What a path is that is no folder, as the rest of a sentence."""
    if what := what_it_is(path):
        return what
    hub_id = f"; a repository of the hub is model=base model.repo={path} model.revision=null, without model.path"
    return f"is no folder; expected one that `save_pretrained` wrote{hub_id if HUB_ID.fullmatch(str(path)) else ''}"


def languages(model: ModelConfig) -> dict[str, int] | None:
    """Token ids by the languages that a checkpoint knows, none for English alone; None where it is not at hand yet.

    Raises:
        CheckpointError: it is no checkpoint.
    """
    if model.weights == "random":
        return None
    try:
        with hub.cache_only():
            return folders.check(locate(model)).languages
    except Unavailable:
        return None


def _ways_out(model: ModelConfig) -> str:
    return (
        f"fetch it where the hub is reachable, with the same arguments: python -m quantlab.fetch model={model.name} …; "
        "or set model.path=FOLDER to a copy of it (model=nano ships with quantlab, and model.weights=random needs no "
        "checkpoint)"
    )


def _repo(model: ModelConfig) -> str:
    assert model.repo is not None  # ModelConfig sees to it
    return model.repo
