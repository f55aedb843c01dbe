"""The plots of a grid as PNG files, for the dashboard: what the page shows interactively, drawn once.

matplotlib is imported when a plot is drawn and never before, and no window system is needed. Colours are those of
Okabe and Ito, which people with a colour vision deficiency can tell apart, and no fact is told by colour alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from quantlab.report import ranking, study
from quantlab.report.rows import Row
from quantlab.report.study import Group
from quantlab.report.wording import MB, Interval, rate_name
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
_NAME_CHARS = 100  # of a folder, or in a plot
_DPI = 110  # dots per inch
_MOST = 40  # cells of a plot with a line for each; the worst are shown
_LINE_IN = 0.28  # inches of height for each of them


def figures(rows: Sequence[Row]) -> dict[str, bytes]:
    """File name → PNG, for each model, corpus and protocol; only plots that have something to show.

    Of many such groups those with most cells, as each costs about half a second.
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
    """A block in which a `$` in a name begins no formula."""
    from matplotlib import rc_context

    return rc_context({"text.parse_math": False})


def _name(text: str) -> str:
    """As a plot has room for it."""
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
    """WER over all splits against the RTF, marks as large as the model, with the Pareto front."""
    cells = [row for row in group.rows if row["wer"] is not None and ranking.rtf(row) is not None]
    if len(cells) < 2:
        return None
    figure, axes = _axes(group, "Accuracy against speed: lower left is better", 6)
    largest = max(row["size_bytes"] for row in cells)
    for row in cells:
        colour, marker = _VERDICTS[row["verdict"] or "not compared"]
        x, y = _place(row)
        axes.errorbar(
            x, y, xerr=_reach(x, ranking.rtf_ci95(row)), yerr=_reach(y, row["wer_ci95"], 100), fmt="none",
            ecolor=colour, elinewidth=0.8, alpha=0.6,
        )  # fmt: skip
        axes.scatter(x, y, s=600 * row["size_bytes"] / largest + 15, color=colour, marker=marker, alpha=0.55,
                     edgecolors="black", linewidths=0.6)  # fmt: skip
    front = pareto(cells)
    axes.plot(*zip(*map(_place, front), strict=True), color=_BLACK, linewidth=1, linestyle="--", zorder=1)
    _spread(axes, [_place(row)[0] for row in cells])
    axes.set_xlabel("RTF: generation time / audio time")
    axes.set_ylabel(f"{rate_name(group.rows)} over all splits, %")
    _label(axes, cells, group, {row["cell_id"] for row in front})
    _legend(axes, cells, f"area: model size, the largest {largest / MB:.1f} MB; dashed: Pareto front")
    return figure


def _place(row: Row) -> tuple[float, float]:
    x = ranking.rtf(row)
    assert x is not None
    return x, 100 * row["wer"]


def _reach(value: float, ci95: Interval | None, factor: float = 1) -> list[list[float]] | None:
    """How far an interval reaches below and above, as `errorbar` wants it; never below 0."""
    if ci95 is None:
        return None
    return [[max(value - factor * ci95[0], 0.0)], [max(factor * ci95[1] - value, 0.0)]]


def pareto(cells: Sequence[Row]) -> list[Row]:
    """The cells that no other beats in both WER and RTF as measured, fastest first."""
    front: list[Row] = []
    for row in sorted(cells, key=_place):
        if not front or _place(row)[1] < _place(front[-1])[1]:
            front.append(row)
    return front


def _spread(axes: Axes, values: Sequence[float]) -> None:
    if max(values) > 10 * min(values):
        axes.set_xscale("log")


def _label(axes: Axes, cells: Sequence[Row], group: Group, front: set[str]) -> None:
    """Names beside the bubbles, pushed apart; of many cells only those on the front and the baseline."""
    from matplotlib.patheffects import withStroke

    devices = len(group.by_device()) > 1
    shown = [row for row in cells if len(cells) <= 20 or row["cell_id"] in front or ranking.is_baseline(row)]
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]  # so that places on the page are known
    taken: list[tuple[float, float]] = []
    for row in sorted(shown, key=lambda item: _place(item)[1]):
        x, y = axes.transData.transform(_place(row))
        text_y = y
        while any(abs(text_y - other_y) < 15 and abs(x - other_x) < 150 for other_x, other_y in taken):
            text_y += 3
        taken.append((x, text_y))
        text = _name(group.methods[row["cell_id"]] + (f", {row['device']}" if devices else ""))
        axes.annotate(
            text, _place(row), xytext=(14, (text_y - y) * 72 / axes.figure.dpi), textcoords="offset points",
            fontsize=8, va="center", fontweight="bold" if row["cell_id"] in front else "normal",
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.5},
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip


