"""Imports of the fork server, which every cell's process inherits. No operator runs here.

CUDA must not be called either, since it cannot be used after a fork. transformers imports torchao, which queries the
GPU, so with a driver each cell's process imports it itself.
"""

import contextlib
import logging

from quantlab.util.machine import has_cuda_driver

logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)  # torchao 0.18 uses an API that torch 2.15 deprecates

import quantlab.measurement.cell  # noqa: E402, F401

with contextlib.suppress(ImportError):  # an extra, whose import takes half a second
    import zeus.device.cpu.rapl  # noqa: F401

if not has_cuda_driver():
    import transformers.models.whisper.modeling_whisper
    import transformers.models.whisper.processing_whisper  # noqa: F401
