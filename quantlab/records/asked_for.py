"""Resolution of cells named on a command line by id, id prefix or label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from quantlab.records import labels, storage
from quantlab.util.errors import ConfigError, did_you_mean


def ids_of(root: str | Path, asked: Sequence[str]) -> list[str]:
    """Ids of the named cells, in the given order.

    Args:
        root: folder of records.
        asked: ids, prefixes of ids (8 characters or more), or labels as shown by report and status.

    Raises:
        ConfigError: no or several cells match; the message names the nearest, or all of them.
    """
    recorded = storage.recorded(root)
    if set(asked) <= set(recorded):
        return list(asked)
    records = storage.readable(root, recorded, on_unreadable=lambda why: None)  # reported by the caller
    named = labels.names([labels.of_record(record) for record in records])
    return [id_of(root, one, recorded, named) for one in asked]


def id_of(root: str | Path, asked: str, known: Sequence[str], named: Mapping[str, str]) -> str:
    """Id of one named cell among those of these ids and labels; see `ids_of`."""
    found = _found(asked, known, named)
    if len(found) == 1:
        return found[0]
    if not found:
        near = did_you_mean(asked, [*known, *named.values()])
        raise ConfigError(f"no record of cell {asked!r} in {root}{near}")
    listed = ", ".join(f"{cell_id} {named.get(cell_id, '')}".strip() for cell_id in found)
    raise ConfigError(f"{asked!r} matches {len(found)} cells: {listed}; give the id of one")


def _found(asked: str, recorded: Sequence[str], named: Mapping[str, str]) -> list[str]:
    """Matching ids, by the most exact match: id, label, label without its brackets, id prefix."""
    if asked in recorded:
        return [asked]
    labelled = [cell_id for cell_id, name in named.items() if name == asked]
    alike = [cell_id for cell_id, name in named.items() if name.startswith(f"{asked} (")]
    begun = [cell_id for cell_id in recorded if len(asked) >= labels.ID and cell_id.startswith(asked)]
    return labelled or alike or begun
