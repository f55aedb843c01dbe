"""What is measured of a cell: raw samples of texts and times, and the figures that follow from them."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from quantlab.records.part import Count, Divisor, Figure, Interval, Part, Share, Text
from quantlab.records.streams import StreamFigures
from quantlab.records.word_times import Matches, SpokenWord, WordTimes, WrittenWord

Work = Literal["natural", "encoder", "forced", "align"]
_ROUNDING = 1e-6  # relative
BURST = 5  # that many deleted words in a row are a burst
Occurrences = tuple[Count, Count, Count]  # of a keyword: spoken, written, right


class Utterance(Part):
    """One scored utterance: raw reference and hypothesis, and counts after normalisation."""

    id: str
    split: str
    speaker: str | None
    audio_s: Figure
    reference: Text
    hypothesis: Text | None  # null for random weights
    tokens: Count  # generated
    substitutions: Count | None = None  # in the record's error unit: words or characters
    deletions: Count | None = None
    insertions: Count | None = None
    hits: Count | None = None
    char_errors: Count | None = None  # S + D + I over characters
    ref_chars: Count | None = None
    burst_words: Count | None = None  # deleted words in runs of at least five, in an output that has words
    loop: bool | None = None  # an n-gram repeated until the length limit
    nonspeech: bool = False  # the reference has no word; excluded from error rates, its words are counted separately
    keywords: dict[str, Occurrences] | None = None  # normalised keyword → occurrences; null without dataset.keywords

    words: tuple[WrittenWord, ...] | None = None  # of the hypothesis, null without runtime.word_times as the next two
    spoken_words: tuple[SpokenWord, ...] | None = None  # of the reference, if the corpus says when they were spoken
    matches: Matches | None = None  # equal words of these two

    @model_validator(mode="after")
    def _matches_are_places(self) -> Utterance:
        written, spoken = len(self.words or ()), len(self.spoken_words or ())
        if any(mine >= written or theirs >= spoken for mine, theirs in self.matches or ()):
            raise ValueError(f"a match is none of {written} written and {spoken} spoken words")
        return self

    @property
    def errors(self) -> int | None:
        """S + D + I; None without text."""
        return added(self.substitutions, self.deletions, self.insertions)

    @property
    def is_empty(self) -> bool:
        """Whether a text without words was output; by its counts, or an older record's raw text."""
        if self.burst_words is None:
            return not self.hypothesis
        return not added(self.hits, self.substitutions, self.insertions)


class KeywordFigures(Part):
    """Occurrences of the keywords in one split; recall and precision are fractions, null without occurrences."""

    spoken: Count  # in the references
    written: Count  # in the hypotheses
    right: Count  # of the reference, in their place in the hypothesis
    recall: Share | None  # right / spoken
    precision: Share | None  # right / written
    words: dict[str, Occurrences]  # of each keyword that occurs: spoken, written, right

    @model_validator(mode="after")
    def _adds_up(self) -> KeywordFigures:
        sums = tuple(map(sum, zip(*self.words.values(), strict=True))) or (0, 0, 0)
        if sums != (self.spoken, self.written, self.right) or self.right > min(self.spoken, self.written):
            raise ValueError("the occurrences of the keywords do not add up")
        _same("recall", self.recall, self.right, self.spoken)
        _same("precision", self.precision, self.right, self.written)
        return self


class Batch(Part):
    """One timed call: free-running `generate`, the encoder, a forced number of tokens, or alignment for word times."""

    split: str
    index: Count  # number of the batch in its split
    utterances: Annotated[Count, Field(gt=0)]
    audio_s: Divisor
    tokens: Count  # generated; 0 for the encoder
    elapsed_s: Divisor
    of: Literal["cell", "baseline"] = "cell"
    work: Work = "natural"
    block: Count | None = None  # number of the A B B A block; null if not interleaved


