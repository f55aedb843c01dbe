"""Unique display names of checkpoints, corpora and cells, the same in every output.

Two cells are comparable only if they decoded the same corpus, and have the same model only if their checkpoint is the
same; both by fingerprint, as names are ambiguous. A name gets the fewest additions that make it unique in a list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import PurePath
from typing import Any, TypeVar

from quantlab.config.schema import RunConfig, cell_label, corpus_label, model_label
from quantlab.records.schema import Record

Key = TypeVar("Key", bound=Hashable)

# Settings of the corpus: name → key of the resolved configuration.
CORPUS_SETTINGS = {
    "limit": "dataset.limit",
    "ids": "dataset.ids",
    "splits": "dataset.splits",
    "language": "dataset.language",
    "channel": "dataset.channel",
    "long": "dataset.long",
}
# Settings that distinguish cells of one model, quantizer and device.
AXES = {
    "weights": "model.weights",
    "runtime": "runtime.name",
    "audio_ctx": "runtime.audio_ctx",
    "dtype": "runtime.dtype",
    "streaming": "runtime.streaming.policy",
    "protocol": "protocol.name",
    "batch_size": "protocol.batch_size",
    "threads": "device.threads",
    "target": "quant.target",
    "bits": "quant.bits",
    "format": "quant.format",
    "granularity": "quant.granularity",
    "group_size": "quant.group_size",
    "symmetric": "quant.symmetric",
    "backend": "quant.backend",
    "embedding": "quant.embedding",
    "seed": "seed",
}
OF_FORMAT = frozenset({"quant.bits", "quant.granularity", "quant.group_size", "quant.symmetric"})  # follow from it
# Keys that change no figure, or that are shown in another way.
_NOT_SHOWN = ("output_dir", "resume", "jobs", "isolate", "timeout_s", "tracking.", "stats.", "export.", "baseline.",
             "model.path", "quant.modules.", "dataset.path", "dataset.licence", "dataset.keywords",
             "dataset.noise.path")  # fmt: skip
_WITHOUT = {
    "splits": "all splits",
    "long": "long audio skipped",
    "ids": "all utterances",
    "symmetric": "symmetric=null",
}  # words for null; otherwise "no limit"
# Keys that are false where an older record lacks them; a setting is named by its key, or by the last part of it.
_FALSE_IF_MISSING = frozenset(
    name
    for group, section in RunConfig.model_fields.items()
    for key, item in getattr(section.annotation, "model_fields", {}).items()
    if item.annotation is bool and item.default is False
    for name in (key, f"{group}.{key}")
)
# Properties of a machine: key of the record's environment → format.
_MACHINE = {"gpu": "{}", "processor": "{}", "usable_cores": "{} cores", "python": "Python {}"}
_DATES = (10, 16, 19)  # characters of an ISO 8601 time up to the day, minute, second
FINGERPRINT = 6  # hex digits shown
ID = 8  # characters of a cell id shown


@dataclass(frozen=True, eq=False)
class Cell:
    """Data for the display name of a cell, taken from a record, the head of a record, or a row of the report."""

    id: str
    config: dict[str, Any]  # resolved
    fingerprints: Mapping[str, str] = field(default_factory=dict)  # empty if the cell failed before they were computed
    normaliser: str = "whisper"
    measured_on: Callable[[], Mapping[str, Any]] = dict  # the record's environment, read only if nothing else differs
    error_unit: str = "word"
    scorer: str = "jiwer"
    created_at: str = ""  # UTC, ISO 8601

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """Environment of the measurement."""
        return self.measured_on()

    def setting(self, key: str) -> Any:
        """The value at a dotted key of the configuration; None if missing."""
        value: Any = self.config
        for part in _parts(key):
            if not isinstance(value, dict):
                return None
            value = value.get(part)
        return value

    @cached_property
    def leaves(self) -> dict[str, Any]:
        """The values of the configuration by dotted key."""
        return dict(_leaves(self.config))

    @cached_property
    def model(self) -> str:
        """Display name of the checkpoint."""
        name, source, path = (self.setting(f"model.{key}") for key in ("name", "source", "path"))
        return model_label(str(name), source, path)

    @cached_property
    def dataset(self) -> str:
        """Display name of the corpus, with its noise."""
        kind, snr_db = (self.setting(f"dataset.noise.{key}") for key in ("kind", "snr_db"))
        return corpus_label(str(self.setting("dataset.name")), kind, snr_db)

    @cached_property
    def corpus(self) -> str:
        """Name of the corpus; for a manifest its file name, as all manifests share one dataset name."""
        path = self.setting("dataset.path")
        named = path if path and self.setting("dataset.source") == "manifest" else None
        return PurePath(str(named)).name if named else str(self.setting("dataset.name"))

    @cached_property
    def corpus_key(self) -> tuple[Hashable, ...]:
        """Key that is equal for cells with comparable error rates: same utterances, decoded and scored alike."""
        kept_out = self.setting("calibration.source") == "disjoint" and self.setting("calibration.fraction")
        how = (str(self.setting(CORPUS_SETTINGS[name])) for name in ("language", "channel", "long"))
        scoring = self.normaliser, self.error_unit, self.scorer
        return self.dataset, self.fingerprints.get("corpus"), *scoring, kept_out, *how

    @cached_property
    def checkpoint_key(self) -> tuple[Hashable, ...]:
        """Key that is equal for cells of one checkpoint."""
        return self.model, self.setting("model.weights"), self.mark("checkpoint")

    def mark(self, part: str) -> str | None:
        """Fingerprint of checkpoint or corpus; for a file as shipped, that of its fp32 model if known."""
        mark = self.fingerprints.get("baseline") if part == "checkpoint" else None
        return mark or self.fingerprints.get(part)

    @property
    def label(self) -> str:
        """Label of the cell alone, as `RunConfig.label`."""
        quant, device, dtype = (self.setting(key) for key in ("quant.name", "device.name", "runtime.dtype"))
        noisy = self.dataset if self.setting("dataset.noise.kind") else None
        return cell_label(self.model, quant, device, dtype, noisy)


@cache
def _parts(key: str) -> tuple[str, ...]:
    """Parts of a dotted key, cached since a report of a thousand cells asks some 300,000 times."""
    return tuple(key.split("."))


def of_record(record: Record) -> Cell:
    """Naming data of a record."""
    return Cell(
        record.cell_id,
        record.config,
        record.fingerprints,
        normaliser=record.normaliser,
        measured_on=lambda: record.environment,
        error_unit=record.error_unit,
        scorer=record.scorer,
        created_at=record.created_at,
    )


def checkpoints(cells: Sequence[Cell]) -> dict[str, str]:
    """Cell id → model; ambiguous names get the file name, or a part of the fingerprint."""
    found: dict[str, str] = {}
    for some in grouped(cells, lambda cell: (cell.model, cell.setting("model.weights"))).values():
        several = len({cell.mark("checkpoint") for cell in some} - {None}) > 1
        named = {cell.id: _with_file(cell) if several else cell.model for cell in some}
        found |= _with_fingerprint(some, "checkpoint", named)
    return found


def _with_file(cell: Cell) -> str:
    """`base (ggml-base.bin)`, if `model.path` adds to the model's name."""
    file = PurePath(str(cell.setting("model.path") or "")).name
    return f"{cell.model} ({file})" if file and file != cell.model else cell.model


