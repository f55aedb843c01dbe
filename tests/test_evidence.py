from dataclasses import replace

import numpy as np
import pytest

from helpers.synthetic import QUANTS, adding_up, bad_result, result
from quantlab.analysis.evidence import evidence
from quantlab.analysis.pairs import find_baselines
from quantlab.records import storage
from quantlab.records.schema import Batch
from quantlab.records.several import stored


def compare(root, results, **options):
    for item in results:
        storage.write(root, adding_up(item) if item.utterances else item)
    return evidence(stored(root, None, print), **options)


def with_utterances(found, change):
    return found.model_copy(update={"utterances": tuple(map(change, found.utterances))})


def by_speaker(found, speakers=20):
    return with_utterances(
        found, lambda item: item.model_copy(update={"speaker": f"{item.split}{int(item.id[1:]) % speakers}"})
    )


def with_silence(found):
    """The same with a split in which nothing is said and something is heard."""
    quiet = found.utterances[0].model_copy(
        update={"id": "room", "split": "silence", "nonspeech": True, "reference": "", "hypothesis": "thank you"}
        | {"substitutions": 0, "deletions": 0, "insertions": 2, "hits": 0, "char_errors": 9, "ref_chars": 0}
    )
    timed = Batch(split="silence", index=0, utterances=1, audio_s=quiet.audio_s, tokens=2, elapsed_s=0.1)
    update = {"utterances": (*found.utterances, quiet), "batches": (*found.batches, timed)}
    return found.model_copy(update=update)


def baseline_of(*results):
    return find_baselines([item.record for item in results])


def test_every_verdict_follows_from_its_interval_and_the_corrected_p(tmp_path):
    found = compare(tmp_path, map(result, QUANTS))
    assert found.pop("cell03").verdict == "baseline"
    assert {item.verdict for item in found.values()} == {"tied", "worse"}
    for item in found.values():
        low, high = item.comparison.wer_difference.ci95
        assert low <= item.comparison.wer_difference.value <= high
        assert (item.comparison.p < 0.05) == (low > 0 or high < 0)
        assert item.comparison.p_holm >= item.comparison.p
        assert (item.verdict == "worse") == (item.comparison.p_holm < 0.05)
        assert item.comparison.noninferior == (high < 0.005)
        assert (item.comparison.p_mapsswe < 0.05) == (item.comparison.p < 0.05)


def test_rates_and_differences_are_those_of_the_records(tmp_path):
    none, nf4 = result("none"), result("bnb_nf4")
    found = compare(tmp_path, [none, nf4])[nf4.record.cell_id]
    for name, split in nf4.record.splits.items():
        ours = found.splits[name]
        assert ours.wer_ci95[0] < split.wer < ours.wer_ci95[1]
        assert ours.cer_ci95[0] < split.cer < ours.cer_ci95[1]
        assert ours.wer_difference.value == pytest.approx(split.wer - none.record.splits[name].wer)
        assert ours.cer_difference.value == pytest.approx(split.cer - none.record.splits[name].cer)
        assert ours.wer_difference.ci95[0] <= ours.wer_difference.value <= ours.wer_difference.ci95[1]
    pooled = [sum(split.wer for split in item.record.splits.values()) / 2 for item in (none, nf4)]
    change = found.comparison.wer_difference.value
    assert change == pytest.approx(pooled[1] - pooled[0])  # as many words in either split
    assert (found.comparison.unit, found.comparison.units, found.comparison.utterances) == ("utterance", 320, 320)
    assert found.splits["clean"].wer_difference.ci95 != found.splits["other"].wer_difference.ci95


def test_what_is_heard_in_silence_is_in_no_comparison(tmp_path):
    cells = [result("none"), result("bnb_nf4")]
    without = compare(tmp_path / "without", cells)["cell00"]
    silent = compare(tmp_path / "with", map(with_silence, cells))["cell00"]
    assert silent.verdict is not None
    assert silent.comparison == without.comparison


def test_speakers_are_drawn_where_there_are_enough(tmp_path):
    found = compare(tmp_path, [by_speaker(result("none")), by_speaker(result("hqq_int3"))])["cell01"]
    assert (found.comparison.unit, found.comparison.units, found.comparison.utterances) == ("speaker", 20, 320)


def test_a_cell_says_the_same_whatever_else_is_recorded_but_for_the_correction(tmp_path):
    alone = compare(tmp_path / "two", [result("none"), result("bnb_nf4")])["cell00"]
    among = compare(tmp_path / "all", map(result, QUANTS))["cell00"]
    assert alone.comparison.wer_difference.ci95 == among.comparison.wer_difference.ci95
    assert alone.comparison.p == among.comparison.p == alone.comparison.p_holm < among.comparison.p_holm


