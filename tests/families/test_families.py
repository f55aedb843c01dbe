"""Recognisers of other families than Whisper: what they are given, their engines, and what is refused."""

import contextlib
import json
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from quantlab import models
from quantlab.config.options import option
from quantlab.config.schema import ModelConfig, QuantConfig
from quantlab.data.front_end import front_end
from quantlab.data.sound import sound
from quantlab.data.speech import SplitFeatures, rows_for
from quantlab.data.windows import Window
from quantlab.engines.ctc import CTC, collapsed
from quantlab.engines.eager import eager, family_of
from quantlab.engines.lengths import inputs_on, lengths_of
from quantlab.engines.moonshine import Moonshine, encoder_inputs
from quantlab.models.decoding import Decoding
from quantlab.quantization.select import choose
from quantlab.util.errors import CheckpointError

CPU = torch.device("cpu")
_WIDTHS = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 128,
           "conv_dim": (32,) * 7, "vocab_size": 32, "num_conv_pos_embeddings": 32, "num_conv_pos_embedding_groups": 4,
           "pad_token_id": 0}  # fmt: skip
_LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
_ENCODER = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
CONFIGS = {
    "wav2vec2, GroupNorm": transformers.Wav2Vec2Config(**_WIDTHS),
    "wav2vec2, LayerNorm": transformers.Wav2Vec2Config(**_WIDTHS, **_LAYER),
    "HuBERT": transformers.HubertConfig(**_WIDTHS),
    "Parakeet": transformers.ParakeetCTCConfig(vocab_size=32, pad_token_id=31, encoder_config=_ENCODER),
    "Moonshine": transformers.MoonshineConfig(
        hidden_size=96, intermediate_size=128, encoder_num_hidden_layers=2, decoder_num_hidden_layers=2,
        encoder_num_attention_heads=4, decoder_num_attention_heads=4, vocab_size=64, pad_token_id=2,
        initializer_range=0.2,  # so that its tokens differ
    ),
}  # fmt: skip
COUNTS_TIME = ("wav2vec2, GroupNorm", "HuBERT", "Moonshine")  # normalise over time
EXTRACTORS = {
    "samples": transformers.Wav2Vec2FeatureExtractor(do_normalize=True),
    "unscaled samples": transformers.Wav2Vec2FeatureExtractor(do_normalize=False),
    "frames": transformers.ParakeetFeatureExtractor(),
}


def windows(*lengths):
    noise = np.random.default_rng(0)
    return [Window((noise.standard_normal(n) * 0.1).astype("f4"), n / 16_000, n / 16_000) for n in lengths]


def speech(extractor, found):
    end = front_end(extractor)
    rows = end.rows(found)
    counts = [rows_for(item.audio_s, rows.shape[2], end.hop) for item in found]
    seconds = tuple(item.audio_s for item in found)
    return SplitFeatures(
        ids=tuple(map(str, range(len(found)))), texts=("",) * len(found), speakers=(None,) * len(found),
        audio_s=seconds, new_s=seconds, stored=rows, rows=tuple(accumulate(counts[:-1], initial=0)),
        kind=end.kind, hop=end.hop,
    )  # fmt: skip


def made(name):
    torch.manual_seed(0)
    config = CONFIGS[name]
    classes = {"wav2vec2": "Wav2Vec2ForCTC", "hubert": "HubertForCTC", "parakeet_ctc": "ParakeetForCTC"}
    model = getattr(transformers, classes.get(config.model_type, "MoonshineForConditionalGeneration"))(config).eval()
    return model, EXTRACTORS["frames" if name == "Parakeet" else "samples"]


