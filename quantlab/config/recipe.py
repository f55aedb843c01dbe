"""Recipes: YAML files that say in how many bits each module is stored.

    method: gptq        # rtn, hqq or gptq, for all
    group_size: 64      # weights that share one scale
    modules:            # every Linear once, by name or glob; none: it stays in floats
      model.encoder.*: 4
      model.decoder.*: 3
      proj_out: none

With `method: gptq`, `act_order` and `damping` may be given too. A recipe is read while the command line is composed,
and becomes part of the configuration, so that a record, a job and an export hold its content and need no file.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from quantlab.config.explain import explained
from quantlab.config.options import option
from quantlab.config.part import Part
from quantlab.config.quant import CALIBRATED, RECIPE
from quantlab.config.types import Count, Method
from quantlab.util.errors import ConfigError, shortened
from quantlab.util.files import NOTE_BYTES, read_bytes

NONE = "none"  # of a module that is not quantized
_NEXT = "quantlab allocate writes one"  # a recipe
_LIKE = "gptq_int4"  # whose act_order and damping are those of a recipe that gives none


class Recipe(Part):
    """The content of the file."""

    method: Method
    group_size: Count
    act_order: bool | None = None
    damping: float | None = Field(default=None, ge=0, le=10)
    modules: dict[str, float | None]

    @field_validator("modules", mode="before")
    @classmethod
    def _none_is_null(cls, modules: object) -> object:
        if not isinstance(modules, Mapping):
            return modules
        if not modules:
            raise ValueError("modules: it names none: give each Linear module its bits, or none")
        if empty := [name for name, bits in modules.items() if bits is None]:
            raise ValueError(f"{empty[0]}: expected bits, or none")
        return {name: None if bits == NONE else bits for name, bits in modules.items()}

    @model_validator(mode="after")
    def _completed(self) -> Recipe:
        of_gptq = {"act_order": self.act_order, "damping": self.damping}
        if self.method in CALIBRATED:
            for key, value in of_gptq.items():
                object.__setattr__(self, key, option("quant", _LIKE)[key] if value is None else value)
        elif given := [key for key, value in of_gptq.items() if value is not None]:
            raise ValueError(f"{', '.join(given)}: only method: gptq reads it")
        return self


_REQUIRED = [key for key, field in Recipe.model_fields.items() if field.is_required()]


class _Loader(yaml.SafeLoader):
    """As SafeLoader, but a key that is given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in found:
                raise ConfigError(f"line {key_node.start_mark.line + 1}: {key} is given twice")
            found[key] = self.construct_object(value_node, deep=True)
        return found


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _Loader.construct_mapping)


def read(path: str) -> Recipe:
    """Read a recipe.

    Raises:
        ConfigError: the file cannot be read, or is no recipe; one line that names it.
    """
    where = f"quant.path={shortened(path)}"
    raw = _content(path, where)
    if not isinstance(raw, Mapping):
        got = "it is empty" if raw is None else f"it holds {shortened(raw)}"
        raise ConfigError(f"{where} is no recipe: {got}; expected the keys {', '.join(_REQUIRED)}; {_NEXT}")
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{where} is no recipe: {explained(error, Recipe)[0]}; correct it: {_NEXT}") from None


def _content(path: str, where: str) -> object:
    try:
        return yaml.load(read_bytes(Path(path).expanduser(), NOTE_BYTES).decode(), _Loader)
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror or error}; give a recipe: {_NEXT}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{where} is not a text in UTF-8; give a recipe: {_NEXT}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())}; correct it: {_NEXT}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}: give each once") from None


def with_recipe(point: Mapping[str, Any]) -> Mapping[str, Any]:
    """A composed point with the content of its recipe in `quant`; unchanged for other quantizers.

    Raises:
        ConfigError: `quant.path` is missing or no recipe, or another key of `quant` contradicts it.
    """
    quant = point.get("quant")
    if not isinstance(quant, Mapping) or quant.get("library") != RECIPE:
        return point
    path = quant.get("path")
    if path is None and quant.get("modules"):
        return point
    if not isinstance(path, str):
        raise ConfigError(f"quant={quant.get('name')}: set quant.path=FILE, a recipe, which quantlab allocate writes")
    found = read(path).model_dump()
    for key, value in found.items():
        if quant.get(key) not in (None, {}, value):
            raise ConfigError(f"quant.{key}={quant[key]}: {path} has {value}: leave the key out, or change the recipe")
    return {**point, "quant": {**quant, **found}}
