"""The ratio of two times: against scipy, by hand, and for real with a model beside itself."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from helpers.widened import save
from quantlab.records import storage
from quantlab.records.figures import fixed_work, speed, split_result
from quantlab.records.schema import Batch, Utterance
from quantlab.stats.ratios import MIN_BLOCKS, Ratio, converged, ratio_of_sums, typical_ratio, verdict

pytestmark = pytest.mark.minutes
ONE = "device.threads=1"  # two threads of each of two tests beside each other wait for a core most of the time
SLOWED = Path(__file__).resolve().parent.parent / "benchmarks" / "slowed"


def noisy(count, ratio=1.0, seed=0, spikes=0.0, calls=2):
    """Times of two models that differ by `ratio`, with noise of 3 %; some calls take up to four times as long."""
    draw = np.random.default_rng(seed)
    hit = np.where(draw.random((2, count, calls)) < spikes, draw.uniform(1, 4, (2, count, calls)), 1.0)
    times = np.exp(draw.normal(0, 0.03, (2, count, calls))) * hit
    return ratio * times[0], times[1]


@pytest.mark.parametrize("count", [5, 7])
def test_typical_ratio_is_scipys_trimmed_mean_and_interval(count):
    cell, baseline = noisy(count, calls=1)  # so few blocks are all calm
    found = typical_ratio(cell, baseline)
    logs = np.log(cell / baseline)[:, 0]
    assert found.value == pytest.approx(math.exp(scipy_stats.trim_mean(logs, 0.2)))
    kept = count - 2 * int(0.2 * count)
    # scipy divides the winsorised variance by (1 − 2 · 0.2)² n; Yuen 1974 by h (h − 1) / (n − 1)
    theirs = scipy_stats.mstats.trimmed_stde(logs, limits=(0.2, 0.2)) * 0.6 * math.sqrt(count)
    half = scipy_stats.t.ppf(0.975, kept - 1) * theirs * math.sqrt((count - 1) / (kept * (kept - 1)))
    assert math.log(found.high / found.value) == pytest.approx(half)


def test_the_fastest_call_of_a_side_counts():
    found = typical_ratio([[0.5, 2.0]] * 7, [[1.0, 1.0]] * 7)
    assert found == (pytest.approx(0.5),) * 3


def test_blocks_that_disagree_with_themselves_are_left_out():
    calm, disturbed = ([1.0, 1.01], [2.0, 2.0]), ([3.0, 9.0], [2.0, 2.0])
    cell, baseline = zip(*[calm] * 9, *[disturbed] * 3, strict=True)
    assert typical_ratio(cell, baseline) == (pytest.approx(0.5),) * 3


@pytest.mark.parametrize("spikes", [0.0, 0.05, 0.3])
def test_the_interval_holds_the_truth_as_often_as_it_says(spikes):
    found = [typical_ratio(*noisy(40, 0.9, seed, spikes)) for seed in range(1000)]
    assert 0.92 <= np.mean([item.low <= 0.9 <= item.high for item in found]) <= 0.98


def test_spikes_move_the_typical_ratio_less_than_the_ratio_of_sums():
    cell, baseline = noisy(60, spikes=0.2)
    sums = ratio_of_sums(cell.sum(axis=1), baseline.sum(axis=1))
    assert typical_ratio(cell, baseline).width < sums.width / 3


def test_ratio_of_sums_by_hand():
    found = ratio_of_sums([2.0, 4.0], [1.0, 3.0])
    # residuals 2 − 1.5 and 4 − 4.5; standard error √(2 · 0.5) / 4; Student's t with one degree of freedom 12.706
    assert found.value == 1.5
    assert found.high - found.value == pytest.approx(12.7062 * math.sqrt(2 * 0.5) / 4, rel=1e-4)
    assert found.low == 0.0  # a time is never negative


def test_one_pair_says_nothing():
    assert typical_ratio([[1.1]], [[1.0]]) == (pytest.approx(1.1), 0.0, math.inf)


def test_equal_times_have_no_width():
    found = typical_ratio([[1.0]] * 10, [[2.0]] * 10)
    assert found == (pytest.approx(0.5),) * 3


@pytest.mark.parametrize(
    ("ratio", "blocks", "word"),
    [
        (Ratio(1.0, 0.995, 1.005), 20, "no difference"),
        (Ratio(1.015, 1.010, 1.020), 20, "no difference"),  # shown, but smaller than what is looked for
        (Ratio(0.95, 0.94, 0.96), 20, "faster"),
        (Ratio(1.10, 1.09, 1.11), 20, "slower"),
        (Ratio(0.60, 0.50, 0.70), 20, "faster"),  # wide and yet beyond doubt
        (Ratio(1.0, 0.97, 1.03), 20, "not converged"),
        (Ratio(0.95, 0.90, 1.01), 20, "not converged"),
        (Ratio(0.60, 0.59, 0.61), MIN_BLOCKS - 1, "not converged"),
    ],
)
def test_verdict(ratio, blocks, word):
    assert verdict(ratio, blocks, rel_ci=0.02) == word


def test_converged_needs_a_narrow_interval_and_enough_blocks():
    assert converged(Ratio(1.0, 0.995, 1.005), MIN_BLOCKS, 0.02)
    assert not converged(Ratio(1.0, 0.995, 1.005), MIN_BLOCKS - 1, 0.02)
    assert not converged(Ratio(1.0, 0.98, 1.02), 100, 0.02)


def call(elapsed_s, of="cell", work="natural", block=None, index=0, tokens=10):
    return Batch(split="clean", index=index, utterances=2, audio_s=4.0, tokens=tokens, elapsed_s=elapsed_s, of=of,
                 work=work, block=block)  # fmt: skip


def test_figures_from_raw_calls():
    calls = [call(0.4), call(0.6, index=1)]  # the corpus once through
    for block in range(8):
        calls += [call(0.4, "cell", block=block), call(0.8, "baseline", block=block)] * 2
        calls += [call(0.1, of, "encoder", block) for of in ("cell", "baseline")]
        calls += [call(0.32, of, "forced", block, tokens=64) for of in ("cell", "baseline")]
    found = speed(calls, "natural", 0.02)
    assert (found.ratio, found.verdict, found.blocks) == (pytest.approx(0.5), "faster", 8)
    fixed = fixed_work(calls, 0.02)
    assert fixed.encoder_s == pytest.approx(0.1)
    assert fixed.encoder_rtf == pytest.approx(0.1 / 4)
    assert fixed.token_s == pytest.approx(0.01)  # 32 steps for each of two utterances
    assert (fixed.forced_tokens, fixed.batch_size) == (32, 2)
    said = [Utterance(id="u", split="clean", speaker=None, audio_s=4.0, reference="a", hypothesis=None, tokens=5)]
    split = split_result(said, calls)
    assert split.generate_s == pytest.approx(0.4 + 0.6)  # each batch at its mean, the baseline's calls left out
    assert split.rtf == pytest.approx(1.0 / 8.0)
    assert split.rtf_ci95[0] <= split.rtf <= split.rtf_ci95[1]
    assert split.tokens == 20


def test_one_pass_has_no_interval_and_no_ratio():
    assert speed([call(0.4)], "natural", 0.02) is None
    assert fixed_work([call(0.4)], 0.02) is None


def measured(quantlab, *arguments):
    """The experiment with an interval that a shared machine comes to; `benchmarks/timing.py` tests its own, 2 %."""
    options = ("dataset.limit=10", "device=cpu", "tracking=off", "protocol.rel_ci=0.05", "protocol.budget_s=150")
    done = quantlab("experiment=aa_test", *options, *arguments, fresh=True)
    assert done.returncode == 0, done.stderr
    [found] = storage.read_all(quantlab.folder / "mlruns")
    return found


@pytest.mark.alone
def test_fp32_against_fp32_is_no_difference(quantlab):
    found = measured(quantlab, "protocol.budget_s=60")
    assert found.speed.verdict in ("no difference", "not converged")  # where the neighbours are busy
    assert abs(found.speed.ratio - 1) < 0.04
    assert found.fixed_work.encoder_s < found.stages.measure_s
    assert found.fixed_work.token_s > 0
    assert found.cold_start_s > found.stages.first_inference_s > 0
    assert found.environment["thread_variables"]["GOMP_SPINCOUNT"] == "10000"
    calls = storage.read_batches(quantlab.folder / "mlruns", found.cell_id)
    first = [item.of for item in calls if item.block == 0 and item.work == "natural"]
    second = [item.of for item in calls if item.block == 1 and item.work == "natural"]
    assert first == ["cell", "baseline", "baseline", "cell"]
    assert second == ["baseline", "cell", "cell", "baseline"]


@pytest.mark.alone
def test_a_tenth_slower_is_found(quantlab, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SLOWED), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep))
    found = measured(quantlab, "quant.library=slowed", "quant.name=slowed")
    assert found.speed.verdict == "slower"
    assert 1.05 < found.speed.ratio < 1.15
    assert found.fixed_work.token.verdict == "slower"
    assert found.fixed_work.encoder.verdict != "slower"  # only `generate` was slowed


def test_a_budget_that_is_too_small_is_part_of_the_result(quantlab):
    found = measured(quantlab, ONE, "protocol.budget_s=0.1", "protocol.rel_ci=0.001")
    assert not found.speed.converged
    assert found.speed.verdict == "not converged"
    assert found.speed.blocks == 2


def test_models_that_do_not_fit_together_take_turns_as_processes(quantlab):
    found = measured(
        quantlab, ONE, "quant=torch_int8", "dataset.limit=2", "protocol.residency=alternate", "protocol.budget_s=1"
    )
    calls = [item for item in storage.read_batches(quantlab.folder / "mlruns", found.cell_id) if item.block == 0]
    turns = dict.fromkeys((item.of, place // 12) for place, item in enumerate(calls))  # 4 batches, 3 kinds of work
    assert [side for side, _ in turns] == ["cell", "baseline", "baseline", "cell"]
    assert found.speed.blocks == 2
    assert found.receipt.modules_quantized > 0


def test_the_resident_baseline_is_not_in_the_memory_of_the_cell(quantlab):
    save(quantlab.folder / "wide")  # 265 MB, where what a process takes differs by 15 MB from run to run
    options = (
        "model.name=wide model.path=wide quant=none device=cpu tracking=off dataset.limit=1 dataset.splits=[clean] "
        "protocol.max_new_tokens=4 protocol.warmup_batches=0"
    ).split()
    for protocol in ("quick", "paper", "careful"):  # the first one extracts the features, which takes memory
        budget = ["protocol.budget_s=0.5", "protocol.forced_tokens=2"] if protocol == "careful" else []
        assert quantlab(f"protocol={protocol}", *options, *budget, fresh=True).returncode == 0
    cells = {item.setting("protocol.name"): item for item in storage.read_all(quantlab.folder / "mlruns")}
    more = cells["careful"].peak_memory_bytes - cells["paper"].peak_memory_bytes
    assert more < 0.5 * cells["careful"].receipt.size_bytes, f"{more:,} bytes"


def test_the_experiment_is_measured_anew_each_time(quantlab):
    first = measured(quantlab, ONE, "protocol.budget_s=0.5")
    second = measured(quantlab, ONE, "protocol.budget_s=0.5")
    assert first.cell_id == second.cell_id
    assert json.dumps(first.stages.model_dump()) != json.dumps(second.stages.model_dump())
