"""Recall and precision of keywords, against cases counted by hand."""

import json

import pytest

from helpers.synthetic import adding_up, result
from quantlab.cli import rescore
from quantlab.cli.verify import verify
from quantlab.config.compose import compose
from quantlab.grid.plan import plan
from quantlab.records import storage
from quantlab.records.cell_id import identity
from quantlab.scoring.keywords import check_keywords, count_keywords, fingerprint, read_keywords
from quantlab.scoring.score import ENGLISH, Scoring
from quantlab.util.errors import ConfigError

COMPOUNDS = Scoring(scorer="kaldialign_compounds")
CHINESE = Scoring("zh", "whisper_marks", "character")


@pytest.mark.parametrize(
    ("reference", "hypothesis", "keywords", "expected"),  # expected: spoken, written, right of each keyword
    [
        ("take aspirin daily", "take aspirin daily", ["aspirin"], {"aspirin": (1, 1, 1)}),
        ("take aspirin daily", "take a spring daily", ["aspirin"], {"aspirin": (1, 0, 0)}),
        ("take it daily", "take aspirin daily", ["aspirin"], {"aspirin": (0, 1, 0)}),
        ("take it daily", "take it daily", ["aspirin"], {}),
        ("aspirin then ibuprofen", "ibuprofen then aspirin", ["aspirin", "ibuprofen"],  # both in the wrong place
         {"aspirin": (1, 1, 0), "ibuprofen": (1, 1, 0)}),
        ("in new york today", "in new york today", ["new york", "york"], {"new york": (1, 1, 1), "york": (1, 1, 1)}),
        ("in new york today", "in new pork today", ["new york", "york"], {"new york": (1, 0, 0), "york": (1, 0, 0)}),
        ("in new york today", "in new big york today", ["new york"], {"new york": (1, 0, 0)}),  # no phrase any more
        ("no no no no", "no no no", ["no no"], {"no no": (2, 1, 1)}),
        ("Mr. Brown's COLOUR", "mister browns color", ["Colour", "mr"], {"color": (1, 1, 1), "mister": (1, 1, 1)}),
        ("aspirin", "", ["aspirin"], {"aspirin": (1, 0, 0)}),
        ("hmm", "aspirin", ["aspirin"], {"aspirin": (0, 1, 0)}),  # nothing was said
    ],
)  # fmt: skip
def test_counted_by_hand(reference, hypothesis, keywords, expected):
    assert count_keywords(reference, hypothesis, tuple(keywords), ENGLISH) == expected


def test_compounds_are_right_if_the_scorer_says_so():
    pair = ("a white paper", "a whitepaper")
    assert count_keywords(*pair, ("white paper", "paper"), COMPOUNDS) == {"white paper": (1, 1, 1), "paper": (1, 1, 1)}
    assert count_keywords(*pair, ("white paper",), ENGLISH) == {"white paper": (1, 0, 0)}


def test_characters_are_phrases_of_characters():
    assert count_keywords("我在北京工作", "我在北平工作", ("北京", "工作"), CHINESE) == {
        "北京": (1, 0, 0),
        "工作": (1, 1, 1),
    }


def test_a_file_of_words(tmp_path):
    file = tmp_path / "words.txt"
    file.write_bytes("\ufeffaspirin\r\n\n  New York \naspirin\n".encode())
    assert read_keywords(str(file)) == ("aspirin", "New York")
    assert fingerprint(("a", "b")) == fingerprint(("b", "a")) != fingerprint(("a",))


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "it holds none"), (b"caf\xe9", "not UTF-8"), (None, "No such file"), (b"x\n" * 600_000, "at most")],
)
def test_a_file_that_holds_no_words_is_one_line(tmp_path, content, says):
    if content is not None:
        (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=says) as refused:
        read_keywords(str(tmp_path / "words.txt"))
    assert "\n" not in str(refused.value)


def test_words_that_cannot_be_counted_are_refused():
    with pytest.raises(ConfigError, match="nothing is left of it"):
        check_keywords(("red", "hmm"), ["red"], ENGLISH)
    with pytest.raises(ConfigError, match=r"none of the keywords \(.*blue.*\) occurs in the references"):
        check_keywords(("blue",), ["red"], ENGLISH)


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("the\nzebra crossing\n")
    return path


