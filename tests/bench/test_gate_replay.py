"""The replay of the gate that docs/explanation/statistics.md quotes: on few replays, and what it plants by hand."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from quantlab.stats.rates import Sample

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("gate_benchmark", ROOT / "benchmarks" / "gate.py")
replays = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(replays)


def test_a_replay_of_the_archive(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gate.py", str(ROOT / "docs/results/lowbit.tar.xz"), "--replays", "50"])
    replays.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| lowbit")]
    rows = [re.split(r"\s*\|\s*", line)[1:-1] for line in lines]
    assert {row[1] for row in rows} == {"nano", "tiny_en"}
    for row in rows:
        alarms, found, passed = (float(row[place].rstrip("%")) for place in (4, 10, 12))
        assert alarms < 8
        assert found > alarms
        assert passed < 8


def test_exchanged_systems_differ_by_nothing_and_planted_ones_by_the_loss():
    speakers = tuple(f"s{index // 5}" for index in range(100))
    sample = Sample(("a",) * 100, tuple(map(str, range(100))), speakers, (10,) * 100, (50,) * 100)
    chance = np.random.default_rng(0)
    cell = replays.Cell("m", sample, chance.poisson(1.0, 100))
    some = [replays.drawn(cell, chance) for _ in range(2000)]
    assert np.mean([item.differences.sum() for item in some]) == pytest.approx(0, abs=2)
    for plant in (replays.added, replays.mixed_in([cell], 0.02)):
        planted = [plant(item, 0.02, chance).sum() for item in some]
        assert np.mean(planted) / 1000 == pytest.approx(0.02, abs=0.004)
    assert replays.mixed_in([cell], 0.5) is None