class Speed(Part):
    """Time of the cell / time of its baseline, from calls in alternating order on the same batches."""

    ratio: Divisor
    ci95: Interval
    converged: bool  # whether the interval is as narrow as the protocol requires
    verdict: Literal["faster", "slower", "no difference", "not converged"]
    blocks: Count  # number of A B B A blocks


class FixedWork(Part):
    """Times at equal work, since quantization changes the number of generated tokens."""

    batch_size: Count  # utterances
    forced_tokens: Count  # per utterance
    encoder_s: Figure  # median of one batch
    encoder_rtf: Figure  # encoder time / audio time
    token_s: Figure  # median of one decoding step of a batch, the encoder left out
    encoder: Speed | None = None  # relative to the baseline
    token: Speed | None = None


class Compilation(Part):
    """Counters of torch.compile for a compiled cell."""

    graphs: Count
    graph_breaks: Count  # places where the graph ended at an unsupported operation and Python continued
    while_timed: Count  # functions compiled between the first and last timed call; 0 if all shapes were warm

    @property
    def flags(self) -> tuple[str, ...]:
        """Warnings for readers of the figures."""
        found = []
        if self.graph_breaks:
            found.append(f"the compiled graph is broken in {self.graph_breaks} places")
        if self.while_timed:
            found.append(f"{self.while_timed} functions were compiled while it was timed")
        return tuple(found)


class Noise(Part):
    """Interference on the machine while the cell was timed; null if the system does not report it."""

    steal_share: float | None = None  # share of the used cores' time taken by the hypervisor
    other_load_share: float | None = None  # share of the used cores' time spent on other processes
    frequency_mhz: tuple[float, float] | None = None  # lowest and highest seen
    cgroup_throttled: int | None = None  # number of times that the container's CPU quota stopped it
    thermal_throttled: int | None = None  # number of times that the processor throttled due to heat
    gpu_clock_mhz: tuple[float, float] | None = None
    gpu_throttled: tuple[str, ...] = ()  # reasons given by the driver
    beside: tuple[str, ...] = ()  # ids of the cells that ran at the same time, on other cores or GPUs (jobs)
    flags: tuple[str, ...] = ()  # warnings for readers of the figures


class SplitResult(Part):
    """Corpus-level figures of one split. WER and CER are fractions; null without text to score."""

    utterances: Annotated[Count, Field(gt=0)]
    audio_s: Divisor
    generate_s: Divisor
    tokens: Count
    rtf: Figure
    tokens_per_s: Figure
    rtf_ci95: Interval | None = None  # requires three passes over the split
    latency_p50_s: Figure | None  # per batch
    latency_p90_s: Figure | None = None  # requires 64 samples
    latency_p99_s: Figure | None = None  # requires 662 samples
    wer: Figure | None = None
    cer: Figure | None = None
    substitutions: Count | None = None
    deletions: Count | None = None
    insertions: Count | None = None
    hits: Count | None = None
    ref_words: Count | None = None  # in the error unit (words or characters), as all counts but the next two
    char_errors: Count | None = None
    ref_chars: Count | None = None
    empty_share: Share | None = None
    loop_share: Share | None = None
    loops: Count | None = None  # number of looping utterances
    loop_errors: Count | None = None  # errors in looping utterances
    loop_insertions: Count | None = None  # inserted words in looping utterances
    burst_share: Share | None = None
    bursts: Count | None = None  # number of utterances with five or more deleted words in a row, but not all words
    burst_words: Count | None = None  # words deleted in such runs
    nonspeech_s: Figure | None = None  # audio without speech; null if none was measured, as the next two
    nonspeech_words: Count | None = None  # words (in the error unit) decoded in that audio
    nonspeech_words_per_min: Figure | None = None
    keywords: KeywordFigures | None = None  # dataset.keywords only
    word_times: WordTimes | None = None  # runtime.word_times only
    streaming: StreamFigures | None = None  # runtime.streaming only

    @property
    def errors(self) -> int | None:
        """S + D + I; None without text."""
        return added(self.substitutions, self.deletions, self.insertions)

    @model_validator(mode="after")
    def _has_all_counts_or_none(self) -> SplitResult:
        counts = (self.substitutions, self.deletions, self.insertions, self.hits, self.ref_words, self.char_errors)
        if len({count is None for count in (*counts, self.ref_chars)}) > 1:
            raise ValueError("some counts are missing")
        return self

    @model_validator(mode="after")
    def _rates_match_counts(self) -> SplitResult:
        """Refuse a record whose rates differ from its counts, so that readers can show either."""
        _same("rtf", self.rtf, self.generate_s, self.audio_s)
        _same("tokens_per_s", self.tokens_per_s, self.tokens, self.generate_s)
        errors, hits = self.errors, self.hits
        _same("wer", self.wer, errors, self.ref_words)
        _same("cer", self.cer, self.char_errors, self.ref_chars)
        words = None if self.nonspeech_words is None else 60 * self.nonspeech_words
        _same("nonspeech_words_per_min", self.nonspeech_words_per_min, words, self.nonspeech_s)
        if (self.loop_errors or 0) > (errors or 0):
            raise ValueError(f"loop_errors={self.loop_errors} of {errors} errors")
        if (self.loop_insertions or 0) > (self.insertions or 0) or (self.burst_words or 0) > (self.deletions or 0):
            raise ValueError("more inserted words in loops, or deleted ones in bursts, than there are")
        if hits is not None and self.ref_words != added(self.substitutions, self.deletions, hits):
            raise ValueError(f"ref_words={self.ref_words} is not substitutions + deletions + hits")
        return self


