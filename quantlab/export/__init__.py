"""Export of quantized models as folders, and loading of such folders by `load`.

torch is imported only on use, since the process that plans a grid asks `place` which cells are exported.
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
    """Load an exported model; its original checkpoint is not needed.

    Returns:
        Model and processor. The model is on the device that it was measured on, in eval mode: a model of
        transformers with the Linear modules of the quantization library or, for whisper.cpp and CTranslate2, an
        engine with its own `generate`. Random weights have no tokenizer; their processor is a feature extractor.

    Raises:
        ExportError: the folder is not an export, or was changed: something is missing, extra or of another shape.
        ConfigError: the library or device is not available.
    """
    from quantlab.export.read import load_folder

    return load_folder(Path(folder))
