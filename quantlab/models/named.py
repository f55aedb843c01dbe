"""Whether a checkpoint of the user's has the shape of the published model whose name it is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantlab.config import options
from quantlab.config.schema import ModelConfig
from quantlab.models.folder import SHAPE, config_of, whisper_config
from quantlab.util.errors import CheckpointError


def check_name(model: ModelConfig, folder: Path) -> None:
    """Refuse a checkpoint that is not the published model of its name, as its figures would be taken for that model's.

    A vocabulary that no published model of this shape has is no reason: a fine-tuned model may have more tokens.
    Published figures are not compared with it, see `quantlab.report.reproduced`.

    Args:
        model: which; only names of `conf/model` with a repository on the hub are checked.
        folder: the checkpoint, as a transformers folder.

    Raises:
        CheckpointError: the shape in its config.json is another.
    """
    published = options.option("model", model.name) if model.name in options.names("model") else {}
    if published.get("source") != "hub" or (model.path is None and model.repo == published["repo"]):
        return
    if model.family != "whisper":
        # a config.json may leave out keys that have their default
        given = config_of(folder, model.family)
        expected = {key: value for key, value in _flat(published["config"]).items() if key in _flat(given)}
        found = {key: _flat(given)[key] for key in expected}
    else:
        expected, found = _shape(published["architecture"]), _shape(whisper_config(folder))
    if found == expected:
        return
    alike = [f"model={name}" for name, shape in _shapes().items() if shape == found]
    if found | {"vocab_size": expected.get("vocab_size")} == expected and not alike:
        return
    where = f"model.path={model.path}" if model.path is not None else f"model.repo={model.repo}"
    key = next(key for key in expected if found.get(key) != expected[key])
    raise CheckpointError(
        f"{where} is not {model.name}: its {key} is {found.get(key)}, that of {model.name} {expected[key]}; "
        f"set {' or '.join([*alike, 'a name of its own, model.name=NAME'])}"
    )


def _flat(config: Mapping[str, Any], parents: str = "") -> dict[str, Any]:
    """The keys of a config.json with those of its parts, such as `encoder_config.hidden_size`."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= _flat(value, f"{parents}{key}.") if isinstance(value, dict) else {f"{parents}{key}": value}
    return found


def _shapes() -> dict[str, dict[str, Any]]:
    """Name → shape of every published model."""
    found = {name: options.option("model", name) for name in options.names("model")}
    return {
        name: _flat(option["config"]) if option["config"] else _shape(option["architecture"])
        for name, option in found.items()
        if option["source"] == "hub"
    }


def _shape(of: Mapping[str, Any]) -> dict[str, Any]:
    """The shape in a config.json or an `architecture`, under the keys of the former."""
    return {key: of[key] if key in of else of[field] for key, field in SHAPE.items()}
