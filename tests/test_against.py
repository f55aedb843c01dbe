"""Cells compared with those of another library or quantizer: which, what comes of it, what is said of it."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from helpers.synthetic import adding_up, bad_result, result
from quantlab.analysis.evidence import evidence
from quantlab.analysis.references import find_references
from quantlab.records import storage
from quantlab.records.schema import Speed
from quantlab.records.several import stored
from quantlab.report import __main__ as report
from quantlab.report import html
from quantlab.report.against import baseline, reference
from quantlab.report.summaries import summaries
from quantlab.util.errors import ConfigError

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def other(quant, cell_id, library=None, heard="hqq_int4", **changes):
    """A cell with the format of HQQ's three bits, of another quantizer, with the texts of `heard`."""
    found = result("hqq_int3", cell_id, quant__name=quant, quant__library=library or quant.partition("_")[0], **changes)
    return adding_up(found.model_copy(update={"utterances": result(heard).utterances}))


def hqq(cell_id="hqq", **changes):
    return result("hqq_int3", cell_id, **changes)


def named(*results, name="hqq"):
    """Cell id → reference, for those that have one."""
    found = find_references([item.record for item in results], name)
    return {cell_id: item.cell_id for cell_id, item in found.items() if item.cell_id is not None}


def write(root, *results):
    for item in results:
        storage.write(root, item)
    return root


def errors(found):
    return sum(item.substitutions + item.deletions + item.insertions for item in found.utterances)


# The figures


def published():
    """Row of nano's table in docs/results/lowbit.md → its figures against HQQ: points, interval, p if below 0.001."""
    page = (RESULTS / "lowbit.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`.*?\| (\S+) \[(\S+), (\S+)\], p ([=<]) ([\d.]+) \|$", page, re.M)
    return {quant: ([f.replace("−", "-") for f in figures], sign, p) for quant, *figures, sign, p in rows}


def test_the_published_comparisons_at_equal_bytes_come_out_again(capsys):
    assert report.main(["--root", str(RESULTS / "lowbit.tar.xz"), "--against", "hqq", "--format", "json"]) == 0
    cells = json.loads(capsys.readouterr().out)
    nano = [item for item in cells if item["model"] == "nano" and item["comparison"] and not item["recover"]]
    found = {item["quant"]: item["comparison"] for item in nano}
    expected = published()
    assert (
        set(expected)
        == set(found)
        == {f"{by}_int{bits}" for by in ("rtn", "awq", "gptq") for bits in (4, 3)}
        | {
            "rtn_int2",
            "gptq_int2",
        }
    )
    assert expected["gptq_int3"] == (["-4.14", "-6.17", "-2.12"], "<", "0.001")
    for quant, (figures, sign, p) in expected.items():
        ours = found[quant]
        shown = [100 * value for value in (ours["wer_difference"], *ours["wer_difference_ci95"])]
        assert shown == pytest.approx([float(figure) for figure in figures], abs=0.00501)
        assert ours["p_holm"] < 0.001 if sign == "<" else ours["p_holm"] == pytest.approx(float(p), abs=0.00501)
    [tiny] = [item for item in cells if (item["model"], item["quant"]) == ("tiny_en", "gptq_int3")]
    assert 100 * tiny["comparison"]["wer_difference"] == pytest.approx(-24.26, abs=0.00501)


def test_a_difference_is_that_of_the_counts_and_its_sign_turns(tmp_path):
    three, four = hqq(), other("gptq_int3", "gptq")
    root = write(tmp_path, three, four)
    words = 8 * 320
    forth, back = ({item.cell_id: item for item in summaries(root, against=name)} for name in ("hqq_int3", "gptq_int3"))
    change = forth["gptq"].difference()
    assert change.value == pytest.approx((errors(four) - errors(three)) / words)
    assert [item.verdict for item in forth.values()] == ["better", "reference"]
    assert (forth["gptq"].reference, forth["hqq"].reference) == ("hqq", "hqq")
    assert forth["hqq"].comparison is None
    turned = back["hqq"].difference()
    assert (turned.value, *turned.ci95) == pytest.approx((-change.value, -change.ci95[1], -change.ci95[0]), abs=1e-3)
    assert back["hqq"].verdict == "worse"


