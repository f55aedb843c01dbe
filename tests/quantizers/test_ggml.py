"""whisper.cpp: the file holds the weights, and what it decodes is what transformers decodes."""

import dataclasses
import gc
import importlib.util
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants

from helpers.quantizing import quant_config
from quantlab import models
from quantlab.config.compose import compose
from quantlab.data import features, open_corpus
from quantlab.engines import decoding, whispercpp
from quantlab.engines.pytorch import Eager
from quantlab.measurement.cell import run_cell
from quantlab.models.formats.ggml.read import read
from quantlab.models.formats.ggml.vocabulary import ENGLISH, MULTILINGUAL, NEVER, WITH_CANTONESE, vocabulary
from quantlab.models.formats.ggml.write import write
from quantlab.quantization import receipt
from quantlab.quantization.backends import ggml
from quantlab.quantization.select import select
from quantlab.util.errors import ConfigError, UnsupportedError

CPU = torch.device("cpu")
BLOCK_BYTES = {"q8_0": 34, "q5_1": 24, "q5_0": 22, "q4_1": 20, "q4_0": 18}  # of 32 weights
FORMATS = ["f16", *BLOCK_BYTES]


@dataclasses.dataclass
class Nano:
    model: object
    decoding: object
    speech: object


@pytest.fixture(scope="module")
def shipped():
    [config] = compose(["dataset.limit=6", "device=cpu", "tracking=off"])
    checkpoint = models.load(config.model, 0)
    speech = features(open_corpus(config.dataset), checkpoint.feature_extractor).splits["other"]
    return Nano(checkpoint.model, decoding(checkpoint.model, config), speech)


@pytest.fixture(scope="module")
def in_f16(shipped):
    return converted(shipped, "f16")[0].engine


@pytest.fixture
def file(shipped, tmp_path):
    """Writes the shipped model in a format, and reads it back: `tensor(name)` is its bytes, a row of them per row."""

    def made(format):
        path = tmp_path / "model.bin"
        laid_out = vocabulary(shipped.model.config.vocab_size, shipped.decoding)
        write(path, shipped.model, format, laid_out, shipped.decoding.max_new_tokens)
        found = {item.name: item for item in read(path).tensors}

        def tensor(name):
            item = found[name]
            data = path.read_bytes()[item.offset : item.offset + item.bytes]
            return np.frombuffer(data, np.uint8).reshape(item.shape[0], -1)

        made.tensors, made.numbers, made.path, made.vocabulary = found, read(path).numbers, path, laid_out
        return tensor

    return made


def converted(shipped, format, **changes):
    """What whisper.cpp holds, and the receipt."""
    quant = quant_config(f"ggml_{format}")
    how = dataclasses.replace(shipped.decoding, **changes)
    names, skipped = select(shipped.model, quant)
    before = receipt.snapshot(shipped.model)
    found = ggml.convert(shipped.model, quant, names, CPU, how, 1)
    return found, receipt.read_converted(before, found, names, skipped)


def by_hand(block, format):
    """The 32 weights of a block, as ggml-common.h describes it."""
    scale, least = np.frombuffer(block[:4], np.float16).astype(np.float32)
    start = 4 if format.endswith("_1") else 2
    if format == "q8_0":
        return scale * np.frombuffer(block[2:], np.int8)
    high = struct.unpack("<I", block[start : start + 4])[0] if format.startswith("q5") else 0
    nibbles = np.frombuffer(block[start + (4 if format.startswith("q5") else 0) :], np.uint8)
    codes = np.concatenate([nibbles & 15, nibbles >> 4]).astype(np.int64)
    codes += [16 * (high >> index & 1) for index in range(32)]
    if format.endswith("_1"):
        return scale * codes + least
    return scale * (codes - (16 if format == "q5_0" else 8))


