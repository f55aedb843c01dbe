"""Measurement of downloaded files that are already quantized, with their own engine.

Nothing is quantized here. The keys of `quant` describe the file, and are read from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.config.schema import AS_SHIPPED, ModelConfig, QuantConfig, RunConfig
from quantlab.models.foreign import exported
from quantlab.quantization.backends import ct2, ggml
from quantlab.util.errors import ConfigError, UnsupportedError

if TYPE_CHECKING:
    import torch
    from transformers import WhisperForConditionalGeneration

    from quantlab.models import Original
    from quantlab.models.decoding import Decoding
    from quantlab.quantization.base import Converted

DISTRIBUTIONS = (*ct2.DISTRIBUTIONS, *ggml.DISTRIBUTIONS)
READS = tuple(dict.fromkeys([*ct2.READS, *ggml.READS]))  # of the file: a value that contradicts it is refused
NO_EMBEDDING = "the file is measured unchanged"
ENGINES = {"ctranslate2": ct2, "ggml": ggml}  # by the format of the file
WHICH = "model.path=FILE, a whisper.cpp file (ggml-base-q5_0.bin), or the folder of a CTranslate2 model"


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """Why the file's engine cannot run on the device; None until the file is read (`read_off`)."""
    if quant.format is None:
        return None
    if quant.format in (*ct2.BITS, ct2.UNQUANTIZED):
        return ct2.why_no_engine(device) or ct2.why_not_in_part(quant)
    return ggml.why_unsupported(quant, device)


def read_off(config: RunConfig) -> RunConfig:
    """The configuration with the keys of `quant` read from the file; unchanged for other quantizers.

    Raises:
        UnsupportedError: `model.path` is not such a file.
        ConfigError: a key of `quant` contradicts the file.
    """
    quant = config.quant
    if quant.library != AS_SHIPPED:
        return config
    original = shipped_original(config.model)
    found: dict[str, Any] = ENGINES[original.format].described(original.path)
    for key in ("scheme", *READS):
        given, usual = getattr(quant, key), QuantConfig.model_fields[key].default
        value = found.get(key, usual)
        if given not in (value, usual):
            raise ConfigError(
                f"quant.{key}={given}: {original.path} has {value}, read from the file: leave the key out"
            )
    return config.model_copy(update={"quant": quant.model_copy(update=found)})


def why_not_applicable(config: RunConfig) -> str | None:
    """Why a setting does not apply to a shipped file; None for other quantizers."""
    if config.quant.library != AS_SHIPPED:
        return None
    if config.export.dir is not None:
        return f"quant={AS_SHIPPED} is a file already, {config.model.path}: set export.dir=null"
    if config.protocol.interleave and config.baseline.path is None:
        return "protocol.interleave=true times it in turns with the model it was made from: set baseline.path=FOLDER"
    return _why_other_model(config) if config.baseline.path is not None else None


def _why_other_model(config: RunConfig) -> str | None:
    """Why the file cannot be a quantization of `baseline.path`: their sizes differ."""
    from quantlab import models
    from quantlab.models.folder import whisper_config

    own = whisper_config(models.locate(config.model, quantized_too=True))
    other = whisper_config(models.locate(config.of_baseline().model))
    for key in ("d_model", "encoder_layers", "decoder_layers", "num_mel_bins"):
        if own[key] != other[key]:
            return (
                f"baseline.path={config.baseline.path} has {key}={other[key]}, {config.model.path} has {own[key]}: "
                "it was not made from that"
            )
    return None


def shipped_original(model: ModelConfig) -> Original:
    """The file of a checkpoint of another engine.

    Raises:
        UnsupportedError: no engine here reads it.
    """
    from quantlab import models

    original = None if model.weights == "random" or model.path is None else models.original(model)
    if original is None and model.path is not None and (export := exported(Path(model.path).expanduser())):
        raise UnsupportedError(f"quant={AS_SHIPPED}: model.path={model.path} {export}")
    if original is None or original.format not in ENGINES:
        what = f"model.path={model.path}" if model.path else f"model={model.name}"
        raise UnsupportedError(
            f"quant={AS_SHIPPED}: {what} is not a file of another engine: give {WHICH}; "
            "or quantize it, e.g. quant=ggml_q5_0"
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
