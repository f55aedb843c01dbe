"""Vocabularies of ggml files: token ids laid out as whisper.cpp derives its special tokens.

whisper.cpp finds the tokens to suppress by their text, and offers no other way. So words of this file are chosen for
suppression and need not be the tokens' text, as only ids are read back. A file for export gets the real texts
(`readable`) wherever they have no special meaning to whisper.cpp.
Source: whisper.cpp 1.8, src/whisper.cpp (`whisper_vocab`, `whisper_full_with_state`, `whisper_process_logits`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantlab.util.errors import ConfigError

if TYPE_CHECKING:
    from quantlab.models.decoding import Decoding

ENGLISH, MULTILINGUAL, WITH_CANTONESE = 51864, 51865, 51866  # OpenAI's vocabularies, in tokens
END_OF_ENGLISH = 50256  # <|endoftext|>; the other special tokens follow
BLANK = " "  # suppressed at the first position, like the end token, by suppress_blank
MARKS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~「」『』♩♪♫♬♭♮♯',
    *"<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪".split(),
)
UNPRINTABLE = (*range(33), *range(127, 161), 173)  # bytes that are not visible characters of Latin-1
NEVER = (*MARKS, *(f" {mark}" for mark in MARKS), " -", " '")  # words suppressed by suppress_nst
SPECIAL = {BLANK, *NEVER}


@dataclass(frozen=True)
class Vocabulary:
    """The meaning of each row of the file's token embedding."""

    to_file: tuple[int, ...]  # row of each token id of the checkpoint
    words: tuple[str, ...]  # word of each row
    spare: int  # token id whose weights fill all other rows: they tie with it, and mean the same
    end: int  # row
    endless: bool  # the end token's row is zero, so that it never wins
    suppresses_blank: bool  # the end and the word BLANK are suppressed at the first position

    def ids(self) -> tuple[int, ...]:
        """The token id of each row."""
        found = [self.spare] * len(self.words)
        for id, row in enumerate(self.to_file):
            found[row] = id
        return tuple(found)


def vocabulary(size: int, decoding: Decoding) -> Vocabulary:
    """Map a checkpoint's tokens to the ids that whisper.cpp derives from the vocabulary's size.

    OpenAI's vocabularies map one to one. A smaller one is embedded in the standard one: the end token and the
    prompt get the ids that whisper.cpp expects, every other token keeps its id.

    Args:
        size: size of the checkpoint's vocabulary.
        decoding: its special and suppressed tokens, and whether it may end.

    Raises:
        ConfigError: a vocabulary of another size, another prompt, or tokens that whisper.cpp cannot suppress.
    """
    to_file, rows = _rows(size, decoding)
    end = _end(to_file, rows, decoding)
    never = [
        row for id in decoding.suppressed if (row := to_file[id]) < end
    ]  # tokens after the end are always suppressed
    first = [row for id in decoding.suppressed_first if (row := to_file[id]) < end and row not in never]
    return Vocabulary(
        to_file=to_file,
        words=_words(rows, end, never, first),
        spare=_spare(decoding),
        end=end,
        endless=decoding.min_new_tokens > 0,
        suppresses_blank=_suppresses_blank(decoding, first),
    )


def of_file(size: int, words: Sequence[bytes], decoding: Decoding) -> Vocabulary:
    """The vocabulary of an existing file, where whisper.cpp suppresses what it finds among the file's words.

    Args:
        size: size of the file's vocabulary.
        words: words of its first tokens.
        decoding: the special tokens of its tokenizer, and whether some are suppressed at the first position.

    Raises:
        ConfigError: it is not one of OpenAI's, or whisper.cpp would use other special tokens, or exit.
    """
    if size not in (ENGLISH, MULTILINGUAL, WITH_CANTONESE):
        raise ConfigError(
            f"whisper.cpp does not know the special tokens of a vocabulary of {size}: it knows those of {ENGLISH}, "
            f"{MULTILINGUAL} and {WITH_CANTONESE} tokens"
        )
    if decoding.suppressed_first and BLANK.encode() not in words:
        raise ConfigError(f"whisper.cpp needs the token {BLANK!r} in the vocabulary, and aborts without it")
    one_to_one = tuple(range(size))
    return Vocabulary(
        to_file=one_to_one,
        words=(*(word.decode(errors="surrogateescape") for word in words), *[""] * (size - len(words))),
        spare=_spare(decoding),
        end=_end(one_to_one, size, decoding),
        endless=False,
        suppresses_blank=bool(decoding.suppressed_first),
    )


