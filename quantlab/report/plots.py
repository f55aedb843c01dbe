"""Plots of a grid as PNG files for the dashboard; static versions of the charts of the page.

matplotlib is imported only when a plot is drawn, and no window system is needed. Colours are those of Okabe and Ito,
which people with a colour vision deficiency can distinguish, and no fact is shown by colour alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from quantlab.analysis.evidence import Comparison
from quantlab.report import study
from quantlab.report.cell_summary import CellSummary
from quantlab.report.front import on_front
from quantlab.report.study import Group
from quantlab.report.wording import MB, rate_name
from quantlab.stats.estimate import Estimate
from quantlab.util.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLACK, _BLUE, _GREEN, _VERMILION, _ORANGE, _PURPLE, _GREY = (
    "#000000", "#0072B2", "#009E73", "#D55E00", "#E69F00", "#CC79A7", "#7F7F7F",
)  # fmt: skip
_SPLIT_COLOURS = (_BLUE, _ORANGE, _GREEN, _PURPLE, _VERMILION, _GREY)
# verdict → colour, marker
_VERDICTS = {
    "baseline": (_BLACK, "*"),
    "better": (_BLUE, "^"),
    "tied": (_GREEN, "o"),
    "worse": (_VERMILION, "v"),
    "underpowered": (_GREY, "s"),
    "not compared": (_PURPLE, "D"),
}
_GROUPS = 4
_NAME_CHARS = 100  # longest name of a folder or in a plot
_DPI = 110  # dots per inch
_MOST = 40  # most cells in a plot with one row per cell; the worst are shown
_LINE_IN = 0.28  # height of a row in inches


def figures(rows: Sequence[CellSummary]) -> dict[str, bytes]:
    """File name → PNG, for each model, corpus and protocol; empty plots are left out.

    Of many such groups, those with most cells are plotted, as each plot takes about half a second.
    """
    found: dict[str, bytes] = {}
    for group in sorted(study.groups(rows), key=lambda group: -len(group.rows))[:_GROUPS]:
        with _as_text():
            drawn = {
                "wer_against_speed": wer_against_speed(group),
                "wer_increase": wer_increase(group),
                "verdicts": verdicts(group),
            }
        name = re.sub(r"[^\w.]+", "_", group.title, flags=re.ASCII)[:_NAME_CHARS]
        found |= {f"{name}/{plot}.png": _png(figure) for plot, figure in drawn.items() if figure is not None}
    return found


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI)
    return stream.getvalue()


def _as_text() -> AbstractContextManager[None]:
    """Disable TeX formulas within a block, so that a `$` in a name is shown as such."""
    from matplotlib import rc_context

    return rc_context({"text.parse_math": False})


def _name(text: str) -> str:
    """Shorten a name to the room in a plot."""
    shown = printable(text)
    return shown if len(shown) <= _NAME_CHARS else f"{shown[: _NAME_CHARS - 1]}…"


def _axes(group: Group, title: str, height_in: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height_in), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(f"{title}\n{_name(group.title)}", fontsize=11)
    axes.grid(color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


# Accuracy against speed


def wer_against_speed(group: Group) -> Figure | None:
    """Pooled WER against RTF as bubbles of the model's size, with the Pareto front."""
    cells = [
        _Placed(row, row.rtf, row.wer.times(100), row.size_bytes)
        for row in group.rows
        if row.wer is not None and row.rtf is not None and row.size_bytes is not None and not row.stopped_early
    ]
    if len(cells) < 2:
        return None
    figure, axes = _axes(group, "Accuracy against speed: lower left is better", 6)
    largest = max(cell.size_bytes for cell in cells)
    for cell in cells:
        colour, marker = _VERDICTS[cell.row.verdict or "not compared"]
        axes.errorbar(
            *cell.place, xerr=_reach(cell.rtf), yerr=_reach(cell.wer), fmt="none", ecolor=colour, elinewidth=0.8,
            alpha=0.6,
        )  # fmt: skip
        axes.scatter(*cell.place, s=600 * cell.size_bytes / largest + 15, color=colour, marker=marker, alpha=0.55,
                     edgecolors="black", linewidths=0.6)  # fmt: skip
    front = pareto(cells)
    axes.plot(*zip(*(cell.place for cell in front), strict=True), color=_BLACK, linewidth=1, linestyle="--", zorder=1)
    _spread(axes, [cell.rtf.value for cell in cells])
    axes.set_xlabel("RTF: generation time / audio time")
    axes.set_ylabel(f"{rate_name(group.rows)} over all splits, %")
    _label(axes, cells, group, front)
    _legend(axes, cells, f"area: model size, the largest {largest / MB:.1f} MB; dashed: Pareto front")
    return figure


@dataclass(frozen=True)
class _Placed:
    """A cell with its coordinates."""

    row: CellSummary
    rtf: Estimate
    wer: Estimate  # percent
    size_bytes: int

    @property
    def place(self) -> tuple[float, float]:
        return self.rtf.value, self.wer.value


def _reach(found: Estimate) -> list[list[float]] | None:
    """Distances from the value to its interval's ends, for `errorbar`; never negative."""
    if found.ci95 is None:
        return None
    return [[max(found.value - found.ci95[0], 0.0)], [max(found.ci95[1] - found.value, 0.0)]]


def pareto(cells: Sequence[_Placed]) -> list[_Placed]:
    """The cells whose measured WER and RTF no other cell dominates, fastest first."""
    x, y = np.array([cell.place for cell in cells]).T
    best = on_front(x[None], y[None])[0]
    return sorted((cell for cell, on in zip(cells, best, strict=True) if on), key=lambda cell: cell.place)