class Stages(Part):
    """Wall time of each stage in seconds; null if it did not run."""

    load_s: Figure | None = None
    features_s: Figure | None = None  # near zero if the features are cached
    quantize_s: Figure | None = None
    calibrate_s: Figure | None = None
    first_inference_s: Figure | None = None  # first batch that the model decodes, part of the warm-up
    compile_s: Figure | None = None  # runtime=compile only
    recover_s: Figure | None = None  # quant.recover only
    warmup_s: Figure | None = None
    measure_s: Figure | None = None  # sum of the timed `generate` calls
    word_times_s: Figure | None = None  # runtime.word_times only: sum of the alignment's calls, not part of measure_s
    total_s: Figure | None = None  # the whole cell, process start included


class EngineStages(Part):
    """Stage times of the timed pass as reported by whisper.cpp, as in Andreyev's Table II (arXiv 2503.09905).

    whisper.cpp counts a pass over 2 to 15 tokens as batchd (so the prompt of 4 tokens), over more as prompt.
    """

    load_s: Figure
    mel_s: Figure  # 0, as quantlab computes the features
    sample_s: Figure
    encode_s: Figure
    decode_s: Figure  # passes over a single token
    batchd_s: Figure
    prompt_s: Figure
    total_s: Figure  # wall time from the first timed call to the last
    # Calls of each stage; older records have none. whisper.cpp counts at least one of each.
    sample_runs: Count | None = None
    encode_runs: Count | None = None
    decode_runs: Count | None = None
    batchd_runs: Count | None = None
    prompt_runs: Count | None = None


def added(*counts: int | None) -> int | None:
    """Sum of counts; None if one is missing."""
    return None if None in counts else sum(count for count in counts if count is not None)


def _same(name: str, rate: float | None, count: float | None, length: float | None) -> None:
    """Check that a rate equals count / length, and is missing if there is no length.

    Raises:
        ValueError: it does not; the message names the rate.
    """
    expected = count / length if count is not None and length else None
    if (rate is None) != (expected is None) or (
        rate is not None and expected is not None and not math.isclose(rate, expected, rel_tol=_ROUNDING, abs_tol=1e-12)
    ):
        raise ValueError(f"{name}={rate} does not follow from its counts, {count} / {length}")
