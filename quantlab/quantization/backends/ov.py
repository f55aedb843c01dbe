"""OpenVINO: Whisper as ONNX graphs, whose weights NNCF compresses, decoded by OpenVINO's runtime.

int8 has one scale per output channel, int4 one per group of weights in a row. With quant.scheme=dynamic, the CPU
plugin's default, activations are quantized to 8 bit in groups at every product; with weight-only, products are in
fp32. Source: https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/weight-compression.html
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.models.formats.onnx.names import DECODER, ENCODER
from quantlab.quantization.base import why_not_among, why_not_installed
from quantlab.quantization.engine_files import folder_for
from quantlab.util.errors import UnsupportedError

if TYPE_CHECKING:
    import torch
    from transformers import WhisperForConditionalGeneration

    from quantlab.config.schema import QuantConfig
    from quantlab.engines import Engine
    from quantlab.models.decoding import Decoding
    from quantlab.quantization.base import Converted

DISTRIBUTIONS = ("openvino", "nncf", "onnx")
READS = ("bits", "format", "granularity", "group_size", "symmetric")
NO_EMBEDDING = "OpenVINO reads rows of floats here"
NO_WORD_TIMES = "OpenVINO's graph of the decoder has no output for its attention"
FILES = {ENCODER: "encoder.xml", DECODER: "decoder.xml"}  # weights are in .bin beside them
DEFAULT_GROUP = 32
ACTIVATIONS = 32  # that share a scale, the plugin's default


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Check device, packages and settings."""
    if device != "cpu":
        return f"OpenVINO runs on the CPU here, not on {device}: set device=cpu"
    missing = (why_not_installed(name, name, "pip install 'quantlab[openvino]'") for name in DISTRIBUTIONS)
    return next(filter(None, missing), None) or (None if quant.scheme == "none" else _why_no_such_format(quant))


def _why_no_such_format(quant: QuantConfig) -> str | None:
    who = f"OpenVINO's {quant.format}"
    int8 = quant.format == "int8"
    return (
        (None if quant.format else "OpenVINO needs quant.format, int8 or int4")
        or why_not_among("format", quant.format, ["int8", "int4"], "OpenVINO")
        or why_not_among("bits", quant.bits, [8 if int8 else 4], who)
        or why_not_among("scheme", quant.scheme, ["weight-only", "dynamic"], who)
        or why_not_among("granularity", quant.granularity, ["per-channel" if int8 else "per-group"], who)
        or (why_not_among("group_size", quant.group_size, [], who) if int8 else None)
    )


def convert(
    model: WhisperForConditionalGeneration,
    quant: QuantConfig,
    names: tuple[str, ...],
    device: torch.device,
    decoding: Decoding,
    threads: int,
    keep: Path | None = None,
) -> Converted:
    """Write both graphs, compress their weights, load them, and read their tensors for the receipt.

    Raises:
        ConfigError: `decoding` asks for something else than greedy search.
        UnsupportedError: NNCF cannot compress a matrix so.
    """
    from quantlab.engines.stepwise import check_greedy
    from quantlab.models.formats.openvino import tensors
    from quantlab.quantization.base import Converted
    from quantlab.quantization.graph_tensors import save_quantized

    check_greedy(decoding, "OpenVINO")
    with folder_for(keep) as folder:
        files = {graph: folder / file for graph, file in FILES.items()}
        linears, others = save_quantized(model, names, files, partial(_compress, quant), tensors)
        graphs = _load(folder, quant, threads)
        return Converted(
            engine=_engine(graphs, decoding),
            linears=linears,
            others=others,
            kernel=f"OpenVINO {', '.join(graphs.kernels)}",
        )


def reload(folder: Path, quant: QuantConfig, device: torch.device, decoding: Decoding, threads: int) -> Engine:
    """See `Converter`."""
    return _engine(_load(folder, quant, threads), decoding)


def _engine(graphs: Any, decoding: Decoding) -> Engine:
    from quantlab.engines.stepwise import Stepwise

    return Stepwise(graphs, decoding)


def _load(folder: Path, quant: QuantConfig, threads: int) -> Any:
    from quantlab.engines.openvino import OpenVino

    group = ACTIVATIONS if quant.scheme == "dynamic" else 0
    return OpenVino(folder / FILES[ENCODER], folder / FILES[DECODER], threads, group)


def _compress(quant: QuantConfig, plain: Path, products: Collection[str], path: Path) -> None:
    """Compress the weights of these products of a graph, and write it elsewhere."""
    from quantlab.models.formats.openvino import library

    openvino = library()
    graph = openvino.Core().read_model(plain)
    if products:
        import nncf

        asymmetric = quant.symmetric is False
        options: dict[str, Any] = {"mode": nncf.CompressWeightsMode[f"{quant.format}_{'A' * asymmetric}SYM".upper()]}
        if quant.format == "int4":
            options |= {"group_size": quant.group_size or DEFAULT_GROUP, "ratio": 1.0, "all_layers": True}
        others = [node.get_friendly_name() for node in graph.get_ordered_ops() if _is_other(node, products)]
        try:
            graph = nncf.compress_weights(graph, ignored_scope=nncf.IgnoredScope(names=others), **options)
        except (nncf.InvalidGroupSizeError, nncf.UnsupportedModelError) as error:
            why = f"in groups of {options.get('group_size')}: rows of all matrices must be whole groups"
            raise UnsupportedError(f"NNCF cannot compress the {plain.stem} {why}; set quant.group_size") from error
    openvino.save_model(graph, path, compress_to_fp16=False)


def _is_other(node: Any, products: Collection[str]) -> bool:
    """Whether NNCF would compress the weight of a node that is to stay in fp32."""
    has_weight = node.get_type_name() in ("MatMul", "Gather", "Convolution")
    return has_weight and node.get_friendly_name().partition("/")[0] not in products
