"""What is forgotten is in no report and no status, and nothing else is touched."""

import pytest

from helpers.synthetic import bad_result, result
from quantlab.cli import forget
from quantlab.cli.status import main as status
from quantlab.config.launcher import LauncherConfig
from quantlab.grid.claims import claimed
from quantlab.grid.slurm import batch as batches
from quantlab.grid.slurm.batch import Planned
from quantlab.grid.status.collect import collect
from quantlab.records import storage

FAILED, SLOW, OK, LOST = "feedfeedfeedfeed", "0123456789abcdef", "cafecafecafecafe", "deaddeaddeaddead"


@pytest.fixture
def root(tmp_path):
    storage.write(tmp_path, result("none", cell_id=OK))
    storage.write(tmp_path, bad_result("failed", "why", "hqq_int3", cell_id=FAILED))
    storage.write(tmp_path, bad_result("timeout", "not done", "hqq_int4", cell_id=SLOW))
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path, LOST, "a lost one"):
        raise KeyboardInterrupt
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / f"{FAILED}.log").touch()
    return tmp_path


def run(root, *arguments):
    return forget.main(["--root", str(root), *arguments])


def states(root):
    return {line.cell_id: line.state for line in collect(root)}


def label_of(root, cell_id):
    return next(line.label for line in collect(root) if line.cell_id == cell_id)


def test_all_that_failed(root, capsys):
    assert run(root, "--failed") == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 3
    for cell_id, state in {FAILED: "failed", SLOW: "timeout", LOST: "lost"}.items():
        assert f"{cell_id}  ({state})" in said
    assert states(root) == {OK: "ok"}
    assert status(["--root", str(root)]) == 0
    assert list((root / "logs").iterdir()) == []
    assert [path.name for path in (root / "cells").iterdir() if path.name != ".lock"] == [OK]
    assert run(root, "--failed") == 0
    assert "no failed cell in" in capsys.readouterr().err


@pytest.mark.parametrize("name", [FAILED, FAILED[:8], "its label", LOST, "a lost one", OK, OK[:8]])
def test_those_that_are_named(root, capsys, name):
    before = states(root)
    assert run(root, label_of(root, FAILED) if name == "its label" else name) == 0
    [line] = capsys.readouterr().out.splitlines()
    [gone] = before.keys() - states(root).keys()
    assert gone in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to forget: give cells, or --failed"),
        (["feedfeedfeedfeef"], f"did you mean '{FAILED}'?"),
        (["--failed", "nothing"], "no record of cell 'nothing'"),
        (["label of an ok one"], f"is ok: to forget it, give its id, {OK}"),
    ],
)
def test_a_mistake_removes_nothing(root, capsys, arguments, says):
    before = states(root)
    assert run(root, *[label_of(root, OK) if item == "label of an ok one" else item for item in arguments]) == 2
    assert says in capsys.readouterr().err
    assert states(root) == before


def test_a_cell_that_is_being_measured_stays(root, capsys):
    with claimed(root, FAILED, "again"):
        assert run(root, FAILED, SLOW) == 1
        said = capsys.readouterr()
        assert "again is running: not forgotten" in said.err
        assert SLOW in said.out
    assert FAILED in storage.recorded(root)


def test_a_folder_without_cells(tmp_path, capsys):
    assert run(tmp_path, "--failed") == 1
    assert "no records in" in capsys.readouterr().err


def test_a_cell_of_a_job_is_not_lost_afterwards(root):
    """Its batch is never changed; without a record the cell would look like one whose job was killed."""
    cell = Planned(id=FAILED, label="x", config={}, fingerprints={}, versions={})
    batches.write(root, batches.new("sweep", LauncherConfig(), [cell], [[FAILED]]))
    assert run(root, FAILED) == 0
    assert FAILED not in states(root)
    again = batches.new("sweep", LauncherConfig(), [cell], [[FAILED]])
    batches.write(root, again.model_copy(update={"id": "29991231-000000-abcdef"}))
    assert states(root)[FAILED] == "not submitted"
