"""The grid as a user runs it: real processes, the real nano model, real failures."""

import json
import os
import signal

import pytest

from helpers.waiting import wait_until
from quantlab.records import storage

pytestmark = pytest.mark.minutes

SMALL = ("dataset.limit=3", "protocol=quick", "tracking=off")


def report(quantlab):
    done = quantlab("--root", "mlruns", "--format", "json", module="quantlab.report")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_good_cells_survive_impossible_failing_and_hanging_ones(quantlab):
    libraries = "torch,raise,segfault,kill,exit,memory,lazy,hang"
    done = quantlab("-m", "quant=torch_int8", f"quant.library={libraries}", "device=cpu", "timeout_s=25", *SMALL)
    assert done.returncode == 1, done.stderr
    cells = {cell["library"]: cell for cell in report(quantlab)}
    assert {name: cell["status"] for name, cell in cells.items()} == {
        "torch": "ok",
        "raise": "failed",
        "segfault": "failed",
        "kill": "failed",
        "exit": "failed",
        "memory": "oom",
        "lazy": "failed",
        "hang": "timeout",
    }
    assert cells["raise"]["reason"] == "ValueError: this library is broken"
    assert "SIGSEGV" in cells["segfault"]["reason"]
    assert "SIGKILL" in cells["kill"]["reason"]
    assert "exit code 3" in cells["exit"]["reason"]
    assert "timeout_s=25" in cells["hang"]["reason"]
    assert "model.encoder.layers.0.self_attn.q_proj" in cells["lazy"]["reason"]
    assert "Segmentation fault" in storage.read(quantlab.folder / "mlruns", cells["segfault"]["cell_id"]).traceback
    for name in set(cells) - {"torch"}:
        assert cells[name]["reason"].split(":")[0] in done.stdout, f"{name} is not named in the table"


def test_failed_cells_are_tried_again_and_good_ones_are_not(quantlab):
    command = ("-m", "quant=torch_int8", "quant.library=torch,raise", "device=cpu", *SMALL)
    assert quantlab(*command).returncode == 1
    again = quantlab(*command)
    assert again.returncode == 1
    assert again.stderr.count("recorded before") == 1


def test_impossible_combination_is_a_row_and_no_failure(quantlab):
    done = quantlab("-m", "quant=none,torch_int8", "device=cpu,cuda", *SMALL)
    cells = {(cell["quant"], cell["device"]): cell for cell in report(quantlab)}
    assert len(cells) == 4
    assert cells["torch_int8", "cuda"]["status"] == "unsupported"
    assert cells["torch_int8", "cuda"]["reason"]
    assert cells["none", "cpu"]["status"] == cells["torch_int8", "cpu"]["status"] == "ok"
    assert done.returncode == 0, done.stderr


def test_second_run_measures_nothing_again(quantlab, monkeypatch):
    listed = quantlab.folder / "listed"
    monkeypatch.setenv("QUANTLAB_WITNESS", str(listed))
    command = ("-m", "quant=none,torch_int8", "dataset.source=witness", "device=cpu", *SMALL)
    assert quantlab(*command).returncode == 0
    assert listed.read_text() == "demo\n", "a corpus is listed once, however many cells and processes hear it"
    before = {path: path.stat().st_mtime_ns for path in (quantlab.folder / "mlruns").rglob("*.json*")}
    again = quantlab(*command)
    assert again.returncode == 0
    assert again.stderr.count("recorded before") == 2
    assert before == {path: path.stat().st_mtime_ns for path in (quantlab.folder / "mlruns").rglob("*.json*")}


def test_no_cell_outlives_a_killed_grid(quantlab):
    process = quantlab.start("quant.library=hang", "device=cpu", *SMALL)
    log_folder = str(quantlab.folder / "mlruns" / "logs")
    wait_until(lambda: _processes_with(log_folder))
    process.kill()
    process.wait()
    wait_until(lambda: not _processes_with(log_folder))


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])  # a person, a scheduler, a terminal
def test_interrupt_keeps_finished_cells_and_says_how_to_go_on(quantlab, stop):
    process = quantlab.start("-m", "quant.library=none,hang", "device=cpu", *SMALL)
    cells = quantlab.folder / "mlruns" / "cells"
    wait_until(lambda: list(cells.glob("[!.]*/record.json")))
    process.send_signal(stop)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "1 of 2 cells recorded" in output
    assert "run the same command for the rest" in output


def test_temporary_files_may_lie_deep(quantlab, monkeypatch):
    deep = quantlab.folder / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    done = quantlab("device=cpu", *SMALL)
    assert done.returncode == 0, done.stderr
    assert [record["status"] for record in report(quantlab)] == ["ok"]


def test_in_process_gives_the_same_words(quantlab):
    assert quantlab("device=cpu", *SMALL).returncode == 0
    isolated = report(quantlab)[0]
    assert quantlab("device=cpu", "isolate=false", "output_dir=other", *SMALL).returncode == 0
    shared = json.loads(quantlab("--root", "other", "--format", "json", module="quantlab.report").stdout)[0]
    assert isolated["cell_id"] == shared["cell_id"]
    words = [
        [(item.id, item.hypothesis) for item in storage.read_utterances(quantlab.folder / root, shared["cell_id"])]
        for root in ("mlruns", "other")
    ]
    assert words[0] == words[1]


def _processes_with(open_file):
    """Processes that hold a file below this folder open."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            names = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if any(name.startswith(open_file) for name in names):
            found.append(int(pid))
    return found
