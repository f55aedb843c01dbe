"""Cells that a command line names: by id, by the beginning of one, or by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from quantlab.records import labels, storage
from quantlab.util.errors import ConfigError, did_you_mean


def ids_of(root: str | Path, asked: Sequence[str]) -> list[str]:
    """The id of each cell that is named, in this order.

    Args:
        root: the records' folder.
        asked: an id, its first 8 characters or more, or the label that table and status show.

    Raises:
        ConfigError: there is no such cell, or there are several; the message names the nearest, or all of them.
    """
    recorded = storage.recorded(root)
    if set(asked) <= set(recorded):
        return list(asked)
    records = storage.readable(root, recorded, on_unreadable=lambda why: None)  # said by who reads them
    named = labels.names([labels.of_record(record) for record in records])
    return [_id_of(root, one, recorded, named) for one in asked]


def _id_of(root: str | Path, asked: str, recorded: Sequence[str], named: Mapping[str, str]) -> str:
    found = _found(asked, recorded, named)
    if len(found) == 1:
        return found[0]
    if not found:
        near = did_you_mean(asked, [*recorded, *named.values()])
        raise ConfigError(f"no record of cell {asked!r} below {root}{near}")
    told = ", ".join(f"{cell_id} {named.get(cell_id, '')}".strip() for cell_id in found)
    raise ConfigError(f"{asked!r} is {len(found)} cells: {told}; give the id of one")


def _found(asked: str, recorded: Sequence[str], named: Mapping[str, str]) -> list[str]:
    """By what is most exact: the id, the label, the label without what is in brackets, the beginning of the id."""
    if asked in recorded:
        return [asked]
    labelled = [cell_id for cell_id, name in named.items() if name == asked]
    alike = [cell_id for cell_id, name in named.items() if name.startswith(f"{asked} (")]
    begun = [cell_id for cell_id in recorded if len(asked) >= labels.ID and cell_id.startswith(asked)]
    return labelled or alike or begun
