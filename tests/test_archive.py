"""Records packed by tar, read like the folder that they came from."""

import io
import json
import tarfile

import pytest

from helpers.synthetic import result
from quantlab.cli.recommend import main as recommend
from quantlab.cli.rescore import main as rescore
from quantlab.cli.verify import main as verify
from quantlab.records import archive, storage
from quantlab.report.__main__ import main as report

QUANTS = ("none", "bnb_nf4")


@pytest.fixture
def root(tmp_path):
    for quant in QUANTS:
        storage.write(tmp_path / "mlruns", result(quant))
    return tmp_path / "mlruns"


def pack(path, mode, root, below="cells"):
    with tarfile.open(path, mode) as packed:
        packed.add(storage.cells_dir(root), below)
    return path


@pytest.mark.parametrize(("name", "below"), [("r.tar.xz", "cells"), ("r.tar.gz", "./mlruns/cells"), ("r.tar", "cells")])
def test_a_packed_root_says_what_the_folder_says(root, tmp_path, capsys, name, below):
    packed = pack(tmp_path / name, {"xz": "w:xz", "gz": "w:gz"}.get(name.rpartition(".")[2], "w"), root, below)
    said = []
    for place in (root, packed):
        for command in (["--format", "json"], ["--format", "markdown"]):
            assert report(["--root", str(place), *command]) == 0
        said.append(capsys.readouterr().out)
        recommend(["--root", str(place), "--format", "json"])
        said[-1] += capsys.readouterr().out
    assert said[0] == said[1]
    assert len(json.loads(said[0][: said[0].index("\n]\n") + 2])) == len(QUANTS)


def test_it_is_verified_and_rescored_like_the_folder(root, tmp_path, capsys):
    said = []
    for place in (root, pack(tmp_path / "r.tar.xz", "w:xz", root)):
        code = verify(["--root", str(place)])
        assert rescore(["--root", str(place), "--normaliser", "none"]) == 0
        said.append((code, capsys.readouterr().out))
    assert said[0] == said[1]
    assert all(quant in said[0][1] for quant in QUANTS)


def test_nothing_else_is_taken_out(root, tmp_path):
    cell = storage.recorded(root)[0]
    hostile = {
        "../../cells/../escaped": b"x",
        f"cells/{cell}/../../../escaped": b"x",
        f"cells/{cell}/model.safetensors": b"x",
        "/cells/../record.json": b"x",
        "cells/.hidden/record.json": b"x",
        "mlflow.db": b"x",
    }
    path = pack(tmp_path / "r.tar", "w", root)
    with tarfile.open(path, "a") as packed:
        for name, content in hostile.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo(f"cells/{cell}/utterances.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    with archive.unpacked(path) as folder:
        there = sorted(str(item.relative_to(folder)) for item in folder.rglob("*") if item.is_file())
        assert not any(item.is_symlink() for item in folder.rglob("*"))
    names = ("batches.jsonl", "record.json", "utterances.jsonl")
    assert there == sorted(f"cells/{id}/{name}" for id in storage.recorded(root) for name in names)
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["text", "cut", "empty", "endless"])
def test_what_holds_no_records_is_one_line(root, tmp_path, capsys, monkeypatch, kind):
    path = tmp_path / "r.tar.xz"
    if kind == "text":
        path.write_text("no archive")
    elif kind == "empty":
        tarfile.open(path, "w:xz").close()
    else:
        pack(path, "w:xz", root)
        path.write_bytes(path.read_bytes()[:-400] if kind == "cut" else path.read_bytes())
    if kind == "endless":
        monkeypatch.setattr(archive, "MOST_BYTES", 10_000)
    code = report(["--root", str(path)])
    said = capsys.readouterr()
    assert (code, said.out, said.err.count("\n")) == (2, "", 1)
    assert str(path) in said.err
    assert archive.HOW in said.err
