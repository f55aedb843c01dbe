"""A thousand records: the report and the recommendation stay quick. Processor time, as tests share their cores."""

import importlib.util
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.slowness import slowness
from quantlab.records import storage

pytestmark = pytest.mark.alone

_PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "report.py"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("benchmark", _PATH)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    folder = tmp_path_factory.mktemp("many")
    for result in benchmark.records(1000):
        storage.write(folder, result)
    return folder


def _processor_s(root, *arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", *arguments, "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def _within(limit_s, root, *arguments):
    """What a command says, if it takes less than so many seconds of the machine that the limits are meant for.

    What else runs can only add to what it takes, so that once of three times is enough.
    """
    found = []
    for _ in range(3):
        slow = slowness()
        seconds, said = _processor_s(root, *arguments)
        found.append(seconds / slow)
        if found[-1] < limit_s:
            return said
    pytest.fail(f"{arguments}: {found} s, limit {limit_s} s")


# The aims are 5 and 2 s (docs/reference/report.md); on two virtual cores, beside others, 5.0 to 5.7 and 2.3 to 3.1 were
# measured. The limits are above that, to catch what makes it slower still.
@pytest.mark.parametrize("name", ["table", "markdown", "latex", "csv", "json"])
def test_the_report_of_a_thousand_records_is_quick(name, root):
    assert len(_within(7, root, "quantlab.report", "--format", name).splitlines()) >= 1000


def test_a_recommendation_out_of_a_thousand_is_quick(root):
    question = ("--max-size-mb", "100", "--max-wer-increase", "0.5", "--device", "cpu")
    assert "Qualify" in _within(4, root, "quantlab.recommend", *question)
