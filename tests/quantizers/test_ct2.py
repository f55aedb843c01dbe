"""CTranslate2: what was loaded is what was asked for, and decodes as transformers does."""

import ctypes
import dataclasses
import importlib.util
import struct

import numpy as np
import pytest
import torch

from helpers.arithmetic import FLOAT, Shape
from helpers.quantizing import quant_config
from quantlab import models
from quantlab.config.compose import compose
from quantlab.config.schema import Architecture, ModelConfig
from quantlab.data import features, open_corpus
from quantlab.engines import decoding
from quantlab.engines.ctranslate2 import length_limit
from quantlab.engines.pytorch import Eager
from quantlab.measurement.cell import run_cell
from quantlab.models.formats.ctranslate2 import Variable, variables
from quantlab.quantization import receipt
from quantlab.quantization.backends import ct2
from quantlab.quantization.select import select
from quantlab.util.errors import ConfigError

CPU = torch.device("cpu")
TINY = Architecture(
    d_model=32, encoder_layers=3, decoder_layers=2, attention_heads=2, ffn_dim=64, num_mel_bins=80, vocab_size=300,
    max_source_positions=300, max_target_positions=32,
)  # fmt: skip
SCALARS = 15  # bytes: heads, activation, whether the norm comes first and the like, of encoder and decoder


@dataclasses.dataclass
class Nano:
    model: object
    decoding: object
    speech: object  # of the split `other`


@pytest.fixture(scope="module")
def shipped():
    [config] = compose(["dataset.limit=10", "device=cpu", "tracking=off"])
    checkpoint = models.load(config.model, 0)
    speech = features(open_corpus(config.dataset), checkpoint.feature_extractor).splits["other"]
    return Nano(checkpoint.model, decoding(checkpoint.model, config), speech)


@pytest.fixture(scope="module")
def in_fp32(shipped):
    return converted(shipped.model, "ct2_float32", shipped.decoding)[0].engine


def converted(model, name, how, /, **changes):
    """What the library holds, and the receipt."""
    quant = quant_config(name, **changes)
    names, skipped = select(model, quant)
    before = receipt.snapshot(model)
    found = ct2.convert(model, quant, names, CPU, how, 1)
    return found, receipt.read_converted(before, found, names, skipped)


def both(shipped, engine, **changes):
    """Token ids of all utterances by transformers and by CTranslate2."""
    how = dataclasses.replace(shipped.decoding, **changes)
    eager = Eager(shipped.model, CPU, how)
    return eager.generate(shipped.speech)[0], dataclasses.replace(engine, decoding=how).generate(shipped.speech)[0]


def bytes_of_file(shape, of_weight):
    """Bytes of all tensors; `of_weight` gives those of a weight with so many rows and columns, its scales included."""
    weights = [(o, i) for o, i, _ in shape.linears()] + [
        (shape.vocab, shape.d), (shape.d, 3 * shape.mel), (shape.d, 3 * shape.d),
    ]  # fmt: skip
    others = shape.params() - sum(o * i for o, i in weights)
    biases_of_keys = shape.d * (shape.encoder_layers + 2 * shape.decoder_layers)  # zeros, in one piece with q's and v's
    return FLOAT * (others + biases_of_keys) + SCALARS + sum(of_weight(o, i) for o, i in weights)


@pytest.mark.parametrize(
    ("name", "of_weight"),
    [
        ("ct2_float32", lambda o, i: FLOAT * o * i),
        ("ct2_int8", lambda o, i: o * i + FLOAT * o),
        ("ct2_int8_float32", lambda o, i: o * i + FLOAT * o),
    ],
)
def test_receipt(name, of_weight, shipped):
    before = {key: value.clone() for key, value in shipped.model.state_dict().items()}
    found, evidence = converted(shipped.model, name, shipped.decoding)
    assert evidence.verified, evidence.problems
    quantized = name != "ct2_float32"
    assert evidence.modules_quantized == (evidence.modules_total if quantized else 0)
    assert evidence.size_bytes == bytes_of_file(Shape.of(shipped.model.config), of_weight)
    for item in evidence.modules:
        assert item.dtypes["weight"] == ("int8" if quantized else "float32")
        assert ("weight_scale" in item.dtypes) == quantized
    assert all(torch.equal(value, before[key]) for key, value in shipped.model.state_dict().items())
    assert found.kernel == {"ct2_int8": "CTranslate2 int8_float32 (asked for int8)"}.get(
        name, f"CTranslate2 {name.removeprefix('ct2_')}"
    )


