"""Which words are final, against a brute-force oracle and by hand."""

from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.config.streaming import StreamingConfig
from quantlab.streaming.policy import LocalAgreement, SlidingWindow, check_window, common_prefix, continuation
from quantlab.util.errors import ConfigError

WORDS = st.lists(st.sampled_from("abcA"), max_size=7).map(tuple)
HYPOTHESES = st.lists(WORDS, min_size=1, max_size=9)


@cache
def distance(one, other):
    """Edit distance by its recursive definition."""
    if not one or not other:
        return len(one) + len(other)
    return min(
        distance(one[:-1], other) + 1,
        distance(one, other[:-1]) + 1,
        distance(one[:-1], other[:-1]) + (one[-1] != other[-1]),
    )


def after(final, words):
    """The words that follow the final ones: every prefix is tried."""
    best = min(range(len(words) + 1), key=lambda length: (distance(final, words[:length]), -length))
    return words[best:]


def oracle(hypotheses, agreement):
    """LocalAgreement-n as the paper says it, word by word: (final, shown) after every hypothesis."""
    final, rests, found = (), [], []
    for words in hypotheses:
        rests.append(after(final, words))
        recent = rests[-agreement:]
        while len(recent) == agreement and all(recent) and len({rest[0] for rest in recent}) == 1:
            final += recent[0][:1]
            recent = [rest[1:] for rest in recent]
            rests[-agreement:] = recent
        found.append((final, final + recent[-1]))
    return found


@given(HYPOTHESES, st.integers(2, 4))
def test_local_agreement_is_that_of_the_oracle(hypotheses, agreement):
    policy = LocalAgreement(agreement)
    screens = [policy.update(words, number + 1, last=False) for number, words in enumerate(hypotheses)]
    found = [(screen.words[: screen.final], screen.words) for screen in screens]
    assert found == oracle(hypotheses, agreement)
    for (before, _), (later, shown) in pairwise(found):
        assert later[: len(before)] == before, "a final word is never taken back"
        assert shown[: len(later)] == later
    assert policy.begin == 0
    assert policy.room is None


@given(WORDS, WORDS)
def test_what_follows_the_final_words(final, words):
    assert continuation(final, words) == after(final, words)


@given(WORDS, WORDS)
def test_what_extends_the_final_words_is_what_is_added(final, more):
    """Where hypotheses do not contradict what is final, alignment changes nothing about the paper's definition."""
    assert len(continuation(final, final + more)) <= len(more)
    assert continuation(final, final) == ()
    distinct = tuple(f"{word}{place}" for place, word in enumerate(final + more))
    assert continuation(distinct[: len(final)], distinct) == distinct[len(final) :]


@pytest.mark.parametrize(
    ("final", "words", "rest"),
    [
        ("", "the cat", "the cat"),
        ("the cat", "the cat sat", "sat"),
        ("the cat", "the hat sat", "sat"),  # a word is another now
        ("the cat", "and the cat sat", "sat"),  # one more at the start: its place alone would repeat "cat"
        ("and the cat", "the cat sat", "sat"),  # one fewer
        ("the cat sat", "the", ""),
        ("the cat", "", ""),
        ("a b", "x y z", "z"),  # nothing in common: by place
    ],
)
def test_continuation_by_hand(final, words, rest):
    assert " ".join(continuation(final.split(), words.split())) == rest


def test_local_agreement_by_hand():
    """Two in a row agree on the first word, then on two more; what is final stays when the model changes its mind."""
    policy = LocalAgreement(2)
    texts = ["the cap", "the cat sat", "the cat sat on", "a cat sat on the mat"]
    screens = [policy.update(text.split(), number, text == texts[-1]) for number, text in enumerate(texts, start=1)]
    assert [(" ".join(screen.words), screen.final) for screen in screens] == [
        ("the cap", 0),
        ("the cat sat", 1),
        ("the cat sat on", 3),
        ("the cat sat on the mat", 6),
    ]


def test_case_and_punctuation_are_what_is_shown():
    policy = LocalAgreement(2)
    policy.update(["Yes."], 1, last=False)
    assert policy.update(["Yes,", "please"], 2, last=False).final == 0


@given(HYPOTHESES, st.integers(1, 4), st.data())
def test_a_window_is_replaced_until_it_is_full(hypotheses, chunks, data):
    policy = SlidingWindow(chunks)
    heard, lines, before = 0, (), ()
    for number, words in enumerate(hypotheses):
        assert 1 <= policy.room <= chunks
        heard += data.draw(st.integers(1, policy.room))
        last = number == len(hypotheses) - 1
        begin = policy.begin
        screen = policy.update(words, heard, last)
        assert screen.words == lines + words
        if last or heard - begin == chunks:
            lines = screen.words
            assert policy.begin == heard
        assert screen.words[: screen.final] == lines
        assert lines[: len(before)] == before
        before = lines


@pytest.mark.parametrize(
    ("window_s", "chunk_s", "chunks"),
    [(10.0, 3.0, 2), (6.0, 1.0, 5), (6.0, 3.0, 1), (5.0, 3.0, 1), (0.3, 0.1, 2)],  # length_ms / step_ms - 1, at least 1
)
def test_chunks_of_a_window_as_in_whisper_cpp(window_s, chunk_s, chunks):
    from quantlab.streaming.policy import policy_of

    config = StreamingConfig(policy="sliding_window", chunk_s=chunk_s, window_s=window_s, keep_s=0.1)
    assert policy_of(config, 30.0).room == chunks
    check_window(config, 30.0)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"window_s": 10.0}, "window_s=10: the model's window is 6 s: set at most that"),
        ({"chunk_s": 6.0, "keep_s": 0.5}, "chunk_s=6 and keep_s=0.5 are 6.5 s together, and the model's window is 6 s"),
    ],
)
def test_what_a_window_cannot_hold_is_refused(keys, says):
    with pytest.raises(ConfigError, match=says):
        check_window(StreamingConfig(policy="sliding_window", **keys), 6.0)


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_common_prefix(texts):
    found = common_prefix(texts)
    assert all(text[: len(found)] == found for text in texts)
    longer = {text[: len(found) + 1] for text in texts}
    assert len(longer) > 1 or longer == {found}
