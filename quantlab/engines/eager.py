"""The engine of a model of transformers whose operators run one by one, by its family."""

from __future__ import annotations

from typing import Any

import torch

from quantlab.config.types import Family
from quantlab.data import SplitFeatures
from quantlab.engines import Engine
from quantlab.engines.ctc import CTC
from quantlab.engines.lengths import inputs_on
from quantlab.engines.moonshine import Moonshine
from quantlab.engines.pytorch import Eager, features_on
from quantlab.models.decoding import Decoding
from quantlab.models.kinds import KINDS


def eager(model: Any, device: torch.device, decoding: Decoding) -> Engine:
    """The engine of a model on its device, quantized or not."""
    if (family := family_of(model)) == "whisper":
        return Eager(model, device, decoding)
    return Moonshine(model, device, decoding) if family == "moonshine" else CTC(model, device, decoding)


def family_of(model: Any) -> Family:
    """The family of a model of transformers."""
    return KINDS[model.config.model_type].family


def heard_by(model: Any, device: torch.device, speech: SplitFeatures) -> torch.Tensor:
    """What the encoder is given of utterances of one length, on the device."""
    if family_of(model) == "whisper":
        return features_on(model, device, speech.mel)
    return inputs_on(model, device, speech).values