def test_it_is_what_a_baseline_with_these_texts_would_give(tmp_path):
    """The same evidence, but for the words, if the unquantized cell had heard what the reference heard."""
    cells = [other("gptq_int3", "gptq"), other("rtn_int3", "rtn", heard="bnb_nf4")]
    disguised = adding_up(result("none", "hqq").model_copy(update={"utterances": hqq().utterances}))
    plain = evidence(stored(write(tmp_path / "plain", disguised, *cells), None, print))
    found = stored(write(tmp_path / "asked", adding_up(hqq()), result("none", "none"), *cells), None, print)
    asked = evidence(found, references=find_references([item.record for item in found], "hqq"))
    for cell_id in ("gptq", "rtn"):
        assert asked[cell_id].comparison == plain[cell_id].comparison
        assert asked[cell_id].splits == plain[cell_id].splits
        assert asked[cell_id].verdict == plain[cell_id].verdict
        assert (asked[cell_id].baseline, plain[cell_id].baseline) == ("none", "hqq")
    assert (asked["none"].verdict, asked["none"].comparison) == (None, None)


def test_the_correction_covers_what_is_compared_and_nothing_else(tmp_path):
    root = write(
        tmp_path, hqq(), result("none", "none"), result("torch_int8", "torch"),
        other("gptq_int3", "gptq"), other("rtn_int3", "rtn", heard="quanto_int8_static"),
    )  # fmt: skip
    found = {item.cell_id: item.comparison for item in summaries(root, against="hqq") if item.comparison}
    assert set(found) == {"gptq", "rtn"}
    low, high = sorted(found.values(), key=lambda item: item.p)
    assert low.p_holm == pytest.approx(min(1, 2 * low.p))
    assert high.p_holm == pytest.approx(max(high.p, low.p_holm))
    [alone] = summaries(root, ["gptq"], against="hqq")  # its reference is found below the root
    assert alone.reference == "hqq"
    assert alone.baseline == "none"
    assert alone.comparison.p_holm == alone.comparison.p == found["gptq"].p


def test_a_reference_without_text_is_named_and_compared_with_nothing(tmp_path):
    root = write(tmp_path, hqq(), other("gptq_int3", "gptq"))
    (root / "cells" / "hqq" / "utterances.jsonl").unlink()
    said = []
    found = {item.cell_id: item for item in summaries(root, against="hqq", on_unreadable=said.append)}
    assert [item.verdict for item in found.values()] == [None, None]
    assert len(said) == 1


# Which cell is the reference


@pytest.mark.parametrize(
    "changes",
    [
        {"quant__bits": 4},
        {"quant__group_size": 32},
        {"quant__group_size": None},
        {"quant__head": True},
        {"quant__skip": ["*.k_proj"]},
        {"quant__target": "decoder"},
    ],
)
def test_a_library_is_met_at_equal_bits_groups_and_modules_and_a_quantizer_anywhere(changes):
    cells = [hqq(), other("gptq_int3", "gptq", **changes)]
    assert named(*cells) == {"hqq": "hqq"}
    assert named(*cells, name="hqq_int3") == {"hqq": "hqq", "gptq": "hqq"}
    assert named(hqq(**changes), cells[1]) == {"hqq": "hqq", "gptq": "hqq"}


@pytest.mark.parametrize("name", ["hqq", "hqq_int3"])
@pytest.mark.parametrize(
    "changes",
    [
        {"model": "tiny"},
        {"device": "cuda"},
        {"dataset__limit": 40},
        {"dataset__noise": {"kind": "white", "snr_db": 10.0}},
        {"protocol__batch_size": 1},
        {"runtime__name": "compiled"},
        {"calibration__source": "disjoint"},
    ],
)
def test_whatever_else_differs_there_is_no_reference(name, changes):
    assert named(hqq(), other("gptq_int3", "gptq", **changes), name=name) == {"hqq": "hqq"}


@pytest.mark.parametrize("changes", [{"calibration__fraction": 0.2}, {"quant__recover": "scales"}, {"quant__axis": 0}])
def test_calibration_recovery_and_the_quantizer_s_own_settings_may_differ(changes):
    assert named(hqq(), other("gptq_int3", "gptq", **changes)) == {"hqq": "hqq", "gptq": "hqq"}


