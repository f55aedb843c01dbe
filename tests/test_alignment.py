"""Bursts of deleted words, by hand and by a plain search; both scorers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantlab.cli import rescore
from quantlab.cli.verify import verify
from quantlab.records import storage
from quantlab.records.figures import split_result
from quantlab.scoring.alignment import align
from quantlab.scoring.score import SCORERS, Scoring, count
from test_score import scored, timed

TEN = "a b c d e f g h i j".replace("a ", "x ")  # the normaliser drops no letter of it


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize(
    ("hypothesis", "burst_words"),
    [
        (TEN, 0),
        ("x b c d e f", 0),  # four are missing
        ("x b c d e", 5),
        ("x j", 8),
        ("x d g j", 0),  # six are missing, in three places
        ("f g h i j", 5),
        ("z", 9),  # one is substituted
        ("", 0),  # an empty output is no burst
        ("x b c d e zz", 0),  # five are missing, one of them substituted
    ],
)
def test_bursts_by_hand(scorer, hypothesis, burst_words):
    assert count(TEN, hypothesis, Scoring(normaliser="none", scorer=scorer)).burst_words == burst_words


WORDS = st.lists(st.sampled_from(["red", "sea", "redsea", "stone"]), min_size=1, max_size=9)


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS, st.sampled_from(SCORERS))
def test_steps_cover_both_texts_and_what_is_right_is_equal(spoken, written, scorer):
    found = align(spoken, written, scorer)
    for start, end, words in (("spoken_from", "spoken_to", spoken), ("written_from", "written_to", written)):
        assert [index for step in found.steps for index in range(getattr(step, start), getattr(step, end))] == list(
            range(len(words))
        )
    for step in found.steps:
        here, there = spoken[step.spoken_from : step.spoken_to], written[step.written_from : step.written_to]
        assert ("".join(here) == "".join(there)) is step.right
    wrong = sum(not step.right for step in found.steps)
    assert wrong == found.substitutions + found.deletions + found.insertions


def test_a_text_without_words_is_empty():
    found = split_result([scored("a red sea", " Um."), scored("a red sea", "a red sea")], [timed(1.0)])
    assert (found.empty_share, found.burst_share) == (0.5, 0.0)


def test_an_older_record_has_no_bursts_until_it_is_scored_again(tmp_path):
    from helpers.synthetic import adding_up, result

    old = adding_up(result("none"))  # as made by a version that did not count them
    assert old.record.splits["clean"].bursts is None
    storage.write(tmp_path / "old", old)
    assert {item.place for item in verify(tmp_path / "old")} == {"cell_id"}
    rescore.write(tmp_path / "old", tmp_path / "new")
    new = storage.read(tmp_path / "new", old.record.cell_id)
    assert (new.splits["clean"].bursts, new.splits["clean"].burst_share) == (0, 0.0)
    assert {item.place for item in verify(tmp_path / "new")} == {"cell_id"}
