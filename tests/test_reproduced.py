"""Each verdict on a published figure, and each reason, by hand."""

import json
from dataclasses import replace

import pytest

from helpers.compared import changed, compared, split_changed, uncompared
from helpers.synthetic import result
from quantlab.records import storage
from quantlab.report import html, latex, markdown, published, reproduced, table
from quantlab.report.published import Published
from quantlab.report.summaries import summaries
from quantlab.stats.estimate import Estimate

# A source that says everything, and whose figures are round.
SAID = {
    "authors": "A", "title": "T", "where": "a page", "url": "https://example.org", "normaliser": "whisper",
    "scorer": "jiwer", "beams": 1, "timestamps": False, "batch_size": 16, "dtype": "float32",
    "hardware": {"cpu": "a processor", "cuda": "H100"},
}  # fmt: skip
CORPUS = {
    "names": ["speech*"],
    "splits": {"test-clean": {"names": ["clean"], "utterances": 160}, "big": {"names": ["other"], "utterances": 2939}},
}
ITEM = {"source": "a", "where": "Table 1", "model": "small", "quant": "none", "device": "cpu", "corpus": "speech"}


def data(source=None, corpus=None, **item):
    figures = ITEM | {"wer": {"test-clean": "3.1"}} | item
    parts = {"sources": {"a": SAID | (source or {})}, "corpora": {"speech": CORPUS | (corpus or {})}}
    return Published.model_validate(parts | {"figures": [figures]})


def cell(low=0.02, high=0.04, wer=0.03, count=160, **changes):
    """A cell with a WER of 3 % and the interval [2, 4] % in split clean."""
    found = compared("none", **{"model": "small", "dataset__name": "speech"} | changes)
    found = split_changed(found, "clean", wer=wer, cer=0.01, utterances=count)
    return known(found, wer_ci95=(low, high), cer_ci95=(0.005, 0.015), ci_unit="speaker", ci_units=20)


def known(row, **changes):
    """The same with other evidence on split clean."""
    splits = row.evidence.splits | {"clean": replace(row.evidence.splits["clean"], **changes)}
    return replace(row, evidence=replace(row.evidence, splits=splits))


def smaller(row, by):
    """The same with another size."""
    sizes = {"size_bytes": round(1e6 * (1 - by)), "baseline_bytes": 10**6}
    return changed(row, receipt=row.record.receipt.model_copy(update=sizes))


def judged(row, **changes):
    [found] = reproduced.compared(row, data(**changes))
    return found.verdict, found.reason


@pytest.mark.parametrize(
    ("told", "verdict", "reason"),
    [
        ("3.1", "reproduced", "3.1 is inside the 95 % interval by 20 speakers, 2.0 to 4.0"),
        ("4.0", "reproduced", "4.0 is inside the 95 % interval by 20 speakers, 2.0 to 4.0"),
        ("4.01", "not reproduced", "4.01 is above the 95 % interval by 20 speakers, 2.00 to 4.00"),
        ("1.99", "not reproduced", "1.99 is below the 95 % interval by 20 speakers, 2.00 to 4.00"),
        ("1.9", "not reproduced", "1.9 is below the 95 % interval by 20 speakers, 2.0 to 4.0"),
    ],
)
def test_inside_the_interval_or_not(told, verdict, reason):
    assert judged(cell(), wer={"test-clean": told}) == (verdict, reason)


def test_the_ends_are_rounded_as_the_figure_was():
    """5.0 may have been 4.96: an interval that begins at 5.04 holds what was rounded to 5.0."""
    assert judged(cell(low=0.0504, high=0.06), wer={"test-clean": "5.0"})[0] == "reproduced"
    assert judged(cell(low=0.0504, high=0.06), wer={"test-clean": "5.00"})[0] == "not reproduced"


def test_a_figure_in_fractions_is_compared_as_one():
    [found] = reproduced.compared(cell(), data(unit="fraction", wer={"test-clean": "0.0310"}))
    assert (found.value, found.measured, found.unit) == (0.031, Estimate(0.03, (0.02, 0.04)), "fraction")
    assert found.verdict == "reproduced"


def test_cer_has_its_own_interval_and_is_of_any_scorer():
    row = changed(cell(), scorer="kaldialign_compounds")
    assert judged(row, wer={}, cer={"test-clean": "1.2"})[0] == "reproduced"
    assert judged(row, wer={}, cer={"test-clean": "1.6"})[0] == "not reproduced"


