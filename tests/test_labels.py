"""Cells of one name are told apart wherever they are listed, and what does not compare is never compared."""

import io
import json
import re

import pytest
from rich.console import Console

from helpers.synthetic import bad_result, result
from quantlab.analysis.evidence import evidence
from quantlab.grid.status.heads import heads
from quantlab.records import asked_for, labels, storage
from quantlab.records.several import Stored
from quantlab.report import flat, latex, markdown, table
from quantlab.report.html import grid as page_grid
from quantlab.report.html import summary
from quantlab.report.recommend import SeveralCorporaError, recommend
from quantlab.report.summaries import Summaries, summaries
from quantlab.tracking import describe
from quantlab.util.errors import ConfigError

QUANTS = ("none", "torch_int8")


def recorded(root, cell_id, quant="none", fingerprints=None, environment=None, created_at=None, **changes):
    """A record below `root`; WER differs from cell to cell, so that a best one can be told."""
    made = result(quant, cell_id, **changes)
    update = {
        "fingerprints": {"checkpoint": "c" * 64, "corpus": "d" * 64} | (fingerprints or {}),
        "environment": made.record.environment | (environment or {}),
        "created_at": created_at or made.record.created_at,
    }
    storage.write(root, made.model_copy(update={"record": made.record.model_copy(update=update)}))


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


# What no setting tells apart: where, by which versions and when it was measured.
MACHINES = tuple({"environment": {"processor": name}} for name in ("EPYC 9654", "Xeon 8481C"))
VERSIONS = tuple({"environment": {"versions": {"torch": f"2.{n}", "jiwer": "4"}}} for n in (11, 12))
DAYS = tuple({"created_at": f"2026-11-2{n}T04:00:00+00:00"} for n in (1, 2))
HOURS = tuple({"created_at": f"2026-11-21T0{n}:00:00+00:00"} for n in (4, 5))
MEASURED = {
    "machine": (MACHINES, ("EPYC 9654", "Xeon 8481C")),
    "version": (VERSIONS, ("torch 2.11", "torch 2.12")),
    "day": (DAYS, ("2026-11-21", "2026-11-22")),
    "hour": (HOURS, ("2026-11-21 04:00", "2026-11-21 05:00")),
    "nothing": (({}, {}), ("a-", "b-")),
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


@pytest.mark.parametrize("kind", MEASURED)
def test_every_list_tells_where_and_when_if_nothing_else_does(kind, tmp_path):
    kinds, told = MEASURED[kind]
    found = twice(tmp_path, *kinds)
    named = labels.names([row.named for row in found])
    expected = dict(zip("ab", told, strict=True))
    shown = {cell_id: expected[cell_id[0]] if kind != "nothing" else cell_id[:8] for cell_id in named}
    assert named == {cell_id: f"nano-{cell_id[2:]}-cpu ({text})" for cell_id, text in shown.items()}
    assert {cell_id: head.label for cell_id, head in heads(tmp_path).items()} == named
    plain = table.text(found).splitlines()[3:7]
    for render in (table.text, markdown.render, latex.render, page_grid.table):
        assert all(_plain(text) in _plain(render(found)) for text in shown.values()), render
    assert all(any(cell_id[:8] in line for line in plain) for cell_id in named), "ids are shown"
    assert {cell_id: asked_for.ids_of(tmp_path, [name]) for cell_id, name in named.items()} == {
        cell_id: [cell_id] for cell_id in named
    }


def _plain(text):
    """Without the marks of Markdown and LaTeX."""
    return text.replace("\\", "")


def test_a_cell_is_asked_for_by_label_or_by_the_beginning_of_its_id(tmp_path):
    recorded(tmp_path, "0123456789abcdef", "none")
    recorded(tmp_path, "0123456789abcdaa", "torch_int8", **LIMITS[0])
    recorded(tmp_path, "fedcba9876543210", "torch_int8", **LIMITS[1])
    two = "nano-torch_int8-cpu (limit=2)"
    asked = ["nano-none-cpu", two, "fedcba98", "0123456789abcdef"]
    ids = ["0123456789abcdef", "0123456789abcdaa", "fedcba9876543210", "0123456789abcdef"]
    assert asked_for.ids_of(tmp_path, asked) == ids
    for name, said in {
        "01234567": "'01234567' matches 2 cells: 0123456789abcdaa nano-torch_int8-cpu (limit=2), 0123456789abcdef nano",
        "nano-torch_int8-cpu": "fedcba9876543210 nano-torch_int8-cpu (limit=3); give the id of one",
        "nano-torch_int-cpu": "did you mean 'nano-torch_int8-cpu (limit=",
        "fedcba9876543211": "did you mean 'fedcba9876543210'?",
        "fedcba9": "no record of cell 'fedcba9'",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(said)):
            asked_for.ids_of(tmp_path, [name])


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
    assert bold == {
        "none": [0, 0],
        "torch_int8": [2, 2],
    }  # sizes: no other figure has an interval apart
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


@pytest.mark.parametrize(
    ("key", "value", "other", "told"),
    [
        ("symmetric", True, False, ("symmetric=true", "symmetric=false")),
        ("bits", 8.0, 1.58, ("bits=8", "bits=1.58")),
        (
            "double_quant",
            None,
            True,
            ("quant.double_quant=false", "quant.double_quant=true"),
        ),  # an older record lacks it
        ("head", False, True, ("quant.head=false", "quant.head=true")),
        ("embedding", None, True, ("embedding=false", "embedding=true")),
        ("group_size", None, 32, ("no group_size", "group_size=32")),
    ],
)
def test_a_setting_is_named_as_it_is_written(key, value, other, told):
    config = result("hqq_int4").record.config
    cells = [labels.Cell(str(n), config | {"quant": config["quant"] | {key: v}}) for n, v in enumerate((value, other))]
    assert list(labels.names(cells).values()) == [f"nano-hqq_int4-cpu ({text})" for text in told]


def test_what_one_record_does_not_say_tells_nothing_apart():
    config = result("none").record.config
    told = ({"processor": "EPYC", "versions": {"torch": "2.11"}}, {"versions": ["torch"]})
    cells = [labels.Cell(f"{n}" * 9, config, measured_on=lambda n=n: told[n]) for n in (0, 1)]
    assert list(labels.names(cells).values()) == ["nano-none-cpu (00000000)", "nano-none-cpu (11111111)"]


def test_a_cell_that_failed_before_its_corpus_was_read_stays_with_its_name(tmp_path):
    found = twice(tmp_path, *LIMITS)
    storage.write(tmp_path, bad_result("failed", "no checkpoint", "hqq_int4"))
    assert len(summary.groups(summaries(tmp_path))) == len(summary.groups(found)) == 2


def test_the_environment_is_not_read_where_a_setting_tells_cells_apart():
    def unread():
        raise AssertionError("the whole record was read")

    config = {"model": {"name": "nano"}, "quant": {"name": "hqq_int4"}, "device": {"name": "cpu"}}
    for key in ("seed", "timeout_of_another_package"):  # an axis, and any other setting
        cells = [labels.Cell(str(value), {**config, key: value}, measured_on=unread) for value in (1, 2)]
        assert list(labels.names(cells).values()) == [f"nano-hqq_int4-cpu ({key}={value})" for value in (1, 2)]
