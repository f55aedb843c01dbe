"""Main effect of each design choice on WER, over cells of one library that vary several choices.

The study (arXiv 2511.08093) names four choices: scheme, method, granularity, bit width. Cells of different libraries
differ in all of them at once; cells of one library that cover a product of choices allow their effects to be separated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from quantlab.analysis.pairs import read_scores
from quantlab.config.schema import StatsConfig
from quantlab.records.several import Stored
from quantlab.report.cell_summary import CellSummary
from quantlab.stats.factorial import Effect, Matched, main_effects
from quantlab.stats.paired import holm
from quantlab.stats.rates import RULE_OF_THREE, Counts, Sample

Settings = tuple[tuple[str, Any], ...]  # every choice with its level, hashable

# Keys of `quant` that distinguish quantizers; `granularity` includes `group_size`.
_CHOICES = (
    "scheme", "bits", "format", "granularity", "symmetric", "activations", "double_quant", "axis", "backend", "recover",
    "target", "head", "skip",
)  # fmt: skip
_COARSEST_FIRST = ("per-tensor", "per-channel", "per-group")
_SCHEMES = ("weight-only", "dynamic", "static")


@dataclass(frozen=True)
class ChoiceEffect:
    """Effect of one level of a choice against the reference level; see `Effect` for the figures."""

    device: str
    library: str
    choice: str  # bits, granularity, …
    level: str
    reference: str
    effect: Effect
    p_holm: float  # corrected over all effects of one call of `choice_effects`
    alone: tuple[str, ...]  # ids of cells at one of the levels without a partner at the other; excluded


class _Design(NamedTuple):
    """Cells of one library and one baseline by their choices, and the choices that vary."""

    cells: dict[Settings, CellSummary]
    varied: tuple[str, ...]


class _Contrast(NamedTuple):
    """Pairs of cell ids: a level of a choice against the reference level."""

    choice: str
    level: Any
    reference: Any
    pairs: tuple[tuple[str, str], ...]  # reference, changed
    alone: tuple[str, ...]


class _Measured(NamedTuple):
    sample: Sample
    counts: dict[str, Counts]  # by cell id, for the cells that decoded this sample
    resamples: int


def choice_effects(rows: Sequence[CellSummary]) -> list[ChoiceEffect]:
    """Main effects for every library that varies two or more choices against one baseline.

    Each level is compared with the reference level: most bits, coarsest granularity, symmetric, weight-only.
    A choice has no effect to show if no two cells agree in all other choices.

    Args:
        rows: measured cells; their raw utterances are read.
    """
    found = [effect for design in _designs(rows) for effect in _design_effects(design)]
    corrected = holm([item.effect.p for item in found])
    return [replace(item, p_holm=p) for item, p in zip(found, corrected, strict=True)]


def _designs(rows: Sequence[CellSummary]) -> Iterator[_Design]:
    families: dict[tuple[str, str], list[CellSummary]] = {}
    for row in sorted(rows, key=lambda row: str(row.record.created_at)):  # among equal choices, the latest counts
        if row.baseline is not None and row.settings.scheme != "none":
            families.setdefault((row.baseline, row.settings.library), []).append(row)
    for family in families.values():
        cells = _by_settings(family)
        varied = tuple(choice for choice in _CHOICES if len({dict(settings).get(choice) for settings in cells}) > 1)
        if len(varied) > 1:
            yield _Design(cells, varied)


def _by_settings(family: Sequence[CellSummary]) -> dict[Settings, CellSummary]:
    """Cells by their choices; formats that only restate the bits (`uint4`, `uint3`) are left out."""
    full = {_settings(row, _CHOICES): row for row in family}
    short = {_settings(row, [choice for choice in _CHOICES if choice != "format"]): row for row in family}
    return short if len(short) == len(full) else full


def _settings(row: CellSummary, choices: Sequence[str]) -> Settings:
    return tuple((choice, _level(row, choice)) for choice in choices)


def _level(row: CellSummary, choice: str) -> Any:
    if choice == "granularity":
        return row.settings.granularity, row.settings.group_size
    value = row.named.setting(f"quant.{choice}")
    return tuple(value) if isinstance(value, list | tuple) else value


def _design_effects(design: _Design) -> Iterator[ChoiceEffect]:
    """Effects of one design, before Holm's correction."""
    measured = _measured(list(design.cells.values()))
    if measured is None:
        return
    known = {settings: row.cell_id for settings, row in design.cells.items() if row.cell_id in measured.counts}
    contrasts = [one for choice in design.varied for one in _contrasts(known, choice) if one.pairs]
    pairs = [
        [Matched(measured.counts[reference], measured.counts[changed]) for reference, changed in one.pairs]
        for one in contrasts
    ]
    row = next(iter(design.cells.values()))
    effects = main_effects(measured.sample, pairs, measured.resamples)
    for one, effect in zip(contrasts, effects, strict=True):
        yield ChoiceEffect(
            device=str(row.settings.device),
            library=str(row.settings.library),
            choice=one.choice,
            level=_shown(one.choice, one.level),
            reference=_shown(one.choice, one.reference),
            effect=_bounded(effect, sum(measured.sample.words)),
            p_holm=effect.p,
            alone=one.alone,
        )


