"""Cells of one name are told apart wherever they are listed, and what does not compare is never compared."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from helpers.synthetic import bad_result, result
from quantlab.analysis.evidence import evidence
from quantlab.grid.status.heads import heads
from quantlab.records import labels, storage
from quantlab.records.several import Stored
from quantlab.report import flat, latex, markdown, table
from quantlab.report.html import grid as page_grid
from quantlab.report.html import summary
from quantlab.report.recommend import SeveralCorporaError, recommend
from quantlab.report.summaries import Summaries, summaries
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
    return summaries(root)


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
FILES = tuple(
    {"fingerprints": {"checkpoint": mark * 64}, "model__name": "base", "model__source": "hub", "model__path": path}
    for mark, path in (("e", "base.pt"), ("f", "ggml-base.bin"))
)
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
    "files of one model": (FILES, ("base (base.pt)", "base (ggml-base.bin)")),
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
    named = labels.names([row.named for row in found])
    assert len(set(named.values())) == 4
    assert all(told[cell_id[0]] in name for cell_id, name in named.items())
    assert {cell_id: head.label for cell_id, head in heads(root).items()} == named
    assert len({describe.name(storage.read(root, cell_id)) for cell_id in named}) == 4
    lines = table.text(found).splitlines()[3:7]
    words = [[cell for cell in line.split() if not cell.replace(".", "").isdigit()] for line in lines]
    assert len(set(map(tuple, words))) == 4


def test_cells_of_another_corpus_or_checkpoint_are_never_compared(both):
    found, root, _ = both
    records = [storage.read(root, row.cell_id) for row in found]
    for cell_id, item in evidence([Stored(root, item) for item in records]).items():
        assert (item.baseline or cell_id)[0] == cell_id[0]


@pytest.mark.parametrize("kinds", [LIMITS, MANIFESTS, SAME_FILE, LANGUAGES, SPLITS, UNKNOWN])
def test_the_best_of_one_corpus_is_told_within_it(kinds, tmp_path):
    found = twice(tmp_path, *kinds)
    headings = [line for line in markdown.render(found).splitlines() if line.startswith("## ") and " on " in line]
    assert len(set(headings)) == 2
    assert latex.render(found).count(r"\caption{Results") == 2
    assert len(summary.groups(found)) == 2
    marked = page_grid.table(found).count('aria-label="best of this column"')
    assert marked == 2 * page_grid.table([row for row in found if row.cell_id[0] == "a"]).count(
        'aria-label="best of this column"'
    )
    shown = Console(file=io.StringIO(), width=300, force_terminal=True, color_system="standard")
    table.show(found, shown)
    lines = shown.file.getvalue().splitlines()[3:7]
    bold = {quant: [line.count("\x1b[1m") for line in lines if quant in line.split()] for quant in QUANTS}
    assert bold == {"none": [0, 0], "torch_int8": [3, 3]}  # time and sizes; the intervals of WER and CER overlap
    with pytest.raises(SeveralCorporaError):
        recommend(tmp_path)


def test_a_cell_of_another_type_than_fp32_is_named_with_it(tmp_path):
    recorded(tmp_path, "a", runtime__dtype="bfloat16")
    assert heads(tmp_path)["a"].label == "nano-none-cpu-bfloat16"
    assert describe.name(storage.read(tmp_path, "a")) == "nano-none-cpu-bfloat16"


@pytest.mark.parametrize("kinds", [FOLDERS, SAME_FOLDER])
def test_two_checkpoints_are_two_tables(kinds, tmp_path):
    found = twice(tmp_path, *kinds)
    headings = {line for line in markdown.render(found).splitlines() if line.startswith("## tuned")}
    assert len(headings) == 2


def test_json_and_csv_name_checkpoint_and_corpus(tmp_path):
    marks = {"fingerprints": {"corpus": "e" * 64, "checkpoint": "e" * 64}}
    found = twice(tmp_path, MANIFESTS[0] | FOLDERS[0] | marks, {})[::-1]
    told = json.loads(Summaries(found).to_json())
    assert told[0]["checkpoint"] == {"name": "tuned-e", "fingerprint": "e" * 64, "original": None}
    assert told[0]["corpus"] == {"name": "e.jsonl", "fingerprint": "e" * 64}
    assert (told[0]["model"], told[0]["dataset"]) == ("tuned-e", "manifest")
    assert "checkpoint.fingerprint" in flat.render(found).splitlines()[0].split(",")


def test_a_summary_of_several_corpora_has_no_best_wer(tmp_path):
    def best(kinds):
        records = [storage.read(tmp_path, row.cell_id) for row in twice(tmp_path, *kinds)]
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
    assert len(summary.groups(summaries(tmp_path))) == len(summary.groups(found)) == 2
