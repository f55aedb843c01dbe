"""What measure.py brings home, checked against the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator

from quantlab.bundle.layout import MEASURED, BundleFile, FileName, read_json
from quantlab.bundle.measure import DEVICE, TAKEN, needed_by
from quantlab.records.part import Count, Divisor, Figure, Part
from quantlab.records.shape import check_plain
from quantlab.util.errors import ConfigError, shortened

WHAT = "what measure.py of a bundle wrote"
Version = Annotated[str, StringConstraints(max_length=100)]


class Call(Part):
    """One clip decoded."""

    clip: Count
    elapsed_s: Divisor
    tokens: Annotated[tuple[Count, ...], Field(max_length=100_000)]


class Interference(Part):
    """What else the cores did meanwhile; null if the system does not tell."""

    available_s: Figure
    steal_s: Figure | None
    other_s: Figure | None
    frequency_mhz: tuple[Figure, Figure] | None


class Environment(Part):
    """Hardware and versions."""

    python: str
    platform: str
    machine: str
    versions: dict[str, Version]
    processor: str
    usable_cores: Count
    affinity: tuple[Count, ...]
    memory_bytes: Count | None
    governor: str | None
    max_frequency_mhz: Figure | None
    load_average: tuple[Figure, ...]
    temperature_c: float | None
    threads: Annotated[int, Field(gt=0, le=4096)]

    @field_validator("temperature_c")
    @classmethod
    def _is_plain(cls, value: float | None) -> float | None:
        check_plain(value, "temperature_c")
        return value


class Turn(Part):
    """One process: a model loaded, and all clips decoded once."""

    model: Count
    round: Count | None  # null: the first pass
    files: dict[FileName, str]  # that it read → SHA-256
    load_s: Figure
    features_s: Figure
    first_s: Figure | None
    warm_up_s: Figure
    peak_memory_bytes: Count | None
    calls: tuple[Call, ...]
    noise: Interference
    environment: Environment


class MeasuredFile(Part):
    """Content of measured/<device>.json."""

    format: Literal["quantlab measured"]
    version: Literal[1]
    bundle: str  # digest
    device: str
    rounds: Annotated[int, Field(ge=0, le=10_000)]
    created_at: str
    turns: tuple[Turn, ...]

    @field_validator("device")
    @classmethod
    def _is_a_name(cls, device: str) -> str:
        if not DEVICE.fullmatch(device) or device.lower() in TAKEN:
            raise ValueError(f"{shortened(device)} cannot be the name of a device")
        return device


def read_measured(path: Path, bundle: BundleFile) -> MeasuredFile:
    """Read a result, and check that it is of this bundle, with all models and clips as they were bundled.

    Raises:
        ConfigError: the message says what differs.
    """
    found = read_json(MeasuredFile, path, WHAT)
    if found.bundle != bundle.own:
        raise ConfigError(
            f"{path} was measured with bundle {shortened(found.bundle[:8])}, this one is {str(bundle.own)[:8]}: put it "
            f"into {MEASURED}/ of the bundle that it was measured with"
        )
    plain: dict[str, Any] = bundle.model_dump(mode="json")
    for turn in found.turns:
        if turn.model >= len(bundle.models):
            raise ConfigError(f"{path}: a turn of model {turn.model}, and the bundle has {len(bundle.models)}")
        expected = {name: bundle.files[name] for name in needed_by(plain, turn.model)}
        if other := sorted(name for name in expected.keys() | turn.files.keys() if _differ(expected, turn.files, name)):
            raise ConfigError(
                f"{path}: {other[0]} was not as it was bundled when it was measured (SHA-256): copy the bundle again, "
                "and measure again"
            )
        if [call.clip for call in turn.calls] != list(range(len(bundle.clips))):
            raise ConfigError(f"{path}: a turn of {bundle.models[turn.model].label} lacks clips: measure again")
    _check_turns(path, found, len(bundle.models))
    return found


def _differ(expected: dict[str, str], found: dict[str, str], name: str) -> bool:
    return expected.get(name) != found.get(name)


def _check_turns(path: Path, found: MeasuredFile, models: int) -> None:
    """Check that every model has one turn in the first pass and two in each round, all with the same settings."""
    expected = sorted([(-1, number) for number in range(models)] + [
        (round, number) for round in range(found.rounds) for number in range(models) for _ in range(2)
    ])  # fmt: skip
    turns = sorted((-1 if turn.round is None else turn.round, turn.model) for turn in found.turns)
    if turns != expected:
        raise ConfigError(f"{path}: its turns are not those of {found.rounds} rounds: measure again")
    if len({(turn.environment.threads, str(turn.environment.versions)) for turn in found.turns}) > 1:
        raise ConfigError(f"{path}: threads or versions changed between its turns: measure again")


def results_in(folder: Path) -> list[Path]:
    """The results that lie in a bundle's folder.

    Raises:
        ConfigError: there is none.
    """
    found = sorted((folder / MEASURED).glob("[!.]*.json"))
    if not found:
        raise ConfigError(
            f"{folder} is a bundle without results: put measured/<device>.json of the machine into {folder / MEASURED}"
        )
    return found
