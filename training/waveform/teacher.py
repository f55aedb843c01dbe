"""nano as a teacher: its encoder's weights as a start, and what it makes of dry speech as a hint for the first steps.

The students read the waveform; nano reads log-mel features, of which they need not learn the recognition anew.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperForConditionalGeneration

from training.nano import checkpoint, features
from training.nano.model import Heads, encode

SAMPLES_PER_FRAME = 2 * features.HOP_SAMPLES  # of nano's encoder


@dataclass(frozen=True)
class Hint:
    """nano's encoder on a batch, float32 (batch, frames, 192): after its convolutions, and at its end.

    The latter is without the bias of the last normalisation, which Moonshine lacks.
    """

    front: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class Teacher:
    """A trained nano and its heads."""

    model: WhisperForConditionalGeneration
    heads: Heads

    @torch.no_grad()
    def hint(self, samples: Tensor) -> Hint:
        """What nano makes of dry speech, float32 (batch, samples)."""
        log_power = features.batched_log_power(samples)
        log_power = log_power[:, : log_power.shape[1] // 2 * 2]
        loudest = log_power.amax((1, 2), keepdim=True)
        scaled = (torch.maximum(log_power, loudest - features.DYNAMIC_RANGE) + 4) / 4
        encoder, mel = self.model.model.encoder, scaled.transpose(1, 2)
        with torch.autocast(samples.device.type, torch.bfloat16):
            front = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(mel)))).transpose(1, 2)
            hidden = encode(self.model, mel) - encoder.layer_norm.bias
        return Hint(front.float(), hidden.float())


def load(folder: Path) -> Teacher:
    """Nano from its folder."""
    teacher = Teacher(WhisperForConditionalGeneration.from_pretrained(folder).eval(), Heads())
    teacher.heads.load_state_dict(checkpoint.load_file(folder / checkpoint.HEADS_FILE))
    return teacher


def hint_loss(student: Tensor, taught: Tensor, frames: Tensor, centre: float, stride: float) -> Tensor:
    """Squared distance to the teacher at the same time, as a share of the teacher's variance; a scalar.

    Args:
        student: float32 (batch, width, channels).
        taught: float32 (batch, teacher's frames, channels).
        frames: int64 (batch,), the student's frames with speech.
        centre: sample in the middle of what the student's first frame reads.
        stride: samples from one of the student's frames to the next.
    """
    place = (centre + stride * torch.arange(student.shape[1], device=student.device)) / SAMPLES_PER_FRAME
    place = place.clamp(max=taught.shape[1] - 1.001)
    low = place.long()
    target = torch.lerp(taught[:, low], taught[:, low + 1], (place - low)[None, :, None])
    inside = torch.arange(student.shape[1], device=student.device) < frames[:, None]
    difference, scale = (student - target)[inside], (target - target.mean((0, 1)))[inside]
    return difference.square().mean() / scale.square().mean()


@torch.no_grad()
def copy_linear(target: nn.Linear, source: nn.Linear, shift: Tensor | None = None) -> None:
    """Copy a layer, leaving out the last outputs or inputs that the target lacks, and biases that it lacks.

    `shift` is the bias of a normalisation before the layer, where the target's normalisation has none.
    """
    rows, columns = target.weight.shape
    target.weight.copy_(source.weight[:rows, :columns])
    if target.bias is not None:
        bias = torch.zeros(rows) if source.bias is None else source.bias[:rows]
        target.bias.copy_(bias if shift is None else bias + source.weight[:rows] @ shift)
