"""Scoring of a hypothesis: normalise, align, count errors."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import jiwer

from quantlab.records.schema import Record, Utterance
from quantlab.scoring import normalise
from quantlab.scoring.alignment import align
from quantlab.util.errors import did_you_mean
from quantlab.util.languages import ErrorUnit, error_unit

Scorer = Literal["jiwer", "kaldialign_compounds"]
SCORERS: tuple[Scorer, ...] = get_args(Scorer)
LOOP_REPEATS = 3  # an n-gram that ends the output this often in a row is a loop


@dataclass(frozen=True)
class Scoring:
    """Normaliser, language and scorer of a comparison."""

    language: str = "en"  # Whisper's code
    normaliser: str = "whisper"
    unit: ErrorUnit = "word"
    scorer: str = "jiwer"  # the aligner; an old record may name one that is not in SCORERS

    @staticmethod
    def of_language(language: str) -> Scoring:
        """The default scoring of a language."""
        return Scoring(language, normalise.default(language), error_unit(language))

    @staticmethod
    def of_record(record: Record) -> Scoring:
        """The scoring used for the counts of a record."""
        language = record.setting("dataset.language") or "en"
        return Scoring(language, record.normaliser, record.error_unit, record.scorer)

    def units(self, text: str) -> list[str]:
        """The words or characters of a text after normalisation; spaces are not characters."""
        words = normalise.normaliser(self.normaliser, self.language)(text).split()
        return words if self.unit == "word" else list("".join(words))

    def normalised(self, text: str) -> str:
        """A text after normalisation."""
        return (" " if self.unit == "word" else "").join(self.units(text))


ENGLISH = Scoring()


@dataclass(frozen=True)
class Counts:
    """Edit counts of a normalised hypothesis against its normalised reference."""

    substitutions: int  # words, or characters if those are the error unit
    deletions: int
    insertions: int
    hits: int
    char_errors: int  # S + D + I over characters
    ref_chars: int
    burst_words: int  # deleted words in runs of at least five, in an output that has words


@dataclass(frozen=True)
class Reference:
    """The reference of one utterance in the corpus."""

    id: str
    split: str
    speaker: str | None
    audio_s: float
    reference: str


def utterance(
    source: Reference, windows: Sequence[Sequence[int]], text: str | None, limit: int, scoring: Scoring = ENGLISH
) -> Utterance:
    """Score one utterance.

    Args:
        source: the utterance's reference.
        windows: generated token ids of each window, without prompt and end token; one window except for long audio.
        text: the hypothesis; None for random weights, which are not scored.
        limit: the largest number of tokens that could have been generated for a window.
        scoring: how to compare.
    """
    scored = {} if text is None else asdict(count(source.reference, text, scoring))
    return Utterance(
        **asdict(source),
        hypothesis=text,
        tokens=sum(map(len, windows)),
        loop=None if text is None else any(is_loop(tokens, limit) for tokens in windows),
        nonspeech=normalise.is_wordless(source.reference),
        **scored,
    )


def recount(item: Utterance, scoring: Scoring) -> Utterance:
    """Recount an utterance with another scoring from its raw text; unchanged if it has no text."""
    if item.hypothesis is None:
        return item
    counts = asdict(count(item.reference, item.hypothesis, scoring))
    return item.model_copy(update=counts | {"nonspeech": normalise.is_wordless(item.reference)})


@functools.lru_cache(maxsize=2**16)  # cells of a grid often have equal hypotheses
def count(reference: str, hypothesis: str, scoring: Scoring = ENGLISH) -> Counts:
    """Align one hypothesis with its reference; CER always uses jiwer.

    If the normalised reference is empty ("hmm", "[silence]"), all words of the hypothesis are insertions.

    Args:
        reference: raw reference.
        hypothesis: raw hypothesis.
        scoring: how to compare.

    Raises:
        ValueError: unknown normaliser or scorer.
    """
    if scoring.scorer not in SCORERS:
        raise ValueError(f"no scorer {scoring.scorer!r}{did_you_mean(scoring.scorer, list(SCORERS))}")
    spoken, written = scoring.units(reference), scoring.units(hypothesis)
    space = " " if scoring.unit == "word" else ""
    if not spoken:
        return Counts(0, 0, len(written), 0, len(space.join(written)), 0, 0)
    words = align(spoken, written, scoring.scorer)
    chars = jiwer.process_characters(space.join(spoken), space.join(written))
    return Counts(
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        hits=len(spoken) - words.substitutions - words.deletions,
        char_errors=chars.substitutions + chars.deletions + chars.insertions,
        ref_chars=chars.hits + chars.substitutions + chars.deletions,
        burst_words=words.burst_words if written else 0,  # an empty output is counted as such
    )


def is_loop(tokens: Sequence[int], limit: int) -> bool:
    """Whether generation ran into its length limit while repeating an n-gram.

    Args:
        tokens: generated token ids, without prompt and end token.
        limit: the largest number of tokens that could have been generated.
    """
    if len(tokens) < limit:
        return False
    return any(_ends_with_repeats(tokens, length) for length in range(1, len(tokens) // LOOP_REPEATS + 1))


def _ends_with_repeats(tokens: Sequence[int], length: int) -> bool:
    tail = tokens[-length * LOOP_REPEATS :]
    return all(tail[i] == tail[i - length] for i in range(length, len(tail)))
