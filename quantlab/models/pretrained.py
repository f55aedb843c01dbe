"""Load a checkpoint from a checked folder, and refuse it by name where its tensors are not the model's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.errors import ConfigError
from quantlab.models.folder import some

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import WhisperForConditionalGeneration, WhisperProcessor


def load(folder: Path) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """Model (fp32, eval mode, CPU) and processor of a checked folder.

    Raises:
        ConfigError: a file is broken, or tensors are missing, extra, of another shape or not finite: by name.
    """
    import torch
    from transformers import WhisperForConditionalGeneration

    with _quiet(), _named(folder):
        model, report = WhisperForConditionalGeneration.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are in the report, and refused by name below
            output_loading_info=True,
        )
    tools = processor(folder)
    _check_tensors(folder, model, report)
    if tools.feature_extractor.feature_size != model.config.num_mel_bins:
        raise ConfigError(
            f"{folder}: the feature extractor makes {tools.feature_extractor.feature_size} mel bins, "
            f"the model takes {model.config.num_mel_bins}"
        )
    return model.eval(), tools


def processor(folder: Path) -> WhisperProcessor:
    """Feature extractor and tokenizer of a checked folder, without the model.

    Raises:
        ConfigError: a file is broken.
    """
    from transformers import WhisperProcessor

    with _quiet(), _named(folder):
        return WhisperProcessor.from_pretrained(folder, local_files_only=True)


def _check_tensors(folder: Path, model: WhisperForConditionalGeneration, report: dict[str, Any]) -> None:
    found = {
        "lacks": report["missing_keys"],
        "has tensors that are not the model's:": report["unexpected_keys"],
        "has tensors of another shape than config.json says:": {item[0] for item in report["mismatched_keys"]},
        "has NaN or infinite values in": {
            name for name, tensor in model.state_dict().items() if not _is_finite(tensor)
        },
    }
    wrong = [f"{what} {some(names)}" for what, names in found.items() if names]
    if wrong:
        raise ConfigError(f"{folder} is no sound checkpoint: it {'; it '.join(wrong)}")


def _is_finite(tensor: Tensor) -> bool:
    """NaN and infinity always survive in a sum, which takes one pass; a sum that overflowed is looked at again."""
    return bool(tensor.sum().isfinite() or tensor.isfinite().all())


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Whatever the libraries make of a broken file, the message names the folder."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise ConfigError(f"{folder} cannot be loaded: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no report of transformers' own on the terminal."""
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
