"""One record that somebody else made must not take the others away: it is named in a line, and they are shown."""

import contextlib
import json
import os
import shutil
import socket

import pytest

from helpers.synthetic import result
from quantlab.cli import recommend, rescore, status, verify
from quantlab.grid.slurm import batch as batches
from quantlab.records import storage
from quantlab.report import __main__ as report
from quantlab.report.plots import figures
from quantlab.report.summaries import summaries
from quantlab.tracking import runs

STYLES = tuple(report.FORMATS)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A baseline and two cells, the last of which is to become the foreign one."""
    root = tmp_path_factory.mktemp("sound")
    for quant, cell_id in (("none", "base"), ("hqq_int4", "cell"), ("bnb_nf4", "foreign")):
        storage.write(root, result(quant, cell_id))
    return root


@pytest.fixture
def root(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "runs")


def change(root, *keys, value):
    """Put something at a place of the foreign record, as JSON of Python's has it: NaN, lone surrogates."""
    path = root / "cells" / "foreign" / "record.json"
    stored = json.loads(path.read_text())
    part = stored
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(stored).replace('"1e999"', "1e999"))


def deep(levels):
    found = "bottom"
    for _ in range(levels):
        found = {"in": found}
    return found


NAN, INF = float("nan"), float("inf")
REFUSED = {  # what stands where, and is refused
    "nan in the environment": (("environment", "threads"), NAN),
    "nan deep in the environment": (("environment", "load_average"), [0.5, NAN]),
    "infinity in the environment": (("environment", "memory_bytes"), "1e999"),
    "an immense number": (("environment", "memory_bytes"), 10**400),
    "an endless nesting": (("environment", "pools"), deep(500)),
    "a deep nesting": (("environment", "pools"), deep(100)),
    "a lone surrogate": (("environment", "processor"), "\ud800"),
    "nan in the configuration": (("config", "protocol", "rel_ci"), NAN),
    "a dataset that is a text": (("config", "dataset"), "x"),
    "noise without a ratio": (("config", "dataset", "noise"), {"kind": "white"}),
    "a ratio without noise": (("config", "dataset", "noise"), {"snr_db": 10}),
    "a billion resamples": (("config", "stats"), {"resamples": 10**9}),
    "nan of a figure": (("splits", "clean", "wer"), NAN),
    "a rate that is not its counts'": (("splits", "clean", "wer"), 0.001),
    "a word count that is not its counts'": (("splits", "clean", "ref_words"), 9),
    "a time that is not its seconds'": (("splits", "clean", "rtf"), 0.001),
    "a count below 0": (("splits", "clean", "insertions"), -1),
    "a share above 1": (("splits", "clean", "loop_share"), 1.5),
    "an interval that is upside down": (("splits", "clean", "rtf_ci95"), [0.03, 0.01]),
    "no audio": (("splits", "clean", "audio_s"), 0),
    "a baseline of 0 bytes": (("receipt", "baseline_bytes"), 0),
    "a size below 0": (("receipt", "size_bytes"), -1),
    "a size that is not its tensors'": (("receipt", "size_bytes"), 1_890_816),
    "a size beyond all machines": (("receipt", "size_bytes"), 2**70),
    "no receipt": (("receipt",), None),
    "no figures": (("splits",), {}),
    "no date": (("created_at",), "yesterday"),
    "a date of another zone": (("created_at",), "2026-11-21T04:00:00+02:00"),
    "a date before all machines": (("created_at",), "0001-01-01T00:00:00+00:00"),
    "another cell's id": (("cell_id",), "base"),
    "an id with a line break": (("cell_id",), "foreign\nfake: ok"),
}
KEPT = {  # what another version may well have written: it is shown
    "a scheme of another version": (("config", "quant", "scheme"), "later"),
    "a normaliser of another version": (("normaliser",), "later"),
    "mathematics in a name": (("config", "model", "name"), r"$\frac"),
    "markup in a split": (("splits",), {"[/bold]": result("bnb_nf4").record.splits["clean"].model_dump()}),
    "a flag with a sign for a number": (("noise",), {"flags": ["took # of 3", "took 4 of 3"]}),
}


def said_by_all(root, capsys, styles=("table", "json")):
    """What every command prints, all of which end with a code of their own."""
    said = []
    out = root.with_name("rescored")
    calls = [(report.main, ["--format", style]) for style in styles]
    calls += [(verify.main, []), (recommend.main, []), (status.main, [])]
    calls += [(rescore.main, ["--normaliser", "basic", "--output", str(out)])]
    for run, options in calls:
        assert run(["--root", str(root), *options]) in (0, 1, 2)
        printed = capsys.readouterr()
        said.append(printed.out + printed.err)
    if "html" in styles:
        figures(summaries(root, on_unreadable=lambda why: None))
    return said


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_record_may_hold_is_named_and_the_rest_is_shown(root, capsys, what):
    keys, value = REFUSED[what]
    change(root, *keys, value=value)
    *reports, verified, recommended, told, rescored = said_by_all(root, capsys)
    for said in (*reports, recommended, rescored):
        named = [line for line in said.split("\n") if "foreign" in line and "not a quantlab record" in line]
        assert named
        assert max(map(len, named)) < 500
    assert "unreadable" in verified
    assert "3 cells: " in told
    assert all("hqq_int4" in said for said in reports)
    assert (root.with_name("rescored") / "cells" / "cell" / "record.json").exists()


