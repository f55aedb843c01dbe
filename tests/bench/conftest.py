"""What `make bench` measures is kept for a table, which it prints and writes to build/bench.md.

A figure is a ratio of two durations of the same run, so that it means the same on a slow and on a busy machine.
"""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import pytest

from quantlab.records import storage

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "build" / "bench.md"
HEAD = "| what | s | against | s | ratio | at most |\n|---|---:|---|---:|---:|---:|"


class Figure(NamedTuple):
    """A duration, another of the same run, and the largest ratio that is allowed."""

    what: str
    seconds: float
    against: str
    reference_s: float
    at_most: float

    @property
    def ratio(self):
        return self.seconds / self.reference_s

    def __str__(self):
        cells = (self.what, f"{self.seconds:.3g}", self.against, f"{self.reference_s:.3g}")
        return f"| {' | '.join(cells)} | {self.ratio:.2g} | {self.at_most:g} |"


FIGURES = pytest.StashKey[list[Figure]]()


@pytest.fixture
def figure(request):
    """Keeps a figure for the table; fails the benchmark if its ratio is too large."""

    def keep(*parts):
        found = Figure(*parts)
        request.config.stash.setdefault(FIGURES, []).append(found)
        assert found.ratio <= found.at_most, str(found)

    return keep


def pytest_terminal_summary(terminalreporter, config):
    """Print the table."""
    if figures := config.stash.get(FIGURES, []):
        text = "\n".join([HEAD, *map(str, figures)])
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(text + "\n", encoding="utf-8")
        terminalreporter.section("benchmarks")
        terminalreporter.write_line(text)


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    """Folders of 1,000 records and of 100, as benchmarks/report.py makes them."""
    spec = importlib.util.spec_from_file_location("report_benchmark", ROOT / "benchmarks" / "report.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = {}
    for count in (100, 1000):
        found[count] = tmp_path_factory.mktemp(f"records{count}")
        for result in benchmark.records(count):
            storage.write(found[count], result)
    return found
