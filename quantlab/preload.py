"""What the fork server imports once, so that each cell's process has it at no cost. Imports only: no operator runs."""

import logging

logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)  # torchao 0.18 does what torch 2.15 deprecates

import transformers.models.whisper.modeling_whisper  # noqa: E402
import transformers.models.whisper.processing_whisper  # noqa: E402, F401

import quantlab.cell  # noqa: E402, F401
