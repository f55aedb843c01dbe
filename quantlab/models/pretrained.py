"""Loading of a checked checkpoint folder; tensors must be exactly the model's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.config.types import Family
from quantlab.models.folder import check, config_of, some, view
from quantlab.models.kinds import KINDS, Kind
from quantlab.models.tokens import generation_config
from quantlab.util.errors import CheckpointError, ConfigError, shortened

if TYPE_CHECKING:
    from torch import Tensor

FRONT_END = {  # feature settings that every engine and the frame duration rely on
    "sampling_rate": 16_000,  # Hz
    "n_fft": 400,  # samples
    "hop_length": 160,  # samples
    "padding_value": 0.0,
    "padding_side": "right",
    "dither": 0.0,
}
OTHER_FRONT_ENDS: dict[str, dict[str, object]] = {  # by class; the same for other families
    "Wav2Vec2FeatureExtractor": {"sampling_rate": 16_000, "feature_size": 1, "padding_value": 0.0},
    "ParakeetFeatureExtractor": {"sampling_rate": 16_000, "padding_value": 0.0},
}
LONGEST_REASON = 500  # characters


@dataclass(frozen=True)
class Tools:
    """What stands before and after a model; of transformers' classes."""

    feature_extractor: Any
    tokenizer: Any


def load(folder: Path, family: Family = "whisper") -> tuple[Any, Tools]:
    """Load model (fp32, eval mode, CPU) and tools from a folder; a Whisper's special tokens come from its tokenizer.

    Raises:
        CheckpointError: a file is broken, or tensors are missing, extra, of another shape or not finite.
    """
    import torch

    special = check(folder, family)
    kind = KINDS[config_of(folder, family)["model_type"]]
    with _quiet(), _viewed(folder) as seen:
        model, report = kind.model_class.from_pretrained(
            seen,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # reported, and refused by name below
            output_loading_info=True,
        )
    tools = processor(folder, family)
    _check_tensors(folder, model, report, kind)
    if special is None:
        _check_vocabulary(folder, model, tools)
        return model.eval(), tools
    _check_window(folder, tools.feature_extractor, model.config)
    with _named(folder):
        model.generation_config = generation_config(special, tools.tokenizer, model.config.max_target_positions)
    model.config.forced_decoder_ids = None  # transformers' fallback if neither language nor task is given
    return model.eval(), tools


def processor(folder: Path, family: Family = "whisper") -> Tools:
    """Feature extractor and tokenizer of a checked folder, without the model.

    Raises:
        CheckpointError: a file is broken, or the features are not those of the family.
    """
    from transformers import AutoFeatureExtractor, AutoTokenizer

    if family == "whisper":
        return _whisper_processor(folder)
    with _quiet(), _viewed(folder) as seen:
        extractor = AutoFeatureExtractor.from_pretrained(seen, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(seen, local_files_only=True, trust_remote_code=False)
    name = type(extractor).__name__
    expected = OTHER_FRONT_ENDS.get(name)
    if expected is None:
        raise CheckpointError(f"{folder}: its feature extractor is a {name}; expected {' or '.join(OTHER_FRONT_ENDS)}")
    _check_front_end(folder, extractor, expected, name)
    return Tools(extractor, tokenizer)


def _whisper_processor(folder: Path) -> Tools:
    from transformers import WhisperProcessor, WhisperTokenizer

    with _quiet(), _viewed(folder) as seen:
        tools = WhisperProcessor.from_pretrained(seen, local_files_only=True, trust_remote_code=False)
    if not isinstance(tools.tokenizer, WhisperTokenizer):
        raise CheckpointError(f"{folder}: its tokenizer is a {type(tools.tokenizer).__name__}, not a WhisperTokenizer")
    _check_front_end(folder, tools.feature_extractor, FRONT_END, "Whisper")
    return Tools(tools.feature_extractor, tools.tokenizer)


def _check_front_end(folder: Path, extractor: Any, expected: Mapping[str, object], whose: str) -> None:
    for key, value in expected.items():
        if (found := getattr(extractor, key, None)) != value:
            raise CheckpointError(
                f"{folder}: its feature extractor has {key}={shortened(found)}; {whose}'s has {value}, "
                "copy the one of the checkpoint this one was trained from"
            )


def _check_vocabulary(folder: Path, model: Any, tools: Tools) -> None:
    """Refuse a tokenizer with more tokens than the model, or with another blank."""
    size, blank = model.config.vocab_size, model.config.pad_token_id
    if len(tools.tokenizer) > size:
        raise CheckpointError(f"{folder}: its tokenizer has {len(tools.tokenizer)} tokens, the model {size}")
    if model.config.is_encoder_decoder or tools.tokenizer.pad_token_id == blank:
        return
    raise CheckpointError(
        f"{folder}: the blank of its CTC is token {blank} in config.json (pad_token_id), but "
        f"{tools.tokenizer.pad_token_id} is the padding of its tokenizer"
    )


def _check_window(folder: Path, extractor: Any, config: Any) -> None:
    """Check that mel bins and frames match the encoder."""
    if extractor.feature_size != config.num_mel_bins:
        raise CheckpointError(
            f"{folder}: the feature extractor makes {extractor.feature_size} mel bins, "
            f"the model takes {config.num_mel_bins}"
        )
    if extractor.nb_max_frames != 2 * config.max_source_positions:
        raise CheckpointError(
            f"{folder}: the feature extractor makes {extractor.nb_max_frames} frames "
            f"(chunk_length={extractor.chunk_length}), the model takes {2 * config.max_source_positions}"
        )


def _check_tensors(folder: Path, model: Any, report: dict[str, Any], kind: Kind) -> None:
    found = {
        "lacks": {name for name in report["missing_keys"] if name not in kind.training},
        "has tensors that the model does not have:": report["unexpected_keys"],
        "has tensors of another shape than config.json says:": {item[0] for item in report["mismatched_keys"]},
        "has NaN or infinite values in": {
            name for name, tensor in model.state_dict().items() if not _is_finite(tensor)
        },
    }
    wrong = [f"{what} {some(names)}" for what, names in found.items() if names]
    if wrong:
        raise CheckpointError(f"{folder} is not a valid checkpoint: it {'; it '.join(wrong)}")


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite: NaN and infinity survive in a sum, which takes one pass."""
    return bool(tensor.sum().isfinite() or tensor.isfinite().all())


@contextlib.contextmanager
def _viewed(folder: Path) -> Iterator[Path]:
    """A view of the folder for libraries; errors name the folder itself."""
    with view(folder) as seen, _named(folder, seen):
        yield seen


@contextlib.contextmanager
def _named(folder: Path, seen: Path | None = None) -> Iterator[None]:
    """Within the block, any error of the libraries becomes a one-line message that names the folder."""
    try:
        yield
    except MemoryError:
        raise
    except ConfigError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    except Exception as error:
        message = " ".join(str(error).replace(str(seen or folder), str(folder)).split())[:LONGEST_REASON]
        hint = "; copy it again, as a file is cut off or damaged" if type(error).__name__ == "SafetensorError" else ""
        raise CheckpointError(f"{folder} cannot be loaded: {type(error).__name__}: {message}{hint}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress progress bars and reports of transformers."""
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
