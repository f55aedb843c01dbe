"""WER and CER against cases counted by hand, and against a plain Levenshtein distance written here."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantlab.records.figures import split_result
from quantlab.records.schema import Batch
from quantlab.scoring.normalise import normaliser
from quantlab.scoring.score import Reference, Scoring, count, is_loop, recount, utterance


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),  # expected: substitutions, deletions, insertions, hits
    [
        ("the cat sat", "the cat sat", (0, 0, 0, 3)),
        ("the cat sat", "the bat sat", (1, 0, 0, 2)),
        ("the cat sat", "the sat", (0, 1, 0, 2)),
        ("the cat sat", "the old cat sat", (0, 0, 1, 3)),
        ("the cat sat", "", (0, 3, 0, 0)),
        ("", "the cat", (0, 0, 2, 0)),
        ("hmm", "well well", (0, 0, 2, 0)),  # the normaliser drops "hmm": nothing was to be said
        ("", "", (0, 0, 0, 0)),
        ("I won't, Mr. Brown!", "i will not mister brown", (0, 0, 0, 5)),
        ("the colour of honour", "the color of honor", (0, 0, 0, 4)),
        ("twenty five dollars", "$25", (0, 0, 0, 1)),
    ],
)
def test_words_counted_by_hand(reference, hypothesis, expected):
    counts = count(reference, hypothesis)
    assert (counts.substitutions, counts.deletions, counts.insertions, counts.hits) == expected


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors", "length"),
    [
        ("abc", "abc", 0, 3),
        ("abc", "axc", 1, 3),
        ("ab cd", "abcd", 1, 5),
        ("abc", "", 3, 3),
        ("", "abc", 3, 0),
    ],
)
def test_characters_counted_by_hand(reference, hypothesis, errors, length):
    counts = count(reference, hypothesis)
    assert (counts.char_errors, counts.ref_chars) == (errors, length)


def levenshtein(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


WORDS = st.lists(st.sampled_from(["red", "green", "blue", "stone", "river"]), max_size=8).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS)
def test_counts_are_a_shortest_edit(reference, hypothesis):
    counts = count(reference, hypothesis)
    assert counts.substitutions + counts.deletions + counts.insertions == levenshtein(
        reference.split(), hypothesis.split()
    )
    assert counts.char_errors == levenshtein(reference, hypothesis)
    assert counts.hits + counts.substitutions + counts.deletions == len(reference.split())


def test_normaliser_of_another_language_keeps_its_words():
    assert normaliser("whisper", "de")("Guten Tag!").strip() == "guten tag"


@pytest.mark.parametrize(
    ("name", "words"),  # substitutions, deletions, insertions, hits
    [("whisper", (0, 0, 0, 4)), ("basic", (2, 0, 0, 2)), ("none", (4, 0, 0, 0))],
)
def test_normalisers_by_name(name, words):
    counts = count("The colour, Mr. Smith", "the color mister smith", Scoring("en", name))
    assert (counts.substitutions, counts.deletions, counts.insertions, counts.hits) == words


def test_counted_again_by_another_normaliser_the_text_and_the_rest_stay():
    item = scored("The colour", "the color")
    again = recount(item, Scoring("en", "none"))
    assert (item.substitutions, again.substitutions, again.hits) == (0, 2, 0)
    assert recount(again, Scoring()) == item
    assert recount(scored("a", None), Scoring("en", "none")) == scored("a", None)


def test_a_normaliser_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="no normaliser 'whispr'; did you mean 'whisper'"):
        normaliser("whispr")


@pytest.mark.parametrize(
    ("tokens", "limit", "expected"),
    [
        ([7] * 10, 10, True),
        ([1, 2, 3, 4, 5, 6, 5, 6, 5, 6], 10, True),
        ([1, 2, 3] * 3, 9, True),
        ([7] * 9, 10, False),  # it ended by itself
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 0], 10, False),  # long, but no loop
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 9], 10, False),  # said twice is no loop
        ([], 10, False),
    ],
)
def test_loops(tokens, limit, expected):
    assert is_loop(tokens, limit) is expected


def scored(reference, hypothesis):
    heard = Reference(id="a", split="clean", speaker=None, audio_s=2.0, reference=reference)
    return utterance(heard, [[1, 2, 3]], hypothesis, limit=60)


def timed(seconds, index=0, audio_s=2.0, tokens=10):
    return Batch(split="clean", index=index, utterances=1, audio_s=audio_s, tokens=tokens, elapsed_s=seconds)


def test_error_rate_is_of_the_corpus_not_the_mean_of_utterances():
    utterances = [scored("one", "two"), scored("a b c d e f g h i", "a b c d e f g h i")]
    figures = split_result(utterances, [timed(0.5), timed(0.5)])
    assert figures.wer == 1 / 10
    assert figures.ref_words == 10


def test_speed_figures_by_hand():
    figures = split_result([scored("a", "a")], [timed(1.0), timed(3.0, 1), timed(2.0, 2, audio_s=4.0, tokens=40)])
    assert figures.rtf == 6 / 8
    assert figures.tokens_per_s == 60 / 6
    assert figures.latency_p50_s == 2.0
    assert figures.latency_p90_s is None


def test_tail_latencies_only_from_enough_samples():
    utterances = [scored("a", "a")]
    assert split_result(utterances, [timed(1.0)] * 63).latency_p90_s is None
    enough = split_result(utterances, [timed(float(i)) for i in range(1, 102)])
    assert enough.latency_p90_s == 91.0  # of 1…101 the value with nine tenths below it
    assert enough.latency_p99_s is None
    assert split_result(utterances, [timed(1.0)] * 662).latency_p99_s == 1.0


def test_random_weights_have_no_error_rate():
    figures = split_result([scored("a", None)], [timed(1.0)])
    assert figures.wer is None
    assert figures.cer is None
    assert figures.loop_share is None


def test_a_split_of_empty_references_has_no_error_rate():
    figures = split_result([scored("hmm", "well")], [timed(1.0)])
    assert figures.wer is None
    assert figures.insertions == 1