def test_many_cells_in_several_blocks_are_the_same_as_few(tmp_path, monkeypatch):
    few = compare(tmp_path, map(result, QUANTS))
    monkeypatch.setattr("quantlab.stats.rates._MOST", 1)
    assert evidence(stored(tmp_path, None, print)) == few


def test_cells_with_the_same_errors_are_as_each_alone(tmp_path):
    """Also with another margin, and beside one with the same number of errors in other utterances."""
    one = result("hqq_int3")
    strict = result("hqq_int3", "strict", seed=1, stats={"margin": 0.01, "resamples": 10_000})
    moved = result("hqq_int3", "moved", seed=2)
    moved = moved.model_copy(update={"utterances": _errors_moved_on(moved.utterances)})
    alone = [compare(tmp_path / item.record.cell_id, [result("none"), item]) for item in (one, strict, moved)]
    among = compare(tmp_path / "all", [result("none"), one, strict, moved])
    for item, found in zip((one, strict, moved), alone, strict=True):
        mine, other = found[item.record.cell_id], among[item.record.cell_id]
        assert mine.splits == other.splits
        assert (mine.wer_ci95, mine.cer_ci95) == (other.wer_ci95, other.cer_ci95)
        assert replace(mine.comparison, p_holm=1.0) == replace(other.comparison, p_holm=1.0)
    assert among["moved"].wer_ci95 != among[one.record.cell_id].wer_ci95


def _errors_moved_on(utterances):
    """Each utterance with the errors of the one before in its split that is as long, if there is one."""
    found, before = [], {}
    for item in utterances:
        key = item.split, item.hits + item.substitutions + item.deletions
        counts = before.get(key, item)
        names = ("substitutions", "deletions", "insertions", "hits", "char_errors")
        found.append(item.model_copy(update={name: getattr(counts, name) for name in names}))
        before[key] = item
    return tuple(found)


def test_identical_hypotheses_are_tied(tmp_path):
    none = result("none")
    same = result("torch_int8").model_copy(update={"utterances": none.utterances})
    found = compare(tmp_path, [none, same])[same.record.cell_id]
    assert found.verdict == "tied"
    words = 320 * 8
    assert found.comparison.wer_difference.value == 0
    assert found.comparison.wer_difference.ci95 == (-3 / words, 3 / words)  # the rule of three
    assert (found.comparison.p, found.comparison.p_mapsswe, found.comparison.mde) == (1, 1, 0)


def test_identical_hypotheses_of_few_words_show_nothing(tmp_path):
    def shortened(quant):
        found = result(quant)
        return found.model_copy(update={"utterances": result("none").utterances[:40]})

    found = compare(tmp_path, [shortened("none"), shortened("torch_int8")])["cell06"]
    assert found.comparison.wer_difference.ci95[1] == 3 / 320 > 0.005
    assert found.verdict == "underpowered"


def test_one_lucky_word_does_not_exclude_what_was_not_seen(tmp_path):
    """Forty utterances, one of them better by a word and none worse: every resample is at most 0."""

    perfect = {"substitutions": 0, "deletions": 0, "insertions": 0, "hits": 8}
    utterances = [item.model_copy(update=perfect) for item in result("none").utterances[:40]]
    lucky = result("torch_int8").model_copy(update={"utterances": tuple(utterances)})
    utterances[0] = utterances[0].model_copy(update={"substitutions": 1, "hits": 7})
    none = result("none").model_copy(update={"utterances": tuple(utterances)})
    found = compare(tmp_path, [none, lucky])[lucky.record.cell_id]
    assert found.comparison.wer_difference.value == -1 / 320
    assert found.comparison.wer_difference.ci95[1] == 3 / 320
    assert found.verdict == "underpowered"


def test_few_utterances_are_underpowered_however_bad(tmp_path):
    def shortened(quant):
        found = result(quant)
        return found.model_copy(update={"utterances": found.utterances[:9]})

    worse = with_utterances(shortened("bnb_nf4"), lambda item: item.model_copy(update={"substitutions": 8, "hits": 0}))
    found = compare(tmp_path, [shortened("none"), worse])["cell00"]
    assert found.verdict == "underpowered"
    assert found.comparison.wer_difference.value > 0.5
    assert (found.comparison.wer_difference.ci95, found.comparison.p, found.comparison.mde) == (None, 1, None)
    assert found.wer_ci95 is None


