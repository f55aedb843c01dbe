import json

import pytest
from synthetic import bad_result, result

from quantlab.records import storage
from quantlab.records.schema import Problem
from quantlab.report import study
from quantlab.report.rows import row, rows, to_json

CELL_KEYS = (
    "cell_id status reason model weights quant library bits scheme device runtime dataset seed size_bytes "
    "size_reduction params splits load_s quantize_s calibrate_s peak_memory_bytes receipt environment"
).split()
SPLIT_KEYS = (
    "wer cer substitutions deletions insertions ref_words utterances audio_s generate_s rtf rtf_ci95 tokens_per_s "
    "latency_p50_s empty_share loop_share"
).split()
RECEIPT_KEYS = "modules_total modules_quantized bytes_by_dtype verified".split()


def test_a_row_has_every_key_of_the_interface():
    found = row(result("hqq_int4").record)
    assert set(CELL_KEYS) <= set(found)
    assert set(found["splits"]) == {"clean", "other"}
    for split in found["splits"].values():
        assert set(SPLIT_KEYS) <= set(split)
    assert set(RECEIPT_KEYS) <= set(found["receipt"])


def test_a_row_tells_the_record_s_figures():
    found = row(result("hqq_int4").record)
    assert (found["model"], found["quant"], found["library"], found["bits"]) == ("nano", "hqq_int4", "hqq", 4)
    assert (found["scheme"], found["group_size"], found["device"], found["seed"]) == ("weight-only", 64, "cpu", 0)
    assert found["size_bytes"] == round(13_100_000 * 0.31)
    assert found["size_reduction"] == pytest.approx(0.69)
    clean = found["splits"]["clean"]
    assert clean["rtf"] == pytest.approx(clean["generate_s"] / clean["audio_s"])
    assert clean["wer"] == (clean["substitutions"] + clean["deletions"] + clean["insertions"]) / clean["ref_words"]
    assert found["receipt"]["verified"] is True
    assert "modules" not in found["receipt"]


@pytest.mark.parametrize("status", ["failed", "unsupported", "oom", "timeout"])
def test_what_does_not_exist_is_null_and_the_keys_stay(status):
    found = row(bad_result(status, "why").record)
    assert set(CELL_KEYS) <= set(found)
    assert (found["status"], found["reason"]) == (status, "why")
    for key in "size_bytes size_reduction params load_s quantize_s calibrate_s peak_memory_bytes receipt".split():
        assert found[key] is None
    assert found["splits"] == {}


def test_a_calibration_that_did_not_run_is_null_and_the_baseline_s_reduction_is_zero():
    found = row(result("none").record)
    assert found["calibrate_s"] is None
    assert found["size_reduction"] == 0


def test_the_baseline_comes_first_and_fewer_bits_later(tmp_path):
    for cell_id, quant in enumerate(("hqq_int3", "hqq_int4", "none")):
        storage.write(tmp_path, result(quant, str(cell_id)))
    assert [item["quant"] for item in rows(tmp_path)] == ["none", "hqq_int4", "hqq_int3"]


EVIDENCE_KEYS = "baseline verdict wer wer_ci95 cer cer_ci95 comparison normaliser".split()
COMPARISON_KEYS = (
    "wer_difference wer_difference_ci95 cer_difference cer_difference_ci95 p p_holm p_mapsswe z_mapsswe mde "
    "noninferior margin unit units utterances"
).split()
SPLIT_EVIDENCE_KEYS = "wer_ci95 cer_ci95 wer_difference wer_difference_ci95 cer_difference cer_difference_ci95".split()


def stored(root, *quants):
    for quant in quants:
        storage.write(root, result(quant, quant))
    return {item["cell_id"]: item for item in rows(root)}


def test_a_row_tells_its_evidence(tmp_path):
    found = stored(tmp_path, "none", "hqq_int3")["hqq_int3"]
    assert set(EVIDENCE_KEYS) <= set(found)
    assert set(COMPARISON_KEYS) == set(found["comparison"])
    assert (found["baseline"], found["verdict"], found["normaliser"]) == ("none", "worse", "whisper")
    assert found["wer"] == pytest.approx((found["splits"]["clean"]["wer"] + found["splits"]["other"]["wer"]) / 2)
    assert found["wer_ci95"][0] < found["wer"] < found["wer_ci95"][1]
    for split in found["splits"].values():
        assert set(SPLIT_EVIDENCE_KEYS) <= set(split)
        assert isinstance(split["wer_difference_ci95"], list)


def test_the_baseline_has_intervals_and_no_difference_to_itself(tmp_path):
    found = stored(tmp_path, "none")["none"]
    assert (found["baseline"], found["verdict"], found["comparison"]) == ("none", "baseline", None)
    assert found["wer_ci95"] is not None
    assert found["splits"]["clean"]["wer_ci95"] is not None
    assert found["splits"]["clean"]["wer_difference"] is None


