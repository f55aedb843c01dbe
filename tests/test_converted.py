"""Checkpoints in the files of other programs: the same values and the same text, or one line.

The files are written here, by CTranslate2's own converter, by our writers, and, as whisper.cpp's and OpenAI's programs
would, by hand: a small Whisper with a vocabulary of OpenAI's size, whose tokens are bytes and pairs of bytes.
"""

import base64
import io
import json
import os
import pickle
import random
import re
import struct
import sys
import zipfile
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from quantlab import models
from quantlab.config.compose import compose
from quantlab.config.schema import Architecture, ModelConfig
from quantlab.engines import decoding
from quantlab.measurement.cell import run_cell
from quantlab.models import caches, convert, pretrained
from quantlab.models.convert import from_openai
from quantlab.models.formats.ctranslate2 import variables
from quantlab.models.formats.ggml.names import tensor_in_file
from quantlab.models.formats.ggml.vocabulary import readable, vocabulary
from quantlab.models.formats.ggml.write import write as write_ggml
from quantlab.models.tokens import words
from quantlab.quantization.backends import ct2
from quantlab.util.errors import CheckpointError, ConfigError, Unavailable

NANO = models.ASSETS / "nano"
ENGLISH = Architecture(
    d_model=8, encoder_layers=1, decoder_layers=2, attention_heads=2, ffn_dim=32, num_mel_bins=80, vocab_size=51_864,
    max_source_positions=100, max_target_positions=32,
)  # fmt: skip
PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
RANKS = [bytes([byte]) for byte in (*PRINTABLE, *sorted({*range(256)} - {*PRINTABLE}))]
RANKS += [bytes([first, second]) for first in range(32, 256) for second in range(256)][: 50_256 - 256]
RANK_OF = {word: rank for rank, word in enumerate(RANKS)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "checkpoints"


def at(path, **keys):
    return ModelConfig(**{"name": "mine", "source": "hub", "path": str(path)} | keys)


def loaded(path, **keys):
    return models.load(at(path), 0, **keys)


@pytest.fixture(scope="module")
def nano():
    return pretrained.load(NANO)[0]


def rounded(model, dtype):
    return {name: tensor.to(dtype).float() for name, tensor in model.state_dict().items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name, tensor in found.items() if not torch.equal(tensor, expected[name])] == []


# CTranslate2


@pytest.fixture(scope="module")
def converted(nano, tmp_path_factory):
    """Folders of CTranslate2 by their type."""
    made = {}

    def of(compute_type):
        if compute_type not in made:
            folder = made[compute_type] = tmp_path_factory.mktemp(compute_type)
            (folder / "tokenizer.json").write_bytes((NANO / "tokenizer.json").read_bytes())
            ct2._write(nano, folder, compute_type)
        return made[compute_type]

    return of


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_folder_of_ctranslate2_has_the_values_that_went_in(dtype, nano, converted):
    found = loaded(converted(dtype))
    assert_same(found.model.state_dict(), rounded(nano, getattr(torch, dtype)))
    config = cell(NANO)
    assert decoding(found.model, config) == decoding(nano, config)


def test_a_folder_of_the_librarys_own_program(nano, tmp_path):
    """Its vocabulary is all that there is of a tokenizer."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(NANO)).convert(str(tmp_path / "own"), quantization="float16")
    found = loaded(tmp_path / "own")
    assert_same(found.model.state_dict(), rounded(nano, torch.float16))
    ids = list(range(503))
    assert found.tokenizer.decode(ids) == pretrained.processor(NANO).tokenizer.decode(ids)
    assert decoding(found.model, cell(NANO)) == decoding(nano, cell(NANO))


def cell(path, *arguments):
    options = ["device=cpu", "device.threads=1", "device.pin=false", "tracking=off", "protocol=quick"]
    [config] = compose([*options, "protocol.warmup_batches=0", "dataset.limit=3", f"model.path={path}", *arguments])
    return config


def test_a_cell_hears_the_same_and_names_the_original(converted):
    theirs, ours = (run_cell(cell(path)) for path in (converted("float32"), NANO))
    assert [item.hypothesis for item in theirs.utterances] == [item.hypothesis for item in ours.utterances]
    assert ours.record.original is None
    original, found = theirs.record.original, models.original(at(converted("float32")))
    assert (original.name, original.format) == (f"{converted('float32').name}/model.bin", "ctranslate2")
    assert original.sha256 == found.sha256
    assert found.quantized is False


def test_int8_becomes_what_it_stands_for_when_it_is_asked_for(nano, converted):
    folder = converted("int8_float32")
    for ask in (models.locate, lambda model: models.fingerprint(model, 0), lambda model: models.load(model, 0)):
        with pytest.raises(CheckpointError, match=r"is already quantized \(int8\): .*quant=as_shipped"):
            ask(at(folder))
    assert models.original(at(folder)).quantized
    found, expected = loaded(folder, quantized_too=True).model.state_dict(), nano.state_dict()
    for name, tensor in expected.items():
        step = tensor.abs().amax(dim=tuple(range(1, tensor.ndim)), keepdim=True) / 127 if tensor.ndim > 1 else 0
        kept = tensor.ndim == 1 or "positions" in name
        assert torch.all((found[name] - tensor).abs() <= (0 if kept else 0.51 * step)), name


# whisper.cpp


def ggml(folder, path, format):
    """A checkpoint by our own writer, as `export` keeps it."""
    model = pretrained.load(folder)[0]
    how = decoding(model, cell(folder))
    laid_out = readable(vocabulary(model.config.vocab_size, how), words(folder))
    write_ggml(path, model, format, laid_out, how.max_new_tokens)
    return laid_out


def test_a_file_of_our_own_of_whisper_cpp_has_the_values_that_went_in(nano, tmp_path):
    laid_out = ggml(NANO, tmp_path / "ggml-nano.bin", "f16")
    found = loaded(tmp_path / "ggml-nano.bin")
    values, expected = found.model.state_dict(), nano.state_dict()
    rows = [laid_out.to_file[id] for id in range(512)]
    for name, tensor in expected.items():
        whole = "positions" in name or tensor.ndim == 1  # stays in fp32
        value = values[name]
        if name in ("model.decoder.embed_tokens.weight", "proj_out.weight"):
            value = value[rows]
        elif name == "model.decoder.embed_positions.weight":
            value = value[: len(tensor)]
        assert torch.equal(value, tensor if whole else tensor.half().float()), name
    config = cell(NANO)
    ours = decoding(nano, config)
    assert decoding(found.model, config).prompt == tuple(laid_out.to_file[id] for id in ours.prompt)
    text = [
        id for id in range(400) if laid_out.words[id] != f"<{id}>"
    ]  # whose text is none that whisper.cpp suppresses
    assert len(text) > 390
    assert found.tokenizer.decode(text) == pretrained.processor(NANO).tokenizer.decode(text)


def test_blocks_become_what_they_stand_for_when_they_are_asked_for(nano, tmp_path):
    ggml(NANO, path := tmp_path / "q.bin", "q8_0")
    with pytest.raises(CheckpointError, match=r"is already quantized \(q8_0\): .*quant=as_shipped"):
        models.locate(at(path))
    value = loaded(path, quantized_too=True).model.model.encoder.layers[0].fc1.weight
    expected = nano.model.encoder.layers[0].fc1.weight
    assert 0 < (value - expected).abs().max() < expected.abs().max() / 127


@pytest.fixture(scope="module")
def english():
    """Weights of a small Whisper of English, by OpenAI's names."""
    model = ModelConfig(name="small", source="hub", weights="random", architecture=ENGLISH)
    recogniser = models.load(model, seed=3).model
    state = {name: tensor for name, tensor in recogniser.state_dict().items() if name != "proj_out.weight"}
    return SimpleNamespace(
        model=recogniser,
        weights={tensor_in_file(name): tensor.half() for name, tensor in state.items()},
        expected=rounded(recogniser, torch.float16),
    )


def write_as_whisper_cpp(path, weights, half, ranks=RANKS):
    numbers = (51_864, 100, 8, 2, 1, 32, 8, 2, 2, 80, int(half))
    with path.open("wb") as file:
        file.write(struct.pack("<12i", 0x67676D6C, *numbers) + struct.pack("<2i", 80, 201) + bytes(4 * 80 * 201))
        file.write(struct.pack("<i", len(ranks)))
        for word in ranks:
            file.write(struct.pack("<i", len(word)) + word)
        for name, tensor in weights.items():
            column = name.startswith("encoder.conv") and name.endswith(".bias")
            halved = half and tensor.ndim > 1 and "positional" not in name
            values = (tensor[:, None] if column else tensor).to(torch.float16 if halved else torch.float32).numpy()
            file.write(struct.pack("<3i", values.ndim, len(name), int(halved)))
            file.write(struct.pack(f"<{values.ndim}i", *reversed(values.shape)) + name.encode() + values.tobytes())
    return path


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The assets of openai-whisper, whose code nobody needs to run."""
    assets = tmp_path / "site" / "whisper" / "assets"
    assets.mkdir(parents=True)
    (assets.parent / "__init__.py").write_text("raise SystemExit('ran')")
    lines = [b"%s %d\n" % (base64.b64encode(word), rank) for rank, word in enumerate(RANKS)]
    (assets / "gpt2.tiktoken").write_bytes(b"".join(lines))
    monkeypatch.syspath_prepend(tmp_path / "site")
    return assets.parent


DIMS = {
    "n_mels": 80, "n_vocab": 51_864, "n_audio_ctx": 100, "n_audio_state": 8, "n_audio_head": 2, "n_audio_layer": 1,
    "n_text_ctx": 32, "n_text_state": 8, "n_text_head": 2, "n_text_layer": 2,
}  # fmt: skip


def write_as_openai(path, weights, **keys):
    torch.save({"dims": DIMS | keys, "model_state_dict": weights}, path)
    return path


def test_openais_file_and_whisper_cpps_are_one_checkpoint(english, package, tmp_path):
    """What never comes, of OpenAI's by encoding, of whisper.cpp's by its words, is the same; and so is the text."""
    whole, half = (write_as_whisper_cpp(tmp_path / f"{half}.bin", english.weights, half) for half in (False, True))
    openai = write_as_openai(tmp_path / "small.pt", english.weights)
    found = [loaded(path) for path in (whole, half, openai)]
    for one in found:
        assert_same(one.model.state_dict(), english.expected)
        assert decoding(one.model, cell(NANO)) == decoding(found[0].model, cell(NANO))
        ids = list(range(50_256))
        assert one.tokenizer.decode(ids) == b"".join(RANKS).decode(errors="replace")
        assert one.tokenizer.encode("Quiet, please", add_special_tokens=False) == encoded(b"Quiet", b",", b" please")
    config = found[0].model.generation_config
    never = {RANK_OF[b'"'], RANK_OF[b"--"], RANK_OF[" ♪".encode()[:2]], 50_257}
    assert never <= set(config.suppress_tokens)
    assert config.begin_suppress_tokens == [RANK_OF[b" "], 50_256]
    assert "whisper" not in sys.modules


def encoded(*pieces):
    """Of pieces that the pre-tokenizer makes: the two of the lowest rank are merged first."""
    found = []
    for piece in pieces:
        parts = [piece[at : at + 1] for at in range(len(piece))]
        while ranked := [
            (RANK_OF[left + right], at) for at, (left, right) in enumerate(pairwise(parts)) if left + right in RANK_OF
        ]:
            at = min(ranked)[1]
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        found += [RANK_OF[part] for part in parts]
    return found


def test_a_tokenizer_of_the_hubs_cache_takes_the_packages_place(english, package, tmp_path, monkeypatch):
    """The folder that comes of it is the same, byte for byte, and so is the cell's id."""
    path = write_as_openai(tmp_path / "small.pt", english.weights)
    model = at(path, repo="openai/whisper-small.en", revision="a" * 40)
    mark = models.fingerprint(model, 0)
    folder = models.locate(model)
    monkeypatch.setattr(from_openai, "_package_words", dict)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(Unavailable, match=r"pip install openai-whisper.* fetch openai/whisper-small\.en"):
        models.locate(model)
    snapshot = tmp_path / "hub" / "models--openai--whisper-small.en" / "snapshots" / model.revision
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    assert models.fingerprint(model, 0) == mark
    other = json.loads((folder / "tokenizer.json").read_text())
    other["model"]["vocab"]["<|endoftext|>"] = 50_257
    other["added_tokens"][0]["id"] = 50_257
    (snapshot / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(CheckpointError, match="the available tokenizer is of another model: model=base_en"):
        models.locate(model)


# the cache


def test_the_same_content_is_one_folder(english, cache, tmp_path):
    path = write_as_whisper_cpp(tmp_path / "ggml-small.en.bin", english.weights, half=True)
    folder = models.locate(at(path))
    mark = models.fingerprint(at(path), 0)
    again = path.rename(tmp_path / "another name")
    assert models.locate(at(again)) == folder
    assert models.fingerprint(at(again), 0) == mark
    assert [item.name for item in cache.iterdir() if not item.name.startswith(".")] == [folder.name]
    other = write_as_whisper_cpp(path, english.weights | {"decoder.ln.bias": torch.ones(8)}, half=True)
    assert models.locate(at(other)) != folder


def test_half_a_folder_is_never_found(english, cache, tmp_path, monkeypatch):
    path = write_as_whisper_cpp(tmp_path / "small.bin", english.weights, half=True)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(convert.folders, "check", killed)
        with pytest.raises(KeyboardInterrupt):
            models.locate(at(path))
    assert [item for item in cache.iterdir() if item.is_dir()] == []
    folder = models.locate(at(path))
    left = folder.rename(folder.with_name(f".{folder.name}.12345678.tmp"))  # of one that was killed outright
    assert models.locate(at(path)) == folder
    assert not left.exists()


def test_a_cache_that_cannot_be_written_says_so(english, cache, tmp_path):
    cache.parent.mkdir()
    cache.write_text("in the way")
    with pytest.raises(ConfigError, match=r"cannot be written: .*QUANTLAB_CACHE"):
        models.locate(at(write_as_whisper_cpp(tmp_path / "small.bin", english.weights, half=True)))


# hostile files


def told(path):
    """Of a file that is taken nothing, of another the one line that names it."""
    try:
        models.locate(at(path), quantized_too=True)
    except (ConfigError, Unavailable) as error:
        return str(error)
    return f"{path} is taken"


def spoiled(whole, headers, draw):
    """A file that is cut off, or in which a number lies, within 24 bytes of one of some places."""
    data = bytearray(whole)
    if draw.random() < 0.3:
        return bytes(data[: draw.randrange(len(data))])
    place = draw.choice(headers) + draw.randrange(24)
    data[place : place + 4] = draw.choice([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), draw.randbytes(4)])
    return bytes(data)


def assert_one_line(path):
    line = told(path)
    assert str(path) in line
    assert "\n" not in line
    assert len(line) < 1000


def test_files_of_whisper_cpp_at_random(english, tmp_path):
    path, draw = tmp_path / "small.bin", random.Random(1)
    whole = write_as_whisper_cpp(path, english.weights, half=True, ranks=RANKS[:300]).read_bytes()
    headers = [4, 28, *(whole.index(name.encode()) - 20 for name in english.weights)]
    for _ in range(100):
        path.write_bytes(spoiled(whole, headers, draw))
        assert_one_line(path)


def test_folders_of_ctranslate2_at_random(converted, tmp_path):
    draw, source = random.Random(2), converted("float16")
    (folder := tmp_path / "given").mkdir()
    for name in ("tokenizer.json", "config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    whole = (source / "model.bin").read_bytes()
    headers = [0, *(whole.index(item.name.encode()) - 2 for item in variables(source / "model.bin") if item.shape)]
    for _ in range(40):
        (folder / "model.bin").write_bytes(spoiled(whole, headers[:-1], draw))
        assert_one_line(folder)


class Evil:
    """What runs code when it is unpickled."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


def archive(content, compressed=zipfile.ZIP_STORED):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compressed) as file:
        file.writestr("small/data.pkl", content)
        file.writestr("small/version", "3")
    return made.getvalue()


def test_no_pickle_is_run(package, english, tmp_path):
    evil = pickle.dumps({"dims": DIMS, "model_state_dict": Evil(tmp_path / "ran")}, protocol=2)
    for data, says in (
        (evil, r"torch\.load\(weights_only=True\) refuses it"),
        (archive(evil), r"torch\.load\(weights_only=True\) refuses it"),
        (archive(evil, zipfile.ZIP_DEFLATED), "its archive is compressed"),
        (archive(evil)[:-50], "its archive is broken"),
        (pickle.dumps(Evil(tmp_path / "ran")), "convert it where it is trusted"),
    ):
        (tmp_path / "given.pt").write_bytes(data)
        with pytest.raises(CheckpointError, match=says):
            models.locate(at(tmp_path / "given.pt"))
    assert not (tmp_path / "ran").exists()


WRONG = [
    ({"n_text_layer": 10**9}, "decoder_layers=1000000000: expected 1 to 256"),
    ({"n_text_state": 16, "n_audio_state": 16}, "another shape than stated"),
    ({"n_text_layer": 3}, "lacks 'decoder.blocks.2"),
    ({"n_mels": None}, "num_mel_bins=None"),
]


@pytest.mark.parametrize(("change", "says"), WRONG)
def test_sizes_that_are_not_the_tensors(change, says, english, tmp_path):
    """What the process that reads it says."""
    path = write_as_openai(tmp_path / "small.pt", english.weights, **change)
    with pytest.raises(ValueError, match=re.escape(says)):
        from_openai.main(path, tmp_path)


def test_tensors_that_are_larger_than_the_file(english, tmp_path):
    wide = english.weights | {"decoder.token_embedding.weight": torch.zeros(1, dtype=torch.half).expand(51_864, 8)}
    path = write_as_openai(tmp_path / "small.pt", wide)
    with pytest.raises(ValueError, match="its tensors are larger than the file"):
        from_openai.main(path, tmp_path)


def test_random_weights_of_a_files_shape(english, tmp_path):
    path = write_as_whisper_cpp(tmp_path / "small.bin", english.weights, half=True)
    found = models.load(at(path, weights="random"), 0)
    assert found.model.config.d_model == 8
    assert found.model.config.decoder_layers == 2


# caches of other programs


@pytest.mark.parametrize(
    ("repo", "names"),
    [
        ("openai/whisper-base.en", ("faster-whisper-base.en", "base.en")),
        ("openai/whisper-large", ("faster-whisper-large-v1", "large-v1")),
        ("distil-whisper/distil-small.en", ("faster-distil-whisper-small.en", "distil-small.en")),
    ],
)
def test_copies_of_other_programs_are_named(repo, names, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = ModelConfig(name="asked", source="hub", repo=repo, revision="b" * 40)
    converted, name = names
    with pytest.raises(Unavailable) as error:
        models.locate(model)
    assert "copies of it are on this machine" not in str(error.value)
    copies = [
        tmp_path / "hub" / f"models--{repo.replace('/', '--')}" / "snapshots" / "c1" / "model.safetensors",
        tmp_path / "hub" / f"models--Systran--{converted}" / "snapshots" / "c2" / "model.bin",
        tmp_path / "cache" / "whisper" / f"{name}.pt",
        tmp_path / "data" / "pywhispercpp" / "models" / f"ggml-{name}.bin",
        tmp_path / "hub" / "models--ggerganov--whisper.cpp" / "snapshots" / "c3" / f"ggml-{name}.bin",
    ]
    for path in copies:
        path.parent.mkdir(parents=True)
        path.touch()
    expected = [copies[0].parent, copies[1].parent, *copies[2:]]
    assert caches.copies(repo) == expected
    with pytest.raises(Unavailable) as error:
        models.locate(model)
    assert " or ".join(f"model.path={path}" for path in expected[:3]) in str(error.value)
    assert "\n" not in str(error.value)