def test_every_utterance_worse_by_the_same_is_worse(tmp_path):
    none = result("none")
    worse = with_utterances(none, lambda item: item.model_copy(update={"insertions": 2}))
    worse = worse.model_copy(update={"record": result("bnb_nf4").record})
    found = compare(tmp_path, [none, worse])["cell00"]
    assert found.verdict == "worse"
    assert found.comparison.wer_difference.ci95 == (0.25, 0.25)
    assert found.comparison.z_mapsswe is None  # infinite, which JSON does not know
    assert found.comparison.p_mapsswe == 0


def test_a_reference_without_words_counts_its_insertions_in_pooled_rates_only(tmp_path):
    def silent(item):
        if item.split == "clean":
            return item
        return item.model_copy(
            update={"substitutions": 0, "hits": 0, "insertions": 1, "char_errors": 4, "ref_chars": 0}
        )

    found = compare(tmp_path, [with_utterances(result("none"), silent), with_utterances(result("bnb_nf4"), silent)])
    one = found["cell00"]
    assert one.splits["other"].wer_ci95 is None
    assert one.splits["other"].wer_difference is None
    assert one.splits["clean"].wer_ci95 is not None
    assert one.wer_ci95[0] > 160 / 1280


def test_the_margin_is_the_record_s_own_or_the_one_given_in_points(tmp_path):
    results = [result("none"), result("torch_int8"), result("quanto_int8", stats={"margin": 0.01, "resamples": 2000})]
    found = compare(tmp_path, results)
    assert found["cell06"].comparison.margin == 0.005
    assert (found["cell06"].verdict, found["cell04"].verdict) == ("tied", "underpowered")
    assert found["cell04"].comparison.margin == 0.0001
    given = evidence(stored(tmp_path, None, print), margin=1.0)
    assert {item.comparison.margin for item in given.values() if item.comparison} == {0.01}
    assert given["cell04"].verdict == "tied"


# What cannot be compared.


@pytest.mark.parametrize("status", ["failed", "oom", "timeout", "unsupported"])
def test_what_did_not_end_well_has_a_baseline_and_no_verdict(tmp_path, status):
    bad = bad_result(status, "why")
    bad = bad.model_copy(
        update={"record": bad.record.model_copy(update={"fingerprints": result().record.fingerprints})}
    )
    found = compare(tmp_path, [result("none"), bad])["bad"]
    assert (found.baseline, found.verdict, found.comparison, found.splits) == ("cell03", None, None, {})


def test_random_weights_have_no_text_and_no_verdict(tmp_path):
    def silent(item):
        counts = ("hypothesis", "substitutions", "deletions", "insertions", "hits", "char_errors", "ref_chars", "loop")
        return item.model_copy(update=dict.fromkeys(counts))

    said: list[str] = []
    found = compare(
        tmp_path, [with_utterances(result(quant), silent) for quant in ("none", "bnb_nf4")], warn=said.append
    )
    assert [item.verdict for item in found.values()] == [None, None]
    assert [item.baseline for item in found.values()] == ["cell03", "cell03"]
    assert said == []


@pytest.mark.parametrize("content", [None, "{", '{"id": 1}\n', "[]\n[]\n", '"text"\n'])
def test_raw_files_that_cannot_be_read_are_named(tmp_path, content):
    for quant in ("none", "bnb_nf4", "hqq_int3"):
        storage.write(tmp_path, result(quant))
    broken = tmp_path / "cells" / "cell00" / "utterances.jsonl"
    broken.unlink() if content is None else broken.write_text(content)
    said: list[str] = []
    found = evidence(stored(tmp_path, None, print), warn=said.append)
    assert (found["cell00"].verdict, found["cell00"].wer_ci95) == (None, None)
    assert found["cell01"].verdict == "worse"
    assert len(said) == 1
    assert str(broken) in said[0]


def test_without_the_baseline_s_raw_files_nothing_is_compared(tmp_path):
    for quant in ("none", "bnb_nf4"):
        storage.write(tmp_path, result(quant))
    (tmp_path / "cells" / "cell03" / "utterances.jsonl").unlink()
    found = evidence(stored(tmp_path, None, print))["cell00"]
    assert (found.baseline, found.verdict, found.comparison) == ("cell03", None, None)
    assert found.wer_ci95 is not None


def test_where_an_utterance_is_missing_the_common_ones_are_compared_and_it_is_said(tmp_path):
    none, nf4 = result("none"), result("bnb_nf4")
    fewer = nf4.model_copy(update={"utterances": nf4.utterances[3:][::-1]})
    said: list[str] = []
    found = compare(tmp_path, [none, fewer], warn=said.append)["cell00"]
    kept = [(a, b) for a, b in zip(none.utterances, nf4.utterances, strict=True)][3:]
    by_hand = sum(b.substitutions - a.substitutions for a, b in kept) / (8 * len(kept))
    assert found.comparison.utterances == 317
    assert found.comparison.wer_difference.value == pytest.approx(by_hand)
    assert len(said) == 1
    assert "3 utterances" in said[0]


