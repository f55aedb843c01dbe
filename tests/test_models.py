import json
import shutil
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, WhisperForConditionalGeneration

from quantlab import models
from quantlab.config.options import names, option
from quantlab.config.schema import Architecture, DatasetConfig, ModelConfig
from quantlab.models import random_weights
from quantlab.models.kinds import KINDS
from quantlab.util.errors import ConfigError

CONF = Path(__file__).parent.parent / "conf"
TINY = Architecture(
    d_model=64,
    encoder_layers=2,
    decoder_layers=2,
    attention_heads=4,
    ffn_dim=128,
    num_mel_bins=80,
    vocab_size=51_865,
    max_source_positions=300,
)


def from_yaml(kind, name, **keys):
    return kind.model_validate({**option(*name.split("/")), **keys})


def model_yaml(name, **keys):
    return from_yaml(ModelConfig, f"model/{name}", **keys)


def tiny(**keys):
    return ModelConfig(name="t", source="hub", weights="random", architecture=TINY, **keys)


# shipped YAML

PARAMETERS_M = {  # of transformers' num_parameters(), the tied embedding once
    "tiny": 37.8,
    "base": 72.6,
    "base_en": 72.6,
    "small": 241.7,
    "medium": 763.9,
    "large_v2": 1543.3,
    "large_v3": 1543.5,
    "large_v3_turbo": 808.9,
    "distil_large_v3": 756.4,
    "tiny_en": 37.8,
    "small_en": 241.7,
    "medium_en": 763.9,
    "large_v1": 1543.3,
    "distil_small_en": 166.1,
    "distil_medium_en": 394.4,
    "distil_large_v2": 756.2,
    "distil_large_v3_5": 756.4,
    "moonshine_tiny": 27.1,
    "moonshine_base": 61.5,
    "wav2vec2_base": 94.4,
    "hubert_large": 315.5,
    "parakeet_ctc_1_1b": 1062.5,
    "nano_ctc": 3.2,
    "nano_moonshine": 4.8,
}


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
def test_model_yaml(name):
    config = model_yaml(name)
    assert config.name == name
    if config.family != "whisper":
        kind = KINDS[config.config["model_type"]]
        assert kind.family == config.family
        with torch.device("meta"):
            recogniser = kind.model_class(AutoConfig.for_model(**config.config))
        assert round(recogniser.num_parameters() / 1e6, 1) == PARAMETERS_M[name]
        return
    assert config.architecture is not None
    recogniser = random_weights.build(config.architecture)
    assert config.architecture.parameters == recogniser.num_parameters()
    if name == "nano":
        pretrained = WhisperForConditionalGeneration.from_pretrained(models.ASSETS / "nano")
        assert recogniser.num_parameters() == pretrained.num_parameters()
        for key, value in config.architecture.model_dump().items():
            assert getattr(pretrained.config, THEIR_NAMES.get(key, key)) == value, key
    else:
        assert config.source == "hub"
        assert len(config.revision) == 40
        assert round(recogniser.num_parameters() / 1e6, 1) == PARAMETERS_M[name]


THEIR_NAMES = {"attention_heads": "encoder_attention_heads", "ffn_dim": "encoder_ffn_dim"}


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "dataset").glob("*.yaml")))
def test_dataset_yaml(name):
    needs_path = name in ("manifest", "librispeech_dir")
    assert from_yaml(DatasetConfig, f"dataset/{name}", **({"path": "x"} if needs_path else {})).name == name
    if needs_path:
        with pytest.raises(ValueError, match=r"needs dataset\.path="):
            from_yaml(DatasetConfig, f"dataset/{name}")


# the shipped checkpoint


def test_nano():
    checkpoint = models.load(model_yaml("nano"), 0)
    assert not checkpoint.model.training
    assert {item.dtype for item in checkpoint.model.parameters()} == {torch.float32}
    assert checkpoint.model.proj_out.weight is checkpoint.model.model.decoder.embed_tokens.weight
    assert checkpoint.tokenizer.decode(checkpoint.tokenizer("hello").input_ids, skip_special_tokens=True) == "hello"
    assert checkpoint.feature_extractor.n_samples == 6 * 16_000


def test_loading_touches_no_network(monkeypatch):
    def no(*_, **__):
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", no)
    monkeypatch.setattr(socket, "getaddrinfo", no)
    models.load(model_yaml("nano"), 0)
    models.load(tiny(), 0)


# folders


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(models.ASSETS / "nano", tmp_path / "checkpoint")


def at(path, **keys):
    return ModelConfig(name="mine", source="hub", path=str(path), **keys)


def edit_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_json(path, **keys):
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_folder(folder):
    assert models.load(at(folder), 0).model.config.d_model == 192
    shipped = models.fingerprint(model_yaml("nano"), 0)
    assert models.fingerprint(at(folder), 0) == shipped  # the content, not the place


def test_half_precision_becomes_fp32(folder):
    edit_tensors(folder, lambda tensors: tensors.update({k: v.half() for k, v in tensors.items()}))
    edit_json(folder / "config.json", dtype="float16")
    loaded = models.load(at(folder), 0).model
    assert {item.dtype for item in loaded.parameters()} == {torch.float32}
    assert loaded.dtype == torch.float32


