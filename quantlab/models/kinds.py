"""Kinds of recognisers: the classes of transformers, by the `model_type` of a config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quantlab.config.types import Family


@dataclass(frozen=True)
class Kind:
    """A model class of transformers."""

    family: Family
    name: str  # of the class
    # Parameters that only training uses, which published checkpoints may lack.
    training: tuple[str, ...] = ()

    @property
    def model_class(self) -> Any:
        """The class itself."""
        import transformers

        return getattr(transformers, self.name)


KINDS = {
    "whisper": Kind("whisper", "WhisperForConditionalGeneration"),
    "moonshine": Kind("moonshine", "MoonshineForConditionalGeneration"),
    "wav2vec2": Kind("ctc", "Wav2Vec2ForCTC", ("wav2vec2.masked_spec_embed",)),
    "hubert": Kind("ctc", "HubertForCTC", ("hubert.masked_spec_embed",)),
    "parakeet_ctc": Kind("ctc", "ParakeetForCTC"),
}


def types_of(family: Family) -> tuple[str, ...]:
    """Every `model_type` of a family."""
    return tuple(name for name, kind in KINDS.items() if kind.family == family)
