"""Computation of figures (RTF, latency, error rates) from raw samples, without torch."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from quantlab.records.measured import KeywordFigures
from quantlab.records.schema import Batch, FixedWork, Speed, SplitResult, Utterance, Work
from quantlab.records.word_times import compared
from quantlab.stats.ratios import converged, ratio_of_sums, typical_ratio, verdict

IMPOSSIBLE = (ArithmeticError, ValueError, TypeError)  # errors that only invalid raw data cause
# The smallest numbers of samples of which, with a probability of 99 %, at least two are above the percentile.
P90_SAMPLES = 64  # minimum for a 90th percentile
P95_SAMPLES = 130  # minimum for a 95th percentile
P99_SAMPLES = 662  # minimum for a 99th percentile


def split_result(utterances: Sequence[Utterance], batches: Sequence[Batch]) -> SplitResult:
    """Compute the figures of one split.

    Args:
        utterances: scored utterances of the split, at least one.
        batches: timed calls of the split; only free-running calls of the cell are used, at least one per batch. If a
            batch was timed several times, the mean is used.
    """
    natural = [batch for batch in batches if batch.of == "cell" and batch.work == "natural"]
    calls = _grouped(natural, lambda batch: batch.index)
    audio_s = sum(group[0].audio_s for group in calls.values())
    tokens = sum(group[0].tokens for group in calls.values())
    generate_s = sum(statistics.fmean(batch.elapsed_s for batch in group) for group in calls.values())
    latencies_s = sorted(batch.elapsed_s for batch in natural)
    return SplitResult(
        utterances=len(utterances),
        audio_s=audio_s,
        generate_s=generate_s,
        tokens=tokens,
        rtf=generate_s / audio_s,
        rtf_ci95=_rtf_interval(natural, generate_s / audio_s),
        tokens_per_s=tokens / generate_s,
        latency_p50_s=statistics.median(latencies_s),
        latency_p90_s=percentile(latencies_s, 90) if len(latencies_s) >= P90_SAMPLES else None,
        latency_p99_s=percentile(latencies_s, 99) if len(latencies_s) >= P99_SAMPLES else None,
        **_accuracy(utterances),
    )


def _grouped(batches: Iterable[Batch], key: Any) -> dict[Any, list[Batch]]:
    groups = defaultdict(list)
    for batch in batches:
        groups[key(batch)].append(batch)
    return dict(groups)


def _rtf_interval(natural: Sequence[Batch], rtf: float) -> tuple[float, float] | None:
    """95 % interval of `rtf` from repeated calls; None for a single pass over the split."""
    blocks = _grouped((batch for batch in natural if batch.block is not None), lambda batch: batch.block)
    if len(blocks) < 2:
        return None
    seconds = [sum(batch.elapsed_s for batch in group) for group in blocks.values()]
    audio = [sum(batch.audio_s for batch in group) for group in blocks.values()]
    ratio = ratio_of_sums(seconds, audio)
    return (max(0.0, rtf - (ratio.value - ratio.low)), rtf + (ratio.high - ratio.value))


def speed(batches: Sequence[Batch], work: Work, rel_ci: float) -> Speed | None:
    """Time of the cell / time of its baseline at one kind of work; None if nothing was interleaved.

    Args:
        batches: all timed calls of a record.
        work: kind of work.
        rel_ci: `protocol.rel_ci` of the record's configuration.
    """
    blocks = _grouped(
        (batch for batch in batches if batch.work == work and batch.block is not None), lambda batch: batch.block
    )
    if len(blocks) < 2 or not any(batch.of == "baseline" for batch in batches):
        return None  # one block has no interval; a bundle repeats its baseline alone
    cell = [calls_s(group, work, "cell") for group in blocks.values()]
    baseline = [calls_s(group, work, "baseline") for group in blocks.values()]
    ratio = typical_ratio(cell, baseline)
    return Speed(
        ratio=ratio.value,
        ci95=(ratio.low, ratio.high),
        converged=converged(ratio, len(blocks), rel_ci),
        verdict=verdict(ratio, len(blocks), rel_ci),
        blocks=len(blocks),
    )


def calls_s(block: Iterable[Batch], work: Work, side: Literal["cell", "baseline"]) -> list[float]:
    """Seconds of one side's two turns in a block, each summed over the batches of the block."""
    turns = _grouped(
        (batch for batch in block if batch.work == work and batch.of == side), lambda batch: (batch.split, batch.index)
    )
    return [sum(batch.elapsed_s for batch in turn) for turn in zip(*turns.values(), strict=True)]