@pytest.mark.parametrize(
    ("row", "changes", "reason"),
    [
        (cell(model="small_en"), {}, "other model: small there, small_en here"),
        (cell(), {"mixed": True, "where": "Q5_K_M"}, "mixed formats there (Q5_K_M), one format here (None)"),
        (cell(model__weights="random"), {}, "random weights here"),
        (cell(), {"corpus": {"unknown": "excerpts"}}, "excerpts"),
        (cell(dataset__language="de"), {}, "other language: en there, de here"),
        (changed(cell(), normaliser="basic"), {}, "other normaliser: whisper there, basic here"),
        (changed(cell(), scorer="kaldialign_compounds"), {}, "other scorer: jiwer there, kaldialign_compounds here"),
        (changed(cell(), error_unit="character"), {}, "errors are counted by character here"),
        (cell(protocol__num_beams=5), {}, "other beams: 1 there, 5 here"),
        (cell(), {"source": {"beams": 5}}, "other beams: 5 there, 1 here"),
        (cell(), {"source": {"timestamps": True}}, "decoded with timestamps there, without here"),
        (cell(dataset__long="chunked"), {}, "long recordings are cut here (dataset.long=chunked)"),
        (cell(runtime__audio_ctx="dynamic"), {}, "audio_ctx=dynamic here: not the whole window is encoded"),
        (cell(protocol__max_new_tokens=64), {}, "at most 64 tokens are decoded here"),
        (cell(dataset__limit=16), {}, "part of the corpus: 16 utterances of each split here (dataset.limit)"),
        (cell(dataset__ids=["a", "b"]), {}, "part of the corpus: chosen utterances here (dataset.ids)"),
        (cell(count=161), {}, "161 utterances here, more than the 160 of test-clean: so it is another corpus"),
        (cell(), {"source": {"apart": {"wer": "a mean over utterances"}}}, "a mean over utterances"),
    ],
)  # fmt: skip
def test_what_does_not_compare(row, changes, reason):
    assert judged(row, **changes) == ("not comparable", reason)


def test_all_that_stands_between_is_said():
    row = changed(cell(protocol__num_beams=5), scorer="kaldialign_compounds")
    reason = "other scorer: jiwer there, kaldialign_compounds here; other beams: 1 there, 5 here"
    assert judged(row) == ("not comparable", reason)


@pytest.mark.parametrize("changes", [{"wer_ci95": None}, {"ci_units": 9}])
def test_without_an_interval_nothing_is_judged(changes):
    assert judged(known(cell(), **changes)) == (
        "not comparable",
        "too few speakers or utterances here for an interval: it takes 10",
    )


def test_without_text_there_is_no_error_rate():
    row = split_changed(uncompared("none", model="small", dataset__name="speech"), "clean", wer=None)
    assert judged(row) == ("not comparable", "no error rate here")


def test_a_part_of_the_corpus_says_how_much_it_is():
    interval = "3.1 is inside the 95 % interval by 20 speakers, 2.0 to 4.0"
    assert judged(cell(count=150)) == ("reproduced", f"{interval}; 150 of 160 utterances")
    verdict, reason = judged(cell(), wer={"big": "99.9"})
    assert verdict == "not reproduced"
    assert "; 160 of 2,939 utterances" in reason
    unknown = {"splits": {"test-clean": {"names": ["clean"]}}}
    assert (
        judged(cell(), corpus=unknown)[1] == f"{interval}; 160 utterances here, their number in the source is unknown"
    )


@pytest.mark.parametrize(
    ("row", "source", "said"),
    [
        (cell(device="cuda"), {}, "device: cpu there, cuda here"),
        (cell(runtime__dtype="float16"), {}, "what is not quantized is float32 there, float16 here"),
        (cell(model__path="/somewhere"), {}, "the checkpoint of model.path is assumed to be small"),
        (cell(), {"normaliser": None, "timestamps": None}, "not stated by the source: normaliser, timestamps"),
    ],
)
def test_what_is_taken_not_to_matter_is_said(row, source, said):
    interval = "3.1 is inside the 95 % interval by 20 speakers, 2.0 to 4.0"
    assert judged(row, source=source) == ("reproduced", f"{interval}; {said}")


@pytest.mark.parametrize(
    ("told", "verdict", "reason"),
    [
        ("57", "reproduced", "57 % here, to the digit as published"),
        ("57.0", "reproduced", "57.0 % here, to the digit as published"),
        ("57.1", "not reproduced", "57.0 % here, to the digit as published"),
        ("56", "not reproduced", "57 % here, to the digit as published"),
    ],
)
def test_sizes_compare_to_the_digit(told, verdict, reason):
    assert judged(smaller(cell(), 0.57001), wer={}, other={"size_reduction": told}) == (verdict, reason)


def test_sizes_follow_from_the_architecture():
    row = smaller(cell(model__weights="random"), 0.57)
    assert judged(row, wer={}, other={"size_reduction": 57})[0] == "reproduced"
    row = smaller(cell(runtime__dtype="float16"), 0.57)
    what = "what is not quantized is float32 there, float16 here"
    assert judged(row, wer={}, other={"size_reduction": 57}) == ("not comparable", what)


def test_a_checkpoint_of_another_size_than_the_model_of_its_name_is_not_compared():
    """As small.en under the name small, or random weights of another architecture."""
    row = smaller(cell(), 0.57)
    other = changed(row, receipt=row.record.receipt.model_copy(update={"params": row.record.receipt.params - 768}))
    verdict, reason = judged(other, wer={}, other={"size_reduction": 57})
    assert verdict == "not comparable"
    assert reason.startswith("other checkpoint: 241,734,144 parameters here, small has 241,734,912")
    assert judged(other)[0] == "not comparable"


