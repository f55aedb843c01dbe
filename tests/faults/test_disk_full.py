"""A disk that is full while a record is written: the cell is `failed` with that reason, earlier records are intact."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.synthetic import result
from quantlab.records import storage

CELLS = ("device=cpu", "dataset.limit=1", "protocol=quick")
NO_ROOM = "its record could not be written: [Errno 28] No space left on device"
ROOM_KB = 112  # for two records of this size or so, and no third


class Disk:
    def __init__(self, folder):
        self.folder = folder
        self.root = folder / "mlruns"

    def resize(self, size):
        subprocess.run(["mount", "-o", f"remount,size={size}", self.folder], check=True)

    def fill(self):
        with contextlib.suppress(OSError), (self.folder / "filler").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(512))


@pytest.fixture
def disk(tmp_path):
    """A real file system of that size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_KB}k", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    if done is None or done.returncode:
        pytest.skip("only root can mount a small disk" if done is None else done.stderr)
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


def content(root):
    return {path: path.read_bytes() for path in (root / "cells").rglob("*.json*")}


def statuses(root):
    return {record.config["quant"]["name"]: (record.status, record.reason) for record in storage.read_all(root)}


def test_the_disk_fills_up_between_two_records(quantlab, disk):
    grid = ("-m", "quant=none,torch_int8,bnb_nf4", "tracking=off", f"output_dir={disk.root}", *CELLS)
    done = quantlab(*grid)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    found = statuses(disk.root)
    assert found["none"] == ("ok", None)
    full = [name for name, (status, _) in found.items() if status == "failed"]
    assert full, found
    for name in full:
        assert found[name][1].startswith(NO_ROOM)
        assert f"failed: nano-{name}-cpu: {NO_ROOM}" in done.stdout
    assert not list((disk.root / "cells").glob(".*.tmp"))

    earlier = {path: text for path, text in content(disk.root).items() if b'"status": "ok"' in text}
    disk.resize("10m")
    done = quantlab(*grid)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("recorded before") == 3 - len(full)
    assert {status for status, _ in statuses(disk.root).values()} == {"ok"}
    assert earlier.items() <= content(disk.root).items()
    assert quantlab("--root", str(disk.root), module="quantlab.verify").returncode == 0


def test_there_is_no_room_for_a_single_byte(quantlab, disk):
    """Neither a log nor a note nor MLflow's database can be begun: there are rows all the same."""
    grid = ("-m", "quant=none,torch_int8", f"output_dir={disk.root}", *CELLS)
    assert quantlab("quant=none", "tracking=off", *grid[2:]).returncode == 0
    earlier = content(disk.root)
    disk.fill()
    done = quantlab(*grid)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"failed: nano-torch_int8-cpu: {NO_ROOM}" in done.stdout
    assert "recorded before" in done.stderr
    assert "not in MLflow" in done.stderr
    assert content(disk.root) == earlier

    again = quantlab("resume=false", *grid)  # a good record is not given up for a failure to write
    assert again.returncode == 1
    assert f"failed: 2 cells (nano-none-cpu, nano-torch_int8-cpu): {NO_ROOM}" in again.stdout
    assert earlier.items() <= content(disk.root).items()  # a log that begins anew leaves room for a short record


WRITER = """
import resource, sys
from helpers.synthetic import result
from quantlab.records import storage
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # bytes
try:
    storage.write(sys.argv[1], result("hqq_int4", "a1"))
except OSError as error:
    print(error.strerror)
"""


def test_a_file_cannot_grow(tmp_path):
    """The same where nobody may mount: the system refuses the bytes in the middle of a file."""
    folder = storage.write(tmp_path, result("none", "a1"))
    before = content(tmp_path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[1])])}
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "File too large\n", done.stderr
    assert content(tmp_path) == before
    assert [path.name for path in folder.parent.iterdir()] == ["a1"] or storage.recorded(tmp_path) == ["a1"]
    assert not list(folder.parent.glob(".*.tmp"))


@pytest.mark.parametrize("place", ["a_file", "a_file/below", "/proc/nowhere"])
def test_a_root_that_cannot_be_is_told_before_anything_runs(quantlab, place):
    (quantlab.folder / "a_file").write_text("not a folder")
    done = quantlab(f"output_dir={place}", *CELLS)
    assert done.returncode == 2
    assert done.stderr.startswith(f"quantlab: output_dir={place} cannot be written: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
