"""Parameters and files of a checkpoint in transformers' layout, and their writers.

Values are read one tensor at a time, so that memory does not grow with the checkpoint.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.config.schema import Architecture, bounds
from quantlab.models.convert.letters import tokenizer
from quantlab.models.pretrained import FRONT_END
from quantlab.models.tokens import END, START
from quantlab.util.errors import shortened

if TYPE_CHECKING:
    import numpy as np

FRAME_RATE = 50  # encoder frames per second of audio: 16 kHz / 160 hop / stride 2
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Parameter:
    """One tensor, read from its source on demand."""

    dtype: str  # a key of ITEM_BYTES
    shape: tuple[int, ...]
    values: Callable[[], np.ndarray]  # item size as in dtype; BF16 as 16-bit integers


@dataclass(frozen=True)
class Shape:
    """The sizes of a Whisper model."""

    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_heads: int
    decoder_heads: int
    ffn_dim: int
    num_mel_bins: int
    vocab_size: int
    max_source_positions: int
    max_target_positions: int

    def __post_init__(self) -> None:
        """Raise ValueError if a size is out of range."""
        for name, size in vars(self).items():
            least, most = bounds(Architecture, "attention_heads" if name.endswith("_heads") else name)
            if type(size) is not int or not least <= size <= most:
                raise ValueError(f"it has {name}={shortened(size)}: expected {least} to {most:,}")

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter by its name in transformers, except the tied `proj_out`."""
        width = self.d_model
        found: dict[str, tuple[int, ...]] = {
            "model.encoder.conv1.weight": (width, self.num_mel_bins, 3),
            "model.encoder.conv1.bias": (width,),
            "model.encoder.conv2.weight": (width, width, 3),
            "model.encoder.conv2.bias": (width,),
            "model.encoder.embed_positions.weight": (self.max_source_positions, width),
            "model.decoder.embed_positions.weight": (self.max_target_positions, width),
            "model.decoder.embed_tokens.weight": (self.vocab_size, width),
        }
        for part, layers in (("encoder", self.encoder_layers), ("decoder", self.decoder_layers)):
            for index in range(layers):
                for name, shape in self._of_layer(crossed=part == "decoder"):
                    found[f"model.{part}.layers.{index}.{name}"] = shape
            found.update({f"model.{part}.layer_norm.{kind}": (width,) for kind in ("weight", "bias")})
        return found

    def _of_layer(self, crossed: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
        width, inner = self.d_model, self.ffn_dim
        for attention in ("self_attn", "encoder_attn") if crossed else ("self_attn",):
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                yield f"{attention}.{name}.weight", (width, width)
                if name != "k_proj":
                    yield f"{attention}.{name}.bias", (width,)
            yield from ((f"{attention}_layer_norm.{kind}", (width,)) for kind in ("weight", "bias"))
        yield from (("fc1.weight", (inner, width)), ("fc1.bias", (inner,)))
        yield from (("fc2.weight", (width, inner)), ("fc2.bias", (width,)))
        yield from ((f"final_layer_norm.{kind}", (width,)) for kind in ("weight", "bias"))

    def config(self, end: int, start: int) -> dict[str, Any]:
        """The config.json."""
        return {
            "architectures": ["WhisperForConditionalGeneration"],
            "model_type": "whisper",
            "activation_function": "gelu",
            "scale_embedding": False,
            "tie_word_embeddings": True,
            "d_model": self.d_model,
            "encoder_layers": self.encoder_layers,
            "decoder_layers": self.decoder_layers,
            "encoder_attention_heads": self.encoder_heads,
            "decoder_attention_heads": self.decoder_heads,
            "encoder_ffn_dim": self.ffn_dim,
            "decoder_ffn_dim": self.ffn_dim,
            "num_mel_bins": self.num_mel_bins,
            "vocab_size": self.vocab_size,
            "max_source_positions": self.max_source_positions,
            "max_target_positions": self.max_target_positions,
            **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end),
            "decoder_start_token_id": start,
        }

    def feature_extractor(self) -> dict[str, Any]:
        """The content of preprocessor_config.json.

        Raises:
            ValueError: the window is not a whole number of seconds.
        """
        window_s, rest = divmod(self.max_source_positions, FRAME_RATE)
        if rest:
            raise ValueError(f"it takes {self.max_source_positions} frames, which is not a whole number of seconds")
        return {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "feature_size": self.num_mel_bins,
            "chunk_length": window_s,
            "return_attention_mask": False,
            **FRONT_END,
        }


def write_texts(folder: Path, shape: Shape, texts: Mapping[int, str], marks: Mapping[int, str]) -> None:
    """Write all files except the weights, with a tokenizer built from the tokens' texts; see `letters.tokenizer`.

    Raises:
        ValueError: there is no start or end token; or see `letters.tokenizer`.
    """
    write_json(folder / "tokenizer.json", tokenizer(texts, marks))
    write_configs(folder, shape, {text: id for id, text in marks.items()})


def write_configs(folder: Path, shape: Shape, ids: Mapping[str, int]) -> None:
    """Write config.json, preprocessor_config.json and tokenizer_config.json.

    Args:
        folder: target folder.
        shape: sizes of the model.
        ids: ids of its special tokens.

    Raises:
        ValueError: there is no start or end token.
    """
    if missing := [text for text in (END, START) if text not in ids]:
        raise ValueError(f"its vocabulary has no {' and no '.join(missing)}")
    names = {f"{what}_token": END for what in ("bos", "eos", "pad", "unk")}
    write_json(folder / "config.json", shape.config(ids[END], ids[START]))
    write_json(folder / "preprocessor_config.json", shape.feature_extractor())
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "WhisperTokenizer", **names})


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def check_parameters(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Check names and shapes of the tensors in a file.

    Raises:
        ValueError: a tensor is missing, extra or of another shape.
    """
    for what, names in {
        "lacks": expected.keys() - found.keys(),
        "has tensors that Whisper does not have:": found.keys() - expected.keys(),
        "has tensors of another shape than stated:": {name for name in expected if found.get(name) != expected[name]},
    }.items():
        if names:
            raise ValueError(f"it {what} {', '.join(sorted(map(repr, names))[:3])}"[:300])


def write_weights(path: Path, parameters: Iterable[tuple[str, Parameter]]) -> None:
    """Write safetensors: header size (u64), JSON header, then the bytes of all tensors."""
    named = dict(parameters)
    sizes = [math.prod(item.shape) * ITEM_BYTES[item.dtype] for item in named.values()]
    ends = list(itertools.accumulate(sizes))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for (name, item), size, end in zip(named.items(), sizes, ends, strict=True):
        header[name] = {"dtype": item.dtype, "shape": list(item.shape), "data_offsets": [end - size, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for (name, item), size in zip(named.items(), sizes, strict=True):
            written = file.write(item.values().tobytes())
            assert written == size, name
