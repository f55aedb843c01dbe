"""What the fork server imports once, so that each cell's process has it at no cost. Imports only: no operator runs."""

import transformers.models.whisper.modeling_whisper
import transformers.models.whisper.processing_whisper  # noqa: F401

import quantlab.cell  # noqa: F401
