"""Records that were damaged at random: every command says what is wrong and where, and none ends in a traceback."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.damage import FEW, damaged, nudged, tried
from helpers.synthetic import result
from quantlab.cli import recommend, rescore, status, verify
from quantlab.records import storage
from quantlab.records.archive import unpacked
from quantlab.records.schema import Record
from quantlab.report import __main__ as report
from quantlab.report.plots import figures
from quantlab.report.summaries import summaries
from quantlab.tracking import describe
from quantlab.util.printable import printable

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def small(quant, cell_id):
    """A whole record with few lines, so that most changes hit something that is read."""
    found = result(quant, cell_id)
    receipt = found.record.receipt
    modules = receipt.modules[:2]
    receipt = receipt.model_copy(update={"modules": modules, "modules_total": 2, "modules_quantized": 2})
    record = found.record.model_copy(update={"receipt": receipt})
    return found.model_copy(
        update={"record": record, "utterances": found.utterances[:6], "batches": found.batches[:2] + found.batches[-2:]}
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A root with a baseline and a cell that are compared."""
    root = tmp_path_factory.mktemp("sound")
    for quant, cell_id in (("none", "base"), ("hqq_int4", "cell")):
        storage.write(root, small(quant, cell_id))
    return root


def commands(root, out, style):
    yield report.main, ["--root", str(root), "--format", style]
    yield verify.main, ["--root", str(root)]
    yield rescore.main, ["--root", str(root), "--normaliser", "none", "--output", str(out)]
    yield status.main, ["--root", str(root)]
    yield recommend.main, ["--root", str(root)]
    yield recommend.main, ["--root", str(root), "--split", "clean", "--format", "json", "--max-size-mb", "5"]


STYLES = st.sampled_from(["table", "json", "markdown", "csv", "latex"])


def said_by_all(root, capsys, style="table"):
    """Everything that the commands print; they end with a code of theirs, whatever the records hold."""
    said = ""
    out = root.with_name(f"{root.name}-rescored")
    shutil.rmtree(out, ignore_errors=True)
    for run, arguments in commands(root, out, style):
        assert run(arguments) in (0, 1, 2)
        printed = capsys.readouterr()
        said += printed.out + printed.err
    assert printable(said, keep="\n") == said
    for record in storage.readable(root, ["cell"], lambda why: None):
        told_to_mlflow(record)
    return said


def told_to_mlflow(record):
    """What its run would be told; each is a call of no store."""
    for name, value in (describe.params(record) | describe.tags(record)).items():
        assert printable(name) == name
        assert printable(value) == value
    assert all(isinstance(value, float) for value in describe.metrics(record).values())
    describe.corpus(record)
    assert describe.milliseconds(record.created_at) >= 0


@pytest.fixture
def root(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "runs")


@FEW
@given(data=st.data())
def test_a_record(root, sound, capsys, data):
    stored = json.loads((sound / "cells" / "cell" / "record.json").read_text())
    path = root / "cells" / "cell" / "record.json"
    path.write_text(json.dumps(data.draw(st.sampled_from([damaged, nudged]))(data, stored)), encoding="utf-8")
    said = said_by_all(root, capsys, data.draw(STYLES))
    if not list(storage.readable(root, ["cell"], lambda why: None)):
        assert f"{path} is not a quantlab record: " in said


@FEW
@given(data=st.data(), name=st.sampled_from(["utterances.jsonl", "batches.jsonl"]))
def test_raw_files(root, sound, capsys, data, name):
    for raw in ("utterances.jsonl", "batches.jsonl"):  # as they were before the last example
        shutil.copyfile(sound / "cells" / "cell" / raw, root / "cells" / "cell" / raw)
    lines = [json.loads(line) for line in (sound / "cells" / "cell" / name).read_text().splitlines()]
    found = data.draw(st.sampled_from([damaged, nudged]))(data, lines)
    lines = found if isinstance(found, list) else [found]
    path = root / "cells" / "cell" / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with_digests(root, data.draw(st.booleans()))
    said = said_by_all(root, capsys, data.draw(STYLES))
    if not is_whole(root):
        assert f"{path}:" in said


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """A root with one cell that streamed, of the results; its id."""
    root = tmp_path_factory.mktemp("streamed")
    with unpacked(RESULTS / "streaming.tar.xz") as found:
        cells = {(item.config["model"]["name"], item.config["quant"]["name"]): item for item in storage.read_all(found)}
        cell_id = cells["nano", "ct2_float32"].cell_id
        storage.copy(storage.cells_dir(found) / cell_id, root)
    return root, cell_id


