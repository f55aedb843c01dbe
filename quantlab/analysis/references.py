"""The cells of one quantizer or library as references: what others are compared with in place of their baseline."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

from quantlab.analysis.pairs import family
from quantlab.records import labels
from quantlab.records.schema import Record, to_json
from quantlab.util.errors import ConfigError, shortened, suggestion

# What is quantized, and what a record without the key has. Cells of a library that differ in it are of unequal size.
_MODULES: Mapping[str, object] = {"target": "all", "skip": [], "head": False, "embedding": False}


class Reference(NamedTuple):
    """What a cell is compared with."""

    name: str  # of a library or a quantizer, as asked for
    cell_id: str | None  # that of the cell itself if it is a reference; None if there is none
    missing: str | None  # why there is none


def find_references(records: Sequence[Record], name: str) -> dict[str, Reference]:
    """Cell id → its reference, for every record.

    Cell and reference agree in everything but quantizer, calibration and recovery, as a cell and its baseline do
    (`find_baselines`). If `name` is a library, they also agree in bits, group size and quantized modules; if it is a
    quantizer, it is the reference of all cells. A reference was measured; it was trained (`quant.recover`) only if no
    untrained cell fits. Of several, the one with the cell's calibration data and seed is used; if that does not leave
    one, there is none, since any choice would be arbitrary.

    Args:
        records: the cells, references among them.
        name: a library (`hqq`) or a quantizer (`hqq_int3`); a name of both is taken as the library.

    Raises:
        ConfigError: no measured cell is of that name.
    """
    measured = [item for item in records if item.status == "ok" and item.setting("quant.name") != "none"]
    _check(name, measured)
    key = _format if any(item.setting("quant.library") == name for item in measured) else family
    fitting: dict[Hashable, list[Record]] = {}
    for item in measured:
        if name in (item.setting("quant.library"), item.setting("quant.name")):
            fitting.setdefault(key(item), []).append(item)
    alike: dict[Hashable, list[Record]] = {}
    for of, some in fitting.items():
        fitting[of] = [item for item in some if item.setting("quant.recover") is None] or some
        for item in fitting[of]:
            alike.setdefault((of, _calibration(item)), []).append(item)
    none = Reference(name, None, _none_fits(name, key is _format))
    keys = [(item, key(item)) for item in records]
    found = [(item, alike.get((of, _calibration(item))) or fitting.get(of)) for item, of in keys]
    return {item.cell_id: _chosen(name, some) if some else none for item, some in found}


def _check(name: str, measured: Sequence[Record]) -> None:
    known = {item.setting(f"quant.{key}") for item in measured for key in ("library", "name")}
    allowed = sorted(map(str, known - {None}))
    if name in allowed:
        return
    if name == "none":
        raise ConfigError("against=none: that is what cells are compared with anyway: leave it out")
    choices = f"allowed: {', '.join(allowed) or 'none is measured'}{suggestion(name, allowed)}"
    raise ConfigError(
        f"against={shortened(name)}: the records have no measured cell of this quantizer or library; {choices}; "
        "give one of these, or measure it"
    )


def _format(record: Record) -> str:
    """What cells of equal size share: family, bits, group size, quantized modules."""
    modules = {key: record.setting(f"quant.{key}") for key in _MODULES}
    modules = {key: _MODULES[key] if value is None else value for key, value in modules.items()}
    bits = record.setting("quant.bits")
    return to_json([family(record), bits and float(bits), record.setting("quant.group_size"), modules])


def _chosen(name: str, fitting: Sequence[Record]) -> Reference:
    if len(fitting) == 1:
        return Reference(name, fitting[0].cell_id, None)
    called = sorted(labels.names([labels.of_record(item) for item in fitting]).values())
    return Reference(name, None, f"{len(fitting)} cells of {name} fit, and none is chosen: {', '.join(called)}")


def _calibration(record: Record) -> tuple[object, ...]:
    """Which data calibrated a cell, its seed included."""
    mark = record.fingerprints.get("calibration")
    return (
        record.setting("seed"),
        mark,
        *(record.setting(f"calibration.{key}") for key in ("source", "limit", "fraction")),
    )


def _none_fits(name: str, is_library: bool) -> str:
    same = "the same bits, groups and modules, and all else equal" if is_library else "all else equal"
    return f"no measured cell of {name} has {same}"
