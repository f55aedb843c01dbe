"""One reason of several cells stands once, wherever a person reads it."""

import io
import re

import pytest

from quantlab.config.compose import compose
from quantlab.grid.progress import Display
from quantlab.records.schema import Record
from quantlab.report import table
from quantlab.report.document import _not_measured
from quantlab.report.html import page
from quantlab.report.summaries import summary
from quantlab.util.console import console
from quantlab.util.reasons import joined, key

MISSING = "model o/{0}@{1} cannot be had (no hub); fetch it: quantlab.fetch model={0} …"


def record(model, quant, reason, status="failed"):
    [config] = compose([f"model={model}", f"quant={quant}", "device=cpu"])
    dumped = config.model_dump(mode="json")
    dumped["model"]["repo"] = f"o/{model}"
    return Record(
        cell_id=(model + quant).encode().hex()[:16], status=status, reason=reason, config=dumped,
        created_at="2026-01-01T00:00:00+00:00", fingerprints={}, environment={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def records():
    missing = [
        record(model, quant, MISSING.format(model, mark))
        for model, mark in (("small", "1a"), ("base", "2b"), ("tiny", "3c"))
        for quant in ("quanto_int8", "bnb_nf4")
    ]
    return [*missing, record("nano", "bnb_fp4", "out of luck")]


def test_progress_tells_a_reason_with_the_first_cell(records):
    file = io.StringIO()
    display = Display(len(records), console(file=file, width=500))
    for item in records:
        display.end(f"{item.setting('model.name')}-{item.setting('quant.name')}", item)
    told = file.getvalue()
    assert told.count("cannot be had") == told.count("out of luck") == 1
    assert told.count("failed, for the same reason as small-quanto_int8") == 5


def test_table_and_report_tell_it_once_with_all_cells(records):
    rows = [summary(item) for item in records]
    [section] = _not_measured(rows)
    written = [
        " ".join(cell.text for line in section.table.lines for cell in line),
        re.sub("<script.*?</script>", "", page(rows), flags=re.DOTALL),
    ]
    for text in (table.text(rows), *written):
        assert text.count("cannot be had") == text.count("out of luck") == 1
        assert "6 cells" in text
        for item in records:
            assert f"{item.setting('model.name')}-{item.setting('quant.name')}-cpu" in text
    assert "quantlab.fetch model=small,base,tiny …" in table.text(rows)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("base", "a base is here"), ("tiny", "a tiny is here"), True),
        (("base", "a base is here"), ("tiny", "a tiny is there"), False),
        (("base", "basement"), ("tiny", "tinyment"), False),  # a part of a word names nothing
        (("base", "in (o/base)"), ("tiny", "in (o/tiny)"), True),
    ],
)
def test_reasons_are_one_if_they_differ_in_names_alone(one, other, same):
    found = {key("failed", reason, {"model.name": name}.get) for name, reason in (one, other)}
    assert (len(found) == 1) == same
    assert key("failed", "x", {}.get) != key("unsupported", "x", {}.get)


def test_what_differs_is_told_of_all():
    assert joined(["the  same\nline"] * 2) == "the  same\nline"
    assert joined(["model=a is no x", "model=b is no x"]) == "model=a,b is no x"
    assert joined(["a is", "b is", "a is"]) == "a, b is"