def corpora(cells: Sequence[Cell]) -> dict[str, str]:
    """Cell id → corpus; ambiguous names get differing settings (`demo, limit=2`), else the fingerprint."""
    found: dict[str, str] = {}
    for dataset, some in grouped(cells, lambda cell: cell.dataset).items():
        shares = list(grouped(some, lambda cell: cell.corpus_key).values())
        scoring = ("normaliser", "error_unit", "scorer")
        ways = {name: [_values(share, name) for share in shares] for name in ("corpus", *CORPUS_SETTINGS, *scoring)}
        apart = {name: values for name, values in ways.items() if len(set(values)) > 1}
        for index, share in enumerate(shares):
            text = ", ".join((dataset, *(values[index] for values in apart.values())))
            found |= dict.fromkeys((cell.id for cell in share), text)
        found |= _with_fingerprint(some, "corpus", found)
    return found


def _values(cells: Sequence[Cell], name: str) -> str:
    """A setting of the corpus in words; all these cells share it."""
    values = (
        getattr(cell, name) if name not in CORPUS_SETTINGS else cell.setting(CORPUS_SETTINGS[name]) for cell in cells
    )
    return " or ".join(dict.fromkeys(_in_words(name, value) for value in values))


def _with_fingerprint(cells: Sequence[Cell], part: str, named: Mapping[str, str]) -> dict[str, str]:
    """The same names; ambiguous ones get the first digits of the fingerprint."""
    found = {}
    for name, some in grouped(cells, lambda cell: named[cell.id]).items():
        several = len({cell.mark(part) for cell in some} - {None}) > 1
        for cell in some:
            found[cell.id] = f"{name} {short(cell.mark(part))}".strip() if several else name
    return found