def test_every_linear_of_another_architecture_is_found():
    random = ModelConfig(name="tiny", source="shipped", weights="random", architecture=TINY)
    model = models.load(random, 0).model
    [config] = compose(["device=cpu"])
    how = decoding(model, config.model_copy(update={"model": random}))
    found, evidence = converted(model, "ct2_int8", how)
    assert evidence.verified, evidence.problems
    linears = dict(model.named_modules())
    assert set(found.linears) == {name for name, part in linears.items() if isinstance(part, torch.nn.Linear)}
    for name, held in found.linears.items():
        sizes = {item.name: item.bytes for item in held.tensors}
        assert (sizes["weight"], sizes["weight_scale"]) == (linears[name].weight.numel(), 4 * len(linears[name].weight))
    assert {id: text for text, id in ct2._vocabulary(model, {}).items()}[how.end] == "<|endoftext|>"


def test_the_reader_takes_the_whole_file_and_agrees_with_the_library(shipped, tmp_path):
    from ctranslate2.models import Whisper

    ct2._write(shipped.model, tmp_path, "int8")
    path = tmp_path / "model.bin"
    found = variables(path)
    stored = [item for item in found if item.name == item.stored_as]
    assert len({item.name for item in found}) == len(found)
    assert [item.name for item in found if item not in stored] == [
        "decoder/projection/weight",
        "decoder/projection/weight_scale",
    ]
    of_variables = sum(len(item.name) + 9 + 4 * len(item.shape) + item.bytes for item in stored)
    of_alias = sum(len(name) + 3 for name in ("decoder/projection/weight", "decoder/embeddings/weight"))
    assert path.stat().st_size == of_variables + 4 * 4 + len("WhisperSpec") + 3 + of_alias
    loaded = Whisper(str(tmp_path))
    shapes = {item.name: item.shape for item in found}
    assert shapes["encoder/conv1/weight"][1] == loaded.n_mels
    assert all(
        item.bytes == np.prod(item.shape, dtype=int) * {"int8": 1, "int16": 2}.get(item.dtype, 4) for item in found
    )


def test_the_reader_on_a_file_by_hand(tmp_path):
    def text(value):
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    weight = text("a/weight") + struct.pack("<BIIBI", 2, 2, 3, 1, 6) + bytes(6)
    scale = text("a/weight_scale") + struct.pack("<BIBI", 1, 2, 0, 8) + bytes(8)
    aliases = struct.pack("<I", 1) + text("b/weight") + text("a/weight")
    path = tmp_path / "model.bin"
    path.write_bytes(struct.pack("<I", 6) + text("S") + struct.pack("<II", 3, 2) + weight + scale + aliases)
    assert variables(path) == [
        Variable("a/weight", "int8", (2, 3), 6, "a/weight", 41),
        Variable("a/weight_scale", "float32", (2,), 8, "a/weight_scale", 74),
        Variable("b/weight", "int8", (2, 3), 6, "a/weight", 41),
        Variable("b/weight_scale", "float32", (2,), 8, "a/weight_scale", 74),
    ]
    path.write_bytes(struct.pack("<I", 7))
    with pytest.raises(ValueError, match="layout 7 of CTranslate2, only 6"):
        variables(path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_new_tokens": 5},
        {"max_new_tokens": 1},
        {"max_new_tokens": 7, "min_new_tokens": 7},
        {"audio_ctx": "dynamic"},
    ],
    ids=str,
)
def test_fp32_gives_the_tokens_of_transformers(changes, shipped, in_fp32):
    expected, got = both(shipped, in_fp32, **changes)
    assert got == expected
    assert max(map(len, got)) <= changes.get("max_new_tokens", 60)
    assert {len(row) for row in got} == {7} or "min_new_tokens" not in changes


