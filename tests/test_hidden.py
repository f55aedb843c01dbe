"""A quantizer made to loop, to go silent, to insert, to lose passages: each raises its own figure only."""

import json

import pytest

from helpers.synthetic import adding_up, result
from quantlab.cli import rescore, worst
from quantlab.records import storage
from quantlab.records.measured import KeywordFigures
from quantlab.report import document, html, table
from quantlab.report import worst as worst_of
from quantlab.report.hidden import keywords
from quantlab.report.html.hypotheses import Key
from quantlab.report.summaries import summaries, summary
from quantlab.scoring.score import ENGLISH

# Each fault on every fourth of 320 utterances of eight words: text, and whether it loops.
FAULTS = {
    "loops": lambda text: (text + " key box" * 20, True),
    "empty": lambda text: ("", False),
    "bursts": lambda text: (" ".join(text.split()[:3]), False),  # five words are missing
    "insertions": lambda text: (text + " indeed", False),
}


def planted(quant, fault=None):
    found = result(quant)
    base = result("none")
    heard = []
    for index, item in enumerate(base.utterances):
        text, loop = FAULTS[fault](item.hypothesis) if fault and index % 4 == 0 else (item.hypothesis, False)
        heard.append(item.model_copy(update={"hypothesis": text, "loop": loop, "speaker": f"s{index % 40}"}))
    return found.model_copy(update={"utterances": tuple(heard)})


@pytest.fixture(params=FAULTS)
def fault(request):
    return request.param


@pytest.fixture
def root(tmp_path, fault):
    for item in (planted("none"), planted("hqq_int3", fault), planted("torch_int8")):
        storage.write(tmp_path / "raw", item)
    assert rescore.write(tmp_path / "raw", tmp_path / "runs") == 3
    return tmp_path / "runs"


def test_a_fault_raises_its_own_figure_only(root, fault):
    found = {row.settings.quant: row for row in summaries(root)}
    bad, good = found["hqq_int3"], found["torch_int8"]
    assert {kind for kind, item in bad.evidence.hidden.items() if item.verdict == "more"} == {fault}
    assert {item.verdict for item in good.evidence.hidden.values()} == {"not shown"}
    assert {item.verdict for item in found["none"].evidence.hidden.values()} == {None}
    own = bad.evidence.hidden[fault].share
    assert own.value == (0.25 / 8 if fault == "insertions" else 0.25)
    assert own.ci95[0] < own.value < own.ci95[1]
    others = {kind: item.share.value for kind, item in bad.evidence.hidden.items() if kind != fault}
    assert set(others.values()) == {0.0}
    assert (bad.loops_inserted or 0) == (1.0 if fault == "loops" else 0.0)
    assert bad.evidence.no_regression.value == 0.75
    assert good.evidence.no_regression.value == 1.0
    told = {item["quant"]: item for item in json.loads(summaries(root).to_json())}["hqq_int3"]
    assert set(told["no_regression"]) == {"share", "ci95"}
    assert told["hidden"][fault]["verdict"] == "more"


def test_every_report_shows_it(root, fault):
    rows = summaries(root)
    assert ("loops" in table.text(rows)) is (fault == "loops")
    assert "hidden: nano-hqq_int3-cpu: more" in table.text(rows)
    assert "What the WER hides" in [part.heading for part in document.sections(rows)]
    assert "more, shown" in html.page(rows)


def test_the_worst_utterances_come_first(root, fault, capsys):
    assert worst.main(["--root", str(root), "nano-hqq_int3-cpu", "--most", "5", "--format", "json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    grown = [item["errors"] - item["reference_errors"] for item in found["worst"]]
    assert len(grown) == 5
    assert grown == sorted(grown, reverse=True)
    assert grown[-1] > 0
    mark = "{+" if fault in ("loops", "insertions") else "[-"
    assert mark in found["worst"][0]["hypothesis"]
    for form in ("table", "markdown"):
        assert worst.main(["--root", str(root), "--format", form]) == 0
        assert f"{found['worse']} of 320 utterances worse" in capsys.readouterr().out


def test_errors_in_a_row_are_marked_as_one():
    key = Key("clean", "1", "the red house is old", ENGLISH)
    assert worst_of.marked(key, "the blue mouse is") == "the [-red house-]{+blue mouse+} is [-old-]"


@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_how_many_is_a_whole_number(value, capsys):
    assert worst.main(["--most", value]) == 2
    assert f"--most: {value}: a whole number, 1 or more" in capsys.readouterr().err


def test_keywords_that_no_reference_has_are_named():
    record = result("none").record
    words = KeywordFigures(
        spoken=2, written=3, right=1, recall=1 / 2, precision=1 / 3, words={"cat": (2, 2, 1), "dog": (0, 1, 0)}
    )
    splits = {name: split.model_copy(update={"keywords": words}) for name, split in record.splits.items()}
    record = record.model_copy(update={"splits": splits, "keywords": ("Cat", "Dog", "blue jay")})
    [(_, said)] = keywords([summary(record)], {record.cell_id: "nano"})
    assert said.endswith("; in no reference: Dog, blue jay")


def test_without_a_baseline_nothing_is_worse(tmp_path, capsys):
    storage.write(tmp_path, adding_up(result("bnb_nf4")))
    assert worst.main(["--root", str(tmp_path)]) == 1
    assert "measure its baseline" in capsys.readouterr().err
    assert worst.main(["--root", str(tmp_path / "none")]) == 1


def test_few_utterances_have_no_verdict(tmp_path):
    for item in (planted("none"), planted("hqq_int3", "empty")):
        storage.write(tmp_path, adding_up(item.model_copy(update={"utterances": item.utterances[:8]})))
    [*_, bad] = summaries(tmp_path)
    assert bad.evidence.hidden["empty"].verdict is None
    assert bad.evidence.hidden["empty"].share.ci95 is None