def short(mark: str | None) -> str:
    """The first digits of a fingerprint, without its prefix (`sha256:`, or the name of a repository)."""
    return re.split("[:@]", mark or "")[-1][:FINGERPRINT]


def names(cells: Sequence[Cell]) -> dict[str, str]:
    """Cell id → label, with as many further settings as needed to be unique among these cells."""
    models = checkpoints(cells)
    return made_unique(cells, {cell.id: models[cell.id] + cell.label.removeprefix(cell.model) for cell in cells})


def made_unique(cells: Sequence[Cell], named: Mapping[str, str]) -> dict[str, str]:
    """The same names, made unique by differing settings: `hqq_int4 (group_size=32)`."""
    apart = differences(cells, named)
    return {id: f"{name} ({', '.join(apart[id])})" if apart.get(id) else name for id, name in named.items()}


def differences(cells: Sequence[Cell], looks: Mapping[str, Hashable]) -> dict[str, list[str]]:
    """Cell id → what distinguishes it from cells that look the same; empty if it looks unique."""
    found: dict[str, list[str]] = {}
    for alike in grouped(cells, lambda cell: looks[cell.id]).values():
        found |= _differences(alike) if len(alike) > 1 else {alike[0].id: []}
    return found


def _differences(alike: Sequence[Cell]) -> dict[str, list[str]]:
    """Cell id → distinguishing settings: all common settings that differ, and as few others as needed.

    If no setting differs: machine, library versions, date, and finally the id.
    """
    parts_of: dict[str, list[str]] = {cell.id: [] for cell in alike}
    for shown in (_corpus_names(alike), *_axis_settings(alike)):
        _add(parts_of, shown, always=True)
    others = (shown for rest in (_other_settings, _environment_facts, _dates_and_ids) for shown in rest(alike))
    # The next is asked for only if it is needed, as the environment is read from the whole record.
    while len(set(map(tuple, parts_of.values()))) < len(alike) and (more := next(others, None)) is not None:
        _add(parts_of, more)
    return parts_of


def _add(parts_of: dict[str, list[str]], shown: Mapping[str, str], always: bool = False) -> None:
    """Add a setting that differs, if `always`, or if it distinguishes cells that were still equal."""
    before = {tuple(parts) for parts in parts_of.values()}
    after = {(*parts, shown[cell_id]) for cell_id, parts in parts_of.items()}
    if len(set(shown.values())) > 1 and (always or len(after) > len(before)):
        for cell_id, parts in parts_of.items():
            parts += [shown[cell_id]] if shown[cell_id] else []


