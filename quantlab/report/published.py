"""Published figures, beside those that were measured here; the data and their sources are in `published.yaml`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from quantlab.config import Dtype
from quantlab.report.rows import Row

_FILE = Path(__file__).with_name("published.yaml")
Positive = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Part):
    """Where figures stand, and what is known of how they were measured."""

    authors: str
    title: str
    where: str  # table or section
    url: str
    hardware: str | None = None
    batch_size: int | None = None
    dtype: Dtype | None = None  # of what is not quantized
    unknown: tuple[str, ...] = ()  # conditions that this project has not read there


class Corpus(_Part):
    """A corpus by the names that our configurations give it."""

    names: tuple[str, ...]
    utterances: dict[str, int] = Field(default_factory=dict)  # of each whole split


class Figures(_Part):
    """What one source says of one cell; null where it says nothing."""

    source: str
    model: str
    quant: str
    device: str
    corpus: str
    target: str = "all"
    runtime: str = "eager"
    wer: dict[str, Positive] = Field(default_factory=dict)  # percent, by split
    cer: dict[str, Positive] = Field(default_factory=dict)  # percent, by split
    rtf: Positive | None = None
    rtfx: Positive | None = None  # audio time / processing time, where that is what the source gives
    size_reduction: float | None = Field(default=None, gt=0, lt=100)  # percent of fp32

    @property
    def real_time_factor(self) -> float | None:
        """RTF, also where the source gives its inverse."""
        return self.rtf if self.rtfx is None else 1 / self.rtfx

    @model_validator(mode="after")
    def _says_something_once(self) -> Figures:
        if self.rtf is not None and self.rtfx is not None:
            raise ValueError("rtf or rtfx, as the source has it, not both")
        if not (self.wer or self.cer or self.rtf or self.rtfx or self.size_reduction):
            raise ValueError("no figure")
        return self


class Published(_Part):
    """The whole data file."""

    sources: dict[str, Source]
    corpora: dict[str, Corpus]
    figures: tuple[Figures, ...]

    @model_validator(mode="after")
    def _names_exist(self) -> Published:
        for item in self.figures:
            if item.source not in self.sources or item.corpus not in self.corpora:
                raise ValueError(f"{item.model}-{item.quant}: no source {item.source!r} or no corpus {item.corpus!r}")
        return self


@dataclass(frozen=True)
class Match:
    """A cell that was measured here and that a source reports."""

    row: Row
    figures: Figures
    source: Source
    notes: tuple[str, ...]  # what differs, or is not known to agree


@functools.cache
def load(path: Path = _FILE) -> Published:
    """The figures of the data file.

    Raises:
        ValueError: the file does not fit its schema.
    """
    return Published.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def matches(rows: Sequence[Row], published: Published | None = None) -> list[Match]:
    """The published figures of these cells, in their order.

    Model, quantizer, device and corpus must be those of the source, what is quantized and the runtime too; a split
    that only one side has stays empty there. Figures on another corpus are never put beside these.
    """
    return [match for row in rows if row["status"] == "ok" for match in _of(row, published or load())]


def _of(row: Row, published: Published) -> Iterator[Match]:
    for figures in published.figures:
        corpus = published.corpora[figures.corpus]
        axes = ["model", "quant", "device", "runtime"]
        axes += [] if figures.quant == "none" else ["target"]  # where nothing is quantized, it is no part of the cell
        if row["dataset"] in corpus.names and all(row[axis] == getattr(figures, axis) for axis in axes):
            source = published.sources[figures.source]
            yield Match(row, figures, source, tuple(_notes(row, source, corpus)))


def _notes(row: Row, source: Source, corpus: Corpus) -> Iterator[str]:
    if row["weights"] != "pretrained":
        yield f"measured with {row['weights']} weights: only the size compares"
    if row["config"]["model"].get("path"):
        yield "measured with the checkpoint of model.path, which need not be the published one"
    for name, result in row["splits"].items():
        whole = corpus.utterances.get(name)
        if whole is not None and result["utterances"] != whole:
            yield f"{name}: measured on {result['utterances']:,} of {whole:,} utterances"
    if source.batch_size is not None and row["batch_size"] != source.batch_size:
        yield f"batch size {row['batch_size']} here, {source.batch_size} there"
    here = row["dtype"] or "float32"  # older records do not say
    if source.dtype is not None and here != source.dtype:
        yield f"what is not quantized is {here} here, {source.dtype} there"
    if source.hardware is not None:
        yield f"hardware there: {source.hardware}; here: {row['environment'].get('processor') or 'not recorded'}"
    if source.unknown:
        yield f"not known of the source: {', '.join(source.unknown)}; so RTF is no like-for-like comparison"