def _legend(axes: Axes, cells: Sequence[Row], title: str) -> None:
    from matplotlib.lines import Line2D

    present = [name for name in _VERDICTS if any((row["verdict"] or "not compared") == name for row in cells)]
    handles: list[Any] = [
        Line2D([], [], color=_VERDICTS[name][0], marker=_VERDICTS[name][1], linestyle="none", label=name)
        for name in present
    ]
    axes.legend(handles=handles, title=title, fontsize=8, title_fontsize=8, ncols=len(handles),
                loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False)  # fmt: skip


# A line for each cell


def wer_increase(group: Group) -> Figure | None:
    """The study's Figure 1: WER increase against the baseline, a bar for each split."""
    found = [item for item in study.increases(group) if study.increase(item[0]).value is not None]
    if not found:
        return None
    found = sorted(found, key=lambda item: study.increase(item[0]).value or 0.0)[-_MOST:]
    figure, axes = _axes(
        group, _title(f"{rate_name(group.rows)} increase against the baseline", found, group), _height(len(found))
    )
    thick = 0.8 / len(group.splits)
    for index, split in enumerate(group.splits):
        for line, (_, changes) in enumerate(found):
            change = changes[split]
            if change.value is not None:
                axes.barh(
                    line + 0.4 - (index + 0.5) * thick, 100 * change.value, thick,
                    xerr=_both(change.value, change.ci95), color=_SPLIT_COLOURS[index % len(_SPLIT_COLOURS)],
                    label=_name(split) if line == 0 else "", error_kw={"elinewidth": 0.8, "capsize": 2},
                )  # fmt: skip
    _lines(axes, [row for row, _ in found], group)
    rate = rate_name(group.rows)
    axes.set_xlabel(f"{rate} of the cell − {rate} of its baseline, percentage points, with 95 % intervals")
    axes.legend(title="split", fontsize=8, title_fontsize=8, frameon=False)
    return figure


def verdicts(group: Group) -> Figure | None:
    """The pooled WER difference of every cell with its interval, the margin, and the verdict."""
    found = [row for row in group.rows if study.increase(row).value is not None]
    if not found:
        return None
    found = sorted(found, key=lambda row: study.increase(row).value or 0.0)[-_MOST:]
    figure, axes = _axes(group, _title("Is it worse than its baseline?", found, group), _height(len(found)))
    for name, (colour, marker) in _VERDICTS.items():
        lines = [line for line, row in enumerate(found) if row["verdict"] == name]
        if lines:
            changes = [study.increase(found[line]) for line in lines]
            reaches = [_both(change.value or 0.0, change.ci95) or [[0.0], [0.0]] for change in changes]
            axes.errorbar(
                [100 * (change.value or 0.0) for change in changes], lines,
                xerr=[[reach[end][0] for reach in reaches] for end in (0, 1)],
                color=colour, marker=marker, linestyle="none", capsize=3, label=name,
            )  # fmt: skip
    margin = 100 * found[0]["comparison"]["margin"]
    axes.axvline(margin, color=_BLACK, linewidth=0.8, linestyle=":", label=f"margin, {margin:g} points")
    _lines(axes, found, group)
    rate = rate_name(group.rows)
    axes.set_xlabel(
        f"{rate} of the cell − {rate} of its baseline over all splits, percentage points, with 95 % intervals"
    )
    axes.legend(fontsize=8, frameon=False)
    return figure


def _both(value: float, ci95: Interval | None) -> list[list[float]] | None:
    return _reach(100 * value, ci95, 100)


def _title(text: str, shown: Sequence[object], group: Group) -> str:
    compared = sum(row["comparison"] is not None for row in group.rows)
    return text if len(shown) >= compared else f"{text} (the {len(shown)} worst of {compared})"


def _height(lines: int) -> float:
    return 1.8 + _LINE_IN * max(lines, 3)


def _lines(axes: Axes, rows: Sequence[Row], group: Group) -> None:
    devices = len(group.by_device()) > 1
    names = [_name(group.methods[row["cell_id"]] + (f", {row['device']}" if devices else "")) for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.axvline(0, color=_BLACK, linewidth=0.8)
    axes.grid(visible=False, axis="y")
