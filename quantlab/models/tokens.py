"""Special tokens for decoding (prompt, end, suppressed), read from tokenizer and configuration.

Older checkpoints, and many fine-tuned ones, have no generation_config.json or one without special tokens. Decoding
would then start without language, task and `<|notimestamps|>`, and give other text. So special tokens are read from the
tokenizer, and a checkpoint whose generation_config.json contradicts it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from quantlab.models.files import is_there, read_json
from quantlab.models.formats.ggml.vocabulary import BLANK, END_OF_ENGLISH, NEVER
from quantlab.util.errors import CheckpointError, UnsupportedError, shortened

if TYPE_CHECKING:
    from transformers import GenerationConfig, WhisperTokenizer

GENERATION = "generation_config.json"
END, START, NO_TIMES = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"
TASKS = {"transcribe": "<|transcribe|>", "translate": "<|translate|>"}
PREVIOUS = "<|startofprev|>"
# names used by OpenAI and transformers; always suppressed
CONTROL = (START, *TASKS.values(), "<|startoflm|>", PREVIOUS, "<|nospeech|>", "<|nocaptions|>")
NOTES = frozenset("♩♪♫♬♭♮♯")  # their first tokens start nothing else
LATEST_START = 50  # steps of 20 ms: OpenAI's default of one second
LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
# search settings that only transformers has → values without effect
SEARCH: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "length_penalty", "guidance_scale"), (1,)),
    **dict.fromkeys(("num_return_sequences", "num_beam_groups"), (1,)),
    **dict.fromkeys(("min_length", "min_new_tokens", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"), (0,)),
    **dict.fromkeys(("penalty_alpha", "diversity_penalty"), (0,)),
    **dict.fromkeys(("early_stopping", "condition_on_prev_tokens", "renormalize_logits", "token_healing"), (False,)),
    **dict.fromkeys(("bad_words_ids", "force_words_ids", "constraints", "sequence_bias", "stop_strings"), ()),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty"), ()),
    **dict.fromkeys(("watermarking_config", "dola_layers", "max_time", "prompt_lookup_num_tokens"), ()),
    **dict.fromkeys(("no_speech_threshold", "logprob_threshold", "compression_ratio_threshold"), ()),
}


class Times(NamedTuple):
    """The number of timestamps in a vocabulary (after `<|notimestamps|>`), and the number that a window needs."""

    found: int
    wanted: int

    @staticmethod
    def of(no_times: int, vocab_size: int, positions: int) -> Times:
        """Derive both from the id of `<|notimestamps|>` and two numbers of config.json."""
        return Times(max(0, vocab_size - no_times - 1), positions + 1)


@dataclass(frozen=True)
class Tokens:
    """Token ids of a checkpoint."""

    start: int
    end: int
    no_times: int
    previous: int | None
    languages: dict[str, int]  # by code; empty for an English-only model
    tasks: dict[str, int]  # by name; empty if `languages` is
    control: tuple[int, ...]  # the present tokens of CONTROL
    suppressed: tuple[int, ...] | None  # as set by the checkpoint; None: not set
    suppressed_first: tuple[int, ...] | None
    alignment_heads: tuple[tuple[int, int], ...] | None  # (layer, head) for word timestamps, which nothing here needs
    latest_start: int  # largest first timestamp of a window, in steps of 20 ms
    times: Times


def check_language(known: Iterable[str], language: str, whose: str) -> None:
    """Refuse a language that a checkpoint does not know.

    Args:
        known: language codes; empty for an English-only model.
        language: language of the corpus.
        whose: name of the checkpoint.

    Raises:
        UnsupportedError: the message lists the known languages.
    """
    codes = sorted(known) or ["en"]
    if language not in codes:
        raise UnsupportedError(
            f"dataset.language={language}: {whose} has no such language; it knows {', '.join(codes)}"
        )


def check_times(times: Times, whose: str) -> None:
    """Refuse sequential decoding with a checkpoint that lacks timestamps; `whose` is its name.

    Raises:
        UnsupportedError: there is not a timestamp for every position of its window.
    """
    if times.found < times.wanted:
        raise UnsupportedError(
            f"dataset.long=sequential: {whose} has {times.found} timestamps of the {times.wanted} that its window "
            "takes; set dataset.long=chunked or consecutive"
        )


def read(folder: Path, config: Mapping[str, Any]) -> Tokens:
    """The special tokens of a folder's tokenizer, checked against its other files.

    Args:
        folder: the checkpoint folder.
        config: content of its config.json.

    Raises:
        CheckpointError: a token is missing, or two files contradict each other; the message names both.
    """
    ids = {text: id for id, text in words(folder).items()}
    if missing := [text for text in (END, START, NO_TIMES) if text not in ids]:
        raise CheckpointError(
            f"{folder}: its tokenizer has no {', '.join(missing)}; copy the tokenizer of the checkpoint that this one "
            "was trained from"
        )
    languages = {found[1]: id for text, id in ids.items() if (found := LANGUAGE.fullmatch(text))}
    if ids[END] == END_OF_ENGLISH:
        languages = {}  # OpenAI's English-only models have the other language tokens as well
    tasks = {task: ids[text] for task, text in TASKS.items() if text in ids} if languages else {}
    if languages and "transcribe" not in tasks:
        raise CheckpointError(f"{folder}: its tokenizer has languages but no {TASKS['transcribe']}")
    if (largest := max(ids.values())) >= config["vocab_size"]:
        raise CheckpointError(
            f"{folder}: its tokenizer has a token {largest}, but config.json has vocab_size={config['vocab_size']}: "
            "they are from different checkpoints"
        )
    generation = read_json(folder / GENERATION) if is_there(folder / GENERATION) else {}
    tokens = Tokens(
        start=ids[START],
        end=ids[END],
        no_times=ids[NO_TIMES],
        previous=ids.get(PREVIOUS),
        languages=languages,
        tasks=tasks,
        control=tuple(sorted({ids[text] for text in CONTROL if text in ids})),
        suppressed=_suppressed(folder, "suppress_tokens", generation, config),
        suppressed_first=_suppressed(folder, "begin_suppress_tokens", generation, config),
        alignment_heads=_heads(folder, generation, config),
        latest_start=_latest_start(folder, generation, config),
        times=Times.of(ids[NO_TIMES], config["vocab_size"], config["max_source_positions"]),
    )
    for name, content in (("config.json", config), (GENERATION, generation)):
        for problem in _problems(tokens, content):
            raise CheckpointError(f"{folder / name}: {problem}")
    return tokens


def words(folder: Path) -> dict[int, str]:
    """Token id → text in the folder's tokenizer, one character per byte; empty if there is none.

    Raises:
        CheckpointError: a file is not part of a tokenizer.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        raw = read_json(path)
        model, added = raw.get("model"), raw.get("added_tokens")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
        pairs = [(item.get("content"), item.get("id")) for item in added or [] if isinstance(item, dict)]
    else:
        path = folder / "vocab.json"
        if not path.is_file():
            return {}
        vocabulary, more = read_json(path), folder / "added_tokens.json"
        pairs = list(read_json(more).items()) if more.is_file() else []
    if not isinstance(vocabulary, dict):
        raise CheckpointError(f"{path} cannot be loaded: it is not a tokenizer, as it has no vocabulary")
    found: dict[int, str] = {}
    for text, id in [*vocabulary.items(), *pairs]:
        if not isinstance(text, str) or type(id) is not int or id < 0:
            raise CheckpointError(f"{path}: the token {shortened(text)} has no id")
        found[id] = text
    return found


