"""The virtual clock and its figures, with recognisers of known speed: what they give is computed by hand."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantlab.config.streaming import StreamingConfig
from quantlab.data import SplitFeatures
from quantlab.data.audio import SAMPLE_RATE
from quantlab.engines import Engine
from quantlab.measurement.streaming import Listener
from quantlab.models.decoding import Decoding
from quantlab.records import figures as recorded_figures
from quantlab.records.schema import Stream, Utterance
from quantlab.streaming.clock import Heard, joined, replay, stream
from quantlab.streaming.figures import delays, figures

SPOKEN = {"one": 0.8, "two": 1.9, "three": 2.7, "four": 3.3}  # word → when it has been said, s
AGREE = StreamingConfig(policy="local_agreement")
SLIDE = StreamingConfig(policy="sliding_window", window_s=3.0, keep_s=0.25)  # two chunks
AUDIO_S = 3.5


@dataclass(frozen=True)
class Scripted:
    """An engine that hears a word once it has been said, and takes a known time."""

    latency_s: float
    decoding: Decoding | None = None  # not read

    def generate(self, speech: SplitFeatures) -> tuple[list[list[int]], float]:
        [(begin_s, end_s)] = speech.mel[:, 0, :]
        assert math.isclose(end_s - begin_s, speech.audio_s[0])
        heard = [number for number, said_s in enumerate(SPOKEN.values()) if begin_s < said_s <= end_s]
        return [heard], self.latency_s

    def encode(self, speech: SplitFeatures) -> float:
        return self.latency_s

    def decode(self, speech: SplitFeatures) -> float:
        return self.latency_s


def extract(samples):
    """Features that say which audio they are of: a sample is its own time."""
    times, audio_s = np.array([[[samples[0], samples[-1] + 1 / SAMPLE_RATE]]]), len(samples) / SAMPLE_RATE
    return SplitFeatures(("",), ("",), (None,), (audio_s,), (audio_s,), times, (0,)), 0.125


def text(tokens):
    return " ".join(list(SPOKEN)[token] for token in tokens)


def listened(latency_s, config, audio_s=AUDIO_S):
    engine: Engine = Scripted(latency_s)
    samples = np.arange(round(audio_s * SAMPLE_RATE)) / SAMPLE_RATE
    return list(stream(audio_s, config, 6.0, "word", Listener(engine, extract, text, samples)))


def as_stream(shown, **changes):
    found = joined(shown[-1].screen, "word")
    errors = {"substitutions": 0, "deletions": 0, "insertions": 0, "hits": 4}
    updates = tuple(update for update, _ in shown)
    return Stream(
        **{"id": "u1", "split": "clean", "audio_s": AUDIO_S, "window_s": 6.0, "updates": updates, "hypothesis": found}
        | errors
        | changes
    )


def whole(**changes):
    counts = {"substitutions": 0, "deletions": 0, "insertions": 0, "hits": 4}
    found = {"id": "u1", "split": "clean", "speaker": None, "audio_s": AUDIO_S, "reference": text(range(4))}
    return Utterance(**found | {"hypothesis": text(range(4)), "tokens": 4} | counts | changes)


def times(shown):
    return [(update.begin_s, update.heard_s, update.start_s, update.end_s) for update, _ in shown]


def screens(shown):
    return [(joined(screen, "word"), screen.final) for _, screen in shown]


def test_one_that_keeps_up():
    """A quarter of a second each: 0.125 for features, 0.125 for decoding."""
    shown = listened(0.125, AGREE)
    assert times(shown) == [(0, 1, 1, 1.25), (0, 2, 2, 2.25), (0, 3, 3, 3.25), (0, 3.5, 3.5, 3.75)]
    assert screens(shown) == [("one", 0), ("one two", 1), ("one two three", 2), ("one two three four", 4)]
    found = delays(shown)
    assert found.first_text_s == 1.25
    assert found.shown_s == [0.25] * 4
    assert found.final_s == [2.25 - 1, 3.25 - 2, 3.75 - 3, 3.75 - 3.5]
    assert (found.taken_back, found.words) == (0, 4)
    result = figures([as_stream(shown)], [whole()], AGREE, "word")
    assert (result.rtf, result.compute_s, result.extract_s, result.updates) == (1.0 / 3.5, 1.0, 0.5, 4)
    assert (result.wer, result.wer_increase, result.final_p50_s, result.first_text_p50_s) == (0, 0, 1.0, 1.25)
    assert (result.lag_p50_s, result.lag_max_s, result.kept_up) == (0.25, 0.25, 1)
    assert result.final_p95_s is result.lag_p95_s is result.first_text_p95_s is None


def test_one_that_falls_behind():
    """1.75 s each: what arrives meanwhile is taken together, and the text is there 2.75 s late."""
    shown = listened(1.625, AGREE)
    assert times(shown) == [(0, 1, 1, 2.75), (0, 2, 2.75, 4.5), (0, 3.5, 4.5, 6.25)]
    assert screens(shown) == [("one", 0), ("one two", 1), ("one two three four", 4)]
    found = delays(shown)
    assert found.first_text_s == 2.75
    assert found.shown_s == [2.75 - 1, 4.5 - 2, 6.25 - 3.5, 6.25 - 3.5]
    assert found.final_s == [4.5 - 1, 6.25 - 2, 6.25 - 3.5, 6.25 - 3.5]
    result = figures([as_stream(shown)], [whole()], AGREE, "word")
    assert (result.lag_max_s, result.kept_up, result.rtf) == (2.75, 0, 5.25 / 3.5)


def test_a_lag_of_a_chunk_still_keeps_up():
    assert figures([as_stream(listened(0.875, AGREE, 3.0), audio_s=3.0)], [whole()], AGREE, "word").kept_up == 1
    assert figures([as_stream(listened(0.9375, AGREE, 3.0), audio_s=3.0)], [whole()], AGREE, "word").kept_up == 0


def test_a_sliding_window():
    """Two chunks, and a quarter of a second before them: in which "two" ends, so it is written twice."""
    shown = listened(0.125, SLIDE)
    assert times(shown) == [(0, 1, 1, 1.25), (0, 2, 2, 2.25), (1.75, 3, 3, 3.25), (1.75, 3.5, 3.5, 3.75)]
    assert screens(shown) == [("one", 0), ("one two", 2), ("one two two three", 2), ("one two two three four", 5)]
    found = delays(shown)
    assert found.final_s == [2.25 - 1, 2.25 - 2, 3.75 - 3, 3.75 - 3, 3.75 - 3.5]
    result = figures([as_stream(shown, insertions=1)], [whole()], SLIDE, "word")
    assert (result.wer, result.wer_increase, result.insertions, result.ref_words) == (1 / 4, 1 / 4, 1, 4)


def test_a_slow_window_takes_what_fits_and_loses_nothing():
    """2.25 s each: at 3.25 s three chunks have arrived, and the window has room for one; the rest waits."""
    shown = listened(2.125, SLIDE)
    assert times(shown) == [(0, 1, 1, 3.25), (0, 2, 3.25, 5.5), (1.75, 3.5, 5.5, 7.75)]


def test_words_that_are_taken_back():
    """ "a" stays, "cat" becomes "car park", and "car" stays: two words of three shown later remain."""
    texts = iter(["a cat", "a car park", "a car"])
    shown = list(stream(3.0, AGREE, 6.0, "word", lambda begin_s, end_s: Heard(next(texts), 0.0, 0.5)))
    found = delays(shown)
    assert (found.taken_back, found.words) == (2, 2)  # cat, park
    assert found.shown_s == [0.5, 0.5]
    assert found.final_s == [2.5 - 1, 3.5 - 2]  # "a" since the first update, "car" since the second
    result = figures([as_stream(shown, audio_s=3.0)], [whole()], AGREE, "word")
    assert (result.taken_back, result.words, result.taken_back_share) == (2, 2, 1 / 2)


def test_silence_has_no_delays():
    shown = list(stream(2.0, AGREE, 6.0, "word", lambda begin_s, end_s: Heard("", 0.0, 0.5)))
    result = figures([as_stream(shown, audio_s=2.0, hits=0, deletions=4)], [whole()], AGREE, "word")
    assert result.first_text_p50_s is result.final_p50_s is result.taken_back_share is None
    assert (result.with_text, result.words, result.wer) == (0, 0, 1)


def test_audio_without_speech_has_no_error_rate():
    shown = listened(0.125, AGREE)
    result = figures([as_stream(shown)], [whole(nonspeech=True, reference="")], AGREE, "word")
    assert result.wer is result.wer_increase is None
    assert result.words == 4


def test_characters_are_the_words_of_languages_without_spaces():
    texts = iter(["你好", "你好 世界"])
    shown = list(stream(2.0, AGREE, 6.0, "character", lambda begin_s, end_s: Heard(next(texts), 0.0, 0.5)))
    assert [(joined(screen, "character"), screen.final) for _, screen in shown] == [("你好", 0), ("你好世界", 4)]


@pytest.mark.parametrize("config", [AGREE, SLIDE])
def test_a_recorded_stream_is_played_back(config):
    shown = listened(0.4, config)
    assert replay(as_stream(shown), config, "word") == shown
    for updates in (as_stream(shown).updates[:-1], (*as_stream(shown).updates, as_stream(shown).updates[-1])):
        with pytest.raises(ValueError, match="stream clean/u1"):
            replay(as_stream(shown, updates=updates), config, "word")


def test_percentiles_only_from_enough_words():
    fast = [replace_id(as_stream(listened(0.125, AGREE)), number) for number in range(33)]
    spoken = [whole(id=item.id) for item in fast]
    assert figures(fast[:32], spoken, AGREE, "word").final_p95_s is None  # 128 words
    result = figures(fast, spoken, AGREE, "word")  # 132
    assert result.final_p95_s == 1.25
    assert result.first_text_p95_s is result.lag_p95_s is None  # 33 utterances


def replace_id(item, number):
    return item.model_copy(update={"id": f"u{number}"})


@pytest.mark.parametrize(
    ("share", "least"),
    [(0.90, recorded_figures.P90_SAMPLES), (0.95, recorded_figures.P95_SAMPLES), (0.99, recorded_figures.P99_SAMPLES)],
)
def test_how_many_samples_a_percentile_needs(share, least):
    def at_most_one_above(count):
        return share**count + count * (1 - share) * share ** (count - 1)

    assert at_most_one_above(least) <= 0.01 < at_most_one_above(least - 1)


@given(
    audio=st.integers(1, 60),
    chunk=st.integers(1, 12),
    seconds=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    chunks=st.one_of(st.none(), st.integers(1, 4)),
)
def test_the_clock_is_that_of_a_simulation_in_small_steps(audio, chunk, seconds, chunks):
    """All times are multiples of an eighth of a second, which are exact, and the oracle goes through each of them."""
    keys = {"chunk_s": chunk / 8, "keep_s": 0.0, "window_s": None if chunks is None else (chunks + 1) * chunk / 8}
    config = StreamingConfig(policy="local_agreement" if chunks is None else "sliding_window", **keys)
    took = itertools.cycle(seconds)
    shown = list(stream(audio / 8, config, 1e6, "word", lambda begin_s, end_s: Heard("a", 0.0, next(took) / 8)))
    found = [(round(8 * update.start_s), round(8 * update.heard_s)) for update, _ in shown]
    assert found == simulated(audio, chunk, seconds, chunks)


def simulated(audio, chunk, seconds, chunks):
    """Eighths of a second at which decoding begins, and up to which audio is decoded."""
    took = itertools.cycle(seconds)
    found, heard, free, begin, now = [], 0, 0, 0, 0
    while heard < audio:
        arrived = audio if now >= audio else now // chunk * chunk
        if now >= free and arrived > heard:
            most = audio if chunks is None else begin + chunks * chunk
            heard = min(arrived, most)
            begin = heard if chunks is not None and heard == most else begin
            found.append((now, heard))
            free = now + next(took)
        else:
            now += 1
    return found


def test_a_stream_is_of_a_known_utterance():
    item = as_stream(listened(0.125, AGREE))
    with pytest.raises(ValueError, match="stream u1 is of no utterance"):
        figures([item], [replace_id(whole(), 2)], AGREE, "word")
