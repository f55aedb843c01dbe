"""ONNX Runtime: Whisper as ONNX graphs, quantized with the library's own tools.

int8 is `quantize_dynamic`: one scale per output channel, activations quantized to 8 bit at every call. int4 is
`MatMulNBits`: blocks of weights in a row share a scale; activations stay floats. Source:
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from quantlab.models.formats.onnx.names import DECODER, ENCODER
from quantlab.quantization.base import why_not_among, why_not_installed
from quantlab.quantization.engine_files import folder_for

if TYPE_CHECKING:
    import torch
    from transformers import WhisperForConditionalGeneration

    from quantlab.config.schema import QuantConfig
    from quantlab.engines import Engine
    from quantlab.models.decoding import Decoding
    from quantlab.quantization.base import Converted

DISTRIBUTIONS = ("onnxruntime", "onnx")
PACKAGES = (*DISTRIBUTIONS, "onnx_ir")  # that are imported
READS = ("bits", "format", "granularity", "group_size", "symmetric")
NO_EMBEDDING = "ONNX Runtime's Gather reads rows of floats here"
NO_WORD_TIMES = "ONNX Runtime's graph of the decoder has no output for its attention"
BLOCKS = (16, 32, 64, 128, 256)  # sizes that MatMulNBits has
DEFAULT_BLOCK = 32


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Check device, packages and settings."""
    if device != "cpu":
        return f"ONNX Runtime runs on the CPU here, not on {device}: set device=cpu"
    missing = (why_not_installed(name, name.replace("_", "-"), "pip install 'quantlab[onnx]'") for name in PACKAGES)
    return next(filter(None, missing), None) or (None if quant.scheme == "none" else _why_no_such_format(quant))


def _why_no_such_format(quant: QuantConfig) -> str | None:
    who = f"ONNX Runtime's {quant.format}"
    int8 = quant.format == "int8"
    return (
        (None if quant.format else "ONNX Runtime needs quant.format, int8 or int4")
        or why_not_among("format", quant.format, ["int8", "int4"], "ONNX Runtime")
        or why_not_among("bits", quant.bits, [8 if int8 else 4], who)
        or why_not_among("scheme", quant.scheme, ["dynamic" if int8 else "weight-only"], who)
        or why_not_among("granularity", quant.granularity, ["per-channel" if int8 else "per-group"], who)
        or why_not_among("group_size", quant.group_size, [] if int8 else BLOCKS, who)
        or why_not_among("symmetric", quant.symmetric, [True] if int8 else [True, False], who)
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
    """Write both graphs, quantize them, load them, and read their tensors for the receipt.

    Raises:
        ConfigError: `decoding` asks for something else than greedy search.
    """
    from quantlab.engines.stepwise import check_greedy
    from quantlab.models.formats.onnx.read import tensors
    from quantlab.quantization.base import Converted
    from quantlab.quantization.graph_tensors import save_quantized

    check_greedy(decoding, "ONNX Runtime")
    with folder_for(keep) as folder:
        files = {file: folder / file for file in (ENCODER, DECODER)}
        linears, others = save_quantized(model, names, files, partial(_quantize, quant), tensors)
        kernels = sorted({held.class_name for name, held in linears.items() if not names or name in names})
        return Converted(
            engine=reload(folder, quant, device, decoding, threads),
            linears=linears,
            others=others,
            kernel=f"ONNX Runtime {', '.join(kernels)}",
        )


def reload(folder: Path, quant: QuantConfig, device: torch.device, decoding: Decoding, threads: int) -> Engine:
    """See `Converter`."""
    from quantlab.engines.onnxruntime import OnnxRuntime
    from quantlab.engines.stepwise import Stepwise

    return Stepwise(OnnxRuntime(folder, threads), decoding)


def _quantize(quant: QuantConfig, plain: Path, products: Collection[str], path: Path) -> None:
    """Quantize these products of a graph, and write it elsewhere."""
    import onnx

    from quantlab.models.formats.onnx.graph import is_large, write

    model = onnx.load(plain)
    if not products:
        write(model, path)
    elif quant.format == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            plain, path, op_types_to_quantize=["MatMul"], nodes_to_quantize=sorted(products), per_channel=True,
            weight_type=QuantType.QInt8, use_external_data_format=is_large(model),
        )  # fmt: skip
    else:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        others = [node.name for node in model.graph.node if node.name not in products]
        quantizer = MatMulNBitsQuantizer(
            model, bits=4, block_size=quant.group_size or DEFAULT_BLOCK, is_symmetric=quant.symmetric is True,
            nodes_to_exclude=others,
        )  # fmt: skip
        quantizer.process()
        write(quantizer.model.model, path)
