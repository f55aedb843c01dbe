"""A claim is one process's, is told to everybody, and goes with the process."""

import json
import signal
import subprocess
import sys

import pytest

from quantlab.grid import claims

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
    assert (tmp_path / "claims" / "a1.json").exists()
    claims.clean(tmp_path)
    assert not (tmp_path / "claims" / "a1.json").exists()
    with claims.claimed(tmp_path, "a1") as mine:
        assert mine


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