def test_shards(folder):
    whole = models.load(at(folder), 0).model
    (folder / "model.safetensors").unlink()
    whole.save_pretrained(folder, max_shard_size="4MB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    sharded = models.load(at(folder), 0).model
    assert torch.equal(sharded.proj_out.weight, whole.proj_out.weight)
    before = models.fingerprint(at(folder), 0)
    last = max(folder.glob("model-*.safetensors"))
    last.rename(last.with_suffix(".lost"))
    with pytest.raises(ConfigError, match=rf"lacks {last.name}, which model\.safetensors\.index\.json names"):
        models.fingerprint(at(folder), 0)
    last.write_bytes(last.with_suffix(".lost").read_bytes() + b" ")
    assert models.fingerprint(at(folder), 0) != before


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"])
def test_fingerprint_follows_every_file(folder, file):
    before = models.fingerprint(at(folder), 0)
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content.replace(b" ", b"  ", 1) if file.endswith("json") else content[:-1] + b"\x01")
    assert models.fingerprint(at(folder), 0) != before
    (folder / "README.md").write_text("changes nothing")


LAYER = "model.encoder.layers.0.fc1.weight"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop(LAYER), f"it lacks {LAYER}"),
        (lambda t: t.update(surplus=torch.ones(2)), "the model does not have: surplus"),
        (lambda t: t.update({LAYER: torch.zeros(3, 192)}), f"another shape than config.json says: {LAYER}"),
        (lambda t: t[LAYER].view(-1)[7:8].fill_(float("nan")), f"NaN or infinite values in {LAYER}"),
        (lambda t: t[LAYER].view(-1)[7:8].fill_(float("inf")), f"NaN or infinite values in {LAYER}"),
        (lambda t: [t.pop(k) for k in list(t) if "decoder.layers" in k], "lacks .* and [0-9]+ more"),
    ],
)
def test_wrong_tensors_are_named(folder, change, says):
    edit_tensors(folder, change)
    with pytest.raises(ConfigError, match=f"is not a valid checkpoint: .*{says}"):
        models.load(at(folder), 0)


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def only_a_pickle(folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def truncate(folder):
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1_000_000)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (only_a_pickle, "has only pytorch_model.bin, a pickle, which can run any code"),
        (remove("model.safetensors"), "has no model.safetensors"),
        (remove("config.json"), "has no config.json"),
        (remove("tokenizer.json"), "has no tokenizer: neither tokenizer.json nor vocab.json"),
        (remove("processor_config.json"), "has no feature extractor: neither preprocessor_config.json"),
        (truncate, "cannot be loaded: SafetensorError"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "model_type is None; quantlab measures 'whisper'"),
        (lambda f: edit_json(f / "config.json", model_type="bert"), "model_type is 'bert'"),
        (lambda f: edit_json(f / "config.json", quantization_config={"quant_method": "hqq"}), "is already quantized"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "cannot be loaded"),
        (
            lambda f: edit_json(
                f / "processor_config.json",
                feature_extractor={
                    "feature_extractor_type": "WhisperFeatureExtractor",
                    "feature_size": 128,
                    "chunk_length": 6,
                },
            ),
            "makes 128 mel bins, the model takes 80",
        ),
        (
            lambda f: (f / "model.safetensors.index.json").write_text("{}") and (f / "model.safetensors").unlink(),
            "is not an index",
        ),
    ],
)
def test_refused_folders(folder, change, says):
    change(folder)
    with pytest.raises(ConfigError, match=says):
        models.load(at(folder), 0)


def test_code_in_a_folder_is_not_run(folder, tmp_path):
    witness = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(witness)!r}, 'w')\nclass Evil: pass\n")
    edit_json(folder / "config.json", auto_map={"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"})
    edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    models.load(at(folder), 0)
    assert not witness.exists()


def test_no_folder(tmp_path):
    for call in (models.load, models.fingerprint):
        with pytest.raises(ConfigError, match="does not exist; expected a folder that `save_pretrained`"):
            call(at(tmp_path / "nowhere"), 0)


# random weights


def test_random_weights_are_seeded():
    first, again, other = (models.load(tiny(), seed).model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["proj_out.weight"], other["proj_out.weight"])
    marks = [models.fingerprint(tiny(), seed) for seed in (0, 0, 1)]
    assert marks[0] == marks[1] != marks[2]


def test_random_weights_leave_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    models.load(tiny(), 0)
    assert torch.equal(torch.rand(3), expected)


def test_random_weights_are_initialised_as_whisper_does():
    state = models.load(tiny(), 0).model.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    assert state[LAYER].std() == pytest.approx(0.02, rel=0.05)
    assert state["model.encoder.layers.0.fc1.bias"].abs().max() == 0
    assert state["model.encoder.layer_norm.weight"].eq(1).all()
    positions = state["model.encoder.embed_positions.weight"]
    assert positions[:, 0].sub(torch.sin(torch.arange(300.0))).abs().max() < 1e-4  # sinusoids of Whisper's encoder
    assert positions[0, 32:].eq(1).all()


