"""The settings of a cell that reports show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from quantlab.records.schema import Record


def _at(key: str) -> Any:
    """A field read from this key of the resolved configuration; None if an older record lacks the key."""
    return field(metadata={"key": key})


@dataclass(frozen=True)
class Settings:
    """The settings of a cell that reports show; the record has the whole configuration."""

    weights: str = _at("model.weights")
    quant: str = _at("quant.name")
    library: str = _at("quant.library")
    bits: float | None = _at("quant.bits")
    format: str | None = _at("quant.format")
    scheme: str = _at("quant.scheme")
    activations: str | None = _at("quant.activations")
    granularity: str | None = _at("quant.granularity")
    group_size: int | None = _at("quant.group_size")
    symmetric: bool | None = _at("quant.symmetric")
    double_quant: bool | None = _at("quant.double_quant")
    axis: int | None = _at("quant.axis")
    backend: str | None = _at("quant.backend")
    recover: str | None = _at("quant.recover")
    target: str | None = _at("quant.target")
    skip: Sequence[str] | None = _at("quant.skip")
    head: bool | None = _at("quant.head")
    embedding: bool | None = _at("quant.embedding")
    device: str = _at("device.name")
    threads: int | None = _at("device.threads")
    runtime: str = _at("runtime.name")
    audio_ctx: str | None = _at("runtime.audio_ctx")
    dtype: str | None = _at("runtime.dtype")
    noise_kind: str | None = _at("dataset.noise.kind")
    snr_db: float | None = _at("dataset.noise.snr_db")
    long: str | None = _at("dataset.long")
    language: str | None = _at("dataset.language")
    protocol: str = _at("protocol.name")
    batch_size: int | None = _at("protocol.batch_size")
    seed: int = _at("seed")

    @classmethod
    def of(cls, record: Record) -> Settings:
        """The settings of a record."""
        return cls(**{item.name: record.setting(item.metadata["key"]) for item in fields(cls)})

    @property
    def is_half(self) -> bool:
        """Whether unquantized weights have another dtype than fp32; older records lack the dtype and are fp32."""
        return self.dtype not in (None, "float32")