def fixed_work(batches: Sequence[Batch], rel_ci: float) -> FixedWork | None:
    """Time of an encoder pass and of a decoding step; None if they were not timed."""
    encoder = [batch for batch in batches if batch.of == "cell" and batch.work == "encoder"]
    forced = [batch for batch in batches if batch.of == "cell" and batch.work == "forced"]
    if not encoder or not forced:
        return None
    return FixedWork(
        batch_size=max(batch.utterances for batch in forced),
        forced_tokens=max(batch.tokens // batch.utterances for batch in forced),
        encoder_s=statistics.median(batch.elapsed_s for batch in encoder),
        encoder_rtf=sum(batch.elapsed_s for batch in encoder) / sum(batch.audio_s for batch in encoder),
        token_s=statistics.median(batch.elapsed_s * batch.utterances / batch.tokens for batch in forced),
        encoder=speed(batches, "encoder", rel_ci),
        token=speed(batches, "forced", rel_ci),
    )


def percentile(sorted_values: Sequence[float], percent: int) -> float:
    """A percentile, interpolated linearly between two values; of at least two."""
    return statistics.quantiles(sorted_values, n=100, method="inclusive")[percent - 1]


def _accuracy(utterances: Sequence[Utterance]) -> dict[str, Any]:
    """Corpus-level error rates with their counts; empty for random weights."""
    if any(item.hypothesis is None for item in utterances):
        return {}
    speech = [item for item in utterances if not item.nonspeech]
    total = {
        name: sum(getattr(item, name) for item in speech)
        for name in ("substitutions", "deletions", "insertions", "hits", "char_errors", "ref_chars")
    }
    errors = total["substitutions"] + total["deletions"] + total["insertions"]
    ref_words = total["substitutions"] + total["deletions"] + total["hits"]
    loops = [item for item in speech if item.loop]
    return total | {
        "ref_words": ref_words,
        "wer": errors / ref_words if ref_words else None,
        "cer": total["char_errors"] / total["ref_chars"] if total["ref_chars"] else None,
        "empty_share": sum(item.is_empty for item in speech) / len(speech) if speech else None,
        "loop_share": len(loops) / len(speech) if speech else None,
        "loops": len(loops),
        "loop_errors": sum(item.errors or 0 for item in loops),
        "loop_insertions": sum(item.insertions or 0 for item in loops),
        **_bursts(speech),
        **_keywords(speech),
        **_word_times(speech),
        **_nonspeech([item for item in utterances if item.nonspeech]),
    }


def _bursts(speech: Sequence[Utterance]) -> dict[str, Any]:
    """Runs of deleted words; empty if the utterances are those of an older record, which did not count them."""
    words = [item.burst_words for item in speech if item.burst_words is not None]
    if len(words) < len(speech):
        return {}
    bursts = sum(count > 0 for count in words)
    return {"bursts": bursts, "burst_words": sum(words), "burst_share": bursts / len(speech) if speech else None}


def _keywords(speech: Sequence[Utterance]) -> dict[str, Any]:
    """Recall and precision of keywords; empty if none were counted."""
    counted = [item.keywords for item in speech if item.keywords is not None]
    return {"keywords": _added_up(counted)} if counted else {}


def _word_times(speech: Sequence[Utterance]) -> dict[str, Any]:
    """Errors of word times; empty if no words were timed."""
    words = [item.words for item in speech if item.words is not None]
    if not speech or len(words) < len(speech):
        return {}
    spoken, matches = [item.spoken_words for item in speech], [item.matches for item in speech]
    return {"word_times": compared(words, spoken, matches)}


def over_splits(splits: Sequence[KeywordFigures]) -> KeywordFigures | None:
    """The keywords of several splits together; None of none."""
    return _added_up([split.words for split in splits]) if splits else None


def _added_up(counted: Sequence[dict[str, tuple[int, int, int]]]) -> KeywordFigures:
    words: dict[str, tuple[int, int, int]] = {}
    for found in counted:
        for name, (spoken, written, right) in found.items():
            before = words.get(name, (0, 0, 0))
            words[name] = before[0] + spoken, before[1] + written, before[2] + right
    spoken, written, right = (sum(counts[index] for counts in words.values()) for index in range(3))
    return KeywordFigures(
        spoken=spoken,
        written=written,
        right=right,
        recall=right / spoken if spoken else None,
        precision=right / written if written else None,
        words=dict(sorted(words.items())),
    )


def _nonspeech(utterances: Sequence[Utterance]) -> dict[str, Any]:
    """Words decoded in audio without speech; empty if no such audio was measured."""
    if not utterances:
        return {}
    audio_s, words = sum(item.audio_s for item in utterances), sum(item.insertions or 0 for item in utterances)
    return {
        "nonspeech_s": audio_s,
        "nonspeech_words": words,
        "nonspeech_words_per_min": 60 * words / audio_s if audio_s else None,
    }
