"""Loading of an exported folder; checks the manifest first, then every tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from quantlab.export import manifest as manifests
from quantlab.export.imports import quick_imports
from quantlab.export.manifest import WEIGHTS, Manifest
from quantlab.export.own_engine import OwnEngine
from quantlab.export.skeleton import check_modules, on_meta, quantize_empty
from quantlab.models.folder import check_config, some
from quantlab.quantization import embedding, registry
from quantlab.quantization.portable import fill, layout, plain
from quantlab.quantization.tensors import leaves
from quantlab.util.errors import ConfigError, ExportError
from quantlab.util.machine import usable_cores, why_no_device


def load_folder(folder: Path) -> tuple[Any, Any]:
    """Load model and processor; see `quantlab.export.load`."""
    found = manifests.read(folder)
    with _named(folder), quick_imports():
        return _load(folder, found)


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Turn errors of libraries within the block into ExportErrors that name the folder."""
    try:
        yield
    except (ExportError, ConfigError, MemoryError):
        raise
    except Exception as error:
        raise ExportError(f"{folder} cannot be loaded: {type(error).__name__}: {error}") from error


def _load(folder: Path, found: Manifest) -> tuple[Any, Any]:
    quantizer = registry.get(found.quant.library)
    if registry.loads(quantizer):
        raise ExportError(f"{folder} is not an export: its manifest says quant.library={found.quant.library}")
    if why := (
        why_no_device(found.device)
        or quantizer.why_unsupported(found.quant, found.device)
        or registry.why_no_embedding(quantizer, found.quant)
    ):
        raise ConfigError(f"{folder} cannot be used here: {why}")
    device = torch.device(found.device)
    if registry.converts(quantizer):
        engine = quantizer.reload(folder, found.quant, device, found.decoding, usable_cores())
        return OwnEngine(engine), processor_of(folder, found)
    return model_of(folder, found), processor_of(folder, found)


def processor_of(folder: Path, found: Manifest) -> Any:
    """Processor with feature extractor and tokenizer, or the feature extractor alone if there is no tokenizer.

    Other engines run Whisper only, and a config.json beside their files may be their own.
    """
    from transformers import AutoFeatureExtractor, AutoTokenizer, Wav2Vec2Processor, WhisperProcessor

    def read(made: Any) -> Any:
        return made.from_pretrained(folder, local_files_only=True, trust_remote_code=False)

    if not {"tokenizer.json", "vocab.json"} & set(found.files):
        return read(AutoFeatureExtractor)
    if registry.has_own_engine(registry.get(found.quant.library)) or check_config(folder)["model_type"] == "whisper":
        return read(WhisperProcessor)
    return Wav2Vec2Processor(read(AutoFeatureExtractor), read(AutoTokenizer))


def model_of(folder: Path, found: Manifest) -> Any:
    """Build a model of transformers from the folder's tensors.

    Raises:
        ExportError: tensors are missing, extra, or differ from the manifest or the library's layout; names them.
    """
    device = torch.device(found.device)
    values = _tensors(folder / WEIGHTS, found)
    model = on_meta(folder)
    check_modules(model, found)
    quantizer = registry.get(found.quant.library)
    if found.quant.embedding:
        embedding.share(model, quantizer)
    _check_rest(folder, model, found, values)  # before memory is allocated for the other tensors
    quantize_empty(model, found, device)
    _check_quantized(folder, model, found, values)
    fill(model, values, device)
    if missed := [name for name, leaf in leaves(model).items() if isinstance(leaf, torch.Tensor) and leaf.is_meta]:
        raise ExportError(f"{folder} cannot be loaded: it has no values for {some(missed)}")
    return model


def _tensors(path: Path, found: Manifest) -> dict[str, torch.Tensor]:
    """The tensors of a file on the CPU, checked against the manifest."""
    try:
        values = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from None
    _compare(path.parent, found.tensors, {name: layout(tensor) for name, tensor in values.items()})
    return values


def _check_rest(folder: Path, model: nn.Module, found: Manifest, values: Mapping[str, torch.Tensor]) -> None:
    """Check unquantized tensors: floats of the architecture's shapes, in the dtype that was measured."""

    def shape(tensor: torch.Tensor) -> str:
        return f"float {list(tensor.shape)}" if tensor.is_floating_point() else layout(tensor)

    _, expected = _split_tensors(plain(leaves(model)), found)
    _, given = _split_tensors(values, found)
    _compare(
        folder,
        {name: shape(tensor) for name, tensor in expected.items()},
        {name: shape(tensor) for name, tensor in given.items()},
    )


def _check_quantized(folder: Path, model: nn.Module, found: Manifest, values: Mapping[str, torch.Tensor]) -> None:
    """Check quantized tensors: exactly those that the library has for modules of these shapes."""
    expected, _ = _split_tensors(plain(leaves(model)), found)
    given, _ = _split_tensors(values, found)
    _compare(
        folder,
        {name: layout(tensor) for name, tensor in expected.items()},
        {name: layout(tensor) for name, tensor in given.items()},
    )


def _split_tensors(
    tensors: Mapping[str, torch.Tensor], found: Manifest
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Split tensors into those of quantized modules and the others."""
    inside = tuple(f"{name}." for name in found.modules)
    quantized = {name: tensor for name, tensor in tensors.items() if name.startswith(inside)}
    return quantized, {name: tensor for name, tensor in tensors.items() if name not in quantized}


def _compare(folder: Path, expected: Mapping[str, str], given: Mapping[str, str]) -> None:
    """Compare names, dtypes and shapes.

    Raises:
        ExportError: what differs.
    """
    other = [
        f"{name} ({given[name]}, expected {expected[name]})"
        for name in expected.keys() & given.keys()
        if given[name] != expected[name]
    ]
    found = {
        "lacks": expected.keys() - given.keys(),
        "has extra tensors:": given.keys() - expected.keys(),
        "has tensors of another type or shape:": other,
    }
    if wrong := [f"{what} {some(names)}" for what, names in found.items() if names]:
        raise ExportError(f"{folder} does not hold this model: it {'; it '.join(wrong)}")
