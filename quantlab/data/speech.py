"""Features and references of a cell's utterances, by split."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np
import numpy.typing as npt

from quantlab.data.audio import SAMPLE_RATE
from quantlab.records.schema import Problem
from quantlab.util.counted import counted
from quantlab.util.errors import ConfigError

Mel = npt.NDArray[np.float32]  # log-mel frames, or samples as frames of one value
# What a model is given: Whisper's log-mel frames in a window of fixed length; samples; log-mel frames of the utterance,
# each bin scaled over it. Only a window is padded.
Kind = Literal["window", "samples", "frames"]
HOP = 160  # samples from one frame of Whisper's features to the next


@dataclass(frozen=True)
class SplitFeatures:
    """The measurable utterances of a split, or a subset; every field has one entry per window.

    An utterance is one window, except for long recordings: these have consecutive windows with the same id, or are left
    whole and take several rows of `stored`. So does every window of a model without a window of fixed length.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]  # raw references
    speakers: tuple[str | None, ...]
    audio_s: tuple[float, ...]  # seconds of audio, without padding
    new_s: tuple[float, ...]  # of these, seconds that are not in the window before
    stored: Mel  # the whole split on disk, (rows, values, frames)
    rows: tuple[int, ...]  # row in `stored`; the first of several
    kind: Kind = "window"
    hop: int = HOP  # samples from one frame to the next

    @property
    def mel(self) -> Mel:
        """Features, float32, (windows, mel bins, frames); not copied if the rows are consecutive."""
        first, count = (self.rows[0], len(self.rows)) if self.rows else (0, 0)
        if self.rows == tuple(range(first, first + count)):
            return self.stored[first : first + count]
        return self.stored[list(self.rows)]

    @property
    def every_row(self) -> Mel:
        """Like `mel`, with all rows of recordings that are left whole."""
        spans = (range(row, row + self._count(position)) for position, row in enumerate(self.rows))
        return self.stored[[row for span in spans for row in span]]

    def recording(self, position: int) -> Mel:
        """Features of a whole recording without padding, float32, (values, frames)."""
        first, frames = self.rows[position], frames_in(self.audio_s[position], self.hop)
        return np.concatenate(self.stored[first : first + self._count(position)], axis=1)[:, :frames]

    @property
    def recordings(self) -> list[Mel]:
        """`recording` of each window."""
        return [self.recording(position) for position in range(len(self.rows))]

    def _count(self, position: int) -> int:
        return rows_for(self.audio_s[position], self.stored.shape[2], self.hop)

    def window(self, position: int) -> Mel:
        """Features of one window, float32, (mel bins, frames)."""
        return self.stored[self.rows[position]]

    def batches(self, size: int) -> Iterator[SplitFeatures]:
        """Consecutive windows, `size` at a time; the last batch may be smaller."""
        for start in range(0, len(self.rows), size):
            yield self.take(range(start, min(start + size, len(self.rows))))

    def utterances(self) -> Iterator[tuple[int, int]]:
        """The first window and the number of windows of each utterance."""
        first = 0
        for _, windows in groupby(self.ids):
            count = len(list(windows))
            yield first, count
            first += count

    def take(self, positions: Sequence[int]) -> SplitFeatures:
        return SplitFeatures(
            ids=tuple(self.ids[i] for i in positions),
            texts=tuple(self.texts[i] for i in positions),
            speakers=tuple(self.speakers[i] for i in positions),
            audio_s=tuple(self.audio_s[i] for i in positions),
            new_s=tuple(self.new_s[i] for i in positions),
            stored=self.stored,
            rows=tuple(self.rows[i] for i in positions),
            kind=self.kind,
            hop=self.hop,
        )


def frames_in(audio_s: float, hop: int = HOP) -> int:
    """Number of frames in a duration of audio, `hop` samples apart."""
    return max(1, round(audio_s * SAMPLE_RATE) // hop)


def rows_for(audio_s: float, frames: int, hop: int = HOP) -> int:
    """Number of rows of `frames` frames needed for a duration of audio."""
    return -(-frames_in(audio_s, hop) // frames)


@dataclass(frozen=True)
class Features:
    """The data of a cell: splits with measurable utterances, and the utterances that cannot be measured."""

    splits: Mapping[str, SplitFeatures]
    problems: tuple[Problem, ...]

    def only(self, ids: Collection[str]) -> Features:
        """Keep only these utterances; splits without any are dropped."""
        return self._filtered(set(ids), keep=True)

    def without(self, ids: Collection[str]) -> Features:
        """Drop these utterances; splits without any left are dropped.

        Raises:
            ConfigError: no utterance is left.
        """
        rest = self._filtered(set(ids), keep=False)
        if not rest.splits:
            raise ConfigError(
                f"calibration.source=disjoint leaves nothing to score: {counted(len(ids), 'utterance')}, "
                "all for calibration; raise dataset.limit or lower calibration.fraction"
            )
        return rest

    def _filtered(self, ids: set[str], keep: bool) -> Features:
        splits = {
            name: split.take([i for i, id in enumerate(split.ids) if (id in ids) == keep])
            for name, split in self.splits.items()
        }
        kept = {id for split in splits.values() for id in split.ids}
        return Features(
            {name: split for name, split in splits.items() if split.ids},
            tuple(item for item in self.problems if not item.measured or item.utterance in kept),
        )


@dataclass(frozen=True)
class SplitBatch:
    """One batch of one split."""

    split: str
    index: int  # number of the batch in its split
    speech: SplitFeatures


def split_batches(speech: Features, batch_size: int) -> Iterator[SplitBatch]:
    """Every batch of every split, in corpus order."""
    for name, split in speech.splits.items():
        for index, batch in enumerate(split.batches(batch_size)):
            yield SplitBatch(name, index, batch)
