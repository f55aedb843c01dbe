"""Windows of which a passage is missing are named: their text ends early, or the limit of tokens cut it off."""

import numpy as np
import pytest

from quantlab.data import Features, SplitFeatures
from quantlab.measurement.recordings import scored
from quantlab.scoring.score import Scoring

# The reference has 2.5 words a second for a minute.
SPOKEN, QUIET = 1.0, -0.5  # of a log-mel bin
REFERENCE = " ".join(f"{chr(97 + number // 10)}{chr(97 + number % 10)}ko" for number in range(150))


def heard(counts, language="en", sound=None, reference=REFERENCE, tokens=None):
    """One recording of a minute in windows of 30 s that overlap by 15 s, with so many words of each."""
    mel = np.full((3, 80, 3000), SPOKEN, np.float32) if sound is None else sound
    split = SplitFeatures(("a",) * 3, (reference,) * 3, (None,) * 3, (30.0,) * 3, (30.0, 15.0, 15.0), mel, (0, 1, 2))
    said = reference.split() if " " in reference else list(reference)
    joint = " " if " " in reference else ""
    texts = [joint.join(said[start : start + count]) for start, count in zip((0, 37, 75), counts, strict=True)]
    tokens = [[*range(count)] for count in counts] if tokens is None else tokens
    return scored(Features({"test": split}, ()), tokens, texts, 444, Scoring.of_language(language))


def test_windows_that_end_early_are_named():
    [utterance], problems = heard((75, 12, 75))
    assert [(item.kind, item.measured) for item in problems] == [("few words", True)]
    assert "far fewer words than the audio should contain in 1 of 3 windows: " in problems[0].detail
    assert problems[0].detail.endswith("at 15 s 12 of about 75")
    assert utterance.errors is not None
    assert heard((75, 75, 75))[1] == ()
    assert heard((75, 60, 75))[1] == ()  # people do not speak evenly


def test_a_pause_needs_no_words():
    sound = np.full((3, 80, 3000), SPOKEN, np.float32)
    sound[1, :, 450:2700] = QUIET
    assert heard((75, 15, 75), sound=sound)[1] == ()


def test_by_character_where_there_are_no_words():
    text = "".join(chr(0x4E00 + number) for number in range(150))
    _, [problem] = heard((75, 12, 75), "zh", reference=text)
    assert "far fewer characters" in problem.detail


@pytest.mark.parametrize(("row", "kinds"), [(range(444), ["cut off"]), ([7] * 444, []), (range(443), [])])
def test_a_text_that_the_limit_cut_off_is_named_but_for_a_loop(row, kinds):
    _, problems = heard((75, 75, 75), tokens=[[1], [*row], [2]])
    assert [item.kind for item in problems] == kinds
    assert all("1 of 3 windows reached the limit of 444 tokens" in item.detail for item in problems)
