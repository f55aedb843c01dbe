"""Published figures, and their assignment to cells; the data and their sources are in `published.yaml`.

Whether a figure was reproduced is decided in `quantlab.report.reproduced`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from quantlab.config.options import option
from quantlab.config.types import Dtype
from quantlab.report.cell_summary import CellSummary

_FILE = Path(__file__).with_name("published.yaml")
_CHANGES_NO_FIGURE = {"name", "backend"}  # keys of quant that change no figure: kernels compute the same
Rate = Annotated[Decimal, Field(gt=0)]
Other = Annotated[Decimal, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Part):
    """Publication of figures, and what is known of their measurement; None means unknown."""

    authors: str
    title: str
    where: str
    url: str
    normaliser: str | None = None
    scorer: str | None = None
    beams: int | None = None
    timestamps: bool | None = None  # whether timestamp tokens were decoded
    batch_size: int | None = None
    dtype: Dtype | None = None  # of unquantized weights
    hardware: str | dict[str, str] | None = None  # of all figures, or by device
    apart: dict[str, str] = Field(default_factory=dict)  # metric → why quantlab measures no such quantity

    def hardware_of(self, device: str | None) -> str | None:
        return self.hardware.get(device or "") if isinstance(self.hardware, dict) else self.hardware


class Split(_Part):
    """A split, by its names in quantlab."""

    names: tuple[str, ...]
    utterances: int | None = None  # in the whole split


class Corpus(_Part):
    """A corpus, by its names in configurations."""

    names: tuple[str, ...]  # * matches any name
    splits: dict[str, Split]
    language: str = "en"
    unknown: str | None = None  # why no cell can be known to have decoded the same audio


class Figures(_Part):
    """Figures of one cell, from one place in one source."""

    source: str
    where: str  # e.g. the table
    model: str
    quant: str | None  # an option of conf/quant; None: not stated
    settings: dict[str, Any] = Field(default_factory=dict)  # settings of quant that differ from the option's
    mixed: bool = False  # several formats in one file
    device: str | None = None
    runtime: str = "eager"
    corpus: str
    unit: Literal["percent", "fraction"] = "percent"  # of wer and cer
    wer: dict[str, Rate] = Field(default_factory=dict)  # by split
    cer: dict[str, Rate] = Field(default_factory=dict)  # by split
    other: dict[str, Other] = Field(default_factory=dict)  # metric → figure

    @model_validator(mode="after")
    def _has_unique_figures(self) -> Figures:
        if {"rtf", "rtfx"} <= set(self.other):
            raise ValueError("give rtf or rtfx, whichever the source gives, not both")
        if not (self.wer or self.cer or self.other):
            raise ValueError("no figure")
        return self


class Published(_Part):
    """Contents of the data file."""

    sources: dict[str, Source]
    corpora: dict[str, Corpus]
    figures: tuple[Figures, ...]

    @model_validator(mode="after")
    def _names_exist(self) -> Published:
        for item in self.figures:
            if item.source not in self.sources or item.corpus not in self.corpora:
                raise ValueError(f"{item.model}-{item.quant}: no source {item.source!r} or no corpus {item.corpus!r}")
            if unknown := {*item.wer, *item.cer} - set(self.corpora[item.corpus].splits):
                raise ValueError(f"{item.model}-{item.quant}: corpus {item.corpus!r} has no split {unknown}")
        return self


@dataclass(frozen=True)
class Figure:
    """One published figure with its context."""

    metric: str  # wer, cer, rtf, rtfx, size_reduction, …
    value: Decimal  # with the digits of the source
    split: str | None  # as the source names it; None: over the whole cell
    of: Figures
    source: Source
    corpus: Corpus


class _Exact(yaml.CSafeLoader):
    """YAML loader that keeps the digits of numbers: 5.10 is not 5.1."""


_Exact.add_constructor("tag:yaml.org,2002:float", lambda loader, node: Decimal(str(node.value)))


@functools.cache
def load(path: Path = _FILE) -> Published:
    """Load the data file.

    Raises:
        ValueError: the file does not fit its schema.
    """
    return Published.model_validate(yaml.load(path.read_text(encoding="utf-8"), _Exact))


def matching(cell: CellSummary, published: Published | None = None) -> list[Figure]:
    """The published figures that match a cell, in the order of the data file.

    A match has the quantizer (with its settings), runtime and corpus of the source, and no added noise. The model must
    be the same except for `.en` (`base_en` matches `base`), and the device may differ. If a table has the same figure
    for several models or devices, the nearest is taken.
    """
    published = published or load()
    if not cell.ok or cell.settings.noise_kind is not None:
        return []
    found: dict[tuple[Any, ...], Figure] = {}
    for item in _matching_figures(cell, published):
        for figure in _flat(item, published):
            key = item.source, item.where, item.corpus, figure.metric, figure.split
            if key not in found or _distance(cell, item) < _distance(cell, found[key].of):
                found[key] = figure
    return [figure for figure in found.values() if figure.split is None or measured_split(cell, figure) is not None]


def _matching_figures(cell: CellSummary, published: Published) -> Iterator[Figures]:
    asked = cell.settings
    dataset, model = str(cell.record.setting("dataset.name")), str(cell.record.setting("model.name"))
    near = {name for name, corpus in published.corpora.items() if _is_of(dataset, corpus, cell.splits)}
    for item in published.figures if near else ():
        alike = (item.quant, item.runtime, _size(item.model)) == (asked.quant, asked.runtime, _size(model))
        if item.corpus in near and alike and _same_settings(cell.record.setting("quant") or {}, item):
            yield item


def _is_of(dataset: str, corpus: Corpus, splits: Iterable[str]) -> bool:
    named = any(fnmatchcase(dataset, name) for name in corpus.names)
    return named and any(name in split.names for name in splits for split in corpus.splits.values())


def _size(model: str) -> str:
    return model.removesuffix("_en")


def _distance(cell: CellSummary, item: Figures) -> tuple[bool, bool]:
    return item.model != cell.record.setting("model.name"), item.device != cell.settings.device


def _same_settings(quant: Mapping[str, Any], item: Figures) -> bool:
    """Whether the quantizer's settings are the option's, or those of the source; older records lack newer keys."""
    if item.quant in (None, "none"):
        return item.quant == "none"
    expected = {**option("quant", str(item.quant)), **item.settings}
    return all(quant[key] == expected.get(key) for key in quant if key not in _CHANGES_NO_FIGURE)


def _flat(item: Figures, published: Published) -> Iterator[Figure]:
    rest = item, published.sources[item.source], published.corpora[item.corpus]
    for metric, by_split in (("wer", item.wer), ("cer", item.cer)):
        for split, value in by_split.items():
            yield Figure(metric, value, split, *rest)
    for metric, value in item.other.items():
        yield Figure(metric, value, None, *rest)


def measured_split(cell: CellSummary, figure: Figure) -> str | None:
    """The cell's name of the figure's split; None if the cell did not decode it."""
    names = figure.corpus.splits[figure.split].names if figure.split is not None else ()
    hub = cell.record.setting("dataset.hub_splits") or {}
    return next((name for name in cell.splits if name in names and _is_test(hub.get(name) or {})), None)


def _is_test(hub: Mapping[str, Any]) -> bool:
    """Whether a split is read from the hub's test split, and not from a validation split under another name."""
    return str(hub.get("split") or "test").startswith("test")
