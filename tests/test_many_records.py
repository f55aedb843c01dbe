"""A thousand records: the report and the recommendation stay quick. Processor time, as tests share their cores."""

import importlib.util
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from quantlab import storage

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


@pytest.mark.parametrize("name", ["table", "markdown", "latex", "csv"])
def test_the_report_of_a_thousand_records_takes_less_than_ten_seconds(name, root):
    seconds, said = _processor_s(root, "quantlab.report", "--format", name)
    assert len(said.splitlines()) >= 1000
    assert seconds < 10


def test_a_recommendation_out_of_a_thousand_stays_quick(root):
    question = ("--max-size-mb", "100", "--max-wer-increase", "0.5", "--device", "cpu")
    runs = [_processor_s(root, "quantlab.recommend", *question) for _ in range(3)]
    assert all("Qualify" in said for _, said in runs)
    # The aim is 2 s: 1.6 s on one machine, 2.8 to 3.2 s on a slower one. What else runs can only add.
    assert min(seconds for seconds, _ in runs) < 4