def _spread(axes: Axes, values: Sequence[float]) -> None:
    if max(values) > 10 * min(values):
        axes.set_xscale("log")


def _label(axes: Axes, cells: Sequence[_Placed], group: Group, front: Sequence[_Placed]) -> None:
    """Label the bubbles, pushed apart; of many cells, only the baseline and those on the front."""
    from matplotlib.patheffects import withStroke

    devices = len(group.by_device()) > 1
    shown = [cell for cell in cells if len(cells) <= 20 or cell in front or cell.row.is_baseline]
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]  # so that positions are known
    taken: list[tuple[float, float]] = []
    for cell in sorted(shown, key=lambda cell: cell.wer.value):
        x, y = axes.transData.transform(cell.place)
        text_y = y
        while any(abs(text_y - other_y) < 15 and abs(x - other_x) < 150 for other_x, other_y in taken):
            text_y += 3
        taken.append((x, text_y))
        text = _name(group.methods[cell.row.cell_id] + (f", {cell.row.settings.device}" if devices else ""))
        axes.annotate(
            text, cell.place, xytext=(14, (text_y - y) * 72 / axes.figure.dpi), textcoords="offset points",
            fontsize=8, va="center", fontweight="bold" if cell in front else "normal",
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.5},
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip


def _legend(axes: Axes, cells: Sequence[_Placed], title: str) -> None:
    from matplotlib.lines import Line2D

    present = [name for name in _VERDICTS if any((cell.row.verdict or "not compared") == name for cell in cells)]
    handles: list[Any] = [
        Line2D([], [], color=_VERDICTS[name][0], marker=_VERDICTS[name][1], linestyle="none", label=name)
        for name in present
    ]
    axes.legend(handles=handles, title=title, fontsize=8, title_fontsize=8, ncols=len(handles),
                loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False)  # fmt: skip


# One row per cell


def wer_increase(group: Group) -> Figure | None:
    """Figure 1 of the study: WER increase against the baseline, one bar per split."""
    found = [row for row, _ in _worst(group)]
    if not found:
        return None
    figure, axes = _axes(
        group, _title(f"{rate_name(group.rows)} increase against the baseline", found, group), _height(len(found))
    )
    thick = 0.8 / len(group.splits)
    for index, split in enumerate(group.splits):
        for line, row in enumerate(found):
            change = row.difference("wer", split)
            if change is not None:
                axes.barh(
                    line + 0.4 - (index + 0.5) * thick, 100 * change.value, thick,
                    xerr=_reach(change.times(100)), color=_SPLIT_COLOURS[index % len(_SPLIT_COLOURS)],
                    label=_name(split) if line == 0 else "", error_kw={"elinewidth": 0.8, "capsize": 2},
                )  # fmt: skip
    _lines(axes, found, group)
    rate = rate_name(group.rows)
    axes.set_xlabel(f"{rate} of the cell − {rate} of its baseline, percentage points, with 95 % intervals")
    axes.legend(title="split", fontsize=8, title_fontsize=8, frameon=False)
    return figure


def verdicts(group: Group) -> Figure | None:
    """Pooled WER difference of every cell with its interval and verdict, and the margin."""
    worst = _worst(group)
    if not worst:
        return None
    found = [row for row, _ in worst]
    figure, axes = _axes(group, _title("Is it worse than its baseline?", found, group), _height(len(found)))
    for name, (colour, marker) in _VERDICTS.items():
        lines = {line: compared.wer_difference for line, (row, compared) in enumerate(worst) if row.verdict == name}
        if lines:
            reaches = [_reach(change.times(100)) or [[0.0], [0.0]] for change in lines.values()]
            axes.errorbar(
                [100 * change.value for change in lines.values()], list(lines),
                xerr=[[reach[end][0] for reach in reaches] for end in (0, 1)],
                color=colour, marker=marker, linestyle="none", capsize=3, label=name,
            )  # fmt: skip
    margin = 100 * worst[0][1].margin
    axes.axvline(margin, color=_BLACK, linewidth=0.8, linestyle=":", label=f"margin, {margin:g} points")
    _lines(axes, found, group)
    rate = rate_name(group.rows)
    axes.set_xlabel(
        f"{rate} of the cell − {rate} of its baseline over all splits, percentage points, with 95 % intervals"
    )
    axes.legend(fontsize=8, frameon=False)
    return figure


def _worst(group: Group) -> list[tuple[CellSummary, Comparison]]:
    """The compared cells, worst last; only the worst if there are too many for a plot."""
    found = [(row, row.comparison) for row in group.rows if row.comparison is not None]
    return sorted(found, key=lambda item: item[1].wer_difference.value)[-_MOST:]


def _title(text: str, shown: Sequence[object], group: Group) -> str:
    compared = sum(row.comparison is not None for row in group.rows)
    return text if len(shown) >= compared else f"{text} (the {len(shown)} worst of {compared})"


def _height(lines: int) -> float:
    return 1.8 + _LINE_IN * max(lines, 3)


def _lines(axes: Axes, rows: Sequence[CellSummary], group: Group) -> None:
    devices = len(group.by_device()) > 1
    names = [_name(group.methods[row.cell_id] + (f", {row.settings.device}" if devices else "")) for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.axvline(0, color=_BLACK, linewidth=0.8)
    axes.grid(visible=False, axis="y")