def test_other_references_are_not_compared(tmp_path):
    other = with_utterances(result("bnb_nf4"), lambda item: item.model_copy(update={"hits": item.hits + 1}))
    said: list[str] = []
    found = compare(tmp_path, [result("none"), other], warn=said.append)["cell00"]
    assert (found.baseline, found.verdict) == ("cell03", None)
    assert len(said) == 1


# Which record is the baseline.


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "tiny"},
        {"device": "cuda"},
        {"seed": 1, "calibration__source": "disjoint"},
        {"seed": 1, "model__weights": "random"},
        {"seed": 1, "protocol__fallbacks": True},
        {"dataset__limit": 40},
        {"protocol__batch_size": 1},
        {"calibration__source": "disjoint"},
    ],
)
def test_a_baseline_that_differs_in_anything_else_is_none(changes):
    assert baseline_of(result("none", "a"), result("bnb_nf4", "b", **changes)) == {"a": "a"}


def test_where_things_lie_makes_no_other_baseline():
    cell = result("bnb_nf4", "b", output_dir="elsewhere", dataset__path="/there", tracking={"name": "off"})
    assert baseline_of(result("none", "a"), cell) == {"a": "a", "b": "a"}


def test_another_corpus_checkpoint_library_or_normaliser_is_another_baseline():
    for update in (
        {"fingerprints": {"checkpoint": "c" * 64, "corpus": "e" * 64}},
        {"environment": {"versions": {"torch": "2.0", "transformers": "5.23.0"}}},
        {"normaliser": "basic"},
    ):
        cell = result("bnb_nf4", "b")
        cell = cell.model_copy(update={"record": cell.record.model_copy(update=update)})
        assert baseline_of(result("none", "a"), cell) == {"a": "a"}


def test_the_quantizer_s_own_library_makes_no_other_baseline():
    cell = result("bnb_nf4", "b")
    versions = cell.record.environment["versions"] | {"bitsandbytes": "0.50"}
    cell = cell.model_copy(update={"record": cell.record.model_copy(update={"environment": {"versions": versions}})})
    assert baseline_of(result("none", "a"), cell)["b"] == "a"


def test_calibration_matters_only_where_it_takes_utterances_away():
    none, static = result("none", "a"), result("quanto_int8_static", "b", calibration__fraction=0.2)
    assert baseline_of(none, static)["b"] == "a"
    disjoint = [
        result(quant, cell_id, calibration={"source": "disjoint", "fraction": fraction})
        for quant, cell_id, fraction in [("none", "a", 0.1), ("none", "b", 0.2), ("quanto_int8_static", "c", 0.2)]
    ]
    assert baseline_of(*disjoint) == {"a": "a", "b": "b", "c": "b"}


def test_a_seed_that_draws_calibration_data_makes_no_other_baseline_but_its_own_comes_first():
    none, drawn = result("none", "a"), result("quanto_int8_static", "b", seed=1)
    assert baseline_of(none, drawn) == {"a": "a", "b": "a"}
    own = result("none", "c", seed=1, minute=0)
    assert baseline_of(none, drawn, own) == {"a": "a", "b": "c", "c": "c"}


def test_the_latest_good_baseline_counts_and_each_is_its_own():
    early, late = result("none", "a", minute=1, tracking__name="off"), result("none", "b", minute=2)
    failed = bad_result("failed", "why", "none", "c")
    failed = failed.model_copy(
        update={"record": failed.record.model_copy(update={"fingerprints": early.record.fingerprints})}
    )
    found = baseline_of(late, early, failed, result("bnb_nf4", "d"))
    assert found == {"a": "a", "b": "b", "c": "c", "d": "b"}


def test_a_difference_is_the_same_with_its_sign_turned_around(tmp_path):
    one = compare(tmp_path / "a", [result("none"), result("hqq_int3")])["cell01"].comparison
    swapped = [result("none").model_copy(update={"utterances": result("hqq_int3").utterances})]
    swapped.append(result("hqq_int3").model_copy(update={"utterances": result("none").utterances}))
    two = compare(tmp_path / "b", swapped)["cell01"]
    assert two.verdict == "better"
    assert np.array(two.comparison.wer_difference.ci95) == pytest.approx(-np.array(one.wer_difference.ci95)[::-1])
    assert two.comparison.p == pytest.approx(one.p)
