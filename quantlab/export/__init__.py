"""Export of quantized models as folders, and loading them again by `load`.

Nothing here imports torch before it is used: the process that plans a grid asks `place` what is exported already.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor

    from quantlab.export.own_engine import OwnEngine


def load(
    folder: str | Path,
) -> tuple[WhisperForConditionalGeneration | OwnEngine, WhisperProcessor | WhisperFeatureExtractor]:
    """Load an exported model, without the checkpoint that it was made from.

    Returns:
        The model on the device that it was measured on, in eval mode: of transformers, its Linear modules those of the
        library that quantized it; or, of whisper.cpp and CTranslate2, their engine with a `generate` of its own. And
        its processor; of random weights, which have no tokenizer, the feature extractor alone.

    Raises:
        ExportError: the folder is no export, or not as it was written: what is missing, extra or of another shape.
        ConfigError: there is no such library or device here.
    """
    from quantlab.export.read import load_folder

    return load_folder(Path(folder))
