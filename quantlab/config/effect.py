"""Refusal of keys that are set but act in no cell of a grid.

A sweep sets a key for all cells, and the baseline or some other cell may not have it (`-m quant=none,hqq_int4
quant.group_size=32`): that is no mistake as long as it acts in one of the cells.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantlab.config.options import BASE, names, option, read
from quantlab.config.part import Part
from quantlab.config.quant import NO_QUANTIZATION_LIBRARY
from quantlab.config.recovery import RecoveryConfig
from quantlab.config.schema import Architecture, RunConfig
from quantlab.config.streaming import READS as STREAMING_READS
from quantlab.config.streaming import StreamingConfig
from quantlab.util.errors import ConfigError, shortened
from quantlab.util.quoting import override
from quantlab.util.resources import shared_dir

_OWN_SOURCES = (
    "shipped",
    "joined",
    "hub",
    "librispeech_dir",
    "manifest",
)  # a reader of another package may read any key


@dataclass(frozen=True)
class _Rule:
    """Keys that act in some settings only."""

    keys: tuple[str, ...]  # dotted
    acts: Callable[[RunConfig], bool]
    needs: str


def _reads_columns(config: RunConfig) -> bool:
    dataset = config.dataset
    return dataset.source in ("hub", "manifest") or (dataset.source == "joined" and dataset.path is not None)


def _streams_by(policy: str, config: RunConfig) -> bool:
    return config.runtime.streaming.policy == policy


_RULES = (
    _Rule(
        ("calibration.fraction",),
        lambda config: (
            config.calibration.source == "disjoint"
            or (config.quant.is_calibrated and config.calibration.source == "eval")
        ),
        "a static scheme, e.g. quant=quanto_int8_static, or calibration.source=disjoint",
    ),
    _Rule(
        ("calibration.path", "calibration.limit"),
        lambda config: config.quant.is_calibrated,
        "a quantizer that it calibrates, e.g. quant=gptq_int4 calibration.source=manifest calibration.path=FILE",
    ),
    _Rule(
        ("calibration.limit",),
        lambda config: config.quant.is_calibrated and config.calibration.source == "manifest",
        "calibration.source=manifest (what other sources take of the evaluated corpus is set by calibration.fraction)",
    ),
    _Rule(
        ("calibration.labels",),
        lambda config: config.quant.reads_labels,
        "a quantizer that reads them, e.g. quant=gptq_int4",
    ),
    _Rule(("quant.lora_rank",), lambda config: config.quant.recover == "lora", "quant.recover=lora"),
    _Rule(
        tuple(f"recovery.{key}" for key in RecoveryConfig.model_fields),
        lambda config: config.quant.recover is not None,
        "quant.recover, e.g. quant=gptq_int3 quant.recover=scales",
    ),
    _Rule(
        ("protocol.rel_ci", "protocol.budget_s", "protocol.residency"),
        lambda config: config.protocol.interleave,
        "protocol=careful",
    ),
    _Rule(
        tuple(f"runtime.streaming.{key}" for key in StreamingConfig.model_fields if key != "policy"),
        lambda config: config.runtime.streaming.policy is not None,
        "runtime=streaming",
    ),
    *(
        _Rule(
            tuple(f"runtime.streaming.{key}" for key in keys if key not in ("chunk_s",)),
            functools.partial(_streams_by, policy),
            f"runtime.streaming.policy={policy}",
        )
        for policy, keys in STREAMING_READS.items()
    ),
    _Rule(("dataset.chunk_overlap_s",), lambda config: config.dataset.long == "chunked", "dataset.long=chunked"),
    _Rule(
        ("dataset.noise.seed",),
        lambda config: config.dataset.noise.kind is not None,
        "noise, e.g. dataset.noise.kind=white dataset.noise.snr_db=10",
    ),
    _Rule(
        ("dataset.keywords",),
        lambda config: config.model.weights != "random",
        "a trained model (random weights output no words)",
    ),
    _Rule(
        ("runtime.word_times",),
        lambda config: config.model.weights != "random",
        "a trained model (random weights output no words)",
    ),
    _Rule(("model.random_tokens",), lambda config: config.model.weights == "random", "model.weights=random"),
    _Rule(
        ("model.architecture",),
        lambda config: config.model.weights == "random" and config.model.path is None,
        "model.weights=random and no model.path",
    ),
    _Rule(
        ("model.config",),
        lambda config: config.model.weights == "random" and config.model.path is None,
        "model.weights=random and no model.path",
    ),
    _Rule(("model.revision",), lambda config: config.model.source == "hub", "a model of the hub, e.g. model=base"),
    _Rule(
        ("dataset.repo", "dataset.revision", "dataset.hub_splits"),
        lambda config: config.dataset.source not in _OWN_SOURCES or config.dataset.source == "hub",
        "a corpus of the hub, e.g. dataset=librispeech",
    ),
    _Rule(
        ("dataset.audio_column", "dataset.text_column", "dataset.speaker_column", "dataset.id_column",
         "dataset.ignored_columns"),
        lambda config: config.dataset.source not in _OWN_SOURCES or _reads_columns(config),
        "a corpus with columns, e.g. dataset=manifest",
    ),
)  # fmt: skip


def refuse_without_effect(points: Sequence[Mapping[str, Any]], configs: Sequence[RunConfig]) -> None:
    """Refuse keys that act in no cell.

    Args:
        points: the composed points of a grid.
        configs: the same points, validated.

    Raises:
        ConfigError: the message names the keys and what they need.
    """
    for rule in _RULES:
        given = [(key, config) for config in configs for key in rule.keys if _is_set(key, config)]
        if given and not any(rule.acts(config) for _, config in given):
            keys = dict.fromkeys(_shown(key, _at(key, config)) for key, config in given)
            raise ConfigError(f"{', '.join(keys)}: no effect without {rule.needs}; leave it out, or set that")
    _refuse_dropped(points, configs)


def _refuse_dropped(points: Sequence[Mapping[str, Any]], configs: Sequence[RunConfig]) -> None:
    """Refuse keys of `quant` that validation has reset, unless another cell of the sweep has them."""
    kept = {(key, _hashable(value)) for config in configs for key, value in config.quant}
    by_name = {(config.quant.name, key, _hashable(value)) for config in configs for key, value in config.quant}
    for point, config in zip(points, configs, strict=True):
        quant = config.quant
        given = {key: _hashable(value) for key, value in point["quant"].items()}
        dropped = {key: value for key, value in given.items() if value != _hashable(getattr(quant, key))}
        if quant.library == NO_QUANTIZATION_LIBRARY:
            dropped = {key: value for key, value in dropped.items() if (key, value) not in kept}
            why = "nothing is quantized, and no key of quant is read"
        elif quant.scheme == "none":
            why = "quant.scheme=none quantizes nothing, and no other key of quant is read"
        elif "path" in dropped:
            dropped = {key: value for key, value in dropped.items() if (key, value) not in kept}
            why = "only quant=recipe reads a recipe"
        else:
            dropped = {key: value for key, value in dropped.items() if (quant.name, key, value) not in by_name}
            why = f"quant.granularity={quant.granularity} has no groups"
        if dropped:
            keys = ", ".join(_shown(f"quant.{key}", value) for key, value in dropped.items())
            raise ConfigError(
                f"{keys}: no effect on quant={quant.name}, as {why}; leave it out, or choose another quantizer"
            )


def _hashable(value: Any) -> Any:
    return tuple(value.items()) if isinstance(value, Mapping) else tuple(value) if isinstance(value, list) else value


def _is_set(key: str, config: RunConfig) -> bool:
    """Whether a key has another value than by default: that of the model, of `conf/base`, or of the schema."""
    value = _at(key, config)
    if key in ("model.architecture", "model.config"):
        return value is not None and value not in _shipped_shapes()  # the name may be the user's own
    return value not in (None, _usual(key), _default(key)) and value not in ({}, ())


@functools.cache
def _usual(key: str) -> Any:
    """The value in `conf/base`, cached since a grid asks for 28 keys of every cell."""
    return read(shared_dir("conf") / BASE / "dataset.yaml").get(key.removeprefix("dataset."))


@functools.cache
def _shipped_shapes() -> list[Architecture | dict[str, Any]]:
    found = [option("model", name) for name in names("model")]
    return [item.get("config") or Architecture.model_validate(item["architecture"]) for item in found]


@functools.cache
def _default(key: str) -> Any:
    *parents, last = key.split(".")
    part: Any = RunConfig
    for name in parents:
        part = part.model_fields[name].annotation
    return part.model_fields[last].default


def _at(key: str, config: RunConfig) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _shown(key: str, value: object) -> str:
    return key if isinstance(value, Part | dict) else shortened(override(key, value)).strip("'")
