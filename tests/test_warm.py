"""A command that the warm server runs is what a fresh process is, and so is the fork server of its cells."""

import json
import os
import signal
import subprocess
import sys

import psutil
import pytest

from helpers.waiting import wait_until

PROGRAM = """
import json, multiprocessing, os, signal, sys, tempfile
from pathlib import Path

def facts():
    streams = [(stream.isatty(), stream.mode, stream.encoding, stream.errors, stream.line_buffering)
               for stream in (sys.stdin, sys.stdout, sys.stderr)]
    handlers = [str(signal.getsignal(number)) for number in signal.valid_signals()]
    blocked = sorted(int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, []))
    return {"folder": os.getcwd(), "temporary": tempfile.gettempdir(), "session": os.getsid(0), "handlers": handlers,
            "blocked": blocked, "streams": streams, "path": sys.path, **os.environ}

def cell(path):
    Path(path).write_text(json.dumps(facts()))

def main():
    os.environ["SET_LATE"] = "yes"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["json"])
    process = context.Process(target=cell, args=("cell.json",))
    process.start()
    process.join()
    print(json.dumps({"arguments": sys.argv, "name": __name__, "cell": process.exitcode, **facts()}))
    print("ä", file=sys.stderr)
    sys.exit(sys.argv[1] if sys.argv[1] == "words" else int(sys.argv[1]))

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("how", [["-m", "program"], ["program.py"]], ids=["module", "script"])
@pytest.mark.parametrize("code", ["0", "3", "words"])
def test_it_is_what_a_fresh_one_is(warm, tmp_path, how, code):
    (tmp_path / "program.py").write_text(PROGRAM)
    if how[0] != "-m":
        how = [str(tmp_path / how[0])]
    environment = os.environ | {"QUANTLAB_CACHE": "here", "PYTHONPATH": str(tmp_path / "site"), "COLUMNS": "33"}
    assert warm.can_run(tmp_path, environment)
    mine = warm.run([*how, code], tmp_path, environment)
    assert (tmp_path / "cell.json").exists(), mine.stderr
    cell = json.loads((tmp_path / "cell.json").read_text())
    streams = {"capture_output": True, "stdin": subprocess.DEVNULL, "text": True}
    fresh = subprocess.run(
        [sys.executable, *how, code], cwd=tmp_path, env=environment, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler), **streams,
    )  # fmt: skip
    assert (mine.returncode, mine.stderr) == (fresh.returncode, fresh.stderr)
    assert_alike(json.loads(mine.stdout), json.loads(fresh.stdout))
    assert_alike(cell, json.loads((tmp_path / "cell.json").read_text()))


def assert_alike(mine, fresh):
    for place in fresh:
        assert mine[place] == fresh[place], place


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "OMP_NUM_THREADS", "LANG"])
def test_what_imports_may_read_takes_a_fresh_one(warm, tmp_path, name):
    assert not warm.can_run(tmp_path, os.environ | {name: "2"})
    assert warm.can_run(tmp_path, dict(os.environ))


def test_another_quantlab_takes_a_fresh_one(warm, tmp_path):
    (tmp_path / "quantlab").mkdir()
    assert not warm.can_run(tmp_path, dict(os.environ))
    assert not warm.can_run(tmp_path.parent, os.environ | {"PYTHONPATH": str(tmp_path)})


def test_a_command_that_hangs_is_killed(warm, tmp_path):
    program = tmp_path / "hang.py"
    program.write_text("import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(600)")
    with pytest.raises(subprocess.TimeoutExpired):
        warm.run([str(program)], tmp_path, dict(os.environ), timeout=2)
    wait_until(lambda: not psutil.pid_exists(int((tmp_path / "pid").read_text())))


def test_what_kills_a_command_is_in_its_exit_code(warm, tmp_path):
    (tmp_path / "dies.py").write_text("import os; os.kill(os.getpid(), 9)")
    assert warm.run([str(tmp_path / "dies.py")], tmp_path, dict(os.environ)).returncode == -9
