"""How processor time grows with the number of cells, groups or utterances."""

import resource
import subprocess
import sys

import numpy as np
import pytest
import torch

from helpers.compared import careful_grid, compared
from helpers.durations import least
from quantlab import models
from quantlab.config.compose import compose
from quantlab.grid.plan import plan
from quantlab.report import plots
from quantlab.stats.bootstrap import choose_units, interval, p_value, resampled_sums

pytestmark = pytest.mark.bench

FORMATS = ("table", "markdown", "latex", "csv", "json")
COMMANDS = {f"report --format {name}": ["report", "--format", name] for name in FORMATS} | {
    "recommend": ["recommend", "--max-size-mb", "100", "--max-wer-increase", "0.5", "--device", "cpu"],
    "status": ["status"],
}


def children_s():
    """Processor seconds of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("name", COMMANDS)
def test_records(name, stored, figure):
    def seconds(count):
        command = [sys.executable, "-m", "quantlab", *COMMANDS[name], "--root", str(stored[count])]
        return least(lambda: subprocess.run(command, capture_output=True, check=True), children_s, times=2)

    figure(f"`{name}`, 1,000 records", seconds(1000), "100 records", seconds(100), 10)


def test_composing_and_planning(figure):
    def seconds(seeds):
        arguments = ["-m", "quant=none,hqq_int4", f"seed=range(0,{seeds})", "device=cpu"]
        return least(lambda: plan(compose(arguments)))

    seconds(1)  # what is imported or read once
    figure("composing and planning 1,000 cells", seconds(500), "100 cells", seconds(50), 10)


def test_plots(figure):
    def seconds(groups):
        rows = [
            compared(quant, cell_id=f"{quant}{n}", baseline=f"base{n}", model=f"m{n}")
            for n in range(groups)
            for quant in ("none", "hqq_int3")
        ]
        return least(lambda: plots.figures(rows))

    plots.figures(careful_grid())
    figure("plots of 30 groups, of which 4 are drawn", seconds(30), "4 groups", seconds(4), 2)


def test_bootstrap(figure):
    def seconds(utterances):
        chance = np.random.default_rng(0)
        words = chance.integers(3, 30, size=utterances)
        errors = chance.binomial(words, 0.02) - chance.binomial(words, 0.02)
        columns = np.stack([errors, words], axis=1).astype(float)[:, None]
        units = choose_units(["test"] * utterances, [None] * utterances)

        def compare():
            changed, lengths = resampled_sums(units, columns, 10_000)[0]
            interval(changed / lengths)
            p_value(changed / lengths, float((changed / lengths).mean()), utterances)

        return least(compare, times=5)

    figure("bootstrap of 2,939 utterances (test-other)", seconds(2939), "294 utterances", seconds(294), 11)


def test_random_weights(figure):
    [config] = compose(["model=small", "model.weights=random"])
    made = models.load(config.model, 0).model
    count = sum(parameter.numel() for parameter in made.parameters())
    numbers = least(lambda: torch.empty(count).normal_())
    figure("random weights of small", least(lambda: models.load(config.model, 0)), "its normal numbers", numbers, 3)
