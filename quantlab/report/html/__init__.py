"""The report as a page: one HTML file that opens anywhere, from a folder or a mail, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template

from quantlab.records import storage
from quantlab.records.schema import Record
from quantlab.report.html import details, grid, sections, summary, texts
from quantlab.report.html.markup import Html, join, tag
from quantlab.report.html.payload import asset, data_block, packed, plotly, policy, script
from quantlab.report.rows import Row
from quantlab.report.wording import rate_name, reference

PAGE_BYTES = 7_800_000  # of the whole page, so that it can be mailed and opens at once
EMPTY = "No records: measure something first, e.g. python -m quantlab -m quant=none,torch_int8"


def page(
    root: Path,
    rows: list[Row],
    most_bytes: int = PAGE_BYTES,
    audio: tuple[Path, ...] = (),
    unread: Sequence[str] = (),
) -> str:
    """The whole page.

    Args:
        root: the folder of the records that the rows came from; raw texts, timings and receipts are read there.
        rows: see `quantlab.report.rows.rows`.
        most_bytes: what the page may weigh; of corpora that are too large for it, the worst utterances of each cell
            are shown, and the page says how many those are.
        audio: folders whose audio it may play. Records name files too, but not every record is one's own.
        unread: lines about what could not be read.
    """
    if not rows:
        return tag("p", EMPTY)
    found = {row["cell_id"]: record for row in rows if (record := _record(root, row["cell_id"])) is not None}
    without_texts = _filled(root, rows, unread, _blocks(root, rows, found))
    baselines = {row["cell_id"]: row["baseline"] for row in rows}
    scored = [(record, baselines[cell]) for cell, record in found.items() if record.status == "ok"]
    heard = texts.fitted(root, scored, most_bytes - len(without_texts.encode("utf-8", "replace")), audio)
    blocks = [data_block("utterances", heard.utterances)]
    blocks += [data_block(f"heard-{cell}", text) for cell, text in heard.cells.items()]
    return without_texts.replace("<!--texts-->", join(blocks))


def _record(root: Path, cell_id: str) -> Record | None:
    try:
        return storage.read(root, cell_id)
    except (OSError, ValueError):
        return None


def _blocks(root: Path, rows: list[Row], found: dict[str, Record]) -> Html:
    kinds, of_cell = sections.environments(rows)
    state = summary.state(rows) | {"environments": kinds}
    for cell, number in of_cell.items():
        state["cells"][cell]["environment"] = number
    blocks = [data_block("state", packed(state))]
    blocks += [data_block(f"cell-{cell}", packed(details.of_record(root, record))) for cell, record in found.items()]
    return join(blocks)


def _filled(root: Path, rows: list[Row], unread: Sequence[str], blocks: Html) -> str:
    return Template(asset("page.html")).substitute(
        policy=tag("meta", http_equiv="Content-Security-Policy", content=policy()),
        style=Html(asset("page.css")),
        title=join(sections.title(rows)),
        measured=sections.measured(rows),
        chips=sections.chips(rows),
        short=sections.in_short(rows),
        noise=sections.noise(rows) or "",
        filters=sections.filters(rows),
        table=grid.table(rows),
        count=len(rows),
        reference=reference(rows),
        rate=rate_name(rows),
        not_measured=sections.not_measured(rows) or "",
        study=sections.study(root, rows, unread),
        blocks=blocks,
        plotly=data_block("plotly", plotly()[0]),
        script=tag("script", Html(script())),
    )
