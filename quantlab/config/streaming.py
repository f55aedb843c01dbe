"""Configuration of streaming: how the audio of an utterance arrives, and which of the words are final."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from quantlab.config.part import Part
from quantlab.config.types import Seconds

# The keys that each policy reads; the others have no effect, and are not part of a cell's identity.
READS: dict[str, tuple[str, ...]] = {
    "local_agreement": ("chunk_s", "agreement"),
    "sliding_window": ("chunk_s", "window_s", "keep_s"),
}


class StreamingConfig(Part):
    """Decoding of utterances while they are spoken, on a virtual clock; see docs/how-to/streaming.md."""

    policy: Literal["local_agreement", "sliding_window"] | None = Field(
        default=None,
        description="local_agreement: words are final once the last hypotheses agree on them; sliding_window: once the "
        "window moves on; null: no streaming",
    )
    chunk_s: float = Field(default=1.0, ge=0.05, le=60, description="audio arrives in chunks of this many seconds")
    agreement: int = Field(
        default=2, gt=1, le=10, description="local_agreement: so many hypotheses in a row have to agree"
    )
    window_s: Seconds | None = Field(
        default=None, description="sliding_window: length of the window in seconds; null: the model's"
    )
    keep_s: float = Field(
        default=0.2,
        ge=0,
        le=30,
        description="sliding_window: seconds before the window that are decoded again, not more than chunk_s",
    )

    @model_validator(mode="after")
    def _fits(self) -> StreamingConfig:
        if self.policy == "sliding_window" and self.keep_s > self.chunk_s:
            raise ValueError(
                f"runtime.streaming: keep_s={self.keep_s:g}, chunk_s={self.chunk_s:g}: keep_s must not be above chunk_s"
            )
        if self.policy == "sliding_window" and self.window_s is not None and self.window_s < self.chunk_s:
            raise ValueError(
                f"runtime.streaming: window_s={self.window_s:g}, chunk_s={self.chunk_s:g}: a window holds a chunk at "
                "least"
            )
        return self