@pytest.mark.parametrize(
    ("vocab", "options"),
    [
        (51_865, {}),
        (51_865, {"language": "de", "task": "translate"}),
        (51_866, {"num_beams": 2}),
        (384, {"language": "en", "task": "transcribe"}),
    ],
)
def test_exactly_the_tokens_asked_for(vocab, options):
    architecture = TINY.model_copy(update={"vocab_size": vocab, "num_mel_bins": 80 if vocab != 51_866 else 128})
    checkpoint = models.load(tiny().model_copy(update={"architecture": architecture}), 0)
    assert checkpoint.tokenizer is None
    assert checkpoint.feature_extractor.nb_max_frames == 600
    mel = torch.randn(2, architecture.num_mel_bins, 600)
    assert checkpoint.model.generate(mel, min_new_tokens=8, max_new_tokens=8, **options).shape == (2, 8)
    config = checkpoint.model.generation_config
    known = 50_257 if vocab > 51_000 else 375
    assert config.eos_token_id == known
    assert config.no_timestamps_token_id == {51_865: 50_363, 51_866: 50_364, 384: 383}[vocab]  # of the real ones


@pytest.mark.parametrize("weights", ["pretrained", "random"])
@pytest.mark.parametrize(
    "name", [name for name in names("model") if name != "nano" and option("model", name)["family"] == "whisper"]
)
def test_a_folder_under_the_name_of_another_model_is_refused(name, weights, folder):
    """nano has the shape of no published model."""
    config = model_yaml(name).model_copy(update={"path": str(folder), "weights": weights})
    with pytest.raises(ConfigError, match=f"is not {name}: its d_model is 192, that of {name} .*model.name=NAME"):
        models.fingerprint(config, 0)
    assert models.fingerprint(config.model_copy(update={"name": "mine"}), 0)


def test_the_model_that_has_the_shape_of_a_folder_is_named(folder):
    base = model_yaml("base").architecture.model_dump()
    both = {f"{part}_{key}": base.pop(key) for key in ("attention_heads", "ffn_dim") for part in ("encoder",)}
    both |= {key.replace("encoder_", "decoder_"): value for key, value in both.items()}
    edit_json(folder / "config.json", **base, **both)
    config = model_yaml("tiny").model_copy(update={"path": str(folder), "weights": "random"})
    with pytest.raises(ConfigError, match="its d_model is 512, that of tiny 384; set model=base or a name of its own"):
        models.fingerprint(config, 0)
    assert models.fingerprint(config.model_copy(update={"name": "base"}), 0)
    with pytest.raises(
        ConfigError, match="is not base_en: its vocab_size is 51865, that of base_en 51864; set model=base"
    ):
        models.fingerprint(config.model_copy(update={"name": "base_en"}), 0)
    edit_json(folder / "config.json", vocab_size=51_900)  # of no published model: fine-tuned, with more tokens
    for name in ("base", "base_en"):
        assert models.fingerprint(config.model_copy(update={"name": name}), 0)


def test_another_repository_under_the_name_of_a_published_model_is_looked_at(folder, monkeypatch):
    monkeypatch.setattr(models.hub, "snapshot", lambda *args: folder)
    ours = model_yaml("base").model_copy(update={"repo": "somebody/whisper-fine", "revision": None})
    with pytest.raises(ConfigError, match="somebody/whisper-fine is not base: its d_model is 192"):
        models.locate(ours)


def test_random_weights_in_the_shape_of_a_folder(folder):
    (folder / "model.safetensors").unlink()
    checkpoint = models.load(at(folder, weights="random"), 0)
    assert checkpoint.model.config.d_model == 192
    assert checkpoint.feature_extractor.nb_max_frames == 600
    mel = torch.randn(1, 80, 600)
    assert checkpoint.model.generate(mel, min_new_tokens=8, max_new_tokens=8).shape == (1, 8)
    before = models.fingerprint(at(folder, weights="random"), 0)
    edit_json(folder / "config.json", encoder_layers=3)
    assert models.fingerprint(at(folder, weights="random"), 0) != before


def test_impossible_architectures():
    with pytest.raises(ConfigError, match=r"has neither model\.architecture"):
        models.load(ModelConfig(name="x", source="hub", weights="random"), 0)
    odd_heads = TINY.model_copy(update={"attention_heads": 5})
    with pytest.raises(ConfigError, match="embed_dim must be divisible by num_heads"):
        models.load(tiny().model_copy(update={"architecture": odd_heads}), 0)
    odd_window = TINY.model_copy(update={"max_source_positions": 301})
    with pytest.raises(ConfigError, match="max_source_positions=301: expected a multiple of 50"):
        models.load(tiny().model_copy(update={"architecture": odd_window}), 0)


def test_names_and_weights_of_linear_modules_follow_from_the_shape(folder):
    from torch import nn

    nano = models.load(model_yaml("nano"), 0, "float32").model
    there = {name: module.weight.numel() for name, module in nano.named_modules() if isinstance(module, nn.Linear)}
    for config in (model_yaml("nano"), model_yaml("nano").model_copy(update={"name": "mine", "path": str(folder)})):
        assert models.linear_weights(config) == there
