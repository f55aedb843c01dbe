"""whisper.cpp: conversion to ggml and decoding with whisper.cpp.

Blocks of 32 weights in a row share an f16 scale, and a minimum in `_1` formats. `_k` formats have blocks of 256, whose
groups of 16 or 32 have scales (and minima) of 4 to 8 bits, which in turn share one or two f16 values. Activations are
quantized to 8 bit per block at every product. All matrices have one type, including embedding and output projection,
which are one tensor.
Source: https://github.com/ggml-org/whisper.cpp, ggml-common.h
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantlab.models.foreign import GGML_FILE
from quantlab.quantization.base import why_not_among, why_not_installed
from quantlab.quantization.engine_files import folder_for, readable
from quantlab.util.errors import CheckpointError, ConfigError, UnsupportedError

if TYPE_CHECKING:
    import torch
    from transformers import WhisperForConditionalGeneration

    from quantlab.config.schema import QuantConfig
    from quantlab.engines import Engine
    from quantlab.models.decoding import Decoding
    from quantlab.models.formats.ggml.read import Tensor
    from quantlab.models.formats.ggml.vocabulary import Vocabulary
    from quantlab.quantization.base import Converted
    from quantlab.quantization.tensors import Held, Stored

DISTRIBUTIONS = ("pywhispercpp",)
READS = ("bits", "format", "granularity", "group_size", "symmetric", "double_quant")
NO_EMBEDDING = "whisper.cpp's embedding is its output head and always has the file's type"
FILE = GGML_FILE


@dataclass(frozen=True)
class Format:
    """A ggml format."""

    bits: int  # per weight, without scales
    group_size: int | None = None  # weights that share a scale
    symmetric: bool | None = None  # without minima
    double_quant: bool = False  # scales are quantized too


FORMATS = {
    "f16": Format(16),
    "q8_0": Format(8, 32, True),
    "q5_1": Format(5, 32, False),
    "q5_0": Format(5, 32, True),
    "q4_1": Format(4, 32, False),
    "q4_0": Format(4, 32, True),
    "q6_k": Format(6, 16, True, double_quant=True),
    "q5_k": Format(5, 32, False, double_quant=True),
    "q4_k": Format(4, 32, False, double_quant=True),
    "q3_k": Format(3, 16, True, double_quant=True),
    "q2_k": Format(2, 16, False, double_quant=True),
}


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Check format and device, and that the whole model is quantized."""
    if device != "cpu":
        return f"whisper.cpp runs on the CPU here, as its Python wheels have no {device}: set device=cpu"
    if quant.format == "f32":
        return "whisper.cpp has no f32 convolution on a CPU: set quant=ggml_f16"
    return (
        why_not_installed("_pywhispercpp", "pywhispercpp")
        or (None if quant.format else f"whisper.cpp needs quant.format, one of {', '.join(FORMATS)}")
        or why_not_among("format", quant.format, FORMATS, "whisper.cpp")
        or _why_contradictory(quant, FORMATS[str(quant.format)])
        or _why_not_in_part(quant)
    )


def _why_contradictory(quant: QuantConfig, format: Format) -> str | None:
    """Why the other keys contradict the format, which fixes them."""
    blocks, who = format.group_size is not None, f"whisper.cpp's {quant.format}"
    return (
        why_not_among("bits", quant.bits, [format.bits], who)
        or why_not_among("scheme", quant.scheme, [_scheme(format)], who)
        or why_not_among("granularity", quant.granularity, ["per-group"] if blocks else [], who)
        or why_not_among("group_size", quant.group_size, [format.group_size] if blocks else [], who)
        or why_not_among("symmetric", quant.symmetric, [format.symmetric] if blocks else [], who)
        or why_not_among("double_quant", quant.double_quant, [format.double_quant], who)
    )


def _why_not_in_part(quant: QuantConfig) -> str | None:
    if quant.target == "all" and not quant.skip and quant.head:
        return None
    return "whisper.cpp has one type for all matrices: set quant.target=all, quant.skip=[] and quant.head=true"


def described(path: Path) -> dict[str, object]:
    """The values of the keys of `quant` for an existing file.

    Raises:
        CheckpointError: its matrices have several types, or another one than stated.
    """
    from quantlab.models.formats.ggml.read import read

    with readable(path, "whisper.cpp"):
        contents = read(path)
    types = {item.dtype for item in contents.tensors if item.name.endswith(".weight") and len(item.shape) == 2}
    if len(types) != 1:
        raise CheckpointError(f"{path}: its matrices are {', '.join(sorted(types)) or 'missing'}; expected one type")
    format = types.pop()
    known = FORMATS.get(format, Format(32))
    blocks = known.group_size is not None
    return {
        "format": format,
        "bits": known.bits,
        "scheme": _scheme(known),
        "granularity": "per-group" if blocks else None,
        "group_size": known.group_size,
        "symmetric": known.symmetric,
        "double_quant": known.double_quant,
    }


def _scheme(format: Format) -> str:
    return "weight-only" if format.group_size is None else "dynamic"


