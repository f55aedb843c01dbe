"""Cells that are exported: which there are, and how small."""

import functools
from pathlib import Path

from quantlab.config.compose import compose
from quantlab.config.options import names, option
from quantlab.config.quant import CALIBRATED
from quantlab.config.schema import ExportConfig, QuantConfig
from quantlab.quantization import registry

ROOT = Path(__file__).resolve().parents[2]
FEW = (
    "device=cpu device.threads=1 device.pin=false dataset.limit=2 dataset.splits=[other] protocol=quick tracking=off"
).split()


# Nothing of an export tells these from others of their library: the same code writes and reads another number of bits.
ALIKE = set(
    "bnb_fp4 ct2_int8_float32 ggml_q4_1 ggml_q5_0 ggml_q5_1 hqq_int8 hqq_int2 hqq_int1 quanto_int2 quanto_fp8 "
    "rtn_int8 rtn_int4 rtn_int2 gptq_int4 gptq_int2 awq_int4".split()
)


def on_cpu():
    """The files of conf/quant that run on a CPU, but for ALIKE; k-quants do not fit nano, a file is no export, and a
    recipe needs its file.
    """
    found = {name: parsed(name) for name in names("quant")}
    return [
        name
        for name, quant in found.items()
        if name not in ALIKE
        and not name.endswith("_k")
        and name != "recipe"  # see tests/quantizers/test_recipe.py
        and not registry.loads(registry.get(quant.library))
        and registry.get(quant.library).why_unsupported(quant, "cpu") is None
    ]


@functools.cache
def composed(*more):
    """Hydra takes as long as quantizing the model does."""
    [config] = compose([*FEW, *more])
    return config


def configure(name, directory, *more):
    """The cell of a file of conf/quant that is exported to `directory`."""
    calibration = ["calibration.source=disjoint"] if parsed(name).library in CALIBRATED else []
    return composed(*calibration, *more).model_copy(
        update={"quant": parsed(name), "export": ExportConfig(dir=str(directory))},
    )


def parsed(name):
    return QuantConfig.model_validate(option("quant", name))