def _suppressed(
    folder: Path, key: str, generation: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[int, ...] | None:
    """A list of suppressed tokens as transformers reads it: from the generation config, else from config.json."""
    for name, found in ((GENERATION, generation), ("config.json", config)):
        ids = found.get(key)
        if ids is None:
            continue
        if not isinstance(ids, list) or not all(type(id) is int and 0 <= id < config["vocab_size"] for id in ids):
            raise CheckpointError(
                f"{folder / name}: {key}={shortened(ids)}: expected a list of token ids below {config['vocab_size']}"
            )
        return tuple(sorted(set(ids)))
    return None


def _heads(
    folder: Path, generation: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[tuple[int, int], ...] | None:
    pairs = generation.get("alignment_heads")
    if pairs is None:
        return None
    most = (config["decoder_layers"], config["decoder_attention_heads"])
    try:
        found = tuple((layer, head) for layer, head in pairs)
        if all(
            type(item) is int and 0 <= item < limit for pair in found for item, limit in zip(pair, most, strict=True)
        ):
            return found
    except (TypeError, ValueError):
        pass
    raise CheckpointError(
        f"{folder / GENERATION}: alignment_heads={shortened(pairs)}: expected pairs of a layer below {most[0]} and a "
        f"head below {most[1]}"
    )


def _latest_start(folder: Path, generation: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    found = generation.get("max_initial_timestamp_index")
    if found is None:
        return LATEST_START
    if type(found) is int and 0 <= found <= config["max_source_positions"]:
        return found
    raise CheckpointError(
        f"{folder / GENERATION}: max_initial_timestamp_index={shortened(found)}: expected a whole number from 0 to "
        f"{config['max_source_positions']}"
    )


def _problems(tokens: Tokens, generation: Mapping[str, Any]) -> Iterator[str]:
    """Settings that contradict the tokenizer, or that only one engine supports."""
    expected = {
        "decoder_start_token_id": tokens.start,
        "eos_token_id": tokens.end,
        "no_timestamps_token_id": tokens.no_times,
        "is_multilingual": bool(tokens.languages),
    }
    for key, value in expected.items():
        found = generation.get(key)
        if isinstance(found, list) and len(found) == 1:
            found = found[0]
        if found is not None and (type(found), found) != (type(value), value):
            yield f"{key}={shortened(generation[key])}, but its tokenizer has {value}: correct or remove it"
    by_text = {f"<|{code}|>": id for code, id in tokens.languages.items()}
    for key, known in (("lang_to_id", by_text), ("task_to_id", tokens.tasks)):
        yield from _wrong_ids(key, generation.get(key), known, bool(tokens.languages))
    if tokens.end in (generation.get("suppress_tokens") or ()):
        yield f"suppress_tokens holds the end token {tokens.end}: no text would end"
    for key, neutral in SEARCH.items():
        if generation.get(key) is not None and not (generation[key] in neutral or generation[key] in ([], {})):
            yield f"{key}={shortened(generation[key])}: not every engine supports this; remove it to measure without it"


def _wrong_ids(key: str, stated: Any, known: Mapping[str, int], multilingual: bool) -> Iterator[str]:
    if stated is None or not multilingual:
        return
    if not isinstance(stated, dict):
        yield f"{key}={shortened(stated)}: expected names and token ids"
        return
    for name, id in stated.items():
        if known.get(name) != id or isinstance(id, bool):
            by = "there is no such token" if name not in known else f"it is {known[name]}"
            yield f"{key} has {shortened(name)} at {shortened(id)}, but by its tokenizer {by}: correct or remove it"
            return


def generation_config(tokens: Tokens, tokenizer: WhisperTokenizer, positions: int) -> GenerationConfig:
    """The settings of transformers' `generate`, which define decoding for all engines; `positions` of the decoder.

    Missing lists of suppressed tokens are built like OpenAI's: non-speech symbols and control tokens; blank and end
    at the first position.

    Raises:
        CheckpointError: transformers reads other ids from the tokenizer's files.
    """
    from transformers import GenerationConfig

    for text, id in ((END, tokens.end), (START, tokens.start), (NO_TIMES, tokens.no_times)):
        if (found := tokenizer.convert_tokens_to_ids(text)) != id:
            raise CheckpointError(f"{text} is token {found} of the loaded tokenizer, but {id} in its files")
    suppressed, first = tokens.suppressed, tokens.suppressed_first
    known: dict[str, Any] = {}
    if tokens.languages:
        known["lang_to_id"] = {f"<|{code}|>": id for code, id in tokens.languages.items()}
        known["task_to_id"] = tokens.tasks
    if tokens.previous is not None:
        known["prev_sot_token_id"] = tokens.previous
    if tokens.alignment_heads is not None:
        known["alignment_heads"] = [list(pair) for pair in tokens.alignment_heads]
    return GenerationConfig(
        bos_token_id=tokens.end,
        eos_token_id=tokens.end,
        pad_token_id=tokens.end,
        decoder_start_token_id=tokens.start,
        no_timestamps_token_id=tokens.no_times,
        is_multilingual=bool(tokens.languages),
        suppress_tokens=list(_non_speech_tokens(tokenizer, tokens) if suppressed is None else suppressed),
        begin_suppress_tokens=list(_not_first(tokenizer, tokens) if first is None else first),
        return_timestamps=False,
        max_initial_timestamp_index=tokens.latest_start,
        max_length=positions,
        **known,
    )


def _non_speech_tokens(tokenizer: WhisperTokenizer, tokens: Tokens) -> list[int]:
    """Non-speech symbols that are single tokens or start with a unique token, and control tokens.

    Source: openai/whisper, tokenizer.py, `non_speech_tokens`; decoding.py, `_get_suppress_tokens`.
    """
    blank = _ids(tokenizer, BLANK)
    found = set(tokens.control)
    for word in NEVER:
        ids = _ids(tokenizer, word)
        whole = len(ids) == 1 and tokenizer.decode(ids) == word  # a small vocabulary drops characters that it lacks
        if whole or (word.strip() in NOTES and ids and ids[:1] != blank):
            found.add(ids[0])
    return sorted(found)


def _not_first(tokenizer: WhisperTokenizer, tokens: Tokens) -> list[int]:
    blank = _ids(tokenizer, BLANK)
    return [*(blank if len(blank) == 1 else []), tokens.end]


def _ids(tokenizer: WhisperTokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))
