"""Export of a recorded cell: rebuild its model, compare it with the record, write it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path

from quantlab import models
from quantlab.config.parse import parse_config
from quantlab.config.schema import AS_SHIPPED, RunConfig
from quantlab.data.parts import parts
from quantlab.data.speech import SplitBatch, split_batches
from quantlab.engines.clocks import Clocks
from quantlab.export.place import staged
from quantlab.export.verified import DecodedBatch, evenly_spaced, export_verified
from quantlab.models.folder import some
from quantlab.recogniser.assemble import Assembled, assemble, prepared
from quantlab.recogniser.fingerprints import identify
from quantlab.records import storage
from quantlab.records.schema import Exported, Record, Utterance
from quantlab.util.errors import ConfigError, ExportError


def export_from_record(root: Path, record: Record, directory: str) -> Exported:
    """Export the model of a record without measuring it.

    Args:
        root: folder of records.
        record: record of a measured cell.
        directory: parent of the new folder.

    Raises:
        ExportError: libraries, checkpoint or corpus have changed, or the model decodes other texts than recorded.
        Unavailable: the checkpoint or the corpus is not available.
    """
    if record.setting("quant.library") == AS_SHIPPED:
        raise ExportError(f"quant={AS_SHIPPED} is a file already: {record.setting('model.path')}")
    if record.bundle is not None:
        raise ExportError(f"a bundle measured it: its model is that of cell {record.bundle.source}")
    config = _config(record, directory)
    known = identify(config)
    if known.id != record.cell_id:
        raise ExportError("its checkpoint, corpus or libraries have changed since it was measured: measure it again")
    with prepared(config) as device, staged(directory) as staging:
        assert staging is not None
        made = assemble(config, device, Clocks(device), staging, known.corpus)
        recorded = storage.read_utterances(root, record.cell_id)
        batches = evenly_spaced(_batches(config, made, {item.id for item in recorded}))
        decoded = [DecodedBatch(part.speech, made.decoder.generate(part.speech)[0]) for part in batches]
        _compare(recorded, config, made, decoded)
        return export_verified(config, record.cell_id, made, staging, device, decoded)


def _batches(config: RunConfig, made: Assembled, recorded: Set[str]) -> list[SplitBatch]:
    """The batches that were measured; a cell that stopped early left out the last ones."""
    found = [
        batch
        for part in parts(made.speech.measured, config.protocol.looks, config.seed)
        for batch in split_batches(part, made.decoder.decoding.batch_size)
    ]
    return [batch for batch in found if set(batch.speech.ids) <= recorded]


def _config(record: Record, directory: str) -> RunConfig:
    try:
        return parse_config({**record.config, "export": {"dir": directory}})
    except ConfigError as error:
        raise ExportError(f"its configuration is from another version of quantlab: measure it again: {error}") from None


def _compare(
    recorded: Sequence[Utterance], config: RunConfig, made: Assembled, decoded: Sequence[DecodedBatch]
) -> None:
    """Compare decoded with recorded texts of utterances of one window; random weights have no text to compare.

    Raises:
        ExportError: which utterances differ from the record.
    """
    if made.tokenizer is None or config.model.weights == "random":
        return
    texts = {item.id: item.hypothesis for item in recorded}
    windows = Counter(id for split in made.speech.measured.splits.values() for id in split.ids)
    other = []
    for batch in decoded:
        found = models.texts(made.tokenizer, batch.tokens)
        for id, text in zip(batch.speech.ids, found, strict=True):
            other += [] if text == texts[id] or windows[id] > 1 else [id]
    if other:
        raise ExportError(
            f"the rebuilt model gives other texts than those recorded for {some(other)}: measure it again"
        )
