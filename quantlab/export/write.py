"""Writing of an exported folder, which needs neither the checkpoint nor the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from quantlab.config.schema import RunConfig
from quantlab.export.manifest import NAME, README, WEIGHTS, Manifest, digest, digest_of, digests
from quantlab.export.readme import readme
from quantlab.models.decoding import Decoding
from quantlab.quantization.portable import Portable, layout
from quantlab.recogniser.fingerprints import library_versions

if TYPE_CHECKING:
    from torch import Tensor


READABLE = 0o644  # safetensors makes files readable only for the owner


@dataclass(frozen=True)
class Made:
    """Model of a cell, ready to be written."""

    cell_id: str
    config: RunConfig  # resolved
    decoding: Decoding
    portable: Portable | None  # None: another engine has written its own file
    size_bytes: int | None = None  # of its weights, see Receipt


def write(folder: Path, made: Made) -> Manifest:
    """Write tensors, manifest and README; companion files and another engine's model file are already there."""
    held, device = made.portable, made.config.device.name
    assert device != "auto"  # it is resolved
    layouts = _write_tensors(folder / WEIGHTS, held.tensors()) if held else {}
    manifest = Manifest(
        cell_id=made.cell_id,
        label=made.config.label,
        versions=library_versions(made.config),
        quant=made.config.quant,
        device=device,
        dtype=held.dtype if held else None,
        modules=held.modules if held else (),
        traits=held.traits if held else {},
        tensors=layouts,
        decoding=made.decoding,
        files=digests(folder),
        size_bytes=made.size_bytes,
    )
    (folder / README).write_text(readme(folder, manifest, made.config.model.family), encoding="utf-8")
    manifest = manifest.model_copy(update={"readme": digest(folder / README)})
    manifest = manifest.model_copy(update={"own": digest_of(manifest.model_dump(mode="json"))})
    (folder / NAME).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return manifest


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> dict[str, str]:
    """Write tensors; returns the layout of each."""
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(READABLE)
    return {name: layout(tensor) for name, tensor in tensors.items()}
