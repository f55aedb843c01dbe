"""Configuration of the recogniser: which checkpoint, or which architecture with random weights."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Literal

from pydantic import Field, model_validator

from quantlab.config.part import Part
from quantlab.config.types import MOST, Count, Family, FilePath, Name
from quantlab.util.errors import shortened

SHIPPED = "nano"  # the model that comes with quantlab


class Architecture(Part):
    """The shape of a Whisper model: enough to build it with random weights and no download.

    Source of the shipped values: the `config.json` of each checkpoint on the hub.
    """

    d_model: int = Field(ge=1, le=16_384, description="width of the model")
    encoder_layers: int = Field(ge=1, le=256, description="layers of the encoder")
    decoder_layers: int = Field(ge=1, le=256, description="layers of the decoder")
    attention_heads: int = Field(ge=1, le=1024, description="attention heads; d_model must be a multiple")
    ffn_dim: int = Field(ge=1, le=131_072, description="hidden width of the feed-forward blocks")
    num_mel_bins: int = Field(ge=1, le=200, description="mel bins per frame: 80, or 128 since large-v3")
    vocab_size: int = Field(ge=16, le=MOST, description="vocabulary size, including at least nine special tokens")
    max_source_positions: int = Field(
        default=1500, ge=1, le=100_000, description="encoder frames; 1500 = 30 s at 50 frames/s"
    )
    max_target_positions: int = Field(
        default=448, ge=8, le=100_000, description="decoder positions per window, four of them for the prompt"
    )

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Architecture:
        if self.d_model % self.attention_heads:
            raise ValueError(
                f"model.architecture: d_model={self.d_model} is not a multiple of "
                f"attention_heads={self.attention_heads}"
            )
        return self

    @property
    def parameters(self) -> int:
        """Number of parameters of a Whisper model of this shape; the output shares its weights with the embedding."""
        d, ffn = self.d_model, self.ffn_dim
        norm = 2 * d
        attention = 4 * d * d + 3 * d + norm  # the keys have no bias
        block = attention + 2 * d * ffn + ffn + d + norm  # with its feed-forward part
        stem = 3 * d * (self.num_mel_bins + d) + 2 * d  # two convolutions of width 3
        encoder = stem + self.max_source_positions * d + self.encoder_layers * block + norm
        embeddings = (self.vocab_size + self.max_target_positions) * d
        return encoder + embeddings + self.decoder_layers * (block + attention) + norm


class ModelConfig(Part):
    """The model: its checkpoint and where the weights come from."""

    name: Name = Field(description="display name of the checkpoint")
    family: Family = Field(
        default="whisper", description="kind of recogniser: whisper; moonshine; ctc (wav2vec2, HuBERT, Parakeet-CTC)"
    )
    source: Literal["shipped", "hub"] = Field(description="where the checkpoint comes from")
    repo: str | None = Field(default=None, description="repository on the hub, e.g. openai/whisper-small")
    revision: str | None = Field(default=None, description="pinned commit of model.repo")
    path: FilePath | None = Field(
        default=None,
        description="local checkpoint (transformers, OpenAI, CTranslate2 or whisper.cpp); used instead of the hub",
    )
    weights: Literal["pretrained", "random"] = Field(
        default="pretrained", description="random: random weights of the same shape, for size and speed"
    )
    random_tokens: Count = Field(default=32, description="tokens generated per utterance with random weights")
    architecture: Architecture | None = None
    config: dict[str, Any] | None = Field(
        default=None, description="model.family other than whisper: keys of config.json, for random weights"
    )

    @property
    def label(self) -> str:
        """Display name of the checkpoint."""
        return model_label(self.name, self.source, self.path)

    @model_validator(mode="after")
    def _has_its_shape(self) -> ModelConfig:
        if self.family == "whisper" and self.config is not None:
            raise ValueError("model.config is for other families: the shape of a Whisper is model.architecture")
        if self.family != "whisper" and self.architecture is not None:
            raise ValueError(f"model.architecture is the shape of a Whisper; that of {self.family} is model.config")
        return self

    @model_validator(mode="after")
    def _has_weights(self) -> ModelConfig:
        if self.source == "shipped" and self.repo is not None:
            raise ValueError(
                f"model.repo={shortened(self.repo)}: {self.name} ships with quantlab; for the hub: model=base "
                "model.repo=OWNER/NAME model.revision=null"
            )
        if self.source == "hub" and self.path is None and self.weights == "pretrained" and not self.repo:
            raise ValueError(f"model {self.name!r} names no hub repo: set model.repo, or model.path=FOLDER")
        return self


def model_label(name: str, source: object, path: object) -> str:
    """Display name of a checkpoint: its name, or its folder if `model.path` replaces the shipped model."""
    folder = PurePath(str(path)).name if path and source == "shipped" and name == SHIPPED else ""
    return folder if folder.isprintable() and folder else name
