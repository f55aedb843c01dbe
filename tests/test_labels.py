"""Cells of one name are told apart wherever they are listed, and what does not compare is never compared."""

import dataclasses
import json

import pytest
from synthetic import bad_result, result

from quantlab.analysis.evidence import evidence
from quantlab.grid.status.heads import heads
from quantlab.records import labels, storage
from quantlab.report import flat, latex, markdown, rows, table
from quantlab.report.html import grid as page_grid
from quantlab.report.html import summary
from quantlab.report.wording import corpus_key
from quantlab.tracking import describe

QUANTS = ("none", "torch_int8")


def recorded(root, cell_id, quant="none", fingerprints=None, **changes):
    """A record below `root`; WER differs from cell to cell, so that a best one can be told."""
    made = result(quant, cell_id, **changes)
    marks = {"checkpoint": "c" * 64, "corpus": "d" * 64} | (fingerprints or {})
    storage.write(root, made.model_copy(update={"record": made.record.model_copy(update={"fingerprints": marks})}))


def twice(root, first, second):
    """Two cells of each kind, below one root."""
    for name, how in (("a", first), ("b", second)):
        for quant in QUANTS:
            recorded(root, f"{name}-{quant}", quant, **how)
    return rows.rows(root)


LIMITS = (
    {"fingerprints": {"corpus": "2" * 64}, "dataset__limit": 2},
    {"fingerprints": {"corpus": "3" * 64}, "dataset__limit": 3},
)
MANIFESTS = tuple(
    {"fingerprints": {"corpus": mark * 64}, "dataset__name": "manifest", "dataset__source": "manifest",
     "dataset__path": f"{mark}/{mark}.jsonl"}
    for mark in "ef"
)  # fmt: skip
SAME_FILE = tuple(how | {"dataset__path": f"{mark}/m.jsonl"} for how, mark in zip(MANIFESTS, "ef", strict=True))
FOLDERS = tuple({"fingerprints": {"checkpoint": mark * 64}, "model__path": f"{mark}/tuned-{mark}"} for mark in "ef")
SAME_FOLDER = tuple(how | {"model__path": f"{mark}/tuned"} for how, mark in zip(FOLDERS, "ef", strict=True))
DTYPES = tuple({"runtime__dtype": dtype} for dtype in ("float32", "bfloat16"))
LANGUAGES = tuple({"dataset__language": code} for code in ("en", "de"))
SPLITS = tuple(
    {"fingerprints": {"corpus": mark * 64}, "dataset__splits": splits}
    for mark, splits in (("e", None), ("f", ["clean"]))
)
UNKNOWN = tuple({"dataset__channel": value} for value in (None, 1))  # a key that is no axis of ours may come
BEAMS = tuple({"protocol__num_beams": beams} for beams in (1, 5))
KINDS = {
    "limit": (LIMITS, ("limit=2", "limit=3")),
    "manifest": (MANIFESTS, ("corpus=e.jsonl", "corpus=f.jsonl")),
    "manifests of one name": (SAME_FILE, ("eeeeee", "ffffff")),
    "checkpoint": (FOLDERS, ("tuned-e", "tuned-f")),
    "checkpoints of one name": (SAME_FOLDER, ("tuned eeeeee", "tuned ffffff")),
    "dtype": (DTYPES, ("-cpu", "-cpu-bfloat16")),
    "language": (LANGUAGES, ("language=en", "language=de")),
    "splits": (SPLITS, ("all splits", "splits=clean")),
    "channel": (UNKNOWN, ("no channel", "channel=1")),
    "beams": (BEAMS, ("num_beams=1", "num_beams=5")),
}


@pytest.fixture(params=KINDS)
def both(request, tmp_path):
    """Rows of two kinds of cell, the folder they are in, and what tells the kinds apart."""
    kinds, told = KINDS[request.param]
    return twice(tmp_path, *kinds), tmp_path, dict(zip("ab", told, strict=True))