def convert(
    model: WhisperForConditionalGeneration,
    quant: QuantConfig,
    names: tuple[str, ...],
    device: torch.device,
    decoding: Decoding,
    threads: int,
    keep: Path | None = None,
) -> Converted:
    """Write the file, load it, and read its tensors for the receipt.

    Raises:
        ConfigError: whisper.cpp cannot compute this model, or does not support `decoding`.
        UnsupportedError: a matrix has rows that are not whole blocks of the format.
    """
    from quantlab.models.formats.ggml.vocabulary import readable as with_words
    from quantlab.models.formats.ggml.vocabulary import vocabulary
    from quantlab.models.formats.ggml.write import write
    from quantlab.models.tokens import words

    _check(decoding)
    laid_out = vocabulary(int(model.config.vocab_size), decoding)
    with folder_for(keep) as folder:
        path = folder / FILE
        laid_out = with_words(laid_out, words(folder))
        write(path, model, str(quant.format), laid_out, decoding.max_new_tokens)
        return _load_and_read(path, model, quant, laid_out, decoding, threads)


def load(
    path: Path,
    model: WhisperForConditionalGeneration,
    quant: QuantConfig,
    device: torch.device,
    decoding: Decoding,
    threads: int,
) -> Converted:
    """See `Loader`. whisper.cpp suppresses the tokens that it finds among the file's words.

    It decodes at most half of the file's positions, and reserves the others for previous text.
    """
    from quantlab.engines import PROMPT_TOKENS
    from quantlab.models.formats.ggml.read import read
    from quantlab.models.formats.ggml.vocabulary import of_file

    _check(decoding)
    contents = read(path)
    most = contents.numbers["n_text_ctx"] // 2 - PROMPT_TOKENS
    decoding = replace(decoding, max_new_tokens=min(decoding.max_new_tokens, most))
    laid_out = of_file(contents.numbers["n_vocab"], contents.words, decoding)
    return _load_and_read(path, model, quant, laid_out, decoding, threads)


def _load_and_read(
    path: Path,
    model: WhisperForConditionalGeneration,
    quant: QuantConfig,
    laid_out: Vocabulary,
    decoding: Decoding,
    threads: int,
) -> Converted:
    """Load a file, and read its tensors for the receipt."""
    from quantlab.engines import whispercpp
    from quantlab.models.formats.ggml.read import read
    from quantlab.quantization.base import Converted

    engine = whispercpp.load(path, laid_out, decoding, threads)
    contents = read(path)
    linears, others = _sort_tensors(contents.tensors, model)
    problems = tuple(engine.differences(contents.numbers))
    return Converted(engine, linears, others, _kernel(str(quant.format)), problems)


def reload(folder: Path, quant: QuantConfig, device: torch.device, decoding: Decoding, threads: int) -> Engine:
    """See `Converter`."""
    from quantlab.engines import whispercpp
    from quantlab.models.folder import whisper_config
    from quantlab.models.formats.ggml.vocabulary import vocabulary

    laid_out = vocabulary(int(whisper_config(folder)["vocab_size"]), decoding)
    return whispercpp.load(folder / FILE, laid_out, decoding, threads)


def _check(decoding: Decoding) -> None:
    if decoding.alignment is not None and decoding.audio_ctx == "dynamic":
        raise UnsupportedError(
            "whisper.cpp aligns whole windows: set runtime.audio_ctx=full, or leave runtime.word_times=false"
        )
    if decoding.num_beams != 1:
        raise ConfigError(f"whisper.cpp decodes greedily here: set protocol.num_beams=1, not {decoding.num_beams}")
    if decoding.min_new_tokens not in (0, decoding.max_new_tokens):
        raise ConfigError(
            f"whisper.cpp can decode until the end token or exactly {decoding.max_new_tokens} tokens, "
            f"not at least {decoding.min_new_tokens}"
        )


def _sort_tensors(
    tensors: Iterable[Tensor], model: WhisperForConditionalGeneration
) -> tuple[dict[str, Held], tuple[Stored, ...]]:
    """Sort tensors into Linear modules by their names in transformers, and all others.

    Padding beyond the checkpoint's tokens and positions, which whisper.cpp requires, is not counted.
    """
    from torch import nn

    from quantlab.models.formats.ggml.names import EMBEDDING, TEXT_POSITIONS, module_in_file
    from quantlab.quantization.tensors import Held, Stored

    rows = {EMBEDDING: int(model.config.vocab_size), TEXT_POSITIONS: int(model.config.max_target_positions)}
    below: dict[str, list[Stored]] = {}
    for tensor in tensors:
        module, _, kind = tensor.name.rpartition(".")
        counted = tensor.bytes // tensor.shape[0] * rows.get(tensor.name, tensor.shape[0])
        below.setdefault(module, []).append(Stored(kind, tensor.dtype, counted, tensor.name))
    linears = {
        name: Held(found, tuple(below.pop(found)))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (found := module_in_file(name)) in below
    }
    return linears, tuple(item for held in below.values() for item in held)


def _kernel(format: str) -> str:
    """Format and CPU instruction sets, as reported by whisper.cpp."""
    import _pywhispercpp as library

    used = re.findall(r"(\w+) = 1\b", library.whisper_print_system_info())
    return f"whisper.cpp {format} ({', '.join(used)})"
