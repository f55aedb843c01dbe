"""Conversion of a CTranslate2 model folder (faster-whisper).

The file stores query, key and value stacked in one matrix. Integers are dequantized to fp32.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.models import tokens
from quantlab.models.convert.parts import Parameter, Shape, check_parameters, write_configs, write_json, write_texts
from quantlab.models.convert.parts import write_weights as write_safetensors
from quantlab.models.files import MOST_BYTES, check_regular, is_there, read_any_json, read_json
from quantlab.models.formats.ctranslate2 import BLOCK, LINEARS, Variable, variables

if TYPE_CHECKING:
    import numpy as np

MODEL = "model.bin"
SPEC = "WhisperSpec"
SMALL = ("config.json", "tokenizer.json", "preprocessor_config.json", "vocabulary.json", "vocabulary.txt")  # read here
FLOATS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
NUMPY = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "int8": "i1", "int16": "<i2", "int32": "<i4"}
EXPECTED = {  # other values would need a computation that transformers lacks
    "activation": 3,  # GELU
    "pre_norm": 1,
    "scale_embeddings": 0,
    "alibi": 0,
    "start_from_zero_embedding": 0,
}
NORMS = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "ffn/layer_norm": "final_layer_norm",
}
ELSEWHERE = {
    "encoder/conv1": "model.encoder.conv1",
    "encoder/conv2": "model.encoder.conv2",
    "encoder/layer_norm": "model.encoder.layer_norm",
    "decoder/layer_norm": "model.decoder.layer_norm",
    "decoder/embeddings": "model.decoder.embed_tokens",
    "encoder/position_encodings": "model.encoder.embed_positions",
    "decoder/position_encodings": "model.decoder.embed_positions",
}
KINDS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "encodings": "weight"}
HEAD, EMBEDDING = "decoder/projection/weight", "decoder/embeddings/weight"


def quantized_as(folder: Path) -> str | None:
    """The dtypes of the weights that are not floats; None if all are floats.

    Raises:
        ValueError: see `variables`.
    """
    types = {item.dtype for item in variables(folder / MODEL) if item.shape}
    return ", ".join(sorted(types - FLOATS.keys())) or None


def write(source: Path, folder: Path) -> None:
    """Convert a model folder.

    Raises:
        ValueError: it is incomplete, or not a Whisper model that transformers can compute.
        OSError: it cannot be read.
    """
    model = _Model(source / MODEL)
    shape = model.shape()
    parameters = dict(model.parameters())
    check_parameters({name: item.shape for name, item in parameters.items()}, shape.parameters())
    _write_tokenizer(source, folder, shape)
    _write_generation(source, folder)
    write_safetensors(folder / "model.safetensors", parameters.items())


class _Model:
    """The content of a model.bin."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = {item.name: item for item in variables(path)}
        self._check()

    def _check(self) -> None:
        for name, item in self._held.items():
            key = name.rpartition("/")[2]
            if not item.shape and key in EXPECTED and (found := int(self._values(item))) != EXPECTED[key]:
                raise ValueError(f"it has {name}={found}; transformers computes only {EXPECTED[key]}")
        head, embedding = self._held.get(HEAD), self._held.get(EMBEDDING)
        if head is None or embedding is None or head.stored_as != embedding.stored_as:
            raise ValueError(f"{HEAD} and {EMBEDDING} are not tied, as they are in Whisper")

    def shape(self) -> Shape:
        vocab_size, width = self._size(EMBEDDING, 2)
        return Shape(
            d_model=width,
            encoder_layers=self._layers("encoder"),
            decoder_layers=self._layers("decoder"),
            encoder_heads=self._heads("encoder"),
            decoder_heads=self._heads("decoder"),
            ffn_dim=self._size("encoder/layer_0/ffn/linear_0/weight", 2)[0],
            num_mel_bins=self._size("encoder/conv1/weight", 3)[1],
            vocab_size=vocab_size,
            max_source_positions=self._size("encoder/position_encodings/encodings", 2)[0],
            max_target_positions=self._size("decoder/position_encodings/encodings", 2)[0],
        )

    def _size(self, name: str, dimensions: int) -> tuple[int, ...]:
        found = self._held.get(name)
        if found is None or len(found.shape) != dimensions:
            raise ValueError(f"it has no {name} of {dimensions} dimensions")
        return found.shape

    def _layers(self, part: str) -> int:
        return len({match[2] for name in self._held if (match := BLOCK.fullmatch(name)) and match[1] == part})

    def _heads(self, part: str) -> int:
        found = self._held.get(f"{part}/num_heads")
        return int(self._values(found)) if found and not found.shape else 0

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their names in transformers."""
        for item in self._held.values():
            layer, _, kind = item.name.rpartition("/")
            if not item.shape or kind == "weight_scale" or item.name == HEAD:
                continue
            modules = _modules(layer)
            for part, module in enumerate(modules):
                name, parameter = f"{module}.{KINDS.get(kind, kind)}", self._rows(item, part, len(modules))
                if not name.endswith(".k_proj.bias"):
                    yield name, parameter
                elif parameter.values().any():
                    raise ValueError(f"{item.name} has a bias for keys, which Whisper does not have")

    def _rows(self, item: Variable, part: int, parts: int) -> Parameter:
        """One of the equal row blocks of a tensor."""
        rows = item.shape[0] // parts

        def values() -> np.ndarray:
            found = self._values(item)[part * rows : (part + 1) * rows]
            return found if item.dtype in FLOATS else found / self._scale(item, part * rows, rows)

        return Parameter(FLOATS.get(item.dtype, "F32"), (rows, *item.shape[1:]), values)

    def _scale(self, item: Variable, start: int, rows: int) -> np.ndarray:
        """The scale of each row, or of the whole tensor (int16); fp32."""
        import numpy as np

        scale = self._held.get(f"{item.name}_scale")
        if scale is None or scale.dtype != "float32" or scale.shape not in ((), item.shape[:1]):
            raise ValueError(f"{item.name} is {item.dtype} without a scale for each row")
        found = np.broadcast_to(self._values(scale), item.shape[:1])[start : start + rows]
        return found.reshape(rows, *[1] * (len(item.shape) - 1))

    def _values(self, item: Variable) -> np.ndarray:
        import numpy as np

        raw = np.memmap(self._path, np.uint8, "r", item.offset, item.bytes)
        return raw.view(NUMPY[item.dtype]).reshape(item.shape)


def _modules(layer: str) -> tuple[str, ...]:
    """The transformers modules stacked in a layer of the file; for other layers, the layer itself."""
    if layer in ELSEWHERE:
        return (ELSEWHERE[layer],)
    if (block := BLOCK.fullmatch(layer)) is None:
        return (layer,)
    part, index, below = block.groups()
    names = LINEARS.get(below) or (NORMS.get(below, below),)
    return tuple(f"model.{part}.layers.{index}.{name}" for name in names)


def _write_tokenizer(source: Path, folder: Path, shape: Shape) -> None:
    """Copy the folder's tokenizer, or build one from its vocabulary."""
    if (source / "tokenizer.json").is_file():
        check_regular(source / "tokenizer.json", MOST_BYTES)
        shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
        write_configs(folder, shape, {text: id for id, text in tokens.words(folder).items()})
    else:
        texts = dict(enumerate(vocabulary(source)))
        marks = {id: text for id, text in texts.items() if re.fullmatch(r"<\|.+\|>", text)}
        write_texts(folder, shape, {id: text for id, text in texts.items() if id not in marks}, marks)
    if is_there(source / "preprocessor_config.json"):
        write_json(folder / "preprocessor_config.json", read_json(source / "preprocessor_config.json"))


def vocabulary(source: Path) -> list[str]:
    """The text of each token, as the engine reads it.

    Raises:
        ValueError: the folder has no vocabulary.
    """
    found: Any = None
    if (path := source / "vocabulary.json").is_file():
        found = read_any_json(path)
    elif (path := source / "vocabulary.txt").is_file():
        check_regular(path, MOST_BYTES)
        found = path.read_text("utf-8").removesuffix("\n").split("\n")
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError("it has no tokenizer.json, and no vocabulary.json or vocabulary.txt with its tokens")
    return found


def _write_generation(source: Path, folder: Path) -> None:
    """Write the suppressed tokens, which the engine reads from the folder's config.json."""
    stated: Mapping[str, Any] = read_json(source / "config.json") if is_there(source / "config.json") else {}
    keys = {"suppress_ids": "suppress_tokens", "suppress_ids_begin": "begin_suppress_tokens",
            "alignment_heads": "alignment_heads"}  # fmt: skip
    write_json(folder / tokens.GENERATION, {name: stated[key] for key, name in keys.items() if key in stated})
