"""Normalise, align, count. Raw text goes in; counts come out, and rates only from counts."""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import jiwer

from quantlab.errors import did_you_mean
from quantlab.record import Utterance

Normaliser = Literal["whisper", "basic", "none"]
NORMALISERS: tuple[Normaliser, ...] = get_args(Normaliser)
LOOP_REPEATS = 3  # an n-gram that ends the output this often in a row is a loop


@dataclass(frozen=True)
class Counts:
    """Edit counts of one hypothesis against its reference, both normalised."""

    substitutions: int  # words
    deletions: int
    insertions: int
    hits: int
    char_errors: int  # S + D + I over characters
    ref_chars: int


@dataclass(frozen=True)
class Heard:
    """One utterance as the corpus has it."""

    id: str
    split: str
    speaker: str | None
    audio_s: float
    reference: str


@functools.cache
def normaliser(name: str = "whisper", language: str = "en") -> Callable[[str], str]:
    """A text normaliser by its name.

    `whisper` is Whisper's as `transformers` has it (Radford et al. 2022, appendix C): for English with its numbers,
    contractions and spellings, for any other language the basic one. `basic` lower-cases and drops punctuation and
    what is in brackets, `none` leaves the text as it is.

    The table of British and American spellings comes with OpenAI's checkpoints and not with `transformers`; the
    package `whisper-normalizer` carries the same file, so that every model is scored alike.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in NORMALISERS:
        raise ValueError(f"no normaliser {name!r}{did_you_mean(name, list(NORMALISERS))}")
    if name == "none":
        return str
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    if name == "basic" or language != "en":
        return BasicTextNormalizer()
    table = importlib.resources.files("whisper_normalizer") / "normalizers" / "english.json"
    return EnglishTextNormalizer(json.loads(table.read_text(encoding="utf-8")))


def utterance(
    heard: Heard, windows: Sequence[Sequence[int]], text: str | None, limit: int, language: str = "en"
) -> Utterance:
    """Score one utterance.

    Args:
        heard: what was said.
        windows: generated token ids of each of its windows, without prompt and end token; one, but for long audio.
        text: their text; None where weights are random and there is nothing to score.
        limit: the largest number of tokens that could have been generated for a window.
        language: of the corpus, a code of Whisper's.
    """
    scored = {} if text is None else asdict(count(heard.reference, text, language))
    return Utterance(
        **asdict(heard),
        hypothesis=text,
        tokens=sum(map(len, windows)),
        loop=None if text is None else any(is_loop(tokens, limit) for tokens in windows),
        **scored,
    )


def recount(item: Utterance, name: str, language: str) -> Utterance:
    """The utterance with its counts by a normaliser, from its raw text; as it is where there is none."""
    if item.hypothesis is None:
        return item
    return item.model_copy(update=asdict(count(item.reference, item.hypothesis, language, name)))


@functools.lru_cache(maxsize=2**16)  # cells of a grid hear much of a corpus alike
def count(reference: str, hypothesis: str, language: str = "en", name: str = "whisper") -> Counts:
    """Align one hypothesis with its reference.

    A reference that is empty once normalised ("hmm") has no words: whatever was said then is inserted.

    Args:
        reference: raw.
        hypothesis: raw.
        language: of the corpus, a code of Whisper's.
        name: of the normaliser.
    """
    normalise = normaliser(name, language)
    reference, hypothesis = normalise(reference).strip(), normalise(hypothesis).strip()
    if not reference:
        return Counts(0, 0, len(hypothesis.split()), 0, len(hypothesis), 0)
    words = jiwer.process_words(reference, hypothesis)
    chars = jiwer.process_characters(reference, hypothesis)
    return Counts(
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        hits=words.hits,
        char_errors=chars.substitutions + chars.deletions + chars.insertions,
        ref_chars=chars.hits + chars.substitutions + chars.deletions,
    )


def is_loop(tokens: Sequence[int], limit: int) -> bool:
    """Whether generation ran into its length limit repeating an n-gram.

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
