"""What is run where a GPU is lent for minutes must not fail there for a reason that shows here."""

import json
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu" / "run.py"


def test_the_steps_run_on_a_cpu_and_are_not_run_again(tmp_path):
    command = [sys.executable, str(RUN), "--device", "cpu", "--out", str(tmp_path), "--only", "decode"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {item["variant"]: item for item in json.loads((tmp_path / "decode.json").read_text())["figures"]}
    assert set(found) == {"eager", "compile"}
    assert all(item["tokens_per_s"] > 0 and item["blocks"] >= 4 for item in found.values())
    assert found["eager"]["end_to_end_speedup"] == [1, 1, 1]
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.stdout == ""