def test_beams_are_those_of_the_library(shipped, in_fp32):
    """It ends a search by a rule of its own, so that not every utterance comes out the same."""
    _, greedy = both(shipped, in_fp32)
    expected, got = both(shipped, in_fp32, num_beams=3)
    same = sum(mine == theirs for mine, theirs in zip(got, expected, strict=True))
    assert got != greedy
    assert same >= 7


def test_suppressed_tokens_are_those_of_transformers(shipped):
    """What comes first, and what comes most, may come no more: first the one and not the other, then both."""
    plain = Eager(shipped.model, CPU, shipped.decoding).generate(shipped.speech)[0]
    first, often = plain[0][0], plain[0][1]
    tokens = shipped.model.generation_config
    before = tokens.begin_suppress_tokens, tokens.suppress_tokens
    try:
        tokens.begin_suppress_tokens, tokens.suppress_tokens = [first, shipped.decoding.end], [*before[1], often]
        how = dataclasses.replace(
            shipped.decoding, suppressed=tuple(tokens.suppress_tokens), suppressed_first=(first, shipped.decoding.end)
        )
        engine = converted(shipped.model, "ct2_float32", how)[0].engine
        expected, got = both(shipped, engine, suppressed=how.suppressed, suppressed_first=how.suppressed_first)
    finally:
        tokens.begin_suppress_tokens, tokens.suppress_tokens = before
    assert got == expected != plain
    assert first not in {row[0] for row in got}
    assert not any(often in row for row in got)


class Watched:
    """The library's model; keeps what it is given and what it says."""

    def __init__(self, model):
        self.model, self.heard, self.said = model, [], []

    def encode(self, features):
        self.heard.append(features.shape)
        return self.model.encode(features)

    def generate(self, heard, *arguments, **options):
        self.heard.append(heard.shape)
        self.said.append(self.model.generate(heard, *arguments, **options))
        return self.said[-1]


@pytest.mark.parametrize("count", [1, 2, 5, 60])
def test_decoding_forced_tokens_is_apart_from_the_encoder(count, shipped, in_fp32):
    watched = Watched(in_fp32.model)
    how = dataclasses.replace(shipped.decoding, forced_tokens=count)
    engine = dataclasses.replace(in_fp32, model=watched, decoding=how)
    assert engine.decode(shipped.speech) > 0
    assert watched.heard == [[10, 80, 600], [10, 300, shipped.model.config.d_model]]
    assert {len(item.sequences_ids[0]) for item in watched.said[0]} == {count}
    watched.heard.clear()
    assert engine.encode(shipped.speech) > 0
    assert watched.heard == [[10, 80, 600]]


def test_a_dynamic_window_is_shorter(shipped, in_fp32):
    watched = Watched(in_fp32.model)
    how = dataclasses.replace(shipped.decoding, audio_ctx="dynamic")
    short = shipped.speech.take([int(np.argmin(shipped.speech.audio_s))])
    dataclasses.replace(in_fp32, model=watched, decoding=how).encode(short)
    [[_, _, frames]] = watched.heard
    assert 100 * short.audio_s[0] <= frames < 600


