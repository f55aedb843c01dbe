import json

import pytest
from synthetic import bad_result, result

from quantlab import record
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
        record.write(tmp_path, result(quant, str(cell_id)))
    assert [item["quant"] for item in rows(tmp_path)] == ["none", "hqq_int4", "hqq_int3"]


def test_an_unreadable_record_is_named_and_the_rest_shown(tmp_path):
    record.write(tmp_path, result("none", "a1"))
    (record.write(tmp_path, result("hqq_int4", "b2")) / "record.json").write_text("{")
    problems: list[str] = []
    assert [item["cell_id"] for item in rows(tmp_path, on_unreadable=problems.append)] == ["a1"]
    assert len(problems) == 1
    assert "b2" in problems[0]


def test_what_a_kill_left_is_no_row(tmp_path):
    folder = record.write(tmp_path, result("none", "a1"))
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
