"""Quantized model without weights: modules made by the quantization library, to be filled with tensors.

Each Linear to be quantized is created alone, filled with zeros, and passed to the library's own `setup`. So a file
determines only the values of tensors; the modules and their computation come from the library's code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from quantlab.export.manifest import Manifest
from quantlab.models.folder import check_config, some
from quantlab.models.kinds import KINDS
from quantlab.quantization import registry
from quantlab.quantization.adapters import add_adapters
from quantlab.quantization.base import Pass, layer_of
from quantlab.quantization.portable import Remembers
from quantlab.quantization.recipe import of_module
from quantlab.quantization.select import replace
from quantlab.util.errors import ExportError


def on_meta(folder: Path) -> Any:
    """The architecture of the folder's config.json on the meta device, with its generation config.

    Raises:
        ConfigError: not a model that quantlab measures.
    """
    from transformers import AutoConfig, GenerationConfig

    kind = KINDS[check_config(folder)["model_type"]]
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"), _NoInitialisation():
        model = kind.model_class(config)
    model.tie_weights()
    if kind.family != "ctc":
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model.eval()


class _NoInitialisation(TorchFunctionMode):
    """Within the block, the functions of torch.nn.init do nothing; on the meta device they import torch's compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return options["tensor"] if "tensor" in options else args[0]
        return func(*args, **options)


def check_modules(model: nn.Module, manifest: Manifest) -> None:
    """Refuse names that are not Linear modules of the model.

    Raises:
        ExportError: names the wrong ones.
    """
    linears = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if strange := (set(manifest.modules) | manifest.traits.keys()) - linears:
        raise ExportError(f"the manifest names modules that are no Linear of this model: {some(strange)}")


def quantize_empty(model: nn.Module, manifest: Manifest, device: torch.device) -> None:
    """Replace the modules that the manifest names by the library's quantized modules, in place.

    Args:
        model: result of `on_meta`, passed by `check_modules`.
        manifest: names the modules and the quantizer.
        device: device of the library's modules.
    """
    quantizer = registry.get(manifest.quant.library)
    layer = layer_of(quantizer)
    maker = registry.get(getattr(quantizer, "EMPTY", manifest.quant.library))
    assert not registry.has_own_engine(quantizer)  # see read
    assert not registry.converts(maker)
    assert not registry.loads(maker)
    dtype = getattr(torch, manifest.dtype or "float32")
    for name in manifest.modules:
        alone = _only_module(name, _zeros(model.get_submodule(name), dtype))
        made = maker.setup(alone, of_module(manifest.quant, name), (name,), device, _Dummy(name)).get_submodule(name)
        if isinstance(layer, Remembers):
            layer.adopt(made, manifest.traits.get(name, {}))
        replace(model, name, made)
    if manifest.quant.recover == "lora":
        add_adapters(model, manifest.modules, manifest.quant.lora_rank)


def _zeros(linear: Any, dtype: torch.dtype) -> nn.Linear:
    """A Linear of zeros, which libraries quantize fastest: HQQ's optimisation stops at once."""
    bias = linear.bias is not None
    made = nn.utils.skip_init(nn.Linear, linear.in_features, linear.out_features, bias=bias, dtype=dtype)
    for parameter in made.parameters():
        nn.init.zeros_(parameter)
    return made


def _only_module(name: str, linear: nn.Linear) -> nn.Module:
    """A model that contains only this module, at its dotted name."""
    *parents, last = name.split(".")
    root = at = nn.Module()
    for parent in parents:
        at.add_module(parent, below := nn.Module())
        at = below
    at.add_module(last, linear)
    return root.eval()


@dataclass(frozen=True)
class _Dummy:
    """Calibration for static schemes with arbitrary input, as the scales come from the file."""

    name: str

    def __call__(self, model: nn.Module) -> None:
        module: Any = model.get_submodule(self.name)
        with torch.no_grad():
            module(torch.ones(1, module.in_features, dtype=module.weight.dtype, device=module.weight.device))

    def passes(self, block: object = None) -> Iterator[Pass]:
        yield self