@pytest.mark.parametrize(
    ("tokens", "prompt", "limit"),
    [(224, 4, 448), (32, 4, 64), (3, 4, 6), (2, 4, 5), (1, 4, 4), (1, 2, 2)],
)
def test_the_limit_is_undone(tokens, prompt, limit):
    """As the library computes it: half, or what the prompt leaves."""
    assert length_limit(tokens, prompt) == limit
    assert min(limit // 2, limit - (prompt - 1)) == tokens


def test_a_whole_cell_of_random_weights():
    options = ["model=nano", "model.weights=random", "model.architecture.d_model=32", "quant=ct2_int8"]
    shape = {key: value for key, value in TINY.model_dump().items() if key != "d_model"}
    options += [f"model.architecture.{key}={value}" for key, value in shape.items()]
    [config] = compose([*options, "model.random_tokens=9", "dataset.limit=2", "device=cpu", "tracking=off"])
    result = run_cell(config)
    assert result.record.receipt.verified
    assert {item.tokens for item in result.utterances} == {9}


@pytest.mark.parametrize(
    ("name", "device", "changes", "reason"),
    [
        ("ct2_int8", "mps", {}, "not on mps: set device=cpu"),
        ("ct2_bfloat16", "cpu", {}, "computes in bfloat16 on CUDA only: set device=cuda"),
        ("ct2_int8_float16", "cpu", {}, "computes in int8_float16 on CUDA only"),
        ("ct2_int8", "cpu", {"format": "int4"}, "no quant.format=int4; it has float16"),
        ("ct2_int8", "cpu", {"format": None}, "needs quant.format, one of float16"),
        ("ct2_int8", "cpu", {"bits": 4}, "int8 has no quant.bits=4.0; it has 8"),
        ("ct2_int8", "cpu", {"scheme": "weight-only"}, "it has dynamic"),
        ("ct2_float32", "cpu", {"scheme": "dynamic"}, "needs quant.format"),
        ("ct2_int8", "cpu", {"granularity": "per-tensor"}, "it has per-channel"),
        ("ct2_int8", "cpu", {"symmetric": False}, "it has True"),
        ("ct2_int8", "cpu", {"target": "encoder"}, "set quant.target=all"),
        ("ct2_int8", "cpu", {"skip": ["*.fc1"]}, "quant.skip=[]"),
        ("ct2_int8", "cpu", {"head": False}, "quant.head=true"),
    ],
)
def test_what_cannot_exist_has_a_reason(name, device, changes, reason):
    assert reason in ct2.why_unsupported(quant_config(name, **changes), device)


def test_not_installed(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ctranslate2" else find(name))
    assert ct2.why_unsupported(quant_config("ct2_int8"), "cpu") == (
        "ctranslate2 is not installed: pip install ctranslate2"
    )


def test_a_compute_type_that_this_device_has_not_got_is_no_other_one(shipped):
    with pytest.raises(ConfigError, match=r"no quant\.format=bfloat16 on this cpu: float32, int8, int8_float32"):
        converted(shipped.model, "ct2_bfloat16", shipped.decoding)


def test_decoding_that_the_library_cannot_do(shipped):
    with pytest.raises(ConfigError, match="not at least 3"):
        converted(shipped.model, "ct2_float32", dataclasses.replace(shipped.decoding, min_new_tokens=3))
    with pytest.raises(ConfigError, match="no_timestamps_token_id"):
        converted(shipped.model, "ct2_float32", dataclasses.replace(shipped.decoding, prompt=(504,)))


def _has_cublas() -> bool:
    try:
        return ctypes.CDLL("libcublas.so.12") is not None
    except OSError:
        return False


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.skipif(not _has_cublas(), reason="CTranslate2's wheel needs CUDA 12's cuBLAS: nvidia-cublas-cu12")
@pytest.mark.parametrize("name", ["ct2_float32", "ct2_int8", "ct2_int8_float32", "ct2_int8_float16", "ct2_bfloat16"])
def test_on_cuda(name, shipped):
    quant = quant_config(name)
    names, skipped = select(shipped.model, quant)
    before = receipt.snapshot(shipped.model)
    found = ct2.convert(shipped.model, quant, names, torch.device("cuda"), shipped.decoding, 1)
    evidence = receipt.read_converted(before, found, names, skipped)
    assert evidence.verified, evidence.problems
    assert len(found.engine.generate(shipped.speech)[0]) == len(shipped.speech.ids)