def test_every_list_tells_cells_apart(both):
    found, root, told = both
    named = labels.names([rows.cell(row) for row in found])
    assert len(set(named.values())) == 4
    assert all(told[cell_id[0]] in name for cell_id, name in named.items())
    assert {cell_id: head.label for cell_id, head in heads(root).items()} == named
    assert len({describe.name(storage.read(root, cell_id)) for cell_id in named}) == 4
    lines = table.text(found).splitlines()[3:7]
    words = [[cell for cell in line.split() if not cell.replace(".", "").isdigit()] for line in lines]
    assert len(set(map(tuple, words))) == 4


def test_cells_of_another_corpus_or_checkpoint_are_never_compared(both):
    found, root, _ = both
    records = [storage.read(root, row["cell_id"]) for row in found]
    for cell_id, item in evidence(root, records).items():
        assert (item.baseline or cell_id)[0] == cell_id[0]


@pytest.mark.parametrize("kinds", [LIMITS, MANIFESTS, SAME_FILE, LANGUAGES, SPLITS, UNKNOWN])
def test_the_best_of_one_corpus_is_told_within_it(kinds, tmp_path):
    found = twice(tmp_path, *kinds)
    headings = [
        line for line in markdown.render(tmp_path, found).splitlines() if line.startswith("## ") and " on " in line
    ]
    assert len(set(headings)) == 2
    assert latex.render(tmp_path, found).count(r"\caption{Results") == 2
    assert len(summary.groups(found)) == 2
    marked = page_grid.table(found).count('aria-label="best of this column"')
    assert marked == 2 * page_grid.table([row for row in found if row["cell_id"][0] == "a"]).count(
        'aria-label="best of this column"'
    )
    keys = {row["cell_id"]: corpus_key(row) for row in found}
    bold = {key: shown for column in table.columns(found) if column.title == ("WER %", "clean")
            for key, shown in table._best(column, found, keys).items()}  # fmt: skip
    assert len(bold) == 2


@pytest.mark.parametrize("kinds", [FOLDERS, SAME_FOLDER])
def test_two_checkpoints_are_two_tables(kinds, tmp_path):
    found = twice(tmp_path, *kinds)
    headings = {line for line in markdown.render(tmp_path, found).splitlines() if line.startswith("## tuned")}
    assert len(headings) == 2


def test_json_and_csv_name_checkpoint_and_corpus(tmp_path):
    marks = {"fingerprints": {"corpus": "e" * 64, "checkpoint": "e" * 64}}
    found = json.loads(rows.to_json(twice(tmp_path, MANIFESTS[0] | FOLDERS[0] | marks, {})[::-1]))
    assert found[0]["checkpoint"] == {"name": "tuned-e", "fingerprint": "e" * 64, "original": None}
    assert found[0]["corpus"] == {"name": "e.jsonl", "fingerprint": "e" * 64}
    assert (found[0]["model"], found[0]["dataset"]) == ("tuned-e", "manifest")
    assert "checkpoint.fingerprint" in flat.render(tmp_path, found).splitlines()[0].split(",")


def test_a_summary_of_several_corpora_has_no_best_wer(tmp_path):
    def best(kinds):
        records = [storage.read(tmp_path, row["cell_id"]) for row in twice(tmp_path, *kinds)]
        return {name for name in describe.headline(records) if "wer" in name or "rtf" in name}

    assert best(BEAMS)
    assert not best(LIMITS)


def test_alike_in_everything_the_version_or_the_id_tells_them_apart():
    config = result("none").record.config
    cells = [labels.Cell(f"{n}" * 9, config, versions={"torch": f"2.{n}", "jiwer": "4"}) for n in (1, 2)]
    assert list(labels.names(cells).values()) == ["nano-none-cpu (torch 2.1)", "nano-none-cpu (torch 2.2)"]
    cells = [dataclasses.replace(cell, versions={}) for cell in cells]
    assert list(labels.names(cells).values()) == ["nano-none-cpu (11111111)", "nano-none-cpu (22222222)"]


def test_a_cell_that_failed_before_its_corpus_was_read_stays_with_its_name(tmp_path):
    found = twice(tmp_path, *LIMITS)
    storage.write(tmp_path, bad_result("failed", "no checkpoint", "hqq_int4"))
    assert len(summary.groups(rows.rows(tmp_path))) == len(summary.groups(found)) == 2