def test_a_record_from_before_a_key_has_its_default():
    older = hqq()
    config = older.record.config | {"quant": older.record.config["quant"] | {"embedding": False, "skip": None}}
    older = older.model_copy(update={"record": older.record.model_copy(update={"config": config})})
    assert named(older, other("gptq_int3", "gptq")) == {"hqq": "hqq", "gptq": "hqq"}


def test_every_format_of_a_library_has_a_reference_of_its_own():
    cells = [hqq("hqq3"), hqq("hqq4", quant__name="hqq_int4", quant__bits=4), other("gptq_int3", "gptq3")]
    cells += [other("gptq_int4", "gptq4", quant__bits=4.0), result("none", "none")]
    assert named(*cells) == {"hqq3": "hqq3", "hqq4": "hqq4", "gptq3": "hqq3", "gptq4": "hqq4"}
    assert named(*cells, name="hqq_int3") == dict.fromkeys(["hqq3", "hqq4", "gptq3", "gptq4", "none"], "hqq3")


def test_of_several_the_one_with_the_same_calibration_data_is_chosen():
    gptq = [other("gptq_int3", f"gptq{seed}", seed=seed) for seed in (0, 1)]
    more = other("gptq_int3", "more", calibration__fraction=0.2)
    trained = other("gptq_int3", "trained", calibration__fraction=0.2, quant__recover="scales")
    recipe = other("recipe", "recipe", seed=1)
    found = named(*gptq, more, trained, recipe, name="gptq_int3")
    assert found == {"gptq0": "gptq0", "gptq1": "gptq1", "more": "more", "trained": "more", "recipe": "gptq1"}


@pytest.mark.parametrize("name", ["hqq", "hqq_int3"])
def test_of_two_that_fit_none_is_chosen_and_both_are_named(name):
    cells = [hqq("a", calibration__fraction=0.2), hqq("b", calibration__fraction=0.3), other("gptq_int3", "gptq")]
    found = find_references([item.record for item in cells], name)
    assert {cell: item.cell_id for cell, item in found.items()} == {"a": "a", "b": "b", "gptq": None}
    why = found["gptq"].missing
    assert re.fullmatch(rf"2 cells of {name} fit, and none is chosen: .*fraction=0\.2.*, .*fraction=0\.3.*", why)


def test_a_trained_cell_is_the_reference_only_where_no_other_is():
    trained = hqq("trained", quant__recover="scales")
    assert named(hqq(), trained, other("gptq_int3", "gptq")) == {"hqq": "hqq", "trained": "hqq", "gptq": "hqq"}
    assert named(trained, other("gptq_int3", "gptq")) == {"trained": "trained", "gptq": "trained"}


def test_what_was_not_measured_is_no_reference():
    bad = bad_result("failed", "why", "hqq_int3", "bad")
    alike = {"fingerprints": hqq().record.fingerprints}
    bad = bad.model_copy(update={"record": bad.record.model_copy(update=alike)})
    assert named(bad, hqq(), other("gptq_int3", "gptq")) == {"bad": "hqq", "hqq": "hqq", "gptq": "hqq"}
    with pytest.raises(ConfigError, match="no measured cell"):
        named(bad, other("gptq_int3", "gptq"))


