"""Verified export: write, reload, compare, and only then publish the folder."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from quantlab.config.schema import RunConfig
from quantlab.data import SplitFeatures
from quantlab.engines import Engine
from quantlab.engines.clocks import Clocks
from quantlab.export import manifest as manifests
from quantlab.export.place import folder_of, publish
from quantlab.export.read import model_of
from quantlab.export.write import Made, write
from quantlab.models.folder import some
from quantlab.quantization import registry
from quantlab.quantization.tensors import bytes_by_dtype
from quantlab.records.schema import Exported
from quantlab.util.errors import ExportError

if TYPE_CHECKING:
    from quantlab.recogniser.assemble import Assembled

CHECKED_BATCHES = 4  # number of batches decoded again
Item = TypeVar("Item")


@dataclass(frozen=True)
class DecodedBatch:
    """A batch, and the token ids that the cell's model decoded."""

    speech: SplitFeatures
    tokens: list[list[int]]


def evenly_spaced(items: Sequence[Item]) -> list[Item]:
    """At most CHECKED_BATCHES items, evenly spaced from first to last, so that all splits are covered."""
    count = min(CHECKED_BATCHES, len(items))
    return [items[round(index * (len(items) - 1) / max(1, count - 1))] for index in range(count)]


def export_verified(
    config: RunConfig,
    cell_id: str,
    made: Assembled,
    staging: Path,
    device: torch.device,
    decoded: Sequence[DecodedBatch],
) -> Exported:
    """Export a model as a folder that decodes the same texts. Errors are returned, as the cell is measured anyway.

    Args:
        config: resolved configuration of the cell.
        cell_id: its id.
        made: the cell's model.
        staging: temporary folder, which already has the companion files and another engine's model file.
        device: device of the cell.
        decoded: batches to compare, all or some.
    """
    final = folder_of(config, cell_id)
    try:
        write(staging, Made(cell_id, config, made.decoder.decoding, made.portable, made.receipt.size_bytes))
        check(config, made, staging, device, decoded)
        publish(staging, final)
    except Exception as error:  # the figures remain valid if the export fails
        return Exported(folder=str(final), problem=" ".join(f"{type(error).__name__}: {error}".split()))
    finally:
        gc.collect()
    return Exported(folder=str(final))


def check(
    config: RunConfig, made: Assembled, folder: Path, device: torch.device, decoded: Sequence[DecodedBatch]
) -> None:
    """Load a folder and compare it with the cell: bytes per dtype with the receipt, and decoded token ids.

    Raises:
        ExportError: what differs.
    """
    again = _engine(config, made, folder, device)
    for batch in evenly_spaced(decoded):
        found, _ = again.generate(batch.speech)
        if other := [id for id, was, now in zip(batch.speech.ids, batch.tokens, found, strict=True) if was != now]:
            raise ExportError(f"the reloaded model gives other texts than before for {some(other)}")


def _engine(config: RunConfig, made: Assembled, folder: Path, device: torch.device) -> Engine:
    """Engine for the folder's model, with the cell's settings."""
    from quantlab.recogniser.assemble import torch_engine

    found = manifests.read(folder)
    quantizer = registry.get(found.quant.library)
    if registry.converts(quantizer):
        return quantizer.reload(folder, found.quant, device, found.decoding, config.device.threads or 1)
    model = model_of(folder, found)
    _check_bytes(bytes_by_dtype(model), made)
    return torch_engine(model, device, config, made.speech.measured, Clocks(device))


def _check_bytes(found: dict[str, int], made: Assembled) -> None:
    if found != made.receipt.bytes_by_dtype:
        raise ExportError(f"the reloaded model holds bytes {found}, but its receipt says {made.receipt.bytes_by_dtype}")