@pytest.mark.parametrize("format", BLOCK_BYTES)
def test_blocks_hold_the_weights(format, shipped, file):
    weight = shipped.model.model.decoder.layers[1].fc2.weight.detach().numpy()
    rows = file(format)("decoder.blocks.1.mlp.2.weight")
    assert rows.shape == (192, 768 // 32 * BLOCK_BYTES[format])
    values = quants.dequantize(rows, GGMLQuantizationType[format.upper()])
    blocks = rows.reshape(-1, BLOCK_BYTES[format])
    mine = np.stack([by_hand(block.tobytes(), format) for block in blocks[:500]])
    np.testing.assert_allclose(mine, values.reshape(-1, 32)[:500], rtol=1e-6)
    original = weight.reshape(-1, 32)[:500]
    affine, levels = format.endswith("_1"), 2 ** int(format[1])
    if affine:
        step, reach = (original.max(1) - original.min(1)) / (levels - 1), 0.5
    elif format == "q8_0":
        step, reach = abs(original).max(1) / 127, 0.5
    else:  # one code more below zero than above it: a weight as large as the largest, of the other sign, misses by one
        step, reach = abs(original).max(1) / (levels / 2), 1
    of_scale = levels / 2**11  # scale and minimum are f16
    assert (abs(mine - original).max(1) <= (reach + of_scale) * step + abs(original).max(1) / 2**11).all()
    assert abs(mine - original).mean() < 0.3 * step.mean()


def test_a_block_computed_on_paper(tmp_path):
    row = np.linspace(-8, 7.5, 32, dtype=np.float32)[None]
    codes = quants.quantize(row, GGMLQuantizationType.Q4_0)[0].tobytes()
    assert np.frombuffer(codes[:2], np.float16)[0] == 1.0  # the largest magnitude, -8, is code 0 of 16
    assert codes[2] == 0 | 8 << 4  # weights 0 (-8) and 16 (0.0): codes 0 and 8
    assert by_hand(codes, "q4_0").tolist() == [min(7, int(np.floor(value + 0.5))) for value in row[0]]


def test_every_parameter_is_in_the_file_once(shipped, file):
    tensor = file("f16")
    parameters = dict(shipped.model.named_parameters())
    assert len(file.tensors) == len(parameters)
    names = {
        "model.encoder.layers.3.self_attn.k_proj.weight": "encoder.blocks.3.attn.key.weight",
        "model.decoder.layers.0.encoder_attn.out_proj.weight": "decoder.blocks.0.cross_attn.out.weight",
        "model.decoder.layers.1.fc1.weight": "decoder.blocks.1.mlp.0.weight",
        "model.encoder.conv2.weight": "encoder.conv2.weight",
    }
    for theirs, ours in names.items():
        expected = parameters[theirs].detach().numpy().astype(np.float16)
        assert tensor(ours).tobytes() == expected.tobytes()
    for theirs, ours in {
        "model.encoder.layer_norm.weight": "encoder.ln_post.weight",
        "model.decoder.layer_norm.bias": "decoder.ln.bias",
        "model.decoder.layers.1.final_layer_norm.weight": "decoder.blocks.1.mlp_ln.weight",
        "model.encoder.conv1.bias": "encoder.conv1.bias",
        "model.encoder.embed_positions.weight": "encoder.positional_embedding",
    }.items():
        assert tensor(ours).tobytes() == parameters[theirs].detach().numpy().tobytes()
    assert file.tensors["encoder.conv1.bias"].shape == (192, 1)
    assert file.numbers["n_text_ctx"] == 128  # of which whisper.cpp decodes 128 / 2 - 4
    positions = tensor("decoder.positional_embedding").view(np.float32)
    assert not positions[64:].any()
    np.testing.assert_array_equal(positions[:64], parameters["model.decoder.embed_positions.weight"].detach())


def test_only_matrices_are_quantized(file):
    file("q5_0")
    for name, item in file.tensors.items():
        matrix = name.endswith(".weight") and len(item.shape) == 2
        assert item.dtype == ("q5_0" if matrix else "f16" if len(item.shape) == 3 else "f32"), name
    assert file.numbers["ftype"] == 2008


def test_a_small_vocabulary_lies_in_the_standard_ids(shipped, file):
    rows = file("f16")("decoder.token_embedding.weight").view(np.float16)
    weight = shipped.model.proj_out.weight.detach().numpy().astype(np.float16)
    assert rows.shape == (MULTILINGUAL, 192)
    moved = {503: 50257, 504: 50258, 505: 50259, 507: 50359, 511: 50363}
    for id in (0, 1, 502, 506, *moved):
        np.testing.assert_array_equal(rows[moved.get(id, id)], weight[id])
    others = np.ones(MULTILINGUAL, bool)
    others[[moved.get(id, id) for id in range(512)]] = False
    assert (rows[others] == weight[file.vocabulary.spare]).all()
    assert file.vocabulary.ids()[600] == file.vocabulary.spare  # if it should win, it means the same


@pytest.mark.parametrize(
    ("size", "language", "prompt", "end"),
    [
        (ENGLISH, None, (50257, 50362), 50256),
        (MULTILINGUAL, "de", (50258, 50261, 50359, 50363), 50257),
        (WITH_CANTONESE, "yue", (50258, 50358, 50360, 50364), 50257),
    ],
)
def test_real_vocabularies_map_one_to_one(size, language, prompt, end, shipped):
    first = (220, end)
    how = dataclasses.replace(
        shipped.decoding, language=language, prompt=prompt, end=end, suppressed=(1, 2, 50361), suppressed_first=first
    )
    found = vocabulary(size, how)
    assert found.ids() == tuple(range(size))
    assert found.words[220] == " "
    assert (found.words[1], found.words[2], found.words[50361]) == ('"', "#", "<50361>")
    assert len(set(found.words)) == size
    with pytest.raises(ConfigError, match="those of this checkpoint are"):
        vocabulary(size, dataclasses.replace(how, prompt=prompt[:-1]))


@pytest.mark.parametrize(
    ("size", "changes", "reason"),
    [
        (51867, {}, "special tokens of a vocabulary of 51867"),
        (512, {"language": "tlh"}, "does not know the language 'tlh'"),
        (
            512,
            {"suppressed": tuple(range(len(NEVER) + 1))},
            "suppresses 110 tokens, but this checkpoint suppresses 111",
        ),
        (512, {"suppressed_first": (1, 2, 503)}, "the end token and one other"),
    ],
)
def test_a_vocabulary_that_cannot_be_laid_out(size, changes, reason, shipped):
    with pytest.raises(ConfigError, match=reason):
        vocabulary(size, dataclasses.replace(shipped.decoding, **changes))


@pytest.mark.parametrize("format", FORMATS)
def test_receipt_and_decoding(format, shipped):
    found, evidence = converted(shipped, format)
    assert evidence.verified, evidence.problems
    assert evidence.modules_quantized == evidence.modules_total == 6 * 6 + 10 * 2 + 1
    parameters = dict(shipped.model.named_parameters())
    bytes_of_weight = BLOCK_BYTES[format] / 32 if format in BLOCK_BYTES else 2

    def stored(name, value):
        if "embed_positions" in name or not name.endswith("weight") or value.ndim == 1:
            return 4.0
        return 2.0 if value.ndim == 3 else bytes_of_weight

    assert evidence.size_bytes == sum(stored(name, value) * value.numel() for name, value in parameters.items())
    assert set(evidence.bytes_by_dtype) == {format, "f16", "f32"}
    assert found.linears["model.encoder.layers.0.fc1"].tensors[0].dtype == format
    assert found.kernel.startswith(f"whisper.cpp {format} (")
    rows, seconds = found.engine.generate(shipped.speech)
    expected, _ = Eager(shipped.model, CPU, shipped.decoding).generate(shipped.speech)
    assert seconds > 0
    same = sum(mine == theirs for mine, theirs in zip(rows, expected, strict=True))
    assert same == len(expected) if format == "f16" else len([row for row in rows if row]) == len(expected)


def test_tokens_that_never_come(shipped):
    """All that whisper.cpp can suppress, among them tokens that would come."""
    heard = Eager(shipped.model, CPU, shipped.decoding).generate(shipped.speech)[0]
    often = sorted({id for row in heard for id in row})[:40]
    never = tuple(dict.fromkeys([*shipped.decoding.suppressed, *often, *range(200, 300)]))
    kept = [id for id in never if id < 503][: len(NEVER) - 3]  # 506, 508, 509, 510 have rows of their own below the end
    never = (*shipped.decoding.suppressed, *kept[:-1])
    first = (503, heard[0][0] if heard[0][0] not in never else 400)
    found, _ = converted(shipped, "f16", suppressed=never, suppressed_first=first)
    options = {"suppress_tokens": list(never), "begin_suppress_tokens": list(first)}
    mel = torch.from_numpy(np.array(shipped.speech.mel))
    expected = shipped.model.generate(mel, language="en", task="transcribe", max_new_tokens=60, **options)
    rows = [[id for id in row if id not in (503, 504, 505, 507, 511)] for row in expected.tolist()]
    assert rows != heard
    assert found.engine.generate(shipped.speech)[0] == rows


def test_as_many_tokens_as_asked_for(shipped):
    for count in (1, 2, 40):
        engine = converted(shipped, "q8_0", max_new_tokens=count, min_new_tokens=count)[0].engine
        assert {len(row) for row in engine.generate(shipped.speech)[0]} == {count}


def test_stages(shipped, in_f16, capfd):
    in_f16.reset_stage_times()
    _, seconds = in_f16.generate(shipped.speech)
    times = in_f16.stage_times()
    assert 0 < times.encode_s < seconds < times.total_s
    assert 0 < times.sample_s + times.decode_s + times.batchd_s < seconds - times.encode_s
    assert times.mel_s == times.prompt_s == 0 < times.load_s
    encode_s = in_f16.encode(shipped.speech)
    assert in_f16.stage_times().encode_s == pytest.approx(times.encode_s + encode_s, rel=0.05)
    few = dataclasses.replace(in_f16, decoding=dataclasses.replace(shipped.decoding, forced_tokens=2))
    assert 0 < few.decode(shipped.speech) < in_f16.decode(shipped.speech)
    assert capfd.readouterr() == ("", "")  # what it would print itself


def test_a_window_of_what_holds_audio(shipped, in_f16):
    how = dataclasses.replace(shipped.decoding, audio_ctx="dynamic")
    narrow = dataclasses.replace(in_f16, decoding=how)
    in_f16.reset_stage_times()
    rows, _ = in_f16.generate(shipped.speech)
    whole_s = in_f16.stage_times().encode_s
    in_f16.reset_stage_times()
    found, _ = narrow.generate(shipped.speech)
    assert narrow.stage_times().encode_s < whole_s
    assert narrow.encode(shipped.speech) < in_f16.encode(shipped.speech)
    expected, _ = Eager(shipped.model, CPU, shipped.decoding).generate(shipped.speech)
    assert rows == expected  # a narrow window leaves nothing behind
    assert len(found) == len(expected)


def test_the_model_is_freed(shipped, monkeypatch):
    import _pywhispercpp

    freed, free = [], _pywhispercpp.whisper_free
    monkeypatch.setattr(_pywhispercpp, "whisper_free", lambda context: freed.append(free(context)))
    engine = converted(shipped, "q4_0")[0].engine
    second = dataclasses.replace(engine, threads=2)
    del engine
    gc.collect()
    assert freed == []
    del second
    gc.collect()
    assert freed == [None]


def test_a_whole_cell_of_random_weights():
    options = ["model=tiny", "model.weights=random", "model.random_tokens=4", "quant=ggml_q8_0"]
    [config] = compose([*options, "dataset.limit=1", "device=cpu", "tracking=off", "protocol=quick"])
    result = run_cell(config)
    assert result.record.receipt.verified
    assert {item.tokens for item in result.utterances} == {4}


@pytest.mark.parametrize(
    ("name", "device", "changes", "reason"),
    [
        ("ggml_q5_0", "cuda", {}, "have no cuda: set device=cpu"),
        ("ggml_q5_0", "cpu", {"format": "q3_0"}, "no quant.format=q3_0; it has f16, q8_0"),
        ("ggml_q5_0", "cpu", {"format": None}, "needs quant.format, one of f16, q8_0"),
        ("ggml_q5_0", "cpu", {"double_quant": True}, "no quant.double_quant=True; it has False"),
        ("ggml_q4_k", "cpu", {"double_quant": False}, "no quant.double_quant=False; it has True"),
        ("ggml_q6_k", "cpu", {"group_size": 32}, "q6_k has no quant.group_size=32; it has 16"),
        ("ggml_q3_k", "cpu", {"symmetric": False}, "it has True"),
        ("ggml_f16", "cpu", {"format": "f32"}, "no f32 convolution"),
        ("ggml_q5_0", "cpu", {"bits": 4}, "q5_0 has no quant.bits=4.0; it has 5"),
        ("ggml_q5_0", "cpu", {"group_size": 64}, "it has 32"),
        ("ggml_q5_0", "cpu", {"symmetric": False}, "it has True"),
        ("ggml_q5_0", "cpu", {"scheme": "weight-only"}, "it has dynamic"),
        ("ggml_f16", "cpu", {"scheme": "dynamic"}, "it has weight-only"),
        ("ggml_q5_0", "cpu", {"target": "encoder"}, "set quant.target=all"),
        ("ggml_q5_0", "cpu", {"skip": ["*.fc1"]}, "quant.skip=[]"),
        ("ggml_q5_0", "cpu", {"head": False}, "quant.head=true"),
    ],
)
def test_what_cannot_exist_has_a_reason(name, device, changes, reason):
    assert reason in ggml.why_unsupported(quant_config(name, **changes), device)


def test_not_installed(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked: None if asked == "_pywhispercpp" else find(asked))
    reason = ggml.why_unsupported(quant_config("ggml_q8_0"), "cpu")
    assert reason == "pywhispercpp is not installed: pip install pywhispercpp"


def test_decoding_and_models_that_whisper_cpp_has_no_way_to(shipped, tmp_path):
    with pytest.raises(ConfigError, match=r"protocol\.num_beams=1, not 5"):
        converted(shipped, "q8_0", num_beams=5)
    with pytest.raises(ConfigError, match="not at least 3"):
        converted(shipped, "q8_0", min_new_tokens=3)
    [config] = compose(["model=tiny", "model.weights=random", "model.architecture.d_model=48",
                        "model.architecture.ffn_dim=192", "device=cpu"])  # fmt: skip
    odd = models.load(config.model, 0).model
    laid_out = vocabulary(odd.config.vocab_size, decoding(odd, config))
    with pytest.raises(UnsupportedError, match=r"blocks of 32 weights, the rows of .* have 48: choose quant=ggml_f16"):
        write(tmp_path / "odd.bin", odd, "q8_0", laid_out, 4)
    odd.config.decoder_ffn_dim = 100
    with pytest.raises(ConfigError, match="decoder_ffn_dim=192 only, not 100"):
        write(tmp_path / "odd.bin", odd, "q8_0", laid_out, 4)


def test_a_file_that_is_none(shipped, file):
    file("q8_0")
    file.path.write_bytes(file.path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="ends within 'decoder"):
        read(file.path)
    file.path.write_bytes(b"GGUF" + file.path.read_bytes()[4:])
    with pytest.raises(ValueError, match="does not start"):
        read(file.path)
    with pytest.raises(ValueError, match="bad magic"):
        whispercpp.load(file.path, file.vocabulary, shipped.decoding, 1)


def test_a_process_that_has_used_it_ends_well():
    program = (
        "from quantlab.config.compose import compose; from quantlab.measurement.cell import run_cell;"
        "[config] = compose(['quant=ggml_q8_0', 'dataset.limit=1', 'device=cpu', 'tracking=off']);"
        "print(run_cell(config).record.status)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
