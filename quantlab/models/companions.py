"""Configuration, generation settings, tokenizer and feature extractor of a checkpoint, written to a folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from quantlab.models import Checkpoint


def write_companions(checkpoint: Checkpoint, folder: Path, language: str) -> None:
    """Everything of a checkpoint but its weights, as `from_pretrained` reads it; it decodes as it was measured.

    Args:
        checkpoint: what was measured.
        folder: where they go.
        language: of the corpus; where nobody names one, transformers would guess it from the audio.
    """
    checkpoint.model.config.save_pretrained(folder)
    how: Any = copy.deepcopy(checkpoint.model.generation_config)
    if getattr(how, "is_multilingual", False):
        how.language, how.task = language, "transcribe"
    how.save_pretrained(folder)
    checkpoint.feature_extractor.save_pretrained(folder)
    if checkpoint.tokenizer is not None:
        from transformers import WhisperProcessor

        WhisperProcessor(checkpoint.feature_extractor, checkpoint.tokenizer).save_pretrained(folder)
