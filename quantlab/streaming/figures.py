"""Figures of streams: error rate, delays, words taken back, and whether the recogniser keeps up with speech."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from quantlab.config.streaming import StreamingConfig
from quantlab.records.figures import P95_SAMPLES, percentile
from quantlab.records.schema import Record, Stream, StreamFigures, Utterance
from quantlab.streaming.clock import Shown, replay
from quantlab.streaming.policy import common_prefix
from quantlab.util.languages import ErrorUnit


@dataclass
class Delays:
    """What happened to the words of one utterance, in seconds.

    A word counts from the update that showed it for good, since no earlier one had it there. Its delay is counted from
    the arrival of the audio that this update decoded: the word was spoken before, by less than `chunk_s` if nothing had
    to wait. A word that is changed in any way, or moved, is taken back and shown anew.
    """

    first_text_s: float | None = None
    shown_s: list[float] = field(default_factory=list)
    final_s: list[float] = field(default_factory=list)
    taken_back: int = 0
    words: int = 0  # at the end


def delays(shown: Sequence[Shown]) -> Delays:
    """The delays of an utterance.

    Args:
        shown: all its updates, with the screens after them.
    """
    found = Delays()
    words: tuple[str, ...] = ()
    since: list[int] = []  # of each word on the screen, the update that showed it
    final = 0
    for number, (update, screen) in enumerate(shown):
        kept = len(common_prefix([words, screen.words]))
        found.taken_back += len(words) - kept
        words = screen.words
        since = since[:kept] + [number] * (len(words) - kept)
        if words and found.first_text_s is None:
            found.first_text_s = update.end_s
        for first in since[final : screen.final]:
            heard_s = shown[first].update.heard_s
            found.shown_s.append(shown[first].update.end_s - heard_s)
            found.final_s.append(update.end_s - heard_s)
        final = screen.final
    found.words = len(words)
    return found


def figures(
    streams: Sequence[Stream], whole: Iterable[Utterance], config: StreamingConfig, unit: ErrorUnit
) -> StreamFigures | None:
    """Compute the figures of some streams; None of none.

    Args:
        streams: of a split, or of all.
        whole: the utterances as they were decoded whole, in any order; others may be among them.
        config: chunks and policy.
        unit: what a text is made of.

    Raises:
        ValueError: a stream is not one that this policy could make, or its utterance is missing.
    """
    if not streams:
        return None
    known = {(item.split, item.id): item for item in whole}
    if missing := [item.id for item in streams if (item.split, item.id) not in known]:
        raise ValueError(f"stream {missing[0]} is of no utterance")
    spoken = [(item, known[item.split, item.id]) for item in streams if not known[item.split, item.id].nonspeech]
    found = [delays(replay(item, config, unit)) for item in streams]
    first_s, shown_s, final_s = _sorted(item.first_text_s for item in found), *_of_words(found)
    lags_s = _sorted(item.lag_s for item in streams)
    updates = [update for item in streams for update in item.updates]
    audio_s, compute_s = sum(item.audio_s for item in streams), sum(update.compute_s for update in updates)
    words, taken_back = sum(item.words for item in found), sum(item.taken_back for item in found)
    counts = {name: sum(getattr(item, name) for item, _ in spoken) for name in _COUNTS}
    errors, ref_words = sum(counts.values()) - counts["hits"], sum(counts.values()) - counts["insertions"]
    of_whole = sum(item.errors or 0 for _, item in spoken)
    return StreamFigures(
        utterances=len(streams),
        updates=len(updates),
        audio_s=audio_s,
        compute_s=compute_s,
        extract_s=sum(update.extract_s for update in updates),
        rtf=compute_s / audio_s,
        **counts,
        ref_words=ref_words,
        wer=errors / ref_words if ref_words else None,
        wer_increase=(errors - of_whole) / ref_words if ref_words else None,
        with_text=len(first_s),
        words=words,
        taken_back=taken_back,
        taken_back_share=taken_back / (taken_back + words) if taken_back + words else None,
        first_text_p50_s=_median(first_s),
        first_text_p95_s=_p95(first_s),
        shown_p50_s=_median(shown_s),
        shown_p95_s=_p95(shown_s),
        final_p50_s=_median(final_s),
        final_p95_s=_p95(final_s),
        lag_p50_s=statistics.median(lags_s),
        lag_p95_s=_p95(lags_s),
        lag_max_s=lags_s[-1],
        kept_up=sum(lag_s <= config.chunk_s for lag_s in lags_s),
    )


def with_streams(record: Record, streams: Sequence[Stream], utterances: Sequence[Utterance]) -> Record:
    """The record with the figures of its streams, of each split and of all; unchanged without any.

    Raises: as `figures`.
    """
    if not streams:
        return record
    found = stream_figures(record, streams, utterances)
    splits = {name: split.model_copy(update={"streaming": found.get(name)}) for name, split in record.splits.items()}
    return record.model_copy(update={"splits": splits, "streaming": found[None]})


def stream_figures(
    record: Record, streams: Sequence[Stream], utterances: Sequence[Utterance]
) -> dict[str | None, StreamFigures | None]:
    """The figures of a record by split; None: of all splits.

    Raises: as `figures`; ValueError too if the record's configuration has no streaming.
    """
    config = config_of(record)
    parts: dict[str | None, Sequence[Stream]] = {
        name: [item for item in streams if item.split == name] for name in record.splits
    }
    return {
        name: figures(part, utterances, config, record.error_unit) for name, part in (parts | {None: streams}).items()
    }


def config_of(record: Record) -> StreamingConfig:
    """`runtime.streaming` of a record.

    Raises:
        ValueError: it is not valid, or missing.
    """
    found = StreamingConfig.model_validate(record.setting("runtime.streaming") or {})
    if found.policy is None:
        raise ValueError("it has streams, but runtime.streaming.policy is null")
    return found


_COUNTS = ("substitutions", "deletions", "insertions", "hits")


def _of_words(found: Sequence[Delays]) -> Iterator[list[float]]:
    yield _sorted(delay_s for item in found for delay_s in item.shown_s)
    yield _sorted(delay_s for item in found for delay_s in item.final_s)


def _sorted(values: Iterable[float | None]) -> list[float]:
    return sorted(value for value in values if value is not None)


def _median(sorted_values: Sequence[float]) -> float | None:
    return statistics.median(sorted_values) if sorted_values else None


def _p95(sorted_values: Sequence[float]) -> float | None:
    return percentile(sorted_values, 95) if len(sorted_values) >= P95_SAMPLES else None
