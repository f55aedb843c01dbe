"""Writer of ggml files from a transformers Whisper model.

Layout: magic, eleven numbers, mel filters, vocabulary, tensors; little-endian. As in whisper.cpp's `quantize`, every
matrix except the positional embeddings is quantized, convolutions stay in f16, the rest in f32. whisper.cpp requires
one type for all matrices, given in the header, and refuses mixed files. It has no f32 convolution on CPUs, so f16 is
the highest precision.
Source: whisper.cpp 1.8, models/convert-h5-to-ggml.py, examples/quantize/quantize.cpp, `whisper_model_load`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from quantlab.models.formats.ggml import blocks
from quantlab.models.formats.ggml.names import EMBEDDING, TEXT_POSITIONS, tensor_in_file
from quantlab.models.formats.ggml.vocabulary import Vocabulary
from quantlab.util.errors import ConfigError, UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    from transformers import WhisperForConditionalGeneration

MAGIC = 0x67676D6C  # "ggml"
FILE_TYPES = {  # ggml_ftype
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q8_0": 7,
    "q5_0": 8,
    "q5_1": 9,
    "q2_k": 10,
    "q3_k": 11,
    "q4_k": 12,
    "q5_k": 13,
    "q6_k": 14,
}
QUANTIZED = 2000  # added to the file type of quantized files: version 2 of the block layouts, times 1000


def write(
    path: Path, model: WhisperForConditionalGeneration, format: str, vocabulary: Vocabulary, new_tokens: int
) -> None:
    """Write a model to a ggml file.

    Args:
        path: path of the file.
        model: the model, in fp32 on the CPU.
        format: format of the matrices, a key of FILE_TYPES.
        vocabulary: mapping of its tokens to rows of the file.
        new_tokens: the most tokens to decode per window.

    Raises:
        ConfigError: whisper.cpp cannot compute this model.
        UnsupportedError: a matrix has rows that are not whole blocks of the format.
    """
    _check(model)
    text_positions = max(int(model.config.max_target_positions), 2 * (new_tokens + 4))
    with path.open("wb") as file:
        file.write(struct.pack("<12i", MAGIC, *_numbers(model, format, vocabulary, text_positions)))
        _write_filters(file, int(model.config.num_mel_bins))
        _write_words(file, vocabulary)
        for name, values in _tensors(model, vocabulary, text_positions):
            _write_tensor(file, name, values, _type_of(name, values, format))


def _check(model: WhisperForConditionalGeneration) -> None:
    config: Any = model.config
    allowed = {
        "encoder_ffn_dim": 4 * config.d_model,
        "decoder_ffn_dim": 4 * config.d_model,
        "activation_function": "gelu",
        "scale_embedding": False,
    }
    for key, value in allowed.items():
        if getattr(config, key) != value:
            raise ConfigError(f"whisper.cpp computes models with {key}={value} only, not {getattr(config, key)}")
    if model.proj_out.weight is not model.model.decoder.embed_tokens.weight:
        raise ConfigError("whisper.cpp has one tensor for embedding and proj_out, but this model has two")


def _numbers(
    model: WhisperForConditionalGeneration, format: str, vocabulary: Vocabulary, text_positions: int
) -> tuple[int, ...]:
    config: Any = model.config
    return (
        len(vocabulary.words),
        config.max_source_positions,
        config.d_model,
        config.encoder_attention_heads,
        config.encoder_layers,
        text_positions,
        config.d_model,
        config.decoder_attention_heads,
        config.decoder_layers,
        config.num_mel_bins,
        FILE_TYPES[format] + (QUANTIZED if format.startswith("q") else 0),
    )


def _write_filters(file: BinaryIO, bins: int) -> None:
    """Write the mel filters, used when whisper.cpp gets audio instead of features; (bins, frequencies)."""
    from transformers import WhisperFeatureExtractor

    filters = WhisperFeatureExtractor(feature_size=bins).mel_filters.T
    file.write(struct.pack("<2i", *filters.shape))
    file.write(filters.astype("<f4").tobytes())


def _write_words(file: BinaryIO, vocabulary: Vocabulary) -> None:
    file.write(struct.pack("<i", len(vocabulary.words)))
    for word in vocabulary.words:
        encoded = word.encode(errors="surrogateescape")  # a token may end inside a multi-byte character
        file.write(struct.pack("<i", len(encoded)) + encoded)


def _tensors(
    model: WhisperForConditionalGeneration, vocabulary: Vocabulary, text_positions: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Name in the file and values (fp32) of each tensor."""
    import numpy as np

    for parameter, tensor in model.state_dict().items():
        if parameter == "proj_out.weight":
            continue
        name, values = tensor_in_file(parameter), tensor.numpy()
        if name == EMBEDDING:
            values = _embedding(values, vocabulary)
        elif name == TEXT_POSITIONS:
            # whisper.cpp decodes at most half of its positions, and reserves the others for previous text
            values = np.pad(values, ((0, text_positions - len(values)), (0, 0)))
        elif name.startswith("encoder.conv") and name.endswith(".bias"):
            values = values[:, None]
        yield name, values


def _embedding(values: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """The token embedding with one row per token of the file."""
    found = values[list(vocabulary.ids())]
    if vocabulary.endless:
        found[vocabulary.end] = 0  # its logit is 0, and among thousands of tokens some logit is larger
    return found


def _type_of(name: str, values: np.ndarray, format: str) -> str:
    """The type that whisper.cpp's `quantize` gives a tensor; names of positional embeddings lack `.weight`."""
    if not name.endswith(".weight") or values.ndim == 1:
        return "f32"
    return "f16" if values.ndim == 3 else format


def _write_tensor(file: BinaryIO, name: str, values: np.ndarray, type: str) -> None:
    if values.shape[-1] % blocks.block(type):
        raise UnsupportedError(
            f"{type} quantizes blocks of {blocks.block(type)} weights, the rows of {name} have {values.shape[-1]}: "
            f"choose {'a format in blocks of 32, such as quant=ggml_q5_0' if type.endswith('_k') else 'quant=ggml_f16'}"
        )
    encoded = name.encode()
    file.write(struct.pack("<3i", values.ndim, len(encoded), blocks.TYPES[type]))
    file.write(struct.pack(f"<{values.ndim}i", *reversed(values.shape)))
    file.write(encoded)
    file.write(blocks.quantize(values, type).tobytes())
