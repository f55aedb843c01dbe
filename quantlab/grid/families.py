"""What other families of models than Whisper cannot do here."""

from __future__ import annotations

from quantlab.config.schema import RunConfig
from quantlab.quantization import registry
from quantlab.quantization.base import AnyQuantizer


def why_no_family(config: RunConfig, quantizer: AnyQuantizer) -> str | None:
    """Why a cell's model cannot be measured as asked, because of its family; None if it can."""
    family, quant = config.model.family, config.quant
    if family == "whisper":
        return None
    if registry.has_own_engine(quantizer):
        return f"{quant.library} runs Whisper only, not {family}: choose a quantizer of torch's modules, e.g. hqq_int4"
    if quant.library in ("awq", "smoothquant"):
        return f"{quant.library} folds scales into the blocks of a Whisper, not of {family}: choose e.g. gptq_int4"
    if quant.recover is not None:
        return f"quant.recover={quant.recover} trains a Whisper only, not {family}: leave it out"
    if config.runtime.name != "eager":
        return f"runtime={config.runtime.name} runs Whisper only, not {family}: set runtime=eager"
    if config.runtime.audio_ctx == "dynamic":
        return f"runtime.audio_ctx=dynamic: {family} has no window, and is given the audio only: leave it out"
    if config.runtime.word_times:
        return f"runtime.word_times=true: words of {family} are not timed: leave it out"
    if config.dataset.long == "sequential":
        return (
            f"dataset.long=sequential needs timestamps, which {family} lacks: set dataset.long=chunked or consecutive"
        )
    return _why_not_ctc(config) if family == "ctc" else None


def _why_not_ctc(config: RunConfig) -> str | None:
    """CTC has an output for each frame, and no decoder."""
    if config.protocol.num_beams > 1:
        return f"CTC is decoded greedily here: set protocol.num_beams=1, not {config.protocol.num_beams}"
    if config.protocol.max_new_tokens is not None:
        return "protocol.max_new_tokens: CTC has an output for each frame of audio, and no limit: leave it out"
    if config.quant.embedding:
        return "quant.embedding=true: a CTC model has no token embedding: leave it out"
    return None
