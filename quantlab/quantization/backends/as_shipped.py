"""Files as they were downloaded, quantized by somebody else, run by their own engine.

Nothing is quantized here. The keys of `quant` say what the file holds, and are read off it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.config.schema import AS_SHIPPED, ModelConfig, QuantConfig, RunConfig
from quantlab.quantization.backends import ct2, ggml
from quantlab.util.errors import ConfigError, UnsupportedError

if TYPE_CHECKING:
    import torch
    from transformers import WhisperForConditionalGeneration

    from quantlab.models import Original
    from quantlab.models.decoding import Decoding
    from quantlab.quantization.base import Converted

DISTRIBUTIONS = (*ct2.DISTRIBUTIONS, *ggml.DISTRIBUTIONS)
NO_EMBEDDING = "the file is measured as it is"
ENGINES = {"ctranslate2": ct2, "ggml": ggml}  # by the format of the file
WHICH = "model.path=FILE, a file of whisper.cpp (ggml-base-q5_0.bin), or the folder of a model of CTranslate2"


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """What the engine of the file cannot do; before it is read (`read_off`) nobody knows which."""
    if quant.format is None:
        return None
    if quant.format in (*ct2.BITS, ct2.UNQUANTIZED):
        return ct2.why_no_engine(device) or ct2.why_not_in_part(quant)
    return ggml.why_unsupported(quant, device)


def read_off(config: RunConfig) -> RunConfig:
    """The configuration with what the file says in the keys of `quant`; of another quantizer as it is.

    Raises:
        UnsupportedError: `model.path` is no such file.
        ConfigError: a key of `quant` says something else than the file.
    """
    quant = config.quant
    if quant.library != AS_SHIPPED:
        return config
    original = of_model(config.model)
    found: dict[str, Any] = ENGINES[original.format].described(original.path)
    for key, value in found.items():
        said = getattr(quant, key)
        if said not in (value, QuantConfig.model_fields[key].default):
            raise ConfigError(f"quant.{key}={said}: {original.path} has {value}, which is read off it: leave it out")
    return config.model_copy(update={"quant": quant.model_copy(update=found)})


def why_not_so(config: RunConfig) -> str | None:
    """What a file as it is cannot be asked for; of another quantizer nothing."""
    if config.quant.library != AS_SHIPPED:
        return None
    if config.export.dir is not None:
        return f"quant={AS_SHIPPED} is a file already, {config.model.path}: set export.dir=null"
    if config.protocol.interleave and config.baseline.path is None:
        return "protocol.interleave=true times it in turns with the model that it was made of: set baseline.path=FOLDER"
    return _why_other_model(config) if config.baseline.path is not None else None


def _why_other_model(config: RunConfig) -> str | None:
    """What was quantized keeps its sizes."""
    from quantlab import models
    from quantlab.models.folder import whisper_config

    own = whisper_config(models.locate(config.model, quantized_too=True))
    other = whisper_config(models.locate(config.of_baseline().model))
    for key in ("d_model", "encoder_layers", "decoder_layers", "num_mel_bins"):
        if own[key] != other[key]:
            return (
                f"baseline.path={config.baseline.path} has {key}={other[key]}, {config.model.path} has {own[key]}: "
                "it was not made of that"
            )
    return None


def of_model(model: ModelConfig) -> Original:
    """The file behind a checkpoint.

    Raises:
        UnsupportedError: it is none that has an engine of its own.
    """
    from quantlab import models

    original = None if model.weights == "random" or model.path is None else models.original(model)
    if original is None or original.format not in ENGINES:
        what = f"model.path={model.path}" if model.path else f"model={model.name}"
        raise UnsupportedError(
            f"quant={AS_SHIPPED}: {what} is no file with an engine of its own: give {WHICH}; "
            "or have it quantized, e.g. quant=ggml_q5_0"
        )
    return original


def load(
    path: Path,
    model: WhisperForConditionalGeneration,
    quant: QuantConfig,
    device: torch.device,
    decoding: Decoding,
    threads: int,
) -> Converted:
    """See `Loader`."""
    engine = ct2 if path.is_dir() else ggml
    return engine.load(path, model, quant, device, decoding, threads)
