import io
import json

import pandas
import pytest

from helpers.compared import changed
from helpers.synthetic import adding_up, bad_result, grid, result
from quantlab.records import storage
from quantlab.records.schema import Problem
from quantlab.report import flat, study
from quantlab.report.html import page
from quantlab.report.recommend import Limits, recommend
from quantlab.report.summaries import Summaries, summaries, summary
from quantlab.util.errors import ConfigError

# The keys of JSON, in their order: what programs rely on.
CELL_KEYS = (
    "cell_id status reason weights quant library bits format scheme activations granularity group_size symmetric "
    "double_quant axis backend recover target skip head embedding device threads runtime audio_ctx dtype noise_kind "
    "snr_db long language protocol batch_size seed model checkpoint dataset corpus size_bytes size_reduction "
    "embedding_bytes params bits_per_weight bytes_per_token bit_ops_per_s splits wer wer_ci95 cer cer_ci95 baseline "
    "verdict no_baseline against comparison adaptive normaliser error_unit scorer nonspeech_words_per_min "
    "nonspeech_words_per_min_ci95 nonspeech_comparison "
    "no_regression hidden loops_inserted_share keywords streaming load_s features_s "
    "quantize_s calibrate_s first_inference_s compile_s recover_s warmup_s measure_s word_times_s total_s cold_start_s "
    "engine_stages speed fixed_work compilation noise energy_j energy_source peak_memory_bytes peak_reserved_bytes "
    "gpu_process_bytes receipt environment fingerprints problems created_at config published rtf rtf_ci95 model_path"
).split()
COUNT_KEYS = (
    "utterances audio_s generate_s tokens rtf tokens_per_s rtf_ci95 latency_p50_s latency_p90_s latency_p99_s wer cer "
    "substitutions deletions insertions hits ref_words char_errors ref_chars empty_share loop_share loops loop_errors "
    "loop_insertions burst_share bursts burst_words nonspeech_s nonspeech_words nonspeech_words_per_min keywords "
    "word_times"
).split()
SPLIT_EVIDENCE_KEYS = (
    "wer_ci95 cer_ci95 ci_unit ci_units wer_difference wer_difference_ci95 cer_difference cer_difference_ci95 "
    "nonspeech_words_per_min_ci95 word_times_against_baseline"
).split()
COMPARISON_KEYS = (
    "wer_difference wer_difference_ci95 cer_difference cer_difference_ci95 p p_holm p_mapsswe z_mapsswe mde "
    "noninferior margin unit units utterances"
).split()
PUBLISHED_KEYS = "source where metric split unit value published measured ci95 verdict reason".split()
RECEIPT_KEYS = "modules_total modules_quantized bytes_by_dtype baseline_bytes verified problems".split()


def test_json_has_every_key_of_the_interface_in_its_order(tmp_path):
    for index, quant in enumerate(("none", "torch_int8")):
        storage.write(tmp_path, result(quant, f"c{index}", model="small", dataset__name="librispeech"))
    baseline, found = json.loads(summaries(tmp_path).to_json())
    assert list(found) == CELL_KEYS
    assert list(found["checkpoint"]) == ["name", "fingerprint", "original"]
    assert list(found["corpus"]) == ["name", "fingerprint"]
    assert {tuple(split) for split in found["splits"].values()} == {(*COUNT_KEYS, *SPLIT_EVIDENCE_KEYS)}
    assert list(found["comparison"]) == COMPARISON_KEYS
    assert {tuple(item) for item in baseline["published"]} == {tuple(PUBLISHED_KEYS)}
    assert list(found["receipt"]) == RECEIPT_KEYS


