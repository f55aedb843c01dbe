"""Decoding and scoring of a corpus, or of as much of it as it takes (`protocol.looks`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from quantlab import models
from quantlab.analysis.looks import Opponent, look
from quantlab.config.schema import RunConfig
from quantlab.data import Features, SplitFeatures
from quantlab.data.parts import parts
from quantlab.data.speech import SplitBatch, split_batches
from quantlab.engines import Engine
from quantlab.engines.alignment import TimesWords
from quantlab.measurement.recordings import scored
from quantlab.measurement.timing import free_running
from quantlab.measurement.words import with_word_times
from quantlab.recogniser.assemble import Assembled
from quantlab.recogniser.true_words import Truth
from quantlab.records.schema import Adaptive, Batch, Problem, Utterance
from quantlab.scoring.score import Scoring
from quantlab.util.errors import UnsupportedError

Progress = Callable[[str, int, int], None]  # stage, windows decoded, windows of the corpus


@dataclass(frozen=True)
class Decoded:
    """One timed batch and its generated token ids."""

    speech: SplitFeatures
    batch: Batch
    tokens: list[list[int]]


@dataclass
class Measured:
    """What was measured so far, in order."""

    speech: Features  # the utterances measured
    decoded: list[Decoded] = field(default_factory=list)
    utterances: tuple[Utterance, ...] = ()
    doubts: tuple[Problem, ...] = ()
    adaptive: Adaptive | None = None  # None: it was compared with nothing
    aligned: list[Batch] = field(default_factory=list)  # calls that found word times, if the cell asks for them


def measure(
    config: RunConfig,
    made: Assembled,
    opponent: Opponent | None,
    scoring: Scoring,
    keywords: tuple[str, ...] | None,
    truth: Truth,
    region: Callable[[], AbstractContextManager[None]],
    progress: Progress,
) -> Measured:
    """Decode and score the corpus once, with no other model in the process.

    Args:
        config: the cell.
        made: its model, and the corpus.
        opponent: what it is compared with after each part of the corpus, to stop as `protocol.stops` says; None: it
            does not stop.
        scoring: how texts are compared.
        keywords: see `recordings.scored`.
        truth: true times of words, by utterance.
        region: opens a block that decodes; scoring and comparing are outside.
        progress: called between batches, never inside the timed region.
    """
    speech = made.speech.measured
    found = Measured(speech)
    available = sum(len(list(split.utterances())) for split in speech.splits.values())
    for part in parts(speech, config.protocol.looks, config.seed):
        with region():
            new = list(_decode(made.decoder, part, found.decoded, speech, progress))
        tokens = [row for item in new for row in item.tokens]
        texts = models.texts(made.tokenizer, tokens) if made.tokenizer else None
        limit = made.decoder.decoding.max_new_tokens
        utterances, doubts = scored(part, tokens, texts, limit, scoring, keywords)  # random weights have no texts
        found.decoded += new
        found.utterances += utterances
        found.doubts += doubts
        if opponent is not None:
            found.adaptive = look(opponent, found.utterances, found.adaptive, available)
            if found.adaptive.stopped_by is not None:
                break
    if len(found.utterances) < available:
        found.speech = speech.only({item.id for item in found.utterances})
    if config.runtime.word_times and made.tokenizer is not None:  # last: an engine may need more memory for it
        found.utterances, found.aligned = _word_times(config, made, found, truth, scoring, progress)
    return found


def _word_times(
    config: RunConfig, made: Assembled, found: Measured, truth: Truth, scoring: Scoring, progress: Progress
) -> tuple[tuple[Utterance, ...], list[Batch]]:
    """The utterances with their words; raises UnsupportedError for an engine that finds no times."""
    if not isinstance(made.decoder, TimesWords) or made.tokenizer is None:
        raise UnsupportedError(
            f"runtime.word_times=true: {config.quant.library}'s engine does not say when tokens were spoken; leave "
            "runtime.word_times=false"
        )
    decoded = [(SplitBatch(item.batch.split, item.batch.index, item.speech), item.tokens) for item in found.decoded]
    return with_word_times(made.decoder, decoded, found.utterances, made.tokenizer, truth, scoring, progress)


def _decode(
    decoder: Engine, part: Features, before: Sequence[Decoded], whole: Features, progress: Progress
) -> Iterator[Decoded]:
    """Decode a part of the corpus; its batches are numbered after those before."""
    total = sum(len(split.ids) for split in whole.splits.values())
    done = sum(len(item.speech.ids) for item in before)
    start = Counter(item.batch.split for item in before)
    for batch in split_batches(part, decoder.decoding.batch_size):
        progress(batch.split, done, total)
        numbered = replace(batch, index=start[batch.split] + batch.index)
        yield Decoded(batch.speech, *free_running(decoder, numbered))
        done += len(batch.speech.ids)
    progress("score", done, total)