@FEW
@given(data=st.data())
def test_streams(streamed, tmp_path_factory, capsys, data):
    sound, cell_id = streamed
    root = shutil.copytree(sound, tmp_path_factory.mktemp("damaged") / "runs")
    path = root / "cells" / cell_id / "streams.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()][:3]
    found = data.draw(st.sampled_from([damaged, nudged]))(data, lines)
    lines = found if isinstance(found, list) else [found]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with_digests(root, data.draw(st.booleans()), cell_id)
    said = said_by_all(root, capsys, data.draw(STYLES))
    assert cell_id in said  # three streams are never those of the record's figures
    shutil.rmtree(root.parent)


def with_digests(root, forged, cell_id="cell"):
    """Of the raw files as they are, or as they were."""
    path = root / "cells" / cell_id / "record.json"
    stored = json.loads(path.read_text())
    digests = storage.digests(path.parent) if forged else dict.fromkeys(storage.RAW_FILES, "0" * 64)
    path.write_text(json.dumps(stored | {"digests": digests}))


def is_whole(root):
    try:
        storage.read_utterances(root, "cell")
        storage.read_batches(root, "cell")
    except ValueError:
        return False
    return True


@FEW
@given(data=st.data(), name=st.sampled_from(["record.json", "utterances.jsonl", "batches.jsonl"]))
def test_bytes(root, sound, capsys, data, name):
    """Flipped, cut, doubled: what a broken disk or a bad copy makes of a file."""
    content = bytearray((sound / "cells" / "cell" / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(len(content) - 1, 0)))
        what = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if what == "cut":
            del content[place:]
        elif what == "insert":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        elif content:
            content[place] ^= data.draw(st.integers(1, 255))
    path = root / "cells" / "cell" / name
    path.write_bytes(content)
    said = said_by_all(root, capsys, data.draw(STYLES))
    shutil.copyfile(sound / "cells" / "cell" / name, path)
    assert "Traceback" not in said


@tried(0.2)
@given(data=st.data())
def test_the_page(root, sound, capsys, data):
    """A page of megabytes takes longer, so that it meets fewer of them."""
    folder = sound / "cells" / "cell"
    stored = nudged(data, json.loads((folder / "record.json").read_text()))
    (root / "cells" / "cell" / "record.json").write_text(json.dumps(stored), encoding="utf-8")
    for name in storage.RAW_FILES:
        lines = nudged(data, [json.loads(line) for line in (folder / name).read_text().splitlines()])
        (root / "cells" / "cell" / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert report.main(["--root", str(root), "--format", "html"]) in (0, 1, 2)
    figures(summaries(root, on_unreadable=lambda why: None))
    capsys.readouterr()


@tried(5)
@given(data=st.data())
def test_what_the_schema_takes_can_be_written_again(sound, data):
    """As JSON of the strict kind, to the same record."""
    stored = json.loads((sound / "cells" / "cell" / "record.json").read_text())
    try:
        record = Record.model_validate_json(json.dumps(nudged(data, stored)))
    except ValueError:
        return
    told_to_mlflow(record)
    text = record.model_dump_json()
    json.loads(text, parse_constant=pytest.fail)
    assert Record.model_validate_json(text) == record


def test_a_record_that_says_it_is_another_cell(root, tmp_path, capsys):
    """Nothing is written where the id leads."""
    path = root / "cells" / "cell" / "record.json"
    stored = json.loads(path.read_text())
    for cell_id in ("../../evil", str(tmp_path / "evil"), "base", "a\nb", "x" * 4000, ".", ""):
        path.write_text(json.dumps(stored | {"cell_id": cell_id}))
        before = set(tmp_path.rglob("*"))
        said = said_by_all(root, capsys)
        assert f"{path} is not a quantlab record: cell_id: it belongs to another cell, " in said
        made = set(tmp_path.rglob("*")) - before
        assert all("runs-rescored" in str(new) for new in made)
        if cell_id not in ("base", ""):
            with pytest.raises(ValueError, match="is not a cell id"):
                storage.write(tmp_path / "other", small("none", cell_id))