def _corpus_names(alike: Sequence[Cell]) -> dict[str, str]:
    """Names of the corpora, without the part that all share."""
    shown = corpora(alike)
    shared = {cell.dataset for cell in alike}
    if len(shared) == 1:
        shown = {cell_id: text.removeprefix(shared.copy().pop()).strip(", ") for cell_id, text in shown.items()}
    return shown


def _axis_settings(alike: Sequence[Cell]) -> Iterator[dict[str, str]]:
    for name, key in AXES.items():
        values = {cell.id: cell.setting(key) for cell in alike}
        if _differ(values) and not (key in OF_FORMAT and _follows_format(alike, key)):
            yield {cell_id: _in_words(name, value) for cell_id, value in values.items()}


def _differ(values: Mapping[str, Any]) -> bool:
    """Whether there are several values, of which some may be the same in words."""
    first, *others = values.values()
    return any(other != first or type(other) is not type(first) for other in others)


def _follows_format(alike: Sequence[Cell], key: str) -> bool:
    """Whether the formats differ and determine this setting, so that it need not be shown."""
    formats = {cell.setting("quant.format") for cell in alike}
    return len({(cell.setting("quant.format"), cell.setting(key)) for cell in alike}) == len(formats) > 1


def _other_settings(alike: Sequence[Cell]) -> Iterator[dict[str, str]]:
    """All other settings."""
    leaves = {cell.id: cell.leaves for cell in alike}
    for key in dict.fromkeys(key for found in leaves.values() for key in found):
        values = {cell_id: found.get(key) for cell_id, found in leaves.items()}
        if key not in AXES.values() and not key.startswith(_NOT_SHOWN) and _differ(values):
            yield {cell_id: _in_words(key, value) for cell_id, value in values.items()}


def _environment_facts(alike: Sequence[Cell]) -> Iterator[dict[str, str]]:
    """Machine and library versions, as far as every record has them."""
    found = {cell.id: {**_machine_facts(cell.environment), **_versions(cell.environment)} for cell in alike}
    for key in next(iter(found.values())):
        if all(key in facts for facts in found.values()):
            yield {cell_id: facts[key] for cell_id, facts in found.items()}


def _machine_facts(environment: Mapping[str, Any]) -> dict[str, str]:
    return {key: form.format(environment[key]) for key, form in _MACHINE.items() if environment.get(key) is not None}


def _versions(environment: Mapping[str, Any]) -> dict[str, str]:
    versions = environment.get("versions")
    return (
        {f"version of {name}": f"{name} {version}" for name, version in versions.items()}
        if isinstance(versions, dict)
        else {}
    )


def _dates_and_ids(alike: Sequence[Cell]) -> Iterator[dict[str, str]]:
    """Dates, as precise as needed to be unique; then ids."""
    exact = len({cell.created_at for cell in alike})
    length = next(
        (length for length in _DATES if len({cell.created_at[:length] for cell in alike}) == exact), _DATES[-1]
    )
    yield {cell.id: cell.created_at[:length].replace("T", " ") for cell in alike}
    yield {cell.id: cell.id[:ID] for cell in alike}


def _leaves(part: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in part.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _in_words(name: str, value: object) -> str:
    """A setting in words: `limit=3`, `bits=8`, `no limit`, `symmetric=false`."""
    if value is None:
        return f"{name}=false" if name in _FALSE_IF_MISSING else _WITHOUT.get(name, f"no {name}")
    if isinstance(value, bool):
        return f"{name}={str(value).lower()}"
    if isinstance(value, float):
        return f"{name}={value:.15g}"
    return f"{name}={'+'.join(map(str, value)) if isinstance(value, list | tuple) else value}"


def grouped(cells: Sequence[Cell], key: Callable[[Cell], Key]) -> dict[Key, list[Cell]]:
    """Group cells by a key, in their order."""
    found: dict[Key, list[Cell]] = {}
    for cell in cells:
        found.setdefault(key(cell), []).append(cell)
    return found
