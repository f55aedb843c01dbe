"""Configuration, generation settings, tokenizer and feature extractor of a checkpoint, written to a folder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from quantlab.models import Checkpoint


def write_companions(checkpoint: Checkpoint, folder: Path, language: str) -> None:
    """Write all files of a checkpoint except the weights for `from_pretrained`, so that it decodes as measured.

    Args:
        checkpoint: the measured checkpoint.
        folder: target folder.
        language: language of the corpus; without it transformers would guess it from the audio.
    """
    checkpoint.model.config.save_pretrained(folder)
    how: Any = copy.deepcopy(getattr(checkpoint.model, "generation_config", None))
    if getattr(how, "is_multilingual", False):
        how.language, how.task = language, "transcribe"
    if how is not None:
        how.save_pretrained(folder)
    checkpoint.feature_extractor.save_pretrained(folder)
    if checkpoint.tokenizer is None:
        return
    if checkpoint.model.config.model_type == "whisper":
        from transformers import WhisperProcessor

        WhisperProcessor(checkpoint.feature_extractor, checkpoint.tokenizer).save_pretrained(folder)
    else:
        checkpoint.tokenizer.save_pretrained(folder)
