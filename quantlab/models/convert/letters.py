"""Tokenizers rebuilt from the strings of their tokens.

Whisper's tokens are those of a byte-level BPE, numbered in the order in which they were merged: what each was merged of
follows from those before it, as in tiktoken.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from quantlab.models.formats.ggml.vocabulary import END_OF_ENGLISH, ENGLISH, MULTILINGUAL, UNPRINTABLE, WITH_CANTONESE
from quantlab.util.errors import shortened

_LETTERS = {byte: chr(256 + place) for place, byte in enumerate(UNPRINTABLE)}


def letters(word: bytes) -> str:
    """A letter for each byte, as the tokenizers of GPT-2 and Whisper have it."""
    return "".join(_LETTERS.get(byte) or chr(byte) for byte in word)


def special(size: int) -> dict[int, str]:
    """OpenAI's special tokens that are no times, by id.

    Args:
        size: of the vocabulary.

    Raises:
        ValueError: it is none of OpenAI's, whose special tokens follow from their size.
    """
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    if size not in (ENGLISH, MULTILINGUAL, WITH_CANTONESE):
        raise ValueError(
            f"it has {size} tokens; the special ones of vocabularies of {ENGLISH}, {MULTILINGUAL} and "
            f"{WITH_CANTONESE} are known"
        )
    languages = list(LANGUAGES)[: 100 if size == WITH_CANTONESE else 99]
    names = ("endoftext", "startoftranscript", *languages, "translate", "transcribe", "startoflm", "startofprev",
             "nospeech", "notimestamps")  # fmt: skip
    first = END_OF_ENGLISH + (size != ENGLISH)
    return {first + place: f"<|{name}|>" for place, name in enumerate(names)}


def tokenizer(texts: Mapping[int, str], marks: Mapping[int, str]) -> dict[str, Any]:
    """A tokenizer.json.

    Args:
        texts: of the tokens that are text, by id, a letter for each byte.
        marks: of the special tokens, by id.

    Raises:
        ValueError: two tokens have the same text.
    """
    known = {**texts, **marks}
    vocabulary = {text: id for id, text in sorted(known.items())}
    if len(vocabulary) < len(known):
        twice = next(text for id, text in known.items() if vocabulary[text] != id)
        raise ValueError(f"its vocabulary has {shortened(twice)} twice")
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
             "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
             "vocab": vocabulary, "merges": _merges(texts)}  # fmt: skip
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [{"id": id, "content": text, **flags, "special": True} for id, text in sorted(marks.items())]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": level, "post_processor": None, "decoder": level, "model": model}  # fmt: skip


def _merges(texts: Mapping[int, str]) -> list[list[str]]:
    """The two tokens that each was merged of, in order; a token that no two others make has none."""
    ranks = {text: id for id, text in texts.items()}
    found = []
    for id, text in sorted(texts.items()):
        if len(text) > 1 and len(parts := split(text, ranks, id)) == 2 and ranks.keys() >= {*parts}:
            found.append(parts)
    return found


def split(text: str, ranks: Mapping[str, int], before: int) -> list[str]:
    """The tokens that a text is made of, were there those below an id alone: the first that there is, is merged first.

    Args:
        text: a letter for each byte.
        ranks: ids by the tokens' texts.
        before: the id.
    """
    parts = list(text)
    while len(parts) > 1:
        pairs = [(ranks.get(left + right, before), place) for place, (left, right) in enumerate(pairwise(parts))]
        rank, place = min(pairs)
        if rank >= before:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts
