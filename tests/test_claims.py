"""A claim is one process's, is told to everybody, and goes with the process."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from helpers.synthetic import result
from helpers.waiting import wait_until
from quantlab.cli.status import main as status
from quantlab.grid import claims
from quantlab.records import storage

HOLDER = """
import sys, time
from quantlab.grid.claims import claimed
with claimed(sys.argv[1], "a1") as mine:
    print(mine, flush=True)
    sys.stdin.readline()
print("free", flush=True)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that claims cell a1, until a line is written to it."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_only_one_process_has_it(tmp_path, holder):
    with claims.claimed(tmp_path, "a1") as mine, claims.claimed(tmp_path, "b2") as other:
        assert (mine, other) == (False, True)
    holder.communicate("done\n")
    with claims.claimed(tmp_path, "a1") as mine:
        assert mine


def test_who_waits_gets_it_when_the_other_is_done(tmp_path, holder):
    holder.stdin.write("done\n")
    holder.stdin.flush()
    with claims.claimed(tmp_path, "a1", wait=True) as mine:
        assert mine
    assert holder.stdout.readline() == "free\n"


def test_whose_it_is(tmp_path, holder):
    found = claims.owner(tmp_path, "a1")
    assert found["pid"] == str(holder.pid)
    assert found["host"]
    assert found["since"][:2] == "20"
    assert "slurm_job" not in found
    assert claims.owner(tmp_path, "b2") is None


def test_the_job_of_a_cluster_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "42_7")
    with claims.claimed(tmp_path, "a1"):
        assert json.loads((tmp_path / "claims" / "a1.json").read_text())["slurm_job"] == "42_7"


def test_a_kill_frees_it_and_leaves_nobody(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert claims.owner(tmp_path, "a1") is None
    assert claims.abandoned(tmp_path)["a1"]["pid"] == str(holder.pid)
    claims.clean(tmp_path)
    assert "a1" in claims.abandoned(tmp_path), "it is not recorded yet"
    with claims.claimed(tmp_path, "a1") as mine:
        assert mine
    assert claims.abandoned(tmp_path) == {}


def test_cleaning_removes_the_note_of_a_cell_that_is_recorded(tmp_path, holder):
    storage.write(tmp_path, result("none", cell_id="a1"))
    holder.kill()
    holder.wait()
    claims.clean(tmp_path)
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["a1.lock"]


def test_cleaning_leaves_what_is_held(tmp_path, holder):
    claims.clean(tmp_path)
    assert claims.owner(tmp_path, "a1")["pid"] == str(holder.pid)


def test_nothing_to_clean_makes_no_folder(tmp_path):
    claims.clean(tmp_path / "nowhere")
    assert claims.owner(tmp_path / "nowhere", "a1") is None
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("note", [None, b"", b"{", b"[1]", b"\xff"])
def test_a_note_that_cannot_be_read_is_an_owner_without_a_name(tmp_path, holder, note):
    path = tmp_path / "claims" / "a1.json"
    path.unlink() if note is None else path.write_bytes(note)
    assert claims.owner(tmp_path, "a1") == {}


def test_it_ends_with_an_error_too(tmp_path):
    with pytest.raises(KeyError), claims.claimed(tmp_path, "a1"):
        raise KeyError
    assert claims.owner(tmp_path, "a1") is None
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["a1.lock"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_cell_is_not_forgotten(tmp_path, interruption):
    with pytest.raises(interruption), claims.claimed(tmp_path, "a1", "a label"):
        raise interruption
    assert claims.abandoned(tmp_path)["a1"]["label"] == "a label"


def states(root, capsys):
    code = status(["--root", str(root), "--format", "json"])
    return code, {cell["cell_id"]: cell["state"] for cell in json.loads(capsys.readouterr().out)["cells"]}


def test_status_shows_a_killed_cell_as_lost_and_how_to_go_on(tmp_path, holder, capsys):
    assert states(tmp_path, capsys) == (1, {"a1": "running"})
    holder.kill()
    holder.wait()
    assert status(["--root", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("1 cell: 1 lost\n")
    assert "its process ended without a record" in shown
    assert "run the same command again" in shown.splitlines()[-1]
    storage.write(tmp_path, result("none", cell_id="a1"))  # by whichever command
    assert states(tmp_path, capsys) == (0, {"a1": "ok"})


def elsewhere(root, silent_s):
    """A claim as another host sees it to whose locks do not reach: a free lock, and a note of some age."""
    with pytest.raises(KeyboardInterrupt), claims.claimed(root, "a1"):
        raise KeyboardInterrupt
    note = root / "claims" / "a1.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"host": "another-host"}))
    os.utime(note, (time.time() - silent_s,) * 2)


@pytest.mark.parametrize(
    ("silent_s", "state"), [(0, "running"), (claims.SILENT_S - 30, "running"), (claims.SILENT_S + 30, "lost")]
)
def test_a_process_on_another_host_is_lost_only_when_it_has_been_silent(tmp_path, capsys, silent_s, state):
    elsewhere(tmp_path, silent_s)
    assert states(tmp_path, capsys) == (1, {"a1": state})
    claims.clean(tmp_path)
    assert states(tmp_path, capsys) == (1, {"a1": state})


def test_a_held_lock_counts_even_if_its_process_is_silent(tmp_path, holder, capsys):
    os.utime(tmp_path / "claims" / "a1.json", (0, 0))
    assert states(tmp_path, capsys) == (1, {"a1": "running"})


def test_where_locks_cannot_be_tried_the_note_alone_counts(tmp_path, holder, capsys):
    note = tmp_path / "claims" / "a1.json"
    note.with_suffix(".lock").rename(tmp_path / "elsewhere")
    note.with_suffix(".lock").symlink_to(tmp_path / "elsewhere")
    assert states(tmp_path, capsys) == (1, {"a1": "running"})
    os.utime(note, (0, 0))
    assert states(tmp_path, capsys) == (1, {"a1": "lost"})


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path, holder, capsys):
    """Of another user, or mounted to be read only."""
    lock = tmp_path / "claims" / "a1.lock"
    lock.chmod(0o444)
    lock.parent.chmod(0o555)
    try:
        assert states(tmp_path, capsys) == (1, {"a1": "running"})
    finally:
        lock.parent.chmod(0o755)


def test_an_owner_touches_its_note(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_S", 0.01)
    note = tmp_path / "claims" / "a1.json"
    with claims.claimed(tmp_path, "a1"):
        os.utime(note, (0, 0))
        wait_until(lambda: note.stat().st_mtime)
