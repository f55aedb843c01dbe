"""Imports of the fork server, so that each cell's process has them at no cost. No operator runs here.

Nor may CUDA be asked anything: a process that has asked cannot be forked into one that computes. transformers imports
torchao, which asks what the GPU can do, so where there is a driver each cell's process imports it for itself.
"""

import logging

from quantlab.util.machine import has_cuda_driver

logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)  # torchao 0.18 does what torch 2.15 deprecates

import quantlab.measurement.cell  # noqa: E402, F401

if not has_cuda_driver():
    import transformers.models.whisper.modeling_whisper
    import transformers.models.whisper.processing_whisper  # noqa: F401
