"""The replay of complete records that docs/explanation/statistics.md quotes: on few orders, and its nulls by hand."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from quantlab.analysis.pairs import Pair
from quantlab.stats.rates import Counts, Sample

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("adaptive_benchmark", ROOT / "benchmarks" / "adaptive.py")
adaptive = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(adaptive)


def replay(monkeypatch, capsys, *arguments):
    """The rows of both tables."""
    monkeypatch.setattr(sys, "argv", ["adaptive.py", *map(str, arguments)])
    adaptive.main()
    tables = capsys.readouterr().out.split("\n\n")[-2:]
    return [[re.split(r"\s*\|\s*", line)[1:-1] for line in table.strip().splitlines()[2:]] for table in tables]


def test_a_replay_of_nano(monkeypatch, capsys):
    used, wrong = replay(monkeypatch, capsys, ROOT / "docs/results/lowbit.tar.xz", "--orders", 20, "--least", 400)
    assert [row[3] for row in used] == ["worse, by 5 points or more", "worse", "tied", "underpowered"]
    for row in used:
        assert row[:3] == ["lowbit", "400", "default"]
        assert 10 <= int(row[5].rstrip("%")) <= int(row[6].rstrip("%")) <= 100
    assert {row[3] for row in wrong} == set(adaptive.NULLS)


@pytest.fixture
def cell():
    """Twelve speakers of ten utterances; the first six lose in every fifth, all gain in the last."""
    differences = np.tile([0, 0, 0, 0, 0, 0, 0, 0, 0, -1], 12)
    differences[np.arange(0, 60, 5)] = 2
    words, count = np.tile([10, 20], 60), np.zeros(120, dtype=int)
    speakers = tuple(f"s{index // 10}" for index in range(120))
    sample = Sample(("test",) * 120, tuple(map(str, range(120))), speakers, tuple(words.tolist()), (1,) * 120)
    counts = Counts(differences, count), Counts(count, count)
    return adaptive.Cell("cell", Pair(sample, *counts), "worse", 0.01)


@pytest.mark.parametrize("target", [0.0, 0.005, 0.03])
def test_a_null_has_the_difference_that_it_says(cell, target):
    orders = adaptive.orders_of(cell.pair.sample, 3000, 10, 0)
    drawn = adaptive._drawn(cell, orders, target, np.random.default_rng(0))
    differences, words = cell.differences[drawn].sum(axis=1), orders.words[drawn].sum(axis=1)
    error = (differences - target * words).std() / np.sqrt(3000) / words.mean()
    assert differences.sum() / words.sum() == pytest.approx(target, abs=4 * error)
    drawn_speakers = [len(set(row)) for row in (drawn // 10)[:100]]
    assert 6 <= np.mean(drawn_speakers) <= 9  # 12 draws with replacement find 7.8 of 12


def test_utterances_of_a_speaker_are_drawn_from_one_speaker(cell):
    orders = adaptive.orders_of(cell.pair.sample, 50, 10, 0)
    drawn = adaptive._drawn(cell, orders, 0.0, np.random.default_rng(0)) // 10
    for order, row in zip(orders.order // 10, drawn, strict=True):
        assert all(len(set(row[order == speaker])) == 1 for speaker in range(12))


def test_without_losses_there_is_no_null_at_the_margin(cell):
    none = cell.pair.cell._replace(words=np.minimum(cell.differences, 0))
    without = cell._replace(pair=cell.pair._replace(cell=none))
    orders = adaptive.orders_of(cell.pair.sample, 5, 10, 0)
    assert adaptive._drawn(without, orders, 0.005, np.random.default_rng(0)) is None


def test_what_stops_keeps_what_it_knew(cell):
    """A cell that is lost at once: p and interval are of the look at which it stops."""
    lost = cell._replace(pair=cell.pair._replace(cell=Counts(np.tile([3, 4], 60), np.zeros(120, dtype=int))))
    options = adaptive._parser().parse_args(["root", "--orders", "5"])
    replayed = adaptive._replayed(lost, adaptive.Design(0.005), options)
    assert (replayed.used < 1).all()
    assert (replayed.p <= 0.05).all()
    assert replayed.difference == pytest.approx(3.5 / 15, rel=0.1)