def _end(to_file: Sequence[int], rows: int, decoding: Decoding) -> int:
    """The row of the end token, after checking it and the prompt against whisper.cpp's."""
    found = tuple(to_file[id] for id in (*decoding.prompt, decoding.end))
    if found != (expected := _special_rows(rows, decoding.language)):
        raise ConfigError(f"whisper.cpp's prompt and end token are {expected}, those of this checkpoint are {found}")
    return expected[-1]


def _spare(decoding: Decoding) -> int:
    unusable = {*decoding.prompt, decoding.end, *decoding.suppressed, *decoding.suppressed_first}
    return next(id for id in itertools.count() if id not in unusable)


def readable(found: Vocabulary, texts: Mapping[int, str]) -> Vocabulary:
    """The same vocabulary with the tokens' real texts, so that whisper.cpp's own programs can print them.

    Args:
        found: see `vocabulary`.
        texts: token id → text, one character per byte, in the byte-to-unicode mapping of GPT-2 and Whisper.
    """
    words = list(found.words)
    for id, row in enumerate(found.to_file):
        text = _text(texts.get(id, ""))
        taken = {text, words[row]} & SPECIAL and not (
            text == BLANK == words[found.end]
        )  # of two rows with the same word the last counts
        if row < found.end and text and not taken:
            words[row] = text
    return replace(found, words=tuple(words))


def _text(letters: str) -> str:
    """The text of a token, from its characters in the byte-to-unicode mapping."""
    codes = map(ord, letters)
    known = bytes(code if code < 256 else UNPRINTABLE[code - 256] for code in codes if code < 256 + len(UNPRINTABLE))
    return known.decode(errors="surrogateescape")


def _rows(size: int, decoding: Decoding) -> tuple[tuple[int, ...], int]:
    """The row of each token id, and the number of rows."""
    if size in (ENGLISH, MULTILINGUAL, WITH_CANTONESE):
        return tuple(range(size)), size
    if size > END_OF_ENGLISH:
        raise ConfigError(
            f"whisper.cpp does not know the special tokens of a vocabulary of {size}: it knows those of {ENGLISH}, "
            f"{MULTILINGUAL} and {WITH_CANTONESE} tokens; up to {END_OF_ENGLISH} tokens can be extended to these"
        )
    rows = ENGLISH if decoding.language is None else MULTILINGUAL
    special = (*decoding.prompt, decoding.end)
    moved = dict(zip(special, _special_rows(rows, decoding.language), strict=False))
    return tuple(moved.get(id, id) for id in range(size)), rows


def _special_rows(rows: int, language: str | None) -> tuple[int, ...]:
    """The rows of whisper.cpp's prompt without timestamps, and of its end token.

    The order is OpenAI's: end, start, languages, translate, transcribe, start of LM, previous, no speech, no times.
    """
    end = END_OF_ENGLISH + (rows != ENGLISH)
    start = end + 1
    translate = start + 1 + (99 if rows == ENGLISH else 99 + rows - MULTILINGUAL)
    if rows == ENGLISH:
        return start, translate + 5, end
    return start, start + 1 + _language_index(language), translate + 1, translate + 5, end


def _language_index(language: str | None) -> int:
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    codes = list(LANGUAGES)  # in whisper.cpp's order
    if language not in codes:
        raise ConfigError(f"whisper.cpp does not know the language {language!r}: {', '.join(codes)}")
    return codes.index(language)


def _words(rows: int, end: int, never: list[int], first: list[int]) -> tuple[str, ...]:
    """A unique word for each row; BLANK and words of NEVER for rows to suppress."""
    if len(never) > len(NEVER):
        raise ConfigError(f"whisper.cpp suppresses {len(NEVER)} tokens, but this checkpoint suppresses {len(never)}")
    words = [f"<{row}>" for row in range(rows)]
    for row, word in zip(never, NEVER, strict=False):
        words[row] = word
    words[first[0] if first else end] = BLANK
    return tuple(words)


def _suppresses_blank(decoding: Decoding, first: list[int]) -> bool:
    if not decoding.suppressed_first:
        return False
    if decoding.end not in decoding.suppressed_first or len(first) > 1:
        raise ConfigError(
            "whisper.cpp suppresses the end token and one other at the start; "
            f"begin_suppress_tokens of this checkpoint is {list(decoding.suppressed_first)}"
        )
    return True
