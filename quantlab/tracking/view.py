"""How MLflow's page presents a grid: the notes, and a saved view of the run list with the columns that matter.

MLflow shows no metrics in its run list by default. A view saved with its Share button lives in a tag of the
experiment and can be named in a link; `saved_view` writes that tag.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote

VIEW = "quantlab"
_NOTE = """\
**[Table]({table})** · **[Charts]({charts})** · one run per cell (model × quantizer × device × …), one more per sweep

WER, CER and size/reduction are fractions; RTF is generation time / audio time, so that lower is faster; `_s` are
seconds. A figure that does not exist is absent, never 0. Filter, for example: `tags.status = 'failed'`,
`params.quant LIKE 'hqq%'`, ``tags.`quantlab.sweep` = '…'``.
"""
_WIDTHS_PX = {"params.`quant`": 160, "tags.`status`": 100, "tags.`reason`": 400}
_WIDTH_PX = 130  # of a metric: the name is readable, and those that matter most fit a screen


def link(experiment_id: str, charts: bool = False) -> str:
    """Where the saved view opens, below the address of the server."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}{mode}"


def links(experiment_id: str, sweep: str | None = None) -> dict[str, str]:
    """The pages that answer at first sight."""
    return {"table": link(experiment_id), "charts": link(experiment_id, charts=True)}


def experiment_note(experiment_id: str) -> str:
    """Markdown shown above the run list."""
    return _NOTE.format(table=link(experiment_id), charts=link(experiment_id, charts=True))


def saved_view(splits: Sequence[str]) -> tuple[str, str]:
    """Tag and value of the view.

    The state is there twice: as MLflow 3.17 lists it under Views, and as versions before did.
    """
    columns = _columns(splits)
    state = {
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {name: _WIDTHS_PX.get(name, _WIDTH_PX) for name in columns},
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "runsHiddenMode": "SHOW_ALL",
    }
    envelope = {"name": VIEW, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
    return f"mlflow.sharedViewState.{VIEW}", json.dumps(state | envelope, separators=(",", ":"))


def _columns(splits: Sequence[str]) -> list[str]:
    """Model and device are in the name of the run, which MLflow shows first."""
    wer, rtf = ([f"metrics.`{group}_{split}`" for split in splits] for group in ("quality/wer", "speed/rtf"))
    rest = [f"metrics.`{name}`" for name in ("size/reduction", "size/bytes", "memory/peak_bytes")]
    return ["params.`quant`", "tags.`status`", *wer, *rtf[:1], *rest, *rtf[1:], "tags.`reason`"]


def summary_note(table: str, runs: Sequence[str], experiment_id: str) -> str:
    """Markdown for the summary run: the table, and a link that opens its cells side by side."""
    query = f"runs={quote(json.dumps(list(runs)))}&experiments={quote(json.dumps([experiment_id]))}"
    return f"```\n{table.rstrip()}\n```\n\n[Compare these cells](#/compare-runs?{query})\n"
