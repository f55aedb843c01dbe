"""Times of the words of decoded utterances."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantlab.data.speech import SplitBatch
from quantlab.engines.alignment import TimesWords
from quantlab.measurement.timing import aligned
from quantlab.recogniser.true_words import Truth
from quantlab.records.schema import Batch, Utterance
from quantlab.records.word_times import WrittenWord
from quantlab.scoring.score import Scoring
from quantlab.scoring.words import with_matches
from quantlab.util.languages import is_spaceless

if TYPE_CHECKING:
    from transformers import WhisperTokenizer

Progress = Callable[[str, int, int], None]  # stage, utterances aligned, utterances in all
_INCOMPLETE = "\ufffd"  # a token that ends within a character
_SILENT = "PZ"  # Unicode categories of what is written and not spoken: punctuation, spaces


@dataclass(frozen=True)
class _Piece:
    """Consecutive tokens with whole characters."""

    text: str
    first: int  # place of its first token, and one after that of its last
    after: int

    @property
    def is_spoken(self) -> bool:
        return any(unicodedata.category(letter)[0] not in _SILENT for letter in self.text)


def with_word_times(
    decoder: TimesWords,
    decoded: Sequence[tuple[SplitBatch, list[list[int]]]],
    utterances: Sequence[Utterance],
    tokenizer: WhisperTokenizer,
    truth: Truth,
    scoring: Scoring,
    progress: Progress,
) -> tuple[tuple[Utterance, ...], list[Batch]]:
    """Align all decoded batches, one after another.

    Args:
        decoder: the cell's engine.
        decoded: batches and the token ids of their utterances, as decoded; an utterance is one window.
        utterances: the scored utterances, in the same order.
        tokenizer: of the tokens.
        truth: words with true times, by utterance.
        scoring: how words are compared.
        progress: called between batches.

    Returns:
        The utterances with their words, matched to the true ones, and the timed calls.
    """
    times: list[list[WrittenWord]] = []
    calls = []
    for part, rows in decoded:
        progress("word times", len(times), len(utterances))
        call, starts = aligned(decoder, part, rows)
        calls.append(call)
        for row, own in zip(rows, starts, strict=True):
            times.append(list(words(row, own, tokenizer, scoring.language)))
    timed = (
        item.model_copy(update={"words": tuple(found), "spoken_words": truth.get(item.id)})
        for item, found in zip(utterances, times, strict=True)
    )
    return tuple(with_matches(item, scoring) for item in timed), calls


def words(
    tokens: Sequence[int], starts: Sequence[float], tokenizer: WhisperTokenizer, language: str
) -> Iterator[WrittenWord]:
    """The words of a text with their times, to the millisecond.

    A word begins at a space; in a language without spaces each character is one. It lasts from its first spoken token
    to the end of its last one: punctuation has no part in it, and is no word by itself.

    Args:
        tokens: token ids.
        starts: seconds at which each token begins and the last one ends; tokens beyond them have no times, nor has
            the word that they are part of.
        tokenizer: of the tokens.
        language: Whisper's code.
    """
    for pieces in _words(_pieces(tokens, tokenizer), is_spaceless(language)):
        spoken = [piece for piece in pieces if piece.is_spoken]
        if spoken and pieces[-1].after < len(starts):
            text = "".join(piece.text for piece in pieces).strip()
            yield text, round(starts[spoken[0].first], 3), round(starts[spoken[-1].after], 3)


def _words(pieces: Iterator[_Piece], spaceless: bool) -> Iterator[list[_Piece]]:
    word: list[_Piece] = []
    for piece in pieces:
        if word and (spaceless or piece.text[0].isspace()):
            yield word
            word = []
        word.append(piece)
    if word:
        yield word


def _pieces(tokens: Sequence[int], tokenizer: WhisperTokenizer) -> Iterator[_Piece]:
    first = 0
    for after in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[first:after], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if _INCOMPLETE in text and after < len(tokens):
            continue
        if text:  # a special token has none
            yield _Piece(text, first, after)
        first = after
