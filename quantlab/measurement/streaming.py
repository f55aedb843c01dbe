"""Decoding of the measured utterances while they are spoken (`runtime.streaming`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from quantlab import models
from quantlab.config.schema import AS_SHIPPED, RunConfig
from quantlab.data import Features, SplitFeatures
from quantlab.data.audio import SAMPLE_RATE
from quantlab.data.streamed import Extractor, Samples, heard
from quantlab.engines import Engine
from quantlab.recogniser.assemble import Assembled
from quantlab.records.schema import Stream, Utterance
from quantlab.scoring.score import Scoring
from quantlab.scoring.streams import stream_counts
from quantlab.streaming.clock import Heard, joined, stream
from quantlab.streaming.policy import check_window

Progress = Callable[[str, int, int], None]  # stage, utterances streamed, utterances to stream
Extract = Callable[[Samples], tuple[SplitFeatures, float]]  # audio of one window → features, and seconds


@dataclass(frozen=True)
class Listener:
    """A recogniser of one utterance: features, then the cell's engine, both timed."""

    decoder: Engine
    extract: Extract
    text: Callable[[list[int]], str]
    samples: Samples  # of the whole utterance

    def __call__(self, begin_s: float, end_s: float) -> Heard:
        """Decode a part of the utterance."""
        part = self.samples[round(begin_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]
        speech, extract_s = self.extract(part)
        [tokens], generate_s = self.decoder.generate(speech)
        return Heard(self.text(tokens), extract_s, generate_s)


def streamed(
    config: RunConfig,
    made: Assembled,
    speech: Features,
    utterances: Iterable[Utterance],
    scoring: Scoring,
    progress: Progress,
) -> tuple[Stream, ...]:
    """Decode utterances while they are spoken, one at a time, on a virtual clock; empty without `runtime.streaming`.

    Args:
        config: the cell.
        made: its model and corpus.
        speech: the utterances that were measured.
        utterances: the same, scored, for their references.
        scoring: how texts are compared.
        progress: called between utterances.

    Raises:
        ConfigError: the model's window is shorter than the policy needs.
    """
    how = config.runtime.streaming
    if how.policy is None:
        return ()
    assert made.tokenizer is not None  # random weights are refused
    extract = Extractor(models.feature_extractor(config.model, config.quant.library == AS_SHIPPED))
    check_window(how, extract.window_s)
    references = {(item.split, item.id): item.reference for item in utterances}

    def text(tokens: list[int]) -> str:
        return models.texts(made.tokenizer, [tokens])[0]

    found: list[Stream] = []
    for split, id, samples in heard(made.corpus, speech, extract.window_s):
        listen = Listener(made.decoder, extract, text, samples)
        if not found:
            listen(0.0, min(how.chunk_s, len(samples) / SAMPLE_RATE))  # the first call is slower
        progress("stream", len(found), len(references))
        shown = list(stream(len(samples) / SAMPLE_RATE, how, extract.window_s, scoring.unit, listen))
        text_shown = joined(shown[-1].screen, scoring.unit)
        found.append(
            Stream(
                id=id,
                split=split,
                audio_s=len(samples) / SAMPLE_RATE,
                window_s=extract.window_s,
                updates=tuple(update for update, _ in shown),
                hypothesis=text_shown,
                **stream_counts(references[split, id], text_shown, scoring),
            )
        )
    return tuple(found)