def test_the_words_are_part_of_a_cells_identity_and_the_place_of_the_file_is_not(words, tmp_path):
    [plain], [one] = (plan(compose(["device=cpu", *more])) for more in ([], [f"dataset.keywords={words}"]))
    words.rename(tmp_path / "moved.txt")
    [moved] = plan(compose(["device=cpu", f"dataset.keywords={tmp_path / 'moved.txt'}"]))
    assert plain.id != one.id == moved.id
    assert identity(plain.config.model_dump(mode="json")) == identity(one.config.model_dump(mode="json"))


def test_a_grid_whose_corpus_has_none_of_the_words_does_not_begin(tmp_path):
    (tmp_path / "words.txt").write_text("xylophonist\n")
    with pytest.raises(ConfigError, match=r"none of the keywords .* occurs in the references"):
        plan(compose(["device=cpu", f"dataset.keywords={tmp_path / 'words.txt'}"]))
    with pytest.raises(ConfigError, match="no effect without a trained model"):
        compose(["model.weights=random", f"dataset.keywords={tmp_path / 'words.txt'}"])


@pytest.fixture
def root(tmp_path):
    """The word boat is in half of the references; one cell hears goat every second time."""
    for quant in ("none", "hqq_int3"):
        found = result(quant)
        heard = tuple(
            item.model_copy(
                update={"reference": f"the {what} sails", "hypothesis": f"the {'goat' if wrong else what} sails"}
            )
            for index, item in enumerate(found.utterances)
            for what in ["boat" if index % 4 < 2 else "ship"]
            for wrong in [quant != "none" and index % 8 == 0]
        )
        storage.write(tmp_path / "runs", found.model_copy(update={"utterances": heard}))
    return tmp_path / "runs"


def test_recorded_texts_are_counted_again(root, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("boat\ngoat\ncanoe\n")
    out = tmp_path / "new"
    assert rescore.main(["--root", str(root), "--keywords", str(tmp_path / "words.txt"), "--output", str(out)]) == 0
    assert "scored by keywords" in capsys.readouterr().out
    [cell_id] = [one for one in storage.recorded(out) if storage.read(out, one).setting("quant.name") == "hqq_int3"]
    found = storage.read(out, cell_id)
    assert found.keywords == ("boat", "goat", "canoe")
    counted = {name: split.keywords for name, split in found.splits.items()}
    # utterances 0, 8, … are of split other, whose 80 with boat are every second one: 40 are wrong
    assert (counted["clean"].words, counted["clean"].recall) == ({"boat": (80, 80, 80)}, 1.0)
    assert counted["other"].words == {"boat": (80, 40, 40), "goat": (0, 40, 0)}
    assert (counted["other"].recall, counted["other"].precision) == (0.5, 0.5)
    assert {item.place for item in verify(out)} == {"cell_id"}  # synthetic ids are no hashes
    again = tmp_path / "again"
    rescore.write(out, again, normaliser="basic")
    assert storage.read(again, cell_id).splits["other"].keywords == counted["other"]  # each record keeps its words


def test_a_changed_count_is_found(root, tmp_path):
    rescore.write(root, tmp_path / "new", keywords=("boat",))
    [cell_id, *_] = storage.recorded(tmp_path / "new")
    path = tmp_path / "new" / "cells" / cell_id / "utterances.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["keywords"] = {"boat": [1, 1, 0]}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert any(item.place.endswith(": keywords") for item in verify(tmp_path / "new", [cell_id]))


def test_words_of_another_corpus_are_refused(root, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("xylophone\n")
    assert rescore.main(["--root", str(root), "--keywords", str(tmp_path / "words.txt")]) == 2
    assert "occurs in the references" in capsys.readouterr().err


def test_occurrences_that_do_not_add_up_are_no_record():
    found = adding_up(result("none")).record.splits["clean"].model_dump()
    found["keywords"] = {
        "spoken": 2,
        "written": 2,
        "right": 1,
        "recall": 1.0,
        "precision": 0.5,
        "words": {"a": (2, 2, 1)},
    }
    with pytest.raises(ValueError, match=r"recall=1\.0 does not follow from its counts"):
        type(result("none").record.splits["clean"]).model_validate(found)
