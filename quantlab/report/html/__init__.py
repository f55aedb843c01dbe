"""The report as an HTML page: one self-contained file that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from quantlab.report.against import asked_for, baseline, reference
from quantlab.report.cell_summary import CellSummary
from quantlab.report.html import details, grid, sections, summary, texts
from quantlab.report.html.payload import asset, data_block, packed, plotly, policy, script
from quantlab.report.html.templates import render
from quantlab.report.wording import rate_name, why_stopped

PAGE_BYTES = 7_800_000  # limit of the page, so that it can be mailed and opens quickly
EMPTY = "No records: measure something first, e.g. quantlab -m quant=none,torch_int8"


def page(
    rows: Sequence[CellSummary],
    most_bytes: int = PAGE_BYTES,
    audio: tuple[Path, ...] = (),
    unread: Sequence[str] = (),
) -> str:
    """Render the page.

    Args:
        rows: see `quantlab.report.summaries`; raw texts and timings are read from their roots.
        most_bytes: maximum size of the page. For corpora too large for it, only the worst utterances of each cell
            are shown, and the page states their number.
        audio: folders whose audio the page may play, since records from others could name any file.
        unread: messages about files that could not be read.
    """
    if not rows:
        return f"<p>{EMPTY}</p>"
    without_texts = _filled(rows, unread, _blocks(rows))
    left = most_bytes - len(without_texts.encode("utf-8", "replace"))
    shown = texts.fitted([row for row in rows if row.ok], left, audio)
    blocks = [data_block("utterances", shown.utterances)]
    blocks += [data_block(f"hypotheses-{cell}", text) for cell, text in shown.cells.items()]
    return without_texts.replace("<!--texts-->", "".join(blocks))


def _blocks(rows: Sequence[CellSummary]) -> Markup:
    kinds, cell_details = sections.environments(rows)
    state = summary.state(rows) | {"environments": kinds}
    for cell, number in cell_details.items():
        state["cells"][cell]["environment"] = number
    blocks = [data_block("state", packed(state))]
    blocks += [data_block(f"cell-{row.cell_id}", packed(details.cell_details(row))) for row in rows]
    return Markup("").join(blocks)


def _filled(rows: Sequence[CellSummary], unread: Sequence[str], blocks: Markup) -> str:
    filled = render(
        "page",
        policy=policy(),
        style=Markup(asset("page.css")),
        title=sections.title(rows),
        measured=sections.measured(rows),
        chips=sections.chips(rows),
        noise=sections.noise(rows),
        short=sections.in_short(rows),
        choices=sections.choices(rows),
        table=grid.table(rows),
        reference=reference(rows),
        baseline=baseline(rows),
        asked_for=asked_for(rows),
        rate=rate_name(rows),
        stopped=why_stopped(rows),
        not_measured=sections.not_measured(rows),
        study=sections.study(rows, unread),
        blocks=blocks,
        plotly=data_block("plotly", plotly()[0]),
        script=Markup(script()),
    )
    return str(filled)
