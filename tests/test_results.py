"""The records that docs/results/ shows: whole, and every figure follows from their raw data."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest

from quantlab.cli.verify import main as verify
from quantlab.report.__main__ import main as report

RESULTS = Path(__file__).parents[1] / "docs" / "results"
ARCHIVES = sorted(RESULTS.glob("*.tar.xz"))


@pytest.mark.parametrize("path", ARCHIVES, ids=lambda path: path.name)
def test_published_records_are_verified_and_open(path, capsys):
    assert verify(["--root", str(path)]) == 0
    assert "figures verified" in capsys.readouterr().out
    assert report(["--root", str(path), "--format", "json"]) == 0
    cells = json.loads(capsys.readouterr().out)
    assert {cell["status"] for cell in cells} == {"ok"}
    assert all(cell["receipt"]["verified"] for cell in cells)


def test_there_are_some():
    assert ARCHIVES


def difference(cell):
    """As in a table: points and interval."""
    change = cell["comparison"]
    values = (change["wer_difference"], *change["wer_difference_ci95"])
    points, low, high = (f"{100 * value:+.2f}".replace("-", "−") for value in values)
    return f"{points} [{low}, {high}]"


def test_the_rows_below_eight_bits_are_those_of_their_records(capsys):
    found = {}
    for against in ([], ["--against", "hqq"]):
        assert report(["--root", str(RESULTS / "lowbit_h200.tar.xz"), "--format", "json", *against]) == 0
        for cell in json.loads(capsys.readouterr().out):
            found.setdefault(cell["cell_id"][:8], []).append(cell)
    page = (RESULTS / "lowbit.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if re.search(r"\| [0-9a-f]{8} \|$", line)]
    assert len(rows) == 46
    for _, bits, size, wer, fp32, verdict, hqq, cell_id in rows:
        ours, against_hqq = found[cell_id]
        splits = [f"{100 * ours['splits'][name]['wer']:.2f}" for name in ("test-clean", "test-other")]
        assert (wer, bits) == (" / ".join(splits), f"{ours['bits_per_weight']:.2f}")
        assert size == f"{ours['size_bytes'] / 1e6:.1f}"
        if ours["comparison"] is not None:
            assert (fp32, verdict) == (difference(ours), ours["verdict"])
        assert hqq.partition(", p")[0] in ("", against_hqq["comparison"] and difference(against_hqq))


def test_the_rows_of_word_times_are_those_of_their_records(capsys):
    assert report(["--root", str(RESULTS / "word_times.tar.xz"), "--format", "json"]) == 0
    expected = {
        f"| {cell['model']} | `{cell['quant']}` | {name} | {edge(found['start'])} | {edge(found['end'])} "
        f"| {found['matched']:,} of {found['spoken']:,} |"
        for cell in json.loads(capsys.readouterr().out)
        for name, split in cell["splits"].items()
        for found in (split["word_times"], split["word_times_against_baseline"])
        if found is not None and found["start"] is not None
    }
    page = (RESULTS / "word_times.md").read_text(encoding="utf-8").splitlines()
    assert {line for line in page if line.endswith(" |") and " of " in line} == expected


def edge(found):
    """As in a table: median and bias in ms, shares within 50, 100 and 200 ms in %."""
    shares = " / ".join(f"{100 * found[f'within_{limit}ms']:.0f}" for limit in (50, 100, 200))
    return f"{1000 * found['median_s']:.0f} | {1000 * found['bias_s']:+.0f} | {shares}".replace("-", "−")


def test_the_rows_of_streaming_are_those_of_its_records(capsys):
    assert report(["--root", str(RESULTS / "streaming.tar.xz"), "--format", "markdown"]) == 0
    said = set(capsys.readouterr().out.splitlines())
    page = (RESULTS / "streaming.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| cpu")]
    assert len(rows) == 26
    assert set(rows) <= said


def test_fp32_of_other_engines_gives_the_texts_of_pytorch(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["same_texts.py", str(RESULTS / "engines.tar.xz")])
    runpy.run_path(str(RESULTS.parents[1] / "benchmarks" / "same_texts.py"), run_name="__main__")
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    shown = (RESULTS / "engines.md").read_text(encoding="utf-8")
    assert {(same, of) for *_, quant, same, of in rows if quant in ("`ort_fp32`", "`ov_fp32`")} >= {("32", "32")}
    assert all(same == of for *_, quant, same, of in rows if quant.endswith("_fp32`"))
    assert all(re.search(rf"^\| {quant} .* {same} of {of} \|$", shown, re.MULTILINE) for *_, quant, same, of in rows)