@pytest.mark.parametrize("name", EXTRACTORS)
def test_features_are_the_extractors_own_at_every_length(name):
    found = windows(16_000, 16_001, 15_999, 33_333, 480_000)
    kept = speech(EXTRACTORS[name], found)
    for window, features in zip(found, kept.recordings, strict=True):
        own = EXTRACTORS[name]([window.samples], sampling_rate=16_000, return_tensors="np")
        if name == "frames":
            assert np.array_equal(features, own.input_features[0][own.attention_mask[0].astype(bool)].T)
        else:
            assert np.array_equal(features[0], own.input_values[0])
    assert np.array_equal(kept.take([3]).recordings[0], kept.recordings[3])


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("careful", [True, False])
def test_padding_changes_nothing(name, careful):
    """Without `lengths_of` the padding of a batch does, in the models that normalise over time."""
    model, extractor = made(name)
    batch = speech(extractor, windows(16_000, 33_333, 51_234))

    def encoded(part):
        inputs = inputs_on(model, CPU, part)
        inputs = encoder_inputs(model, inputs) if name == "Moonshine" else inputs
        encoder = getattr(model, "encoder", None) or getattr(model, model.base_model_prefix)
        encoder = model.get_encoder() if name == "Moonshine" else encoder
        with torch.no_grad(), lengths_of(model, inputs) if careful else contextlib.nullcontext():
            return encoder(inputs.values, attention_mask=inputs.mask).last_hidden_state

    together, apart = encoded(batch), [encoded(batch.take([row]))[0] for row in range(3)]
    off = max(
        float((together[row, : len(alone)] - alone).abs().max() / alone.abs().max()) for row, alone in enumerate(apart)
    )
    assert (off < 1e-5) == (careful or name not in COUNTS_TIME)
    assert off < 1e-5 or off > 0.05


@pytest.mark.parametrize("name", CONFIGS)
def test_an_utterance_is_decoded_alike_alone_and_in_a_batch(name):
    model, extractor = made(name)
    if name != "Moonshine":
        head = model.ctc_head if name == "Parakeet" else model.lm_head
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=2.0)  # so that frames have different tokens
    how = Decoding(3, 8, 0, 0, 1, "full", None, (1,) if name == "Moonshine" else (), model.config.pad_token_id, (), ())
    engine = eager(model, CPU, how)
    assert isinstance(engine, Moonshine if name == "Moonshine" else CTC)
    assert family_of(model) == ("moonshine" if name == "Moonshine" else "ctc")
    batch = speech(extractor, windows(16_000, 33_333, 51_234))
    rows, seconds = engine.generate(batch)
    assert seconds > 0
    assert engine.encode(batch) > 0
    assert len({tuple(row) for row in rows}) > 1
    assert rows == [engine.generate(batch.take([row]))[0][0] for row in range(3)]


def test_tokens_of_moonshine_are_those_of_transformers():
    model, extractor = made("Moonshine")
    [window] = windows(20_000)
    engine = Moonshine(model, CPU, Decoding(1, 8, 0, 4, 1, "full", None, (1,), 2, (), ()))
    samples = torch.from_numpy(extractor(window.samples, sampling_rate=16_000, return_tensors="np").input_values)
    own = model.generate(samples, max_new_tokens=8)[0, 1:].tolist()
    part = speech(extractor, [window])
    assert engine.generate(part)[0] == [own[: own.index(2)] if 2 in own else own]
    assert engine.decode(part) > 0


@pytest.mark.parametrize(
    ("frames", "tokens"),
    [([], []), ([0, 0], []), ([5, 5, 0, 5, 6, 6, 0], [5, 5, 6]), ([7, 7, 7], [7]), ([0, 1, 0, 1, 1], [1, 1])],
)
def test_runs_and_blanks_are_left_out(frames, tokens):
    assert collapsed(frames, 0) == tokens


def test_doubled_letters_survive_in_the_text(tmp_path):
    """transformers' tokenizers of CTC leave out repetitions by default, which the engine has done already."""
    words = {token: id for id, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"helo wrd"])}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(tmp_path / "vocab.json", pad_token="<pad>")
    frames = [words[letter] for letter in "hh"] + [0] + [words[letter] for letter in "ell"] + [0, 7, words["o"], 4]
    assert models.texts(tokenizer, [collapsed(frames, 0)]) == ["hello"]


def test_sound_is_found_in_samples():
    loud, quiet = np.full(16_000, 0.5, "f4"), np.full(16_000, 1e-4, "f4")
    window = Window(np.concatenate([loud, quiet]), 2.0, 2.0)
    [found] = sound(speech(EXTRACTORS["unscaled samples"], [window]), range(1))
    assert found.tolist() == [True] * 100 + [False] * 100
    [scaled] = sound(speech(EXTRACTORS["frames"], [window]), range(1))
    assert scaled.all()


