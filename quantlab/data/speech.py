"""Features and references of a cell's utterances, by split."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from quantlab.data.audio import SAMPLE_RATE
from quantlab.records.schema import Problem
from quantlab.util.errors import ConfigError

Mel = npt.NDArray[np.float32]
HOP = 160  # samples from one frame of Whisper's features to the next


@dataclass(frozen=True)
class SplitFeatures:
    """The measurable utterances of a split, or some of them; every field has one entry per window.

    An utterance is one window, but for a long recording: its windows follow each other with the same id, or it is left
    whole and has as many rows of `stored` as it takes.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]  # raw references
    speakers: tuple[str | None, ...]
    audio_s: tuple[float, ...]  # seconds of real audio, not of the padded window
    new_s: tuple[float, ...]  # of them, seconds that the window before does not have: all but where windows overlap
    stored: Mel  # the whole split on disk, (windows, mel bins, frames)
    rows: tuple[int, ...]  # of `stored`; the first one of a recording that is left whole

    @property
    def mel(self) -> Mel:
        """Features, float32, (windows, mel bins, frames); not copied where the rows are consecutive."""
        first, count = (self.rows[0], len(self.rows)) if self.rows else (0, 0)
        if self.rows == tuple(range(first, first + count)):
            return self.stored[first : first + count]
        return self.stored[list(self.rows)]

    @property
    def every_row(self) -> Mel:
        """As `mel`, with all rows of recordings that are left whole."""
        spans = (range(row, row + self._count(position)) for position, row in enumerate(self.rows))
        return self.stored[[row for span in spans for row in span]]

    def recording(self, position: int) -> Mel:
        """Features of all that was said, without the padding, float32, (mel bins, frames)."""
        first, frames = self.rows[position], frames_in(self.audio_s[position])
        return np.concatenate(self.stored[first : first + self._count(position)], axis=1)[:, :frames]

    def _count(self, position: int) -> int:
        return rows_for(self.audio_s[position], self.stored.shape[2])

    def window(self, position: int) -> Mel:
        """Features of one window, float32, (mel bins, frames)."""
        return self.stored[self.rows[position]]

    def batches(self, size: int) -> Iterator[SplitFeatures]:
        """Consecutive windows, `size` at a time; the last batch may be smaller."""
        for start in range(0, len(self.rows), size):
            yield self.take(range(start, min(start + size, len(self.rows))))

    def utterances(self) -> Iterator[tuple[int, int]]:
        """The first window of each utterance, and how many it has."""
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
        )


def frames_in(audio_s: float) -> int:
    """Of so much audio."""
    return max(1, round(audio_s * SAMPLE_RATE) // HOP)


def rows_for(audio_s: float, frames: int) -> int:
    """How many rows of so many frames it takes to hold so much audio."""
    return -(-frames_in(audio_s) // frames)


@dataclass(frozen=True)
class Features:
    """What a cell measures: the splits that have a measurable utterance, and the utterances that are not."""

    splits: Mapping[str, SplitFeatures]
    problems: tuple[Problem, ...]

    def only(self, ids: Collection[str]) -> Features:
        """Those utterances; a split without any goes."""
        return self._filtered(set(ids), keep=True)

    def without(self, ids: Collection[str]) -> Features:
        """All but those utterances; a split of which nothing is left goes.

        Raises:
            ConfigError: nothing at all is left.
        """
        rest = self._filtered(set(ids), keep=False)
        if not rest.splits:
            raise ConfigError(
                f"calibration.source=disjoint leaves nothing to score: all {len(ids)} utterances calibrate; "
                "raise dataset.limit or lower calibration.fraction"
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
    index: int  # of the batch
    speech: SplitFeatures


def split_batches(speech: Features, batch_size: int) -> Iterator[SplitBatch]:
    """Every batch of every split, in corpus order."""
    for name, split in speech.splits.items():
        for index, batch in enumerate(split.batches(batch_size)):
            yield SplitBatch(name, index, batch)
