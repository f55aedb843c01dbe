"""The model's small byte-level BPE vocabulary, in the form that `WhisperTokenizer` expects."""

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import WhisperProcessor, WhisperTokenizer

from training.nano.features import feature_extractor

VOCABULARY_SIZE = 512  # special tokens included
# Whisper's order: the tokenizer finds a language's token at its place after <|startoftranscript|>, and with one
# language <|en|> must follow directly.
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip
_ALPHABET = [*"abcdefghijklmnopqrstuvwxyz'", "Ġ"]  # Ġ is how byte-level BPE writes a space


def train_processor(sentences: Iterable[str], size: int = VOCABULARY_SIZE) -> WhisperProcessor:
    """Learn the merges from `sentences` (training text only); returns them with the 6 s feature extractor."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(SPECIAL_TOKENS), initial_alphabet=_ALPHABET, show_progress=False
    )
    learner.train_from_iterator((f" {sentence}" for sentence in sentences), trainer)
    learned = json.loads(learner.to_str())["model"]
    plain = learned["vocab"]  # smaller than asked for if there is little text
    vocabulary = plain | {token: len(plain) + i for i, token in enumerate(SPECIAL_TOKENS)}
    tokenizer = WhisperTokenizer(
        vocab=vocabulary,
        merges=[tuple(pair) for pair in learned["merges"]],
        language="en",
        task="transcribe",
        unk_token=SPECIAL_TOKENS[0],
        bos_token=SPECIAL_TOKENS[0],
        eos_token=SPECIAL_TOKENS[0],
        pad_token=SPECIAL_TOKENS[0],
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
    )
    return WhisperProcessor(feature_extractor(), tokenizer)


def prompt_ids(processor: WhisperProcessor) -> list[int]:
    """The decoder's prompt: start, English, transcribe, no timestamps."""
    prompt = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    return processor.tokenizer.convert_tokens_to_ids(prompt)


def text_ids(processor: WhisperProcessor, text: str) -> list[int]:
    """Tokens of a transcript without special tokens; a leading space makes its first word like any other."""
    return processor.tokenizer(f" {text}", add_special_tokens=False).input_ids
