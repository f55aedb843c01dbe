"""Tokenizers rebuilt from the strings of their tokens.

Whisper uses byte-level BPE with ids in merge order, so the merges can be derived from the tokens' texts and ids, as in
tiktoken.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from quantlab.models.formats.ggml.vocabulary import END_OF_ENGLISH, ENGLISH, MULTILINGUAL, UNPRINTABLE, WITH_CANTONESE
from quantlab.util.errors import shortened

_LETTERS = {byte: chr(256 + place) for place, byte in enumerate(UNPRINTABLE)}


def letters(word: bytes) -> str:
    """One character per byte, in the byte-to-unicode mapping of GPT-2 and Whisper."""
    return "".join(_LETTERS.get(byte) or chr(byte) for byte in word)


def special(size: int) -> dict[int, str]:
    """OpenAI's special tokens without timestamps, by id.

    Args:
        size: size of the vocabulary.

    Raises:
        ValueError: it is not the size of one of OpenAI's vocabularies.
    """
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    if size not in (ENGLISH, MULTILINGUAL, WITH_CANTONESE):
        raise ValueError(
            f"it has {size} tokens; special tokens are known for vocabularies of {ENGLISH}, {MULTILINGUAL} and "
            f"{WITH_CANTONESE}"
        )
    languages = list(LANGUAGES)[: 100 if size == WITH_CANTONESE else 99]
    names = ("endoftext", "startoftranscript", *languages, "translate", "transcribe", "startoflm", "startofprev",
             "nospeech", "notimestamps")  # fmt: skip
    first = END_OF_ENGLISH + (size != ENGLISH)
    return {first + place: f"<|{name}|>" for place, name in enumerate(names)}


def tokenizer(texts: Mapping[int, str], marks: Mapping[int, str]) -> dict[str, Any]:
    """Build a tokenizer.json.

    Args:
        texts: text of each text token by id, one character per byte.
        marks: text of each special token by id.

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
    """The pair of tokens that each token was merged from, in order; tokens without such a pair are left out."""
    ranks = {text: id for id, text in texts.items()}
    found = []
    for id, text in sorted(texts.items()):
        if len(text) > 1 and len(parts := split(text, ranks, id)) == 2 and ranks.keys() >= {*parts}:
            found.append(parts)
    return found


def split(text: str, ranks: Mapping[str, int], before: int) -> list[str]:
    """Tokenize a text with only the tokens below an id, merging the lowest id first.

    Args:
        text: the text, one character per byte.
        ranks: token text → id.
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
