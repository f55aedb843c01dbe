"""Models with random weights: speed and size are real, the text is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantlab.config.schema import Architecture, ModelConfig
from quantlab.models import convert
from quantlab.models.convert.parts import FRAME_RATE
from quantlab.models.folder import config_of, whisper_config
from quantlab.models.kinds import KINDS, types_of
from quantlab.models.named import check_name
from quantlab.util.errors import ConfigError, shortened

if TYPE_CHECKING:
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

ENGLISH_VOCAB = 51_864  # tokens of English-only Whisper
MULTILINGUAL_VOCAB = 51_865  # tokens of Whisper with 99 languages; large-v3 has one more of both
TEXT_TOKENS = 50_257  # id of <|endoftext|> in that vocabulary, after its text tokens


def shape(model: ModelConfig) -> dict[str, Any]:
    """Keys of config.json, from that of `model.path`, else from `model.architecture` or `model.config`.

    Raises:
        ConfigError: there is neither.
    """
    if model.path is not None:
        folder = _folder(model, Path(model.path).expanduser())
        check_name(model, folder)
        return whisper_config(folder) if model.family == "whisper" else config_of(folder, model.family)
    if model.family != "whisper":
        return _other_shape(model)
    if model.architecture is None:
        raise ConfigError(f"model.weights=random: {model.name} has neither model.architecture nor model.path")
    return _whisper_shape(model.architecture)


def _folder(model: ModelConfig, path: Path) -> Path:
    """A transformers folder; files of other programs are converted."""
    found = convert.original(path)
    return convert.converted(found, model.repo, model.revision) if found else path


def _other_shape(model: ModelConfig) -> dict[str, Any]:
    found, expected = model.config or {}, types_of(model.family)
    if found.get("model_type") not in expected:
        raise ConfigError(
            f"model.weights=random: model.config of {model.name} has model_type={shortened(found.get('model_type'))}; "
            f"expected {' or '.join(expected)}, with other keys of config.json, or model.path=FOLDER"
        )
    return dict(found)


def _whisper_shape(shape: Architecture) -> dict[str, Any]:
    end = {ENGLISH_VOCAB: TEXT_TOKENS - 1}.get(shape.vocab_size, shape.vocab_size - 9)
    if shape.vocab_size >= MULTILINGUAL_VOCAB:
        end = TEXT_TOKENS
    return {
        "d_model": shape.d_model,
        "encoder_layers": shape.encoder_layers,
        "decoder_layers": shape.decoder_layers,
        "encoder_attention_heads": shape.attention_heads,
        "decoder_attention_heads": shape.attention_heads,
        "encoder_ffn_dim": shape.ffn_dim,
        "decoder_ffn_dim": shape.ffn_dim,
        "num_mel_bins": shape.num_mel_bins,
        "vocab_size": shape.vocab_size,
        "max_source_positions": shape.max_source_positions,
        "max_target_positions": shape.max_target_positions,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": end + 1,
    }


def make(model: ModelConfig, seed: int) -> tuple[Any, Any]:
    """A model (fp32, eval mode, CPU) that depends only on the seed, and its feature extractor.

    Raises:
        ConfigError: no architecture, or an invalid one.
    """
    from transformers import WhisperConfig

    facts = shape(model)
    if model.family != "whisper":
        return _other(model, facts, seed), feature_extractor(model)
    try:
        config = WhisperConfig(**facts)
        recogniser = _initialised(config, seed)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"model.architecture of {model.name}: {error}") from error
    recogniser.generation_config = _generation(config)
    return recogniser, feature_extractor(model)


def _other(model: ModelConfig, facts: dict[str, Any], seed: int) -> Any:
    """A model of another family than Whisper."""
    import torch
    from transformers import AutoConfig

    try:
        config = AutoConfig.for_model(**facts)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return KINDS[facts["model_type"]].model_class(config).eval()
    except (ValueError, TypeError, RuntimeError, ArithmeticError, AttributeError) as error:
        raise ConfigError(f"model.config of {model.name}: {shortened(str(error), 300)}") from error


def feature_extractor(model: ModelConfig) -> Any:
    """The feature extractor for the window and the mel bins of an architecture, or for samples.

    Raises:
        ConfigError: no architecture, or the window is not a whole number of seconds.
    """
    from transformers import ParakeetFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperConfig, WhisperFeatureExtractor

    facts = shape(model)
    if facts.get("model_type") == "parakeet_ctc":
        encoder = facts.get("encoder_config") or {}
        return ParakeetFeatureExtractor(feature_size=encoder.get("num_mel_bins", 80))
    if model.family != "whisper":
        return Wav2Vec2FeatureExtractor(do_normalize=model.family == "ctc", return_attention_mask=True)
    config = WhisperConfig(**facts)
    window_s, rest = divmod(config.max_source_positions, FRAME_RATE)
    if rest:
        raise ConfigError(f"max_source_positions={config.max_source_positions}: expected a multiple of {FRAME_RATE}")
    return WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=window_s)


def build(architecture: Architecture) -> WhisperForConditionalGeneration:
    """The model on the meta device: shapes and counts without memory."""
    from transformers import WhisperConfig

    return _on_meta(WhisperConfig(**_whisper_shape(architecture)))


def _on_meta(config: WhisperConfig) -> WhisperForConditionalGeneration:
    import torch
    from transformers import WhisperForConditionalGeneration

    with torch.device("meta"):
        return WhisperForConditionalGeneration(config)


def _initialised(config: WhisperConfig, seed: int) -> WhisperForConditionalGeneration:
    """Build on the meta device first, so that only Whisper's initialisation runs and not torch's default."""
    import torch

    model = _on_meta(config).to_empty(device="cpu")
    model.tie_weights()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.init_weights()
    return model.eval()


def _generation(config: WhisperConfig) -> GenerationConfig:
    """Generation settings of a multilingual Whisper, with its prompt of four tokens, or of an English-only one."""
    from transformers import GenerationConfig

    ids = _prompt_ids(config)
    known = ids["no_timestamps_token_id"] < config.vocab_size
    return GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
        return_timestamps=False,
        **(ids if known else {"is_multilingual": False}),
    )


def _prompt_ids(config: WhisperConfig) -> dict[str, Any]:
    """Prompt ids. The order: start, languages, translate, transcribe, start of LM, previous, no speech, no times."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    if config.vocab_size == ENGLISH_VOCAB:  # it has 99 language tokens as well
        return {"is_multilingual": False, "no_timestamps_token_id": config.decoder_start_token_id + 105}
    languages = 99 + config.vocab_size - MULTILINGUAL_VOCAB if config.vocab_size >= MULTILINGUAL_VOCAB else 1
    first = config.decoder_start_token_id + 1
    translate = first + languages
    return {
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": first + i for i, code in enumerate(list(LANGUAGES)[:languages])},
        "task_to_id": {"translate": translate, "transcribe": translate + 1},
        "prev_sot_token_id": translate + 3,
        "no_timestamps_token_id": translate + 5,
        "language": "en",
        "task": "transcribe",
    }
