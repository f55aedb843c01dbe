"""runtime.dtype: a cell in half precision, from the checkpoint to its row, and the baseline it is compared with."""

import pytest
import torch

from helpers.synthetic import result
from quantlab.analysis.pairs import find_baselines
from quantlab.config.compose import compose
from quantlab.engines.clocks import Clocks
from quantlab.measurement.alternate import must_alternate
from quantlab.measurement.cell import _resident_baseline, run_cell
from quantlab.recogniser.assemble import assemble, prepared
from quantlab.records.cell_id import hashed
from quantlab.report import wording
from quantlab.report.columns import columns
from quantlab.report.summaries import summary
from quantlab.report.table import text
from quantlab.tracking.describe import params

CPU = torch.device("cpu")
OPTIONS = ("dataset.limit=8", "device=cpu", "device.threads=1", "tracking=off", "protocol.warmup_batches=0")


def config(*arguments):
    [found] = compose([*OPTIONS, *arguments])
    return found


@pytest.fixture(scope="module")
def cells():
    """The unquantized cell in each type."""
    return {dtype: run_cell(config(f"runtime.dtype={dtype}")) for dtype in ("float32", "float16", "bfloat16")}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_it_hears_what_fp32_hears(cells, dtype):
    """Greedy text of 16 utterances; a rounding can change a word, not a sentence."""
    found, exact = cells[dtype], cells["float32"]
    pairs = zip(found.utterances, exact.utterances, strict=True)
    assert sum(mine.hypothesis == theirs.hypothesis for mine, theirs in pairs) >= 14
    for split, figures in found.record.splits.items():
        assert abs(figures.wer - exact.record.splits[split].wer) <= 0.04  # two words of 58, three of 59


def test_the_receipt_has_the_type_and_the_size(cells):
    for dtype, share in {"float32": 1, "float16": 0.5, "bfloat16": 0.5}.items():
        record = cells[dtype].record
        assert set(record.receipt.bytes_by_dtype) == {dtype}
        assert record.size_reduction == 1 - share  # against fp32, whatever the type
        assert record.setting("runtime.dtype") == dtype


def test_the_type_is_part_of_what_a_cell_is(cells):
    assert len({item.record.cell_id for item in cells.values()}) == 3
    half, full = config("runtime.dtype=float16", "quant=hqq_int4"), config("quant=hqq_int4")
    assert hashed(half.model_dump(), {}, {}) != hashed(full.model_dump(), {}, {})


def test_the_baseline_has_the_same_type():
    half = config("runtime.dtype=bfloat16", "quant=hqq_int4", "dataset.limit=1")
    assert half.of_baseline().runtime.dtype == "bfloat16"
    with prepared(half) as device:
        made = assemble(half, device, Clocks(device))
        baseline = _resident_baseline(half, made, device)
    assert {item.dtype for item in baseline.model.parameters()} == {torch.bfloat16}
    assert baseline.generate(made.speech.measured.splits["clean"])[0][0]


def test_a_baseline_of_half_the_size_fits_where_fp32_would_not(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 100}))
    assert must_alternate(config(), 100, CPU)
    assert not must_alternate(config("runtime.dtype=float16"), 100, CPU)


def test_records_are_compared_within_their_type():
    runtime = {"runtime": {"name": "eager", "dtype": "float16"}}
    found = [
        result("none", cell_id="a").record,
        result("hqq_int4", cell_id="b").record,
        result("none", cell_id="c", **runtime).record,
        result("hqq_int4", cell_id="d", **runtime).record,
    ]
    assert find_baselines(found) == {"a": "a", "b": "a", "c": "c", "d": "c"}


def test_a_type_that_is_not_fp32_is_shown(cells):
    rows = {dtype: summary(item.record) for dtype, item in cells.items()}
    assert list(wording.names(list(rows.values())).values())[:2] == ["nano-none-cpu", "nano-none-cpu-float16"]
    shown = {name: ["dtype" in column.title for column in columns([item])] for name, item in rows.items()}
    assert {name: any(found) for name, found in shown.items()} == {"float32": False, "float16": True, "bfloat16": True}
    lines = text([rows["float32"], rows["bfloat16"]]).splitlines()
    assert [line.split()[3] for line in lines[3:5]] == ["float32", "bfloat16"]
    assert params(cells["float16"].record)["dtype"] == "float16"
    assert set(wording.methods(list(rows.values())).values()) == {
        "none (dtype=float32)", "none (dtype=float16)", "none (dtype=bfloat16)"
    }  # fmt: skip