# What is refused


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hqq_int5", "did you mean 'hqq_int3'"),
        ("HQQ", "did you mean 'hqq'?"),
        ("ct2", "allowed: gptq, gptq_int3, hqq, hqq_int3"),  # known, and not in these records
        ("", "no measured cell"),
        ("a\nb", r"'a\nb'"),
        ("none", "leave it out"),
    ],
)
def test_a_name_without_cells_is_one_line_that_says_which_are_there(name, said, tmp_path, capsys):
    root = write(tmp_path, hqq(), result("none", "none"), other("gptq_int3", "gptq"))
    assert report.main(["--root", str(root), "--against", name]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def test_without_records_there_is_nothing_to_compare_with(tmp_path, capsys):
    assert report.main(["--root", str(tmp_path), "--against", "hqq"]) == 1
    assert "no records" in capsys.readouterr().err


# What is shown


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    """Four cells; GPTQ was timed in turns with the unquantized one, and takes half its time."""
    speed = Speed(ratio=0.5, ci95=(0.49, 0.51), converged=True, blocks=12, verdict="faster")
    gptq = other("gptq_int3", "gptq")
    gptq = gptq.model_copy(update={"record": gptq.record.model_copy(update={"speed": speed})})
    return write(tmp_path_factory.mktemp("timed"), hqq(), result("none", "none"), result("bnb_nf4", "bnb"), gptq)


def printed(root, capsys, *arguments):
    assert report.main(["--root", str(root), *arguments]) == 0
    return capsys.readouterr().out


def test_the_table_has_the_difference_its_interval_p_and_against_what(timed, capsys):
    shown = printed(timed, capsys, "--against", "hqq")
    row = next(line for line in shown.splitlines() if "gptq_int3" in line)
    assert re.search(r"−[\d.]+ \[−[\d.]+, −[\d.]+\] +(< )?0\.\d{3} +better +ok", row)
    assert "against hqq," in shown
    assert "\ncompared with: nano-hqq_int3-cpu: nano-gptq_int3-cpu\n" in shown
    without = "nano-none-cpu, nano-bnb_nf4-cpu: no measured cell of hqq has the same bits, groups and modules"
    assert f"no verdict: {without}" in shown
    assert re.search(r"hqq_int3 .* reference +ok", shown)
    assert "against" not in printed(timed, capsys)


def test_documents_say_what_is_compared_with_what_and_times_stay_relative_to_fp32(timed, capsys):
    shown = printed(timed, capsys, "--against", "hqq_int3", "--format", "markdown")
    assert "| WER against hqq\\_int3 |" in shown.replace("hqq_int3", "hqq\\_int3")
    assert "WER increase against hqq" in shown
    assert "Compared with hqq" in shown
    assert "size and time ×base are relative to the unquantized cell" in shown
    assert "0.50 [0.49, 0.51] faster" in shown
    assert re.search(r"0\.50 × fp32 \[0\.49, 0\.51\] \(faster\)", shown)
    assert "against the baseline" not in shown
    assert "against hqq" in printed(timed, capsys, "--against", "hqq_int3", "--format", "latex").replace("\\", "")


def test_data_have_the_reference_and_keep_the_baseline(timed, capsys):
    cells = json.loads(printed(timed, capsys, "--against", "hqq", "--format", "json"))
    found = {item["cell_id"]: item for item in cells}
    assert found["gptq"]["against"] == {"name": "hqq", "cell_id": "hqq", "missing": None}
    assert (found["gptq"]["baseline"], found["gptq"]["verdict"]) == ("none", "better")
    assert found["bnb"]["against"]["cell_id"] is None
    assert "no measured cell of hqq" in found["bnb"]["against"]["missing"]
    text = printed(timed, capsys, "--against", "hqq", "--format", "csv")
    rows = {row["cell_id"]: row for row in csv.DictReader(io.StringIO(text))}
    assert (rows["gptq"]["against.name"], rows["gptq"]["against.cell_id"]) == ("hqq", "hqq")
    change = found["gptq"]["comparison"]["wer_difference"]
    assert float(rows["gptq"]["comparison.wer_difference"]) == change < 0
    frame = summaries(timed, against="hqq").to_dataframe().set_index("cell_id")
    assert frame.loc["gptq", "wer_difference"] == change
    assert set(frame["against"]) == {"hqq"}
    assert {item.cell_id: item.ratio and item.ratio.value for item in summaries(timed, against="hqq")} == {
        "none": 1.0, "gptq": 0.5, "hqq": None, "bnb": None,
    }  # fmt: skip


def test_the_page_names_both_and_calls_nothing_harmless(timed):
    rows = summaries(timed, against="hqq_int3")
    assert (reference(rows), baseline(rows)) == ("hqq_int3", "fp32")
    shown = re.sub(r"<script.*?</script>", "", html.page(rows), flags=re.S)
    for text in ("Is it worse than hqq_int3?", "against hqq_int3", "time / fp32", "Compared with nano-hqq_int3-cpu"):
        assert text in shown
    assert "time / hqq" not in shown
    assert "without loss of accuracy" not in shown.lower()
    assert "without loss of accuracy" in html.page(summaries(timed)).lower()
