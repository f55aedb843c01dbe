"""Atomic storage of the state of a training run."""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from training.nano.model import Heads

STATE_FILE = "state.pt"
HEADS_FILE = "training_heads.safetensors"


def save_atomically(state: Any, path: Path) -> None:
    """`torch.save` by way of a temporary file in the same folder, fsync and rename."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).chmod(0o644)  # temporary files are readable only for their owner
    Path(file.name).replace(path)


def load_state(path: Path) -> dict[str, Any]:
    """Load tensors and plain values only: nothing in the file is executed."""
    return torch.load(path, map_location="cpu", weights_only=True)


def export(model: WhisperForConditionalGeneration, processor: WhisperProcessor, heads: Heads, out: Path) -> None:
    """Write a folder for `from_pretrained`, and the heads, which only further training needs."""
    model.save_pretrained(out)
    processor.save_pretrained(out)
    save_file(heads.state_dict(), out / HEADS_FILE)


def load_weights(folder: Path, model: WhisperForConditionalGeneration, heads: Heads) -> None:
    """Load an exported folder into `model` and `heads`, in place; the heads may be missing.

    Raises:
        RuntimeError: the shapes differ.
    """
    weights = load_file(folder / "model.safetensors")
    missing, unexpected = model.load_state_dict(weights, strict=False)
    # The output projection is tied to the embedding and stored once.
    if unexpected or set(missing) - {"proj_out.weight"}:
        raise RuntimeError(f"{folder} holds another model: missing {missing}, unexpected {unexpected}")
    if (folder / HEADS_FILE).exists():
        heads.load_state_dict(load_file(folder / HEADS_FILE))
