"""The files of an exported folder: complete in itself, so that neither the checkpoint nor the hub is needed again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from quantlab.config import RunConfig
from quantlab.engines import Decoding
from quantlab.export.manifest import NAME, README, WEIGHTS, Manifest, digests
from quantlab.export.portable import Portable, layout
from quantlab.export.readme import readme
from quantlab.identity import library_versions
from quantlab.models import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor


READABLE = 0o644  # safetensors writes for the owner alone


@dataclass(frozen=True)
class Made:
    """What is left of a cell's model to be written."""

    cell_id: str
    config: RunConfig  # of the cell, resolved
    decoding: Decoding
    portable: Portable | None  # null: another engine has written its own file


def write_companions(checkpoint: Checkpoint, folder: Path) -> None:
    """Everything of a checkpoint but its weights, as `from_pretrained` reads it."""
    checkpoint.model.config.save_pretrained(folder)
    checkpoint.model.generation_config.save_pretrained(folder)
    checkpoint.feature_extractor.save_pretrained(folder)
    if checkpoint.tokenizer is not None:
        from transformers import WhisperProcessor

        WhisperProcessor(checkpoint.feature_extractor, checkpoint.tokenizer).save_pretrained(folder)


def write(folder: Path, made: Made) -> Manifest:
    """The model's tensors, the manifest and a README; companions, and the file of another engine, are there."""
    tensors: dict[str, Tensor] = {}
    if made.portable is not None:
        tensors = made.portable.tensors()
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / WEIGHTS).chmod(READABLE)
    manifest = Manifest(
        cell_id=made.cell_id,
        label=made.config.label,
        versions=library_versions(made.config),
        quant=made.config.quant,
        device=made.config.device.name,
        dtype=made.portable.dtype if made.portable else "float32",
        modules=made.portable.modules if made.portable else (),
        traits=made.portable.traits if made.portable else {},
        tensors={name: layout(tensor) for name, tensor in tensors.items()},
        decoding=made.decoding,
        files=digests(folder),
    )
    (folder / NAME).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / README).write_text(readme(manifest), encoding="utf-8")
    return manifest
