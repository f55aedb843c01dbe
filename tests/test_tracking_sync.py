"""`quantlab sync` into a local store, and who may close a run."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import pytest

from helpers.synthetic import bad_result, grid, result
from quantlab import tracking
from quantlab.cli import sync
from quantlab.config.schema import TrackingConfig
from quantlab.records import storage
from quantlab.tracking.runs import is_ours, root_id, why_gone, writer_tag
from quantlab.tracking.summary import note_sweep

pytestmark = pytest.mark.minutes
LOCAL = TrackingConfig()


def no_table(cell_ids):
    return "", {}


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """A database that has been made already, for copies."""
    folder = tmp_path_factory.mktemp("store")
    tracking.sync(folder, LOCAL, no_table, cells=[])
    return folder / "mlflow.db"


@pytest.fixture
def root(empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path)
    return tmp_path


def runs(root, query="", view=1):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db").search_runs(["1"], query, run_view_type=view)


def test_every_record_is_there_once_and_the_second_time_nothing_happens(root, capsys):
    cell_ids = grid(root)
    assert sync.main(["--root", str(root)]) == 0
    assert capsys.readouterr().out.startswith("10 records: 10 logged, 0 already there\n")
    assert sorted(run.data.tags["quantlab.cell_id"] for run in runs(root)) == sorted(cell_ids)
    assert sync.main(["--root", str(root)]) == 0
    assert capsys.readouterr().out.startswith("10 records: 0 logged, 10 already there\n")


def test_what_cannot_be_read_is_named_and_the_rest_is_logged(root, empty_store, capsys):
    """Records and raw files that are pipes, links out or no JSON; none is followed or waited for."""
    *good, pipe, link, nan, raw = grid(root)
    cells = storage.cells_dir(root)
    (cells / pipe / "record.json").unlink()
    os.mkfifo(cells / pipe / "record.json")
    secret = root / "secret"
    secret.write_text("secret\n")
    (cells / link / "utterances.jsonl").unlink()
    (cells / link / "utterances.jsonl").symlink_to(secret)
    path = cells / nan / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"environment": {"load": float("nan")}}))
    (cells / raw / "batches.jsonl").unlink()
    os.mkfifo(cells / raw / "batches.jsonl")
    shutil.copytree(cells / good[0], cells / "a\nfake: ok")
    assert sync.main(["--root", str(root)]) == 1
    printed = capsys.readouterr()
    for named in (pipe, link, nan, raw, "fake: ok"):
        assert len([line for line in printed.err.split("\n") if named in line]) == 1
    assert "\nfake: ok" not in printed.err
    shown = {run.data.tags["quantlab.cell_id"] for run in runs(root, "attributes.status != 'RUNNING'")}
    assert set(good) <= shown
    logged = [path for path in (empty_store.parent / "artifacts").rglob("*.jsonl") if path.is_file()]
    assert logged
    assert not [path for path in logged if path.read_text() == "secret\n"]


def test_a_sweep_that_was_never_shown_gets_its_tag_and_its_summary(root):
    cell_ids = grid(root)
    note_sweep(root, "abc123", cell_ids)
    note_sweep(root, "def456", cell_ids[:3])
    assert sync.main(["--root", str(root)]) == 0
    tags = {
        run.data.tags["quantlab.cell_id"]: run.data.tags["quantlab.sweep"] for run in runs(root, "tags.status='ok'")
    }
    assert (tags[cell_ids[0]], tags[cell_ids[5]]) == ("abc123 def456", "abc123")
    summaries = {run.info.run_name: run.data.metrics for run in runs(root, "tags.status='summary'")}
    assert {name: metrics["summary/cells"] for name, metrics in summaries.items()} == {
        "sweep-abc123": 10,
        "sweep-def456": 3,
    }
    before = len(runs(root))
    assert sync.main(["--root", str(root)]) == 0
    assert len(runs(root)) == before


def test_a_record_that_cannot_be_read_is_named_and_the_others_are_logged(root, capsys):
    grid(root)
    (root / "cells" / "cell03" / "record.json").write_text("{")
    assert sync.main(["--root", str(root)]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("9 records: 9 logged")
    assert "cells/cell03/record.json is not a quantlab record" in said.err


def test_no_records_and_no_server_are_exit_code_1(tmp_path, capsys):
    assert sync.main(["--root", str(tmp_path)]) == 1
    assert "no records in" in capsys.readouterr().err
    storage.write(tmp_path, result("none", "a1"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert sync.main(["--root", str(tmp_path), "--uri", uri]) == 1
    assert f"run it again: quantlab sync --root {tmp_path} --uri {uri}" in capsys.readouterr().err


def test_misuse_is_exit_code_2_and_help_has_an_example(capsys):
    assert sync.main(["--uri", "localhost:5000"]) == 2
    assert "expected http://HOST:PORT" in capsys.readouterr().err
    assert sync.main(["--help"]) == 0
    assert "example: quantlab sync" in capsys.readouterr().out


def test_the_store_may_be_a_new_one(root, empty_store):
    grid(root)
    assert tracking.sync(root, LOCAL, no_table).logged == 10
    shutil.copy(empty_store, root)
    assert tracking.sync(root, LOCAL, no_table).logged == 10
    assert len(runs(root)) == 10


DIES = """
import os, sys
from quantlab import tracking
from quantlab.config.schema import TrackingConfig
from quantlab.tracking import log
log._log_corpus = lambda *_: os.kill(os.getpid(), int(sys.argv[2]))
tracking.sync(sys.argv[1], TrackingConfig(), None, ["a1"], [])
"""


def test_what_a_killed_process_left_half_is_closed_with_the_reason_and_replaced(root, capsys):
    storage.write(root, result("none", "a1"))
    died = subprocess.run([sys.executable, "-c", DIES, str(root), str(int(signal.SIGKILL))], timeout=100, check=False)
    assert died.returncode == -signal.SIGKILL
    [half] = runs(root)
    assert half.info.status == "RUNNING"
    assert sync.main(["--root", str(root)]) == 0
    assert "1 interrupted run closed" in capsys.readouterr().out
    [kept] = runs(root)
    assert (kept.info.status, kept.data.tags["status"]) == ("FINISHED", "ok")
    [closed] = runs(root, view=2)
    assert (closed.info.run_id, closed.info.status) == (half.info.run_id, "KILLED")
    assert "ended while writing this run" in closed.data.tags["reason"]


def test_a_summary_that_a_killed_process_left_half_is_replaced(root):
    from mlflow import MlflowClient

    note_sweep(root, "abc123", grid(root))
    tags = {"quantlab.kind": "summary", "quantlab.sweep": "abc123"}  # and no writer: it is gone
    MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db").create_run("1", tags=tags)
    assert tracking.sync(root, LOCAL, no_table).interrupted == 1
    [summary] = runs(root, "tags.`quantlab.kind` = 'summary'")
    assert summary.info.status == "FINISHED"
    assert "reason" not in summary.data.tags


def test_a_record_that_replaced_another_replaces_its_run(root):
    storage.write(root, bad_result("failed", "once", cell_id="a1"))
    tracking.sync(root, LOCAL, no_table)
    storage.write(root, result("none", "a1"))
    tracking.sync(root, LOCAL, no_table)
    assert [run.data.tags["status"] for run in runs(root)] == ["ok"]


WRITER = "quantlab.writer"


def _tags(**changes):
    return {WRITER: json.dumps(json.loads(writer_tag()[WRITER]) | changes)}


def test_who_may_be_alive_is_left_alone():
    assert is_ours(writer_tag())
    assert why_gone(writer_tag()) is None
    assert why_gone(_tags(since=0)) is None, "our own process lives, however long it takes"
    assert why_gone(_tags(host="elsewhere")) is None
    assert not is_ours(_tags(host="elsewhere"))


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({}, "the process that wrote it is unknown"),
        ({WRITER: "{"}, "the process that wrote it is unknown"),
        (_tags(started=1.0), f"process {os.getpid()} on {socket.gethostname()} ended"),  # its number was given again
        (
            _tags(host="elsewhere", since=time.time() - 3600),
            f"not completed by process {os.getpid()} on elsewhere in ",
        ),
    ],
    ids=["no tag", "half a tag", "ended", "silent"],
)
def test_who_is_gone_is_told_by_process_or_time(tags, reason):
    assert reason in why_gone(tags)


def test_a_copy_of_a_folder_is_another_folder_and_a_moved_one_is_the_same(tmp_path):
    (tmp_path / "one").mkdir()
    known = root_id(tmp_path / "one")
    assert root_id(tmp_path / "one") == known
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert root_id(tmp_path / "two") != known
    (tmp_path / "one").rename(tmp_path / "three")
    assert root_id(tmp_path / "three") == known


def _no_database(path):
    path.write_bytes(b"this is no database" * 100)


def _zeros_in_the_middle(path):
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))


def _no_tables(path):
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE experiments")


@pytest.mark.parametrize("damage", [_no_database, _zeros_in_the_middle, _no_tables])
def test_a_damaged_database_is_named_and_another_one_has_everything(root, damage, quantlab, capsys):
    cell_ids = grid(root)
    note_sweep(root, "abc123", cell_ids)
    damage(root / "mlflow.db")
    assert sync.main(["--root", str(root)]) == 1
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert f"{root}/mlflow.db is damaged (" in said
    assert "run it again" not in said
    command = said[said.index("mv ") :].strip()
    assert command == f"mv {root}/mlflow.db {root}/mlflow.db.damaged && quantlab sync --root {root}"
    (root / "mlflow.db").rename(root / "mlflow.db.damaged")
    done = quantlab("--root", str(root), module="quantlab.sync")
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(root / "mlflow.db") as database:
        tags = database.execute("SELECT value FROM tags WHERE key = 'quantlab.cell_id'").fetchall()
        sweeps = database.execute("SELECT value FROM tags WHERE key = 'quantlab.sweep' AND value = 'abc123'").fetchall()
    assert sorted(cell_id for (cell_id,) in tags) == sorted(cell_ids)
    assert len(sweeps) == len(cell_ids) + 1
