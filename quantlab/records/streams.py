"""Decoding of an utterance while it is spoken: raw events, and the figures that follow from them.

Times are seconds of a virtual clock on which the utterance begins at 0 and its audio arrives at the pace of speech.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from quantlab.records.part import Count, Divisor, Figure, Part, Share, Text

Difference = Annotated[float, Field(ge=-1e15, le=1e15)]


class Update(Part):
    """One decoding of what had arrived."""

    begin_s: Figure  # start of the decoded audio
    heard_s: Figure  # its end, which had arrived when decoding began
    start_s: Figure  # when decoding began, on the virtual clock
    extract_s: Figure  # measured seconds of feature extraction
    generate_s: Figure  # measured seconds of `generate`
    text: Annotated[str, Field(max_length=50_000)]  # raw hypothesis of this audio

    @property
    def compute_s(self) -> float:
        """How far the update moved the clock."""
        return self.extract_s + self.generate_s

    @property
    def end_s(self) -> float:
        """When its text was there."""
        return self.start_s + self.compute_s


class Stream(Part):
    """An utterance that was decoded while it was spoken: every update in order, and counts of the final text."""

    id: str
    split: str
    audio_s: Annotated[float, Field(ge=1e-9, le=1e6)]  # so that the chunks can be counted
    window_s: Divisor  # of the model
    updates: Annotated[tuple[Update, ...], Field(min_length=1)]
    hypothesis: Text  # the final text
    substitutions: Count  # in the record's error unit, as in `Utterance`
    deletions: Count
    insertions: Count
    hits: Count

    @property
    def lag_s(self) -> float:
        """How long after the end of the audio the final text was there."""
        return self.updates[-1].end_s - self.audio_s


class StreamFigures(Part):
    """Figures of the streams of a split, or of all splits; null without samples, percentiles from enough of them."""

    utterances: Annotated[Count, Field(gt=0)]
    updates: Count
    audio_s: Divisor
    compute_s: Figure  # features and `generate`, over all updates
    extract_s: Figure  # of these, features
    rtf: Figure  # compute_s / audio_s
    substitutions: Count  # of the final texts, of utterances with words in the reference
    deletions: Count
    insertions: Count
    hits: Count
    ref_words: Count
    wer: Figure | None
    wer_increase: Difference | None  # wer − that of the same utterances decoded whole in the same cell
    with_text: Count  # utterances that showed a text at any time
    words: Count  # shown at the end (in the error unit)
    taken_back: Count  # words that were shown and then removed or replaced
    taken_back_share: Share | None  # taken_back / (taken_back + words)
    first_text_p50_s: Figure | None  # from the begin of the audio to the first words on the screen
    first_text_p95_s: Figure | None
    shown_p50_s: Figure | None  # delay of a word until it was shown for good
    shown_p95_s: Figure | None
    final_p50_s: Figure | None  # delay of a word until it was final
    final_p95_s: Figure | None
    lag_p50_s: Figure  # from the end of the audio to the final text
    lag_p95_s: Figure | None
    lag_max_s: Figure
    kept_up: Count  # utterances with a lag of at most `chunk_s`