@pytest.mark.parametrize("metric", ["rtf", "rtfx"])
@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("cpu", "a time on another machine: a processor there, a processor here"),
        ("cuda", "a time on other hardware: H100 there, not recorded here"),
        (None, "a time on other hardware: not stated there, a processor here"),
    ],
)
def test_a_time_is_one_of_its_machine(metric, device, reason):
    row = cell(device=device or "cpu")
    [found] = reproduced.compared(row, data(wer={}, device=device, other={metric: "0.1"}))
    assert (found.verdict, found.reason) == ("not comparable", reason)
    parts = row.record.splits.values()
    rtf = sum(part.generate_s for part in parts) / sum(part.audio_s for part in parts)
    assert found.measured.value == pytest.approx(rtf if metric == "rtf" else 1 / rtf)


def test_what_is_not_measured_here():
    [found] = reproduced.compared(cell(), data(wer={}, other={"memory_mib": 3576}))
    assert (found.measured, found.verdict, found.reason) == (None, "not comparable", "not measured here")


# The shipped figures


def shipped(row):
    return {(item.source, item.metric, item.split): item for item in reproduced.compared(row)}


def test_base_of_a_part_of_librispeech():
    found = shipped(cell(model="base", dataset__name="librispeech_dir", low=0.04, high=0.06, wer=0.05))
    verdicts = {key: item.verdict for key, item in found.items() if key[2] == "test-clean" and key[1] == "wer"}
    assert verdicts == {
        ("soehler2025", "wer", "test-clean"): "reproduced",
        ("radford2022", "wer", "test-clean"): "reproduced",
        ("open_asr_leaderboard", "wer", "test-clean"): "not comparable",
        ("transcribe_cpp", "wer", "test-clean"): "not comparable",
    }
    assert "160 of 2,620 utterances" in found["soehler2025", "wer", "test-clean"].reason
    assert found["open_asr_leaderboard", "wer", "test-clean"].reason == "other model: base_en there, base here"


def test_the_leaderboard_before_and_after_its_change_of_scorer():
    row = cell(model="base_en", dataset__name="librispeech", low=0.04, high=0.06, wer=0.05)
    key = ("open_asr_leaderboard", "wer", "test-clean")
    assert shipped(row)[key].verdict == "reproduced"
    assert shipped(changed(row, scorer="kaldialign_compounds"))[key].reason.startswith("other scorer: jiwer there")


def test_andreyev_s_excerpts_and_sizes_do_not_compare():
    row = cell(model="base", dataset__name="librispeech")
    row = changed(row, config=row.record.config | {"quant": {"name": "ggml_q8_0"}})
    found = {key: item for key, item in shipped(row).items() if key[0] == "andreyev2025"}
    assert {item.verdict for item in found.values()} == {"not comparable"}
    assert found["andreyev2025", "wer", "excerpts"].reason == "excerpts of LibriSpeech, which ones is not said"
    assert found["andreyev2025", "size_mb", None].value == 77.99


# Where they are read


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    for index, quant in enumerate(("none", "hqq_int4")):
        storage.write(folder, result(quant, cell_id=f"c{index}", model="small", dataset__name="librispeech"))
    return folder


def test_programs_get_each_with_source_metric_value_verdict_and_reason(root):
    told = json.loads(summaries(root).to_json())
    found = {(item["source"], item["metric"], item["split"]): item for item in told[0]["published"]}
    wer = found["soehler2025", "wer", "test-clean"]
    assert (wer["value"], wer["published"], wer["unit"]) == (3.48, "3.48", "percent")
    assert wer["measured"] == pytest.approx(100 * told[0]["splits"]["clean"]["wer"])
    assert wer["verdict"] in ("reproduced", "not reproduced")
    assert " by 160 utterances, " in wer["reason"]  # six speakers are too few
    assert {item["source"] for item in told[0]["published"]} == {"soehler2025", "radford2022"}


def test_people_read_the_verdict_and_the_reason(root):
    found = summaries(root)
    text = table.text(found)
    low, high = (f"{100 * end:.2f}" for end in found[0].rate("wer", "clean").ci95)
    assert f"reproduced: {found[0].model}-{found[0].settings.quant}-cpu, soehler2025: " in text
    wer = 100 * found[0].rate("wer", "clean").value
    assert f"WER % test-clean 3.48 published and {wer:.2f} [{low}, {high}] here" in text
    assert ": --format markdown, html or json gives the reason" in text
    for written in (markdown.render(found), html.page(found), latex.render(found)):
        assert "Published against measured" in written
        assert "160 of 2,620 utterances" in written
        assert "a time on other hardware: AMD EPYC 9454 there, a processor here" in written


def test_a_grid_without_published_figures_says_nothing_of_them(tmp_path):
    storage.write(tmp_path, result("none"))
    found = summaries(tmp_path)
    assert found[0].published == ()
    assert "published" not in table.text(found)


def test_every_shipped_source_is_one_that_a_cell_can_show():
    assert {item.source for item in published.load().figures} == set(published.load().sources)