def _measured(cells: Sequence[CellSummary]) -> _Measured | None:
    """Counts of the cells that decoded the same samples as the first; None if there are no reference words."""
    stored = [Stored(row.root, row.record) for row in cells]
    scores = read_scores(stored, lambda message: None)  # reported when the cells were read
    if not scores:
        return None
    sample = next(iter(scores.values())).sample
    counts = {cell_id: item.counts for cell_id, item in scores.items() if item.sample == sample}
    resamples = cells[0].record.setting("stats.resamples") or StatsConfig().resamples
    return _Measured(sample, counts, resamples) if any(sample.words) else None


def _contrasts(known: dict[Settings, str], choice: str) -> Iterator[_Contrast]:
    """Each level against the reference level, over cells that agree in all other choices."""
    blocks: dict[Settings, dict[Any, str]] = {}
    for settings, cell_id in known.items():
        rest = tuple(item for item in settings if item[0] != choice)
        blocks.setdefault(rest, {})[dict(settings)[choice]] = cell_id
    levels = sorted({level for block in blocks.values() for level in block}, key=lambda level: _order(choice, level))
    for level in levels[1:]:
        ends = (levels[0], level)
        found = [[block[end] for end in ends if end in block] for block in blocks.values()]
        yield _Contrast(
            choice,
            level,
            levels[0],
            pairs=tuple((ids[0], ids[1]) for ids in found if len(ids) == 2),
            alone=tuple(ids[0] for ids in found if len(ids) == 1),
        )


def _order(choice: str, level: Any) -> tuple[Any, ...]:
    """Sort key of levels; the reference (most precise or simplest) comes first."""
    if choice == "granularity":
        kind, group_size = level
        return (_COARSEST_FIRST.index(kind) if kind in _COARSEST_FIRST else -1, -(group_size or 0))
    if choice == "scheme":
        return (_SCHEMES.index(level) if level in _SCHEMES else len(_SCHEMES), str(level))
    if choice == "bits":
        return (-(level or 0),)
    if choice == "symmetric":
        return (level is not True, level is None)
    return (level is not None, str(level))  # False before True


def _shown(choice: str, level: Any) -> str:
    if choice == "granularity":
        kind, group_size = level
        return f"groups of {group_size}" if group_size else str(kind)
    if choice == "symmetric" and level is not None:
        return "symmetric" if level else "asymmetric"
    if isinstance(level, tuple):
        return ", ".join(map(str, level)) or "none"
    return f"{level:g}" if isinstance(level, float) else str(level)


def _bounded(effect: Effect, words: int) -> Effect:
    """If no resample differs, replace the zero-width interval by the rule of three, as for a cell's difference."""
    if effect.mean.ci95 != (0.0, 0.0):
        return effect
    bound = RULE_OF_THREE / words
    return replace(effect, mean=replace(effect.mean, ci95=(-bound, bound)))
