"""Conversion of a ggml file (whisper.cpp).

Blocks are dequantized to fp32.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quantlab.models import tokens
from quantlab.models.convert.letters import letters, special, split
from quantlab.models.convert.parts import Parameter, Shape, check_parameters, write_json, write_texts, write_weights
from quantlab.models.formats.ggml.names import tensor_in_file
from quantlab.models.formats.ggml.read import Contents, Tensor, read
from quantlab.models.formats.ggml.vocabulary import BLANK, NEVER

if TYPE_CHECKING:
    import numpy as np

FILLERS = 1000  # least number of tokens without text in a file that quantlab wrote for a small vocabulary
FLOATS = {"f32": "F32", "f16": "F16"}


def quantized_as(path: Path) -> str | None:
    """The formats of the matrices that are not floats; None if all are floats.

    Raises:
        ValueError: see `read`.
    """
    return ", ".join(sorted({item.dtype for item in read(path).tensors} - FLOATS.keys())) or None


def write(path: Path, folder: Path) -> None:
    """Convert a model file to a folder.

    Raises:
        ValueError: it is incomplete, or not a Whisper model that transformers can compute.
        OSError: it cannot be read.
    """
    contents = read(path)
    shape = _shape(contents)
    tensors = {item.name: item for item in contents.tensors}
    names = {parameter: tensor_in_file(parameter) for parameter in shape.parameters()}
    check_parameters(
        {name: _without_ones(item.shape) for name, item in tensors.items()},
        {names[parameter]: _without_ones(expected) for parameter, expected in shape.parameters().items()},
    )
    marks = special(shape.vocab_size)
    texts = _texts(contents, end=min(marks))
    blank = [id for id, text in texts.items() if text == letters(BLANK.encode())]
    write_texts(folder, shape, texts, marks)
    write_json(
        folder / tokens.GENERATION,
        {
            "suppress_tokens": sorted(_suppressed_tokens(contents, texts, marks)),
            "begin_suppress_tokens": [*blank, min(marks)],
        },
    )
    write_weights(
        folder / "model.safetensors",
        ((parameter, _parameter(path, tensors[names[parameter]], expected)) for parameter, expected in
         shape.parameters().items()),
    )  # fmt: skip


def _shape(contents: Contents) -> Shape:
    numbers = contents.numbers
    if numbers["n_audio_state"] != numbers["n_text_state"]:
        raise ValueError("its encoder and decoder differ in width")
    return Shape(
        d_model=numbers["n_text_state"],
        encoder_layers=numbers["n_audio_layer"],
        decoder_layers=numbers["n_text_layer"],
        encoder_heads=numbers["n_audio_head"],
        decoder_heads=numbers["n_text_head"],
        ffn_dim=4 * numbers["n_text_state"],
        num_mel_bins=numbers["n_mels"],
        vocab_size=numbers["n_vocab"],
        max_source_positions=numbers["n_audio_ctx"],
        max_target_positions=numbers["n_text_ctx"],
    )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without ones, as the file stores biases of convolutions as columns."""
    return tuple(size for size in shape if size != 1)


def _texts(contents: Contents, end: int) -> dict[int, str]:
    """The text of each token before the end token."""
    if len(contents.words) < end:
        raise ValueError(f"its vocabulary has {len(contents.words)} words, expected at least {end}")
    texts = {id: letters(word) for id, word in enumerate(contents.words[:end])}
    numbered = sum(text == f"<{id}>" for id, text in texts.items())
    if numbered == end or 1 < numbered < FILLERS:
        raise ValueError(f"{numbered} tokens of its vocabulary have numbers instead of text")
    return texts


def _suppressed_tokens(contents: Contents, texts: dict[int, str], marks: dict[int, str]) -> set[int]:
    """Tokens that OpenAI's decoding suppresses, by the words of the file; see `tokens.generation_config`.

    A file written by quantlab has these words at the suppressed tokens, whatever their real text is.
    """
    ids, end = {text: id for id, text in texts.items()}, min(marks)
    found = {ids[text] for word in NEVER if (text := letters(word.encode())) in ids}
    found |= {id for id, text in marks.items() if text in tokens.CONTROL}
    if len(contents.words) < contents.numbers["n_vocab"]:  # not written by quantlab
        notes = (letters(f"{space}{note}".encode()) for note in tokens.NOTES for space in ("", " "))
        starts = {split(note, ids, end)[0] for note in notes} - {letters(BLANK.encode())}
        found |= {ids[start] for start in starts}
    return found


def _parameter(path: Path, tensor: Tensor, shape: tuple[int, ...]) -> Parameter:
    def values() -> np.ndarray:
        import numpy as np

        raw = np.memmap(path, np.uint8, "r", tensor.offset, tensor.bytes)
        return raw if tensor.dtype in FLOATS else _dequantized(raw, tensor)

    return Parameter(FLOATS.get(tensor.dtype, "F32"), shape, values)


def _dequantized(raw: np.ndarray, tensor: Tensor) -> np.ndarray:
    from gguf import GGMLQuantizationType, quants

    return quants.dequantize(raw, GGMLQuantizationType[tensor.dtype.upper()])