def test_figures_over_all_splits_are_those_of_the_raw_lines(tmp_path):
    folder = storage.write(tmp_path, adding_up(result("hqq_int3", "a")))
    heard, calls = ([json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
                    for name in ("utterances", "batches"))  # fmt: skip
    [found] = json.loads(summaries(tmp_path).to_json())
    errors = sum(item["substitutions"] + item["deletions"] + item["insertions"] for item in heard)
    assert found["wer"] == errors / sum(len(item["reference"].split()) for item in heard)
    assert found["cer"] == sum(i["char_errors"] for i in heard) / sum(len(i["reference"]) for i in heard)
    [cell] = summaries(tmp_path)
    rtf = sum(item["elapsed_s"] for item in calls) / sum(item["audio_s"] for item in calls)
    assert cell.rtf.value == pytest.approx(rtf)
    assert [cell.wer.value, cell.cer.value] == [found["wer"], found["cer"]]
    assert list(cell.wer.ci95) == found["wer_ci95"]


def test_a_summary_tells_the_record_s_figures():
    found = summary(result("hqq_int4").record).to_dict()
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
    found = summary(bad_result(status, "why").record).to_dict()
    assert list(found) == CELL_KEYS
    assert (found["status"], found["reason"]) == (status, "why")
    for key in "size_bytes size_reduction params load_s quantize_s calibrate_s peak_memory_bytes receipt".split():
        assert found[key] is None
    assert found["splits"] == {}


def test_a_calibration_that_did_not_run_is_null_and_the_baseline_s_reduction_is_zero():
    found = summary(result("none").record).to_dict()
    assert found["calibrate_s"] is None
    assert found["size_reduction"] == 0


def test_the_baseline_comes_first_and_fewer_bits_later(tmp_path):
    for cell_id, quant in enumerate(("hqq_int3", "hqq_int4", "none")):
        storage.write(tmp_path, result(quant, str(cell_id)))
    assert [item.settings.quant for item in summaries(tmp_path)] == ["none", "hqq_int4", "hqq_int3"]


def stored(root, *quants):
    for quant in quants:
        storage.write(root, result(quant, quant))
    return {item.cell_id: item.to_dict() for item in summaries(root)}


def test_a_summary_tells_its_evidence(tmp_path):
    found = stored(tmp_path, "none", "hqq_int3")["hqq_int3"]
    assert (found["baseline"], found["verdict"], found["normaliser"]) == ("none", "worse", "whisper")
    assert found["wer"] == pytest.approx((found["splits"]["clean"]["wer"] + found["splits"]["other"]["wer"]) / 2)
    assert found["wer_ci95"][0] < found["wer"] < found["wer_ci95"][1]
    for split in found["splits"].values():
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
def test_a_record_by_itself_has_the_same_keys_and_no_evidence(make):
    alone = summary(make()).to_dict()
    assert list(alone) == CELL_KEYS
    assert (alone["baseline"], alone["verdict"], alone["comparison"], alone["wer_ci95"]) == (None,) * 4
    for split in alone["splits"].values():
        assert {split[key] for key in SPLIT_EVIDENCE_KEYS} == {None}


def test_the_cells_asked_for_in_that_order_with_a_baseline_from_elsewhere(tmp_path):
    everything = stored(tmp_path, "none", "hqq_int3", "bnb_nf4", "torch_int8")
    few = summaries(tmp_path, ["torch_int8", "hqq_int3", "gone"])
    assert [item.cell_id for item in few] == ["torch_int8", "hqq_int3"]
    assert [item.baseline for item in few] == ["none", "none"]
    comparison = everything["hqq_int3"]["comparison"]
    assert comparison["p_holm"] == pytest.approx(few[1].comparison.p_holm * 3 / 2)  # the smallest of two, of three
    assert comparison["p"] == few[1].comparison.p


def test_the_margin_can_be_given_in_points(tmp_path):
    stored(tmp_path, "none", "torch_int8")
    assert [item.verdict for item in summaries(tmp_path)] == ["baseline", "tied"]
    assert [item.verdict for item in summaries(tmp_path, margin=0.01)] == ["baseline", "underpowered"]


def test_raw_files_that_cannot_be_read_are_named_and_cost_the_evidence_only(tmp_path):
    stored(tmp_path, "none", "hqq_int3")
    (tmp_path / "cells" / "hqq_int3" / "utterances.jsonl").write_text("{")
    problems: list[str] = []
    found = summaries(tmp_path, on_unreadable=problems.append)[1]
    assert (found.verdict, found.wer.ci95, found.baseline) == (None, None, "none")
    assert len(problems) == 1


def test_an_unreadable_record_is_named_and_the_rest_shown(tmp_path):
    storage.write(tmp_path, result("none", "a1"))
    (storage.write(tmp_path, result("hqq_int4", "b2")) / "record.json").write_text("{")
    problems: list[str] = []
    assert [item.cell_id for item in summaries(tmp_path, on_unreadable=problems.append)] == ["a1"]
    assert len(problems) == 1
    assert "b2" in problems[0]


def test_what_a_kill_left_is_no_cell(tmp_path):
    folder = storage.write(tmp_path, result("none", "a1"))
    folder.rename(folder.with_name(".a1.0123abcd.old"))
    (tmp_path / "cells" / "logs").mkdir()
    assert summaries(tmp_path) == ()


def test_json_is_strict_and_survives_any_terminal():
    found = summary(bad_result("failed", "line\u2028break – ü").record)
    text = Summaries([found]).to_json()
    assert text.isascii()
    assert json.loads(text)[0]["reason"] == "line\u2028break – ü"
    with pytest.raises(ValueError, match="not JSON compliant"):
        Summaries([changed(found, energy_j=float("nan"))]).to_json()


def test_a_corpus_with_noise_is_another_corpus():
    plain, noisy = (
        summary(result("none", dataset__noise=noise).record)
        for noise in ({"kind": None, "snr_db": None}, {"kind": "white", "snr_db": 10.0})
    )
    assert [item.dataset for item in (plain, noisy)] == ["demo", "demo+white10dB"]
    assert (noisy.settings.noise_kind, noisy.settings.snr_db) == ("white", 10.0)
    assert len(study.groups([plain, noisy])) == 2


def test_problems_are_named_with_what_is_wrong_and_whether_they_were_measured():
    problem = Problem(utterance="a.wav", split="clean", kind="silence", detail="all samples are 0", measured=True)
    assert summary(result("none").record.model_copy(update={"problems": (problem,)})).to_dict()["problems"] == [
        {"id": "a.wav", "split": "clean", "kind": "silence", "what": "silence: all samples are 0", "measured": True}
    ]


def test_a_record_from_before_problems_were_measured_says_that_they_were_not():
    old = {"utterance": "a.wav", "split": "clean", "kind": "unreadable", "detail": "no such file"}
    assert Problem.model_validate(old).measured is False


def test_cells_of_several_roots_are_compared_with_a_baseline_in_another(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    storage.write(one, result("none", "none"))
    for quant in ("hqq_int3", "torch_int8"):
        storage.write(other, result(quant, quant))
    for quant in ("none", "hqq_int3", "torch_int8"):
        storage.write(tmp_path / "all", result(quant, quant))
    found = summaries([one, str(other)])
    assert found.to_json() == summaries(tmp_path / "all").to_json()
    assert [item.root for item in found] == [one, other, other]
    assert summaries([other, one], ["hqq_int3"])[0].baseline == "none"
    assert page(found)
    assert recommend([one, other], Limits(max_wer_increase=5)).best is not None


def test_a_cell_that_two_roots_hold_is_there_once_and_must_be_the_same(tmp_path):
    roots = [tmp_path / "one", tmp_path / "other"]
    for root in roots:
        storage.write(root, result("none", "none"))
    assert len(summaries(roots)) == 1
    storage.write(roots[1], result("none", "none", minute=5))
    with pytest.raises(ConfigError, match=f"none.*{roots[0]}.*{roots[1]}"):
        summaries(roots)


def test_a_data_frame_has_a_row_per_cell_and_flat_columns(tmp_path):
    grid(tmp_path)
    cells = summaries(tmp_path)
    found = cells.to_dataframe()
    assert list(found["cell_id"]) == [cell.cell_id for cell in cells]
    assert found["label"].is_unique
    wanted = "label model quant device verdict wer wer_ci95.low rtf splits.clean.wer splits.clean.wer_ci95.high"
    assert set(wanted.split()) <= set(found)
    written = pandas.read_csv(io.StringIO(flat.render(cells)))
    shared = sorted(set(written) & set(found.select_dtypes("number")))
    assert len(shared) > 20
    pandas.testing.assert_frame_equal(found[shared], written[shared], check_dtype=False)
    row = found[found["quant"] == "hqq_int3"].iloc[0]
    assert row["rtf"] == pytest.approx((0.0219 + 0.02409) / 2)
    assert not Summaries().to_dataframe().size
