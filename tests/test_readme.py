"""The README is short, its links lead somewhere, and every command of it runs and prints what it promises."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from helpers.documents import ROOT, commands, environment, on_less, programs, run, run_program, user_folder
from helpers.servers import answers
from helpers.waiting import wait_until
from quantlab.config.compose import read

pytestmark = pytest.mark.minutes

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = commands("README.md")
SET_UP = ["make demo", "make test"]  # CI runs these two; the second is what runs this file
NEEDS_HUB = [line for line in COMMANDS if "librispeech" in line or "paper_table" in line]
GRIDS = [line for line in COMMANDS if line.startswith("quantlab -m") and line not in NEEDS_HUB]
REST = [line for line in COMMANDS if line not in SET_UP + NEEDS_HUB + GRIDS]
SERVER = next(line for line in commands("docs/how-to/tracking.md") if line.startswith("mlflow ui"))
# The same grid on less.
LESS = "protocol.max_new_tokens=64 protocol.warmup_batches=1 protocol.budget_s=1 tracking=off dataset.limit=1"
LONGEST = 120  # lines
PRINTS = {
    "quantlab report": "",  # a page, see below
    "quantlab recommend": "Undecided",  # one utterance a split shows nothing
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return user_folder(tmp_path_factory.mktemp("user"))


@pytest.fixture(scope="module")
def variables(shared_cache, warm):
    return environment(shared_cache, warm=warm) | {"COLUMNS": "160"}


def test_it_is_short():
    assert len(TEXT.splitlines()) <= LONGEST


def test_it_has_its_two_set_up_commands():
    assert COMMANDS[:2] == SET_UP
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE) for command in SET_UP)


@pytest.mark.parametrize("version", ["3.10.9", "3.14.0", None])
def test_a_python_that_will_not_do_is_said_before_anything_is_made(version, tmp_path):
    python = tmp_path / "python"
    if version is not None:
        info = tuple(map(int, version.split(".")))
        python.write_text(
            f'#!/bin/sh\n[ "$1" = -V ] && echo Python {version} && exit\n'
            f'exec {sys.executable} -c "import sys; sys.version_info = {info}; $2"\n'
        )
        python.chmod(0o755)
    done = subprocess.run(
        ["make", "-f", ROOT / "Makefile", "-C", ROOT, "demo", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    is_what = "not there" if version is None else f"Python {version}"
    need = f"quantlab needs Python 3.11 to 3.13, and {python} is {is_what}; name another: make demo PYTHON=python3.12"
    assert done.returncode != 0
    assert need in done.stderr.splitlines()
    assert not (tmp_path / "venv").exists()


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXT):
        path, _, anchor = target.partition("#")
        if ":" in path:
            continue
        assert (ROOT / path).exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], target


@pytest.mark.parametrize("command", GRIDS)
def test_every_cell_of_a_grid_is_ok(command, folder, variables):
    done = run(on_less(command, LESS), folder, variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    quants = re.search(r"quant=([\w,]+)", command)[1].split(",")
    rows = {line.split()[1]: line.split()[-1] for line in done.stdout.splitlines() if line.startswith(("nano", "my-"))}
    assert rows == dict.fromkeys(quants, "ok")


@pytest.mark.parametrize("command", REST)
def test_every_other_command_runs(command, folder, variables):
    """After the grids, as a reader has it."""
    done = run(command, folder, variables)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert next(said for start, said in PRINTS.items() if command.startswith(start)) in done.stdout
    if "--out " in command:
        assert (folder / command.split()[-1]).read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("command", NEEDS_HUB)
def test_a_command_that_needs_the_hub_composes(command):
    assert read(shlex.split(command)[1:]).configs


def test_its_python_runs(folder, variables):
    [program] = programs("README.md")
    done = run_program(program.replace("dataset.limit=20", "dataset.limit=1"), folder, variables)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [quant for quant, *_ in lines] == ["none", "hqq_int4"]
    assert [int(quantized) > 0 for *_, quantized in lines] == [False, True]
    assert all(float(error_rate) >= 0 for _, error_rate, _ in lines)


def test_the_server_of_the_how_to_answers(folder, variables):
    port = 5000 + os.getpid() % 1000
    (folder / "mlruns").mkdir(exist_ok=True)
    server = subprocess.Popen(
        [*shlex.split(SERVER), "--port", str(port)],
        cwd=folder,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), 120)
    finally:
        os.killpg(server.pid, 9)
