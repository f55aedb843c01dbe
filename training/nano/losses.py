"""Training loss: decoder cross-entropy, an auxiliary CTC loss, and a flat start for the first steps."""

import torch
from torch import Tensor
from torch.nn import functional
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from training.nano.data import Utterance
from training.nano.model import CTC_BLANK, Heads, encode
from training.nano.tokenizer import prompt_ids

LABEL_SMOOTHING = 0.05
CTC_SHARE, LATE_CTC_SHARE, LATE = 0.4, 0.15, 0.85  # shares of the loss, and the progress where the late one applies
FLAT_START_STEPS = 400  # steps over which the flat-start loss fades out
IGNORED = -100


def total_loss(losses: dict[str, Tensor], progress: float, flat_weight: float) -> Tensor:
    """The weighted sum of losses; CTC counts less at the end, when only the decoder matters."""
    ctc_share = CTC_SHARE if progress < LATE else LATE_CTC_SHARE
    # The flat loss is always part of the sum, so that its head has a gradient (of zero) to average over processes.
    return (1 - ctc_share) * losses["ce"] + ctc_share * losses["ctc"] + flat_weight * losses["flat"]


def flat_start_weight(step: int) -> float:
    """From 1 at the start to 0 at `FLAT_START_STEPS`."""
    return max(0.0, 1 - step / FLAT_START_STEPS)


def all_losses(
    model: WhisperForConditionalGeneration,
    heads: Heads,
    processor: WhisperProcessor,
    features: Tensor,
    lengths: Tensor,
    utterances: list[Utterance],
) -> dict[str, Tensor]:
    """The three losses of a batch, each a scalar; the network runs in bfloat16 autocast, the losses in float32.

    Args:
        model: the Whisper.
        heads: heads used in training only.
        processor: provides the decoder's prompt.
        features: (batch, 80, frames).
        lengths: int64 (batch,), encoder frames with speech.
        utterances: the transcripts.
    """
    inputs, labels = (ids.to(features.device) for ids in decoder_batch([list(u.tokens) for u in utterances], processor))
    with torch.autocast(features.device.type, torch.bfloat16):
        hidden = encode(model, features)
        decoded = model.model.decoder(input_ids=inputs, encoder_hidden_states=hidden, use_cache=False)
        logits = model.proj_out(decoded.last_hidden_state)
        frame_scores, flat_scores = heads.ctc(hidden), heads.flat(hidden)
    characters = [list(u.characters) for u in utterances]
    targets = flat_targets(characters, lengths.cpu(), hidden.shape[1]).to(features.device)
    return {
        "ce": functional.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, label_smoothing=LABEL_SMOOTHING
        ),
        "ctc": ctc_loss(frame_scores.float(), characters, lengths),
        "flat": functional.cross_entropy(flat_scores.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED),
    }


def decoder_batch(tokens: list[list[int]], processor: WhisperProcessor) -> tuple[Tensor, Tensor]:
    """Decoder inputs (prompt, then text) and labels (text, then end), int64 (batch, width).

    Labels are -100 under the prompt, which is given at inference, and after the end.
    """
    prompt, end = prompt_ids(processor), processor.tokenizer.eos_token_id
    width = len(prompt) + max(map(len, tokens))
    inputs, labels = torch.full((len(tokens), width), end), torch.full((len(tokens), width), IGNORED)
    for row, spelled in enumerate(tokens):
        inputs[row, : len(prompt) + len(spelled)] = torch.tensor(prompt + spelled)
        labels[row, len(prompt) - 1 : len(prompt) + len(spelled)] = torch.tensor([*spelled, end])
    return inputs, labels


def ctc_loss(scores: Tensor, characters: list[list[int]], lengths: Tensor, blank: int = CTC_BLANK) -> Tensor:
    """Mean over utterances of the CTC loss per character.

    Args:
        scores: float32 (batch, frames, characters + 1), before softmax.
        characters: transcript of each utterance.
        lengths: int64 (batch,), frames with speech.
        blank: index of the blank among the scores.
    """
    targets = torch.tensor([c for spelled in characters for c in spelled], device=scores.device)
    sizes = torch.tensor([len(spelled) for spelled in characters], device=scores.device)
    log_probabilities = scores.log_softmax(-1).transpose(0, 1)
    return functional.ctc_loss(log_probabilities, targets, lengths, sizes, blank=blank, zero_infinity=True)


def flat_targets(characters: list[list[int]], lengths: Tensor, width: int) -> Tensor:
    """Characters spread evenly over each utterance's encoder frames, int64 (batch, width), -100 after its end."""
    targets = torch.full((len(characters), width), IGNORED)
    for row, (spelled, length) in enumerate(zip(characters, lengths.tolist(), strict=True)):
        targets[row, :length] = torch.tensor(spelled)[torch.arange(length) * len(spelled) // length]
    return targets
