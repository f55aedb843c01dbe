"""How a command ends that is stopped, or that cannot print or write: one line and the documented exit code."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import synthetic
from quantlab.cli.run import main
from quantlab.grid.run import Grid
from quantlab.records import storage
from quantlab.util.entry import STOPS, enter

SMALL = ("device=cpu", "dataset.limit=2", "protocol=quick", "tracking=off")


@pytest.mark.parametrize("stop", [getattr(signal, name) for name in STOPS])
def test_every_signal_stops_a_grid_alike_from_the_first_moment(quantlab, stop):
    process = quantlab.start("quant.library=hang", *SMALL)
    caught = re.compile(r"SigCgt:\t(\w+)")
    handled = sum(1 << (getattr(signal, name) - 1) for name in STOPS)
    while int(caught.search(Path(f"/proc/{process.pid}/status").read_text())[1], 16) & handled != handled:
        time.sleep(0.002)  # until quantlab itself runs
    process.send_signal(stop)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.strip().splitlines()[-1] == "quantlab: interrupted: run the same command for the rest"
    assert "Traceback" not in output


def test_a_signal_that_is_ignored_at_the_start_stays_so():
    """As nohup does with SIGHUP, and a script with the SIGINT of what it puts into the background."""
    code = (
        "import os, signal; from quantlab.util.entry import enter; "
        "enter(lambda: os.kill(os.getpid(), signal.SIGHUP) or 7)"
    )
    for ignored, expected in ((True, 7), (False, 130)):
        before = (lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) if ignored else None
        done = subprocess.run([sys.executable, "-c", code], preexec_fn=before, capture_output=True, check=False)
        assert done.returncode == expected


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root")
    for quant in ("none", "torch_int8"):
        storage.write(folder, synthetic.result(quant, f"cell-{quant}"))
    return folder


COMMANDS = (
    "quantlab.report",
    "quantlab.report --format json",
    "quantlab.verify",
    "quantlab.status",
    "quantlab.rescore --normaliser basic",
    "quantlab.recommend",
)
OTHERS = ("quantlab --cfg job", "quantlab")


@pytest.mark.parametrize("command", [*COMMANDS, *OTHERS])
def test_a_full_disk_behind_standard_output_is_one_line(command, root):
    with open("/dev/full", "w") as full:
        done = ended(command, root, stdout=full)
    assert done.returncode == 1, done.stderr
    assert done.stderr == "quantlab: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("command", ["quantlab.report", "quantlab seed=1"])
def test_a_closed_standard_output_is_one_line(command, root):
    done = ended(command, root, preexec_fn=lambda: os.close(1))
    assert done.returncode == 2
    assert done.stderr == "quantlab: standard output is closed: redirect it to a file or /dev/null\n"


def test_what_cannot_be_said_costs_nothing(root):
    with open("/dev/full", "w") as full:
        done = ended("quantlab.report --out report.md --format markdown", root, stdout=subprocess.PIPE, stderr=full)
    assert done.returncode == 0


def ended(command, root, **streams):
    module, *options = command.split()
    where = ["--root", str(root)] if command in COMMANDS or "--out" in options else []
    return subprocess.run(
        [sys.executable, "-m", module, *options, *where], text=True, cwd=root, check=False,
        **{"stderr": subprocess.PIPE} | streams,
    )  # fmt: skip


UNWRITABLE = (
    ("quantlab.rescore", "--normaliser basic --output /proc/x", "/proc/x", 2),
    ("quantlab.report", "--format html --out /proc/x/y.html", "/proc/x/y.html cannot be written: ", 2),
)


@pytest.mark.parametrize(("module", "options", "says", "code"), UNWRITABLE)
def test_an_output_that_cannot_be_written_is_one_line(module, options, says, code, root):
    done = ended(f"{module} {options}", root)
    done = subprocess.run(
        [sys.executable, "-m", module, *options.split(), "--root", str(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "override", "says"),
    [
        ("QUANTLAB_CACHE", "/proc/x", "seed=0", "cache /proc/x cannot be created: No such file or directory; set "),
        ("XDG_CACHE_HOME", "/dev/null/x", "seed=0", "cannot be created: Not a directory; set QUANTLAB_CACHE"),
        ("A_VARIABLE", "", "output_dir=/proc/x", "output_dir=/proc/x cannot be written"),
        ("A_VARIABLE", "", "export.dir=/dev/null/x", "export.dir=/dev/null/x cannot be made: Not a directory; name"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_made_is_said_before_anything_is_measured(
    variable, value, override, says, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QUANTLAB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(Grid, "run", lambda *_: pytest.fail("something is measured"))
    assert main([*SMALL, override]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1


def test_a_mistake_of_ours_is_told_without_secrets(monkeypatch, capsys):
    monkeypatch.setenv("SOME_TOKEN", "a-token-of-some-length")
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    before = {name: signal.getsignal(getattr(signal, name)) for name in STOPS}

    def broken():
        raise RuntimeError("401 for a-token-of-some-length")

    with pytest.raises(SystemExit) as leaving:
        enter(broken)
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)
    assert leaving.value.code == 1
    assert "RuntimeError: 401 for ***" in capsys.readouterr().err