@pytest.mark.parametrize("style", ["table", "markdown", "latex", "html"])
def test_a_document_says_what_is_not_in_it(root, capsys, style):
    """Whoever is sent one has not seen what stood on standard error."""
    change(root, "receipt", "baseline_bytes", value=0)
    assert report.main(["--root", str(root), "--format", style]) == 0
    printed = capsys.readouterr()
    document = (root / "report.html").read_text() if style == "html" else printed.out
    for said in (document, printed.err):
        [named] = [line for line in said.split("\n") if "not a quantlab record" in line]
        assert "foreign" in named


@pytest.mark.parametrize("what", KEPT)
def test_what_another_version_may_write_is_shown(root, capsys, what):
    keys, value = KEPT[what]
    change(root, *keys, value=value)
    for said in said_by_all(root, capsys, STYLES)[: len(STYLES)]:
        assert "not a quantlab record" not in said


RAW = {  # what a line of a raw file says instead, with the right digest
    "a count below 0": ("utterances.jsonl", {"hits": -1}),
    "an immense count": ("utterances.jsonl", {"substitutions": 2**62}),
    "half a word": ("utterances.jsonl", {"hits": 7.5}),
    "a count that is a text": ("utterances.jsonl", {"hits": "many"}),
    "other counts than the record's": ("utterances.jsonl", {"hits": 3, "substitutions": 5}),
    "an utterance of another split": ("utterances.jsonl", {"split": "elsewhere"}),
    "a split that is a number": ("utterances.jsonl", {"split": 3}),
    "a call without time": ("batches.jsonl", {"elapsed_s": 0}),
    "a call of all times": ("batches.jsonl", {"elapsed_s": 1e308}),
    "a call without audio": ("batches.jsonl", {"audio_s": 0}),
    "a call without tokens": ("batches.jsonl", {"work": "forced", "tokens": 0}),
    "half a block": ("batches.jsonl", {"block": 3}),
}


@pytest.mark.parametrize("what", RAW)
def test_raw_files_of_wrong_values_with_right_digests(root, capsys, what):
    name, values = RAW[what]
    folder = root / "cells" / "foreign"
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    lines[1] |= values
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    change(root, "digests", value=storage.digests(folder))
    said = said_by_all(root, capsys, STYLES)
    if name == "utterances.jsonl":
        assert "cell is not compared" in said[0], "an interval would be one of other utterances than the rate's"
    assert "cells/foreign/" in said[-4], "verify names it"


def test_a_folder_whose_name_is_no_cell_id(root, capsys):
    shutil.copytree(root / "cells" / "base", root / "cells" / "a\nfake: ok")
    for said in said_by_all(root, capsys):
        assert "\nfake: ok" not in said
        assert "hqq_int4" in said or "cell" in said


def test_a_key_that_stands_twice_is_read_alike_by_all(root, capsys):
    path = root / "cells" / "foreign" / "record.json"
    path.write_text(path.read_text().replace('"status":', '"status": "failed", "status":', 1))
    said = said_by_all(root, capsys)
    assert "failed" not in said[0] + said[-2]


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def link(path):
    path.symlink_to(path.with_name("elsewhere"))
    path.with_name("elsewhere").write_text("secret\n")


def folder(path):
    path.mkdir()


def enormous(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)


def listening(path):
    before = os.getcwd()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server, contextlib.chdir(path.parent):
        server.bind(path.name)  # the whole path is too long for the name of a socket
    assert os.getcwd() == before


ODD = (pipe, device, link, folder, enormous, listening)
FILES = ("record.json", "utterances.jsonl", "batches.jsonl")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", ODD)
def test_what_is_no_regular_file_is_neither_waited_for_nor_read_to_its_end(root, capsys, make, name):
    path = root / "cells" / "foreign" / name
    path.unlink(missing_ok=True)
    make(path)
    said = said_by_all(root, capsys)
    assert "secret" not in "".join(said)
    assert "hqq_int4" in said[0]
    if name == "record.json":
        with pytest.raises(OSError, match="foreign"):
            runs.identity(root, "foreign")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", ODD)
def test_batches_and_claims_that_are_no_regular_files(root, capsys, make):
    for path in (root / "jobs" / "one" / "batch.json", root / "claims" / "cell.json", root / "sweeps" / "one.json"):
        path.parent.mkdir(parents=True)
        make(path)
    assert list(batches.read_all(root)) == []
    assert status.main(["--root", str(root)]) == 0
    assert "3 cells: 3 ok" in capsys.readouterr().out