def test_without_a_baseline_there_is_no_verdict(tmp_path):
    found = stored(tmp_path, "hqq_int3")["hqq_int3"]
    assert (found["baseline"], found["verdict"], found["comparison"]) == (None, None, None)
    assert found["wer_ci95"] is not None


@pytest.mark.parametrize("make", [lambda: result("hqq_int4").record, lambda: bad_result("oom", "why").record])
def test_a_record_by_itself_has_the_same_keys_and_no_evidence(tmp_path, make):
    alone = row(make())
    stored(tmp_path, "none")
    assert set(alone) == set(rows(tmp_path)[0])
    assert (alone["baseline"], alone["verdict"], alone["comparison"], alone["wer_ci95"]) == (None,) * 4
    for split in alone["splits"].values():
        assert {split[key] for key in SPLIT_EVIDENCE_KEYS} == {None}


def test_the_cells_asked_for_in_that_order_with_a_baseline_from_elsewhere(tmp_path):
    everything = stored(tmp_path, "none", "hqq_int3", "bnb_nf4", "torch_int8")
    few = rows(tmp_path, ["torch_int8", "hqq_int3", "gone"])
    assert [item["cell_id"] for item in few] == ["torch_int8", "hqq_int3"]
    assert [item["baseline"] for item in few] == ["none", "none"]
    p_holm = [item["comparison"]["p_holm"] for item in (few[1], everything["hqq_int3"])]
    assert p_holm[1] == pytest.approx(p_holm[0] * 3 / 2)  # the smallest of two, of three
    assert few[1]["comparison"]["p"] == everything["hqq_int3"]["comparison"]["p"]


def test_the_margin_can_be_given_in_points(tmp_path):
    stored(tmp_path, "none", "torch_int8")
    assert [item["verdict"] for item in rows(tmp_path)] == ["baseline", "tied"]
    assert [item["verdict"] for item in rows(tmp_path, margin=0.01)] == ["baseline", "underpowered"]


def test_raw_files_that_cannot_be_read_are_named_and_cost_the_evidence_only(tmp_path):
    stored(tmp_path, "none", "hqq_int3")
    (tmp_path / "cells" / "hqq_int3" / "utterances.jsonl").write_text("{")
    problems: list[str] = []
    found = rows(tmp_path, on_unreadable=problems.append)[1]
    assert (found["verdict"], found["wer_ci95"], found["baseline"]) == (None, None, "none")
    assert found["wer"] is not None
    assert len(problems) == 1


def test_an_unreadable_record_is_named_and_the_rest_shown(tmp_path):
    storage.write(tmp_path, result("none", "a1"))
    (storage.write(tmp_path, result("hqq_int4", "b2")) / "record.json").write_text("{")
    problems: list[str] = []
    assert [item["cell_id"] for item in rows(tmp_path, on_unreadable=problems.append)] == ["a1"]
    assert len(problems) == 1
    assert "b2" in problems[0]


def test_what_a_kill_left_is_no_row(tmp_path):
    folder = storage.write(tmp_path, result("none", "a1"))
    folder.rename(folder.with_name(".a1.0123abcd.old"))
    (tmp_path / "cells" / "logs").mkdir()
    assert rows(tmp_path) == []


def test_json_is_strict_and_survives_any_terminal():
    found = row(bad_result("failed", "line\u2028break – ü").record)
    text = to_json([found])
    assert text.isascii()
    assert json.loads(text)[0]["reason"] == "line\u2028break – ü"
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json([found | {"size_bytes": float("nan")}])


def test_a_corpus_with_noise_is_another_corpus():
    plain, noisy = (
        row(result("none", dataset__noise=noise).record)
        for noise in ({"kind": None, "snr_db": None}, {"kind": "white", "snr_db": 10.0})
    )
    assert [item["dataset"] for item in (plain, noisy)] == ["demo", "demo+white10dB"]
    assert (noisy["noise_kind"], noisy["snr_db"]) == ("white", 10.0)
    assert len(study.groups([plain, noisy])) == 2


def test_problems_are_named_with_what_is_wrong_and_whether_they_were_measured():
    problem = Problem(utterance="a.wav", split="clean", kind="silence", detail="all samples are 0", measured=True)
    assert row(result("none").record.model_copy(update={"problems": (problem,)}))["problems"] == [
        {"id": "a.wav", "split": "clean", "kind": "silence", "what": "silence: all samples are 0", "measured": True}
    ]


def test_a_record_from_before_problems_were_measured_says_that_they_were_not():
    old = {"utterance": "a.wav", "split": "clean", "kind": "unreadable", "detail": "no such file"}
    assert Problem.model_validate(old).measured is False
