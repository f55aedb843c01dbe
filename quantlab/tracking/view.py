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
_WIDTHS_PX = {"params.`model`": 90, "params.`quant`": 170, "params.`device`": 75, "tags.`status`": 110}
_WIDTH_PX = 150  # of a metric: the whole name is readable


def link(experiment_id: str, charts: bool = False) -> str:
    """Where the saved view opens, below the address of the server."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}{mode}"


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
    metrics = [f"{group}_{split}" for group in ("quality/wer", "speed/rtf") for split in splits]
    metrics += ["size/bytes", "size/reduction", "memory/peak_bytes"]
    params = [f"params.`{name}`" for name in ("model", "quant", "device")]
    return [*params, "tags.`status`", *(f"metrics.`{name}`" for name in metrics), "tags.`reason`"]


def summary_note(table: str, runs: Sequence[str], experiment_id: str) -> str:
    """Markdown for the summary run: the table, and a link that opens its cells side by side."""
    query = f"runs={quote(json.dumps(list(runs)))}&experiments={quote(json.dumps([experiment_id]))}"
    return f"```\n{table.rstrip()}\n```\n\n[Compare these cells](#/compare-runs?{query})\n"
