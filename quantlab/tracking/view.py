"""Notes, saved views and charts of a grid on MLflow's pages.

By default, MLflow shows no metrics in its run list, and its chart page is in alphabetical order. A view saved with the
Share button is stored in a tag of the experiment and can be opened by a link; `saved_view` creates such a tag, one for
all cells and one for each sweep.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

_TAG = "mlflow.sharedViewState."
_ALL = "quantlab"
_NOTE = """\
**[Table]({table})** · **[Charts]({charts})** · one run per cell (model × quantizer × device × …), one more per sweep

WER, CER and size/reduction are fractions; RTF is generation time / audio time, so lower is faster; `_s` means
seconds. If the tag `error_unit` is `character`, wer counts characters. Missing figures are absent, never 0.
Filter, for example: `tags.status = 'failed'`,
`params.quant LIKE 'hqq%'`, ``tags.`quantlab.sweep` LIKE '%…%'``.
"""
_WIDTHS_PX = {"params.`quant`": 160, "tags.`status`": 100, "tags.`reason`": 400}
_WIDTH_PX = 130  # of a metric: wide enough for its name
# Sections of the chart page: two with our charts, then those of the metrics, which MLflow fills.
_PARALLEL, _AGAINST = "all in one", "accuracy against speed and size"
_SECTIONS = (_PARALLEL, _AGAINST, "quality", "speed", "size", "memory", "time", "energy", "summary")
_COLUMNS = {_PARALLEL: 1, _AGAINST: 2}
_FOLDED = ("time", "energy", "summary")


def link(experiment_id: str, charts: bool = False, sweep: str | None = None) -> str:
    """Address of a saved view, relative to that of the server."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={sweep or _ALL}{mode}"


def links(experiment_id: str, sweep: str | None = None) -> dict[str, str]:
    """The two pages that a grid prints."""
    return {
        "table": link(experiment_id, sweep=sweep),
        "charts": link(experiment_id, charts=True, sweep=sweep),
    }


def experiment_note(experiment_id: str) -> str:
    """Markdown shown above the run list."""
    return _NOTE.format(table=link(experiment_id), charts=link(experiment_id, charts=True))


def saved_view(splits: Sequence[str], sweep: str | None = None, now_ms: int = 0) -> tuple[str, str]:
    """Tag and value of the view of one sweep, or of all cells.

    The state is stored twice: in the form of MLflow 3.17, which lists it under Views, and in that of earlier versions.
    """
    name = sweep or _ALL
    state = _table(splits) | _charts(splits)
    if sweep is not None:
        state["searchFilter"] = f"tags.`quantlab.kind` = 'cell' and tags.`quantlab.sweep` LIKE '%{sweep}%'"
    times = {"createdAt": now_ms, "updatedAt": now_ms}
    envelope = {"name": _ALL if sweep is None else _title(sweep), "state": json.dumps(state, separators=(",", ":"))}
    return f"{_TAG}{name}", json.dumps(state | envelope | times, separators=(",", ":"))


def sweep_views(tags: Mapping[str, str]) -> list[str]:
    """Tags of an experiment that are views of sweeps, oldest first, without views saved by people."""
    found = {tag: _created_ms(tag.removeprefix(_TAG), tags[tag]) for tag in tags if tag.startswith(_TAG)}
    return sorted((tag for tag, ms in found.items() if ms is not None), key=lambda tag: found[tag] or 0)


def _created_ms(sweep: str, value: str) -> int | None:
    try:
        view = json.loads(value)
        return int(view["createdAt"]) if view["name"] == _title(sweep) else None
    except (ValueError, TypeError, KeyError):
        return None


def _title(sweep: str) -> str:
    return f"sweep {sweep}"


def _table(splits: Sequence[str]) -> dict[str, Any]:
    columns = _columns(splits)
    return {
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {name: _WIDTHS_PX.get(name, _WIDTH_PX) for name in columns},
        "orderByKey": f"metrics.`quality/wer_{splits[0]}`" if splits else "attributes.start_time",
        "orderByAsc": bool(splits),
        "runsHiddenMode": "SHOW_ALL",
    }


def _columns(splits: Sequence[str]) -> list[str]:
    """Columns of the run list; model and device are in the name of the run, which MLflow shows first."""
    wer, rtf = ([f"metrics.`{group}_{split}`" for split in splits] for group in ("quality/wer", "speed/rtf"))
    rest = [f"metrics.`{name}`" for name in ("size/reduction", "size/bytes", "memory/peak_bytes")]
    return ["params.`quant`", "tags.`status`", *wer, *rtf[:1], *rest, *rtf[1:], "tags.`reason`"]


def _charts(splits: Sequence[str]) -> dict[str, Any]:
    """Accuracy against speed and size, and all in parallel coordinates; MLflow adds a bar chart per metric."""
    wer, rtf = ([f"{group}_{split}" for split in splits] for group in ("quality/wer", "speed/rtf"))
    charts = []
    if splits:
        charts = [
            _chart(
                "parallel",
                _PARALLEL,
                "PARALLEL",
                {"selectedParams": [], "selectedMetrics": [*wer, rtf[0], "size/bytes"]},
            ),
            _chart("wer-rtf", _AGAINST, "SCATTER", {"xaxis": _axis(rtf[0]), "yaxis": _axis(wer[0])}),
            _chart("wer-size", _AGAINST, "SCATTER", {"xaxis": _axis("size/bytes"), "yaxis": _axis(wer[0])}),
        ]
    return {
        "compareRunCharts": charts,
        "compareRunSections": [_section(name) for name in _SECTIONS],
        "isAccordionReordered": True,  # otherwise MLflow sorts the sections by name
    }


def _section(name: str) -> dict[str, Any]:
    fixed = {"uuid": name, "name": name, "isReordered": False, "deleted": False}
    return fixed | {"display": name not in _FOLDED, "columns": _COLUMNS.get(name, 3), "cardHeight": 360}


def _chart(uuid: str, section: str, kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    fixed = {"deleted": False, "isGenerated": False, "runsCountToCompare": 100}
    return {"uuid": uuid, "metricSectionId": section, "type": kind} | fixed | settings


def _axis(metric: str) -> dict[str, str]:
    return {"key": metric, "type": "METRIC"}


def summary_note(table: str, runs: Sequence[str], experiment_id: str) -> str:
    """Markdown for the summary run: the table, and a link that opens its cells side by side."""
    query = f"runs={quote(json.dumps(list(runs)))}&experiments={quote(json.dumps([experiment_id]))}"
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", table)), default=0))  # a name cannot close it
    return f"{fence}\n{table.rstrip()}\n{fence}\n\n[Compare these cells](#/compare-runs?{query})\n"