@pytest.mark.parametrize(
    ("names", "keys", "kept"),
    [
        (["wav2vec2.encoder.layers.0.attention.q_proj", "lm_head"], {}, 1),
        (["wav2vec2.encoder.layers.0.attention.q_proj", "lm_head"], {"head": True}, 2),
        (["wav2vec2.feature_projection.projection", "lm_head"], {"target": "encoder"}, 1),
        (["wav2vec2.feature_projection.projection", "lm_head"], {"target": "decoder", "head": True}, 1),
    ],
)
def test_modules_of_a_ctc_model(names, keys, kept):
    quant = QuantConfig(name="q", library="hqq", bits=4, scheme="weight-only", **keys)
    assert len(choose(names, quant)[0]) == kept


@pytest.mark.parametrize("name", ["nano_ctc", "nano_moonshine"])
def test_random_weights_depend_on_the_seed_only(name):
    config = ModelConfig.model_validate({**option("model", name), "weights": "random"})
    first, second, other = (models.load(config, seed).model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.fixture
def folder(tmp_path):
    """A wav2vec2 checkpoint with weights that were never trained."""
    words = {
        token: id for id, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz"])
    }
    model, extractor = made("wav2vec2, LayerNorm")
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    transformers.Wav2Vec2CTCTokenizer(tmp_path / "vocab.json").save_pretrained(tmp_path)
    return tmp_path


def of(folder, **keys):
    return ModelConfig(name="mine", family="ctc", source="hub", path=str(folder), **keys)


def test_a_checkpoint_is_loaded_as_saved(folder):
    found = models.load(of(folder), 0)
    for name, tensor in made("wav2vec2, LayerNorm")[0].state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor), name
    assert models.fingerprint(of(folder), 0).startswith("sha256:")
    assert models.special_tokens(of(folder)) is None


def test_what_only_training_uses_may_be_missing(folder):
    """facebook/wav2vec2-base-960h has no embedding of masked frames."""
    tensors = load_file(folder / "model.safetensors")
    del tensors["wav2vec2.masked_spec_embed"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    models.load(of(folder), 0)
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"it lacks lm_head\.weight"):
        models.load(of(folder), 0)


def edit(path, **keys):
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.mark.parametrize(
    ("file", "keys", "message"),
    [
        ("config.json", {"model_type": "whisper"}, "model_type is 'whisper'.*set model.family=whisper"),
        ("config.json", {"model_type": "bert"}, "model_type is 'bert'; quantlab measures 'whisper', 'moonshine'"),
        ("config.json", {"pad_token_id": 7}, "the blank of its CTC is token 7 .* 0 is the padding of its tokenizer"),
        (
            "preprocessor_config.json",
            {"sampling_rate": 8000},
            "sampling_rate=8000; Wav2Vec2FeatureExtractor's has 16000",
        ),
        ("config.json", {"_attn_implementation": "somebody/kernel"}, "expected eager, sdpa or null"),
    ],
)
def test_a_folder_that_is_not_of_the_family_is_refused(folder, file, keys, message):
    edit(folder / file, **keys)
    with pytest.raises(CheckpointError, match=message):
        models.load(of(folder), 0)


def test_a_folder_of_another_family_says_which(folder):
    with pytest.raises(CheckpointError, match=r"model\.family=whisper reads whisper: set model\.family=ctc"):
        models.load(of(folder).model_copy(update={"family": "whisper"}), 0)


def test_tokens_become_text_in_one_place():
    """Elsewhere the repetitions of CTC would be left out a second time: `hello` would be `helo`."""
    package = Path(models.__file__).parents[1]
    places = {path.relative_to(package).as_posix(): path.read_text() for path in package.rglob("*.py")}
    # besides: the user's own lines, and the words of a Whisper
    assert {name for name, code in places.items() if "skip_special" in code} == {
        "models/__init__.py",
        "export/readme.py",
        "measurement/words.py",
    }
