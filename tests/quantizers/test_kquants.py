"""whisper.cpp's k-quants, and that ggml's own functions quantize what the `gguf` package says they do.

`gguf` is the independent oracle: it quantizes formats in blocks of 32 in numpy, and dequantizes all of them.
"""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

from helpers.quantizing import quant_config
from helpers.widened import widened
from quantlab import models
from quantlab.config.compose import compose
from quantlab.data import features, open_corpus
from quantlab.engines import decoding
from quantlab.grid.attempt import attempt
from quantlab.measurement.cell import run_cell
from quantlab.models.formats.ggml import blocks, read
from quantlab.models.formats.ggml.vocabulary import vocabulary
from quantlab.models.formats.ggml.write import write
from quantlab.quantization import receipt
from quantlab.quantization.backends import ggml
from quantlab.quantization.select import select
from quantlab.util.errors import UnsupportedError

CPU = torch.device("cpu")
IN_32 = ("f32", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
K_QUANTS = {"q6_k": 6, "q5_k": 5, "q4_k": 4, "q3_k": 3, "q2_k": 2}  # bits


def kind(format):
    return GGMLQuantizationType[format.upper()]


def weights():
    """(rows, 768) of several kinds: normal, with outliers, whole numbers with ties, zeros, and tiny ones."""
    random = np.random.default_rng(0)
    normal = random.standard_normal((16, 768))
    found = [normal, random.standard_t(2, (16, 768)), np.round(normal), np.zeros((2, 768)), 1e-6 * normal]
    return np.concatenate(found).astype(np.float32)


@pytest.mark.parametrize("format", IN_32)
def test_ggml_quantizes_bit_for_bit_as_gguf_does(format):
    values = weights()
    theirs = quants.quantize(values, kind(format)).view(np.uint8).reshape(len(values), -1)
    np.testing.assert_array_equal(blocks.quantize(values, format), theirs)
    deep = values.reshape(-1, 2, 768)  # a convolution
    np.testing.assert_array_equal(blocks.quantize(deep, format), theirs)


def test_ids_and_block_sizes_are_those_of_gguf():
    assert {name: GGMLQuantizationType(id).name.lower() for name, id in blocks.TYPES.items()} == {
        name: name for name in blocks.TYPES
    }
    for name in blocks.TYPES:
        assert GGML_QUANT_SIZES[kind(name)][0] == blocks.block(name)
    for id, (name, values, size_bytes) in read.TYPES.items():
        assert id == blocks.TYPES[name]
        assert GGML_QUANT_SIZES[kind(name)] == (values, size_bytes)
    assert {item[0] for item in read.TYPES.values()} == set(blocks.TYPES)


@pytest.mark.parametrize("format", K_QUANTS)
def test_k_quants_hold_the_weights(format):
    """A uniform grid over the range of each group errs by step / √12; the scales' own rounding comes on top."""
    values = np.random.default_rng(1).standard_normal((64, 768)).astype(np.float32)
    found = quants.dequantize(blocks.quantize(values, format), kind(format))
    quant = quant_config(f"ggml_{format}")
    groups = values.reshape(-1, quant.group_size)
    reach = 2 * abs(groups).max(1) if quant.symmetric else groups.max(1) - groups.min(1)
    step = reach / (2 ** K_QUANTS[format] - 1)
    error = np.sqrt(((found - values) ** 2).mean())
    assert 0.7 < error / (np.sqrt((step**2).mean()) / np.sqrt(12)) < 1.15
    largest = abs(found - values).reshape(-1, 256).max(1)
    assert (largest < 1.5 * step.reshape(len(largest), -1).max(1)).all()
    assert (abs(quants.dequantize(blocks.quantize(np.zeros((1, 256)), format), kind(format))) == 0).all()


def test_bits_of_a_weight_are_what_the_configuration_says():
    for format, bits in K_QUANTS.items():
        quant, stored = quant_config(f"ggml_{format}"), 8 * GGML_QUANT_SIZES[kind(format)][1] / 256
        in_group = {"q6_k": 8, "q5_k": 12, "q4_k": 12, "q3_k": 6, "q2_k": 8}[format]  # bits of scale and minimum
        in_block = 16 if quant.symmetric else 32  # of f16
        assert quant.bits == bits
        assert quant.double_quant
        assert stored == bits + in_group / quant.group_size + in_block / 256


@pytest.fixture(scope="module")
def wide():
    """The shipped model, four times as wide: a trained one with rows that k-quants can cut."""
    [config] = compose(["dataset.limit=2", "device=cpu", "tracking=off"])
    checkpoint = models.load(config.model, 0)
    speech = features(open_corpus(config.dataset), checkpoint.feature_extractor).splits["clean"]
    return widened(), decoding(checkpoint.model, config), speech, checkpoint.tokenizer


def test_a_file_holds_the_weights(wide, tmp_path):
    model, how, *_ = wide
    path, laid_out = tmp_path / "model.bin", vocabulary(512, how)
    write(path, model, "q4_k", laid_out, how.max_new_tokens)
    contents = read.read(path)
    assert contents.numbers["ftype"] == 2012
    found = {item.name: item for item in contents.tensors}
    for name, weight in {
        "decoder.blocks.1.mlp.2.weight": model.model.decoder.layers[1].fc2.weight,
        "encoder.blocks.0.attn.query.weight": model.model.encoder.layers[0].self_attn.q_proj.weight,
    }.items():
        item = found[name]
        data = np.frombuffer(path.read_bytes()[item.offset : item.offset + item.bytes], np.uint8)
        values = quants.dequantize(data.reshape(item.shape[0], -1), kind("q4_k"))
        original = weight.detach().numpy()
        assert values.shape == original.shape
        assert np.linalg.norm(values - original) < 0.1 * np.linalg.norm(original)
    for item in contents.tensors:
        matrix = item.name.endswith(".weight") and len(item.shape) == 2
        assert item.dtype == ("q4_k" if matrix else "f16" if len(item.shape) == 3 else "f32"), item.name


@pytest.mark.parametrize("format", ["q6_k", "q4_k", "q3_k"])
def test_whisper_cpp_decodes_them(format, wide):
    """With a trained model: q6_k hears what fp32 hears, and fewer bits hear words."""
    model, how, speech, tokenizer = wide
    quant = quant_config(f"ggml_{format}")
    names, skipped = select(model, quant)
    before = receipt.snapshot(model)
    found = ggml.convert(model, quant, names, CPU, dataclasses.replace(how, max_new_tokens=24), 1)
    evidence = receipt.read_converted(before, found, names, skipped)
    assert evidence.verified, evidence.problems
    assert set(evidence.bytes_by_dtype) == {format, "f16", "f32"}
    matrices = sum(
        value.numel() for name, value in model.named_parameters() if value.ndim == 2 and "embed_positions" not in name
    )
    assert evidence.bytes_by_dtype[format] == matrices * GGML_QUANT_SIZES[kind(format)][1] // 256
    texts = tokenizer.batch_decode(found.engine.generate(speech)[0])
    same = sum(mine == said for mine, said in zip(texts, _heard_in_fp32(wide), strict=True))
    assert same == len(texts) if format == "q6_k" else all(texts)


def _heard_in_fp32(wide):
    """Of the model as it ships: the wide one computes the same."""
    _, _, speech, tokenizer = wide
    nano = models.load(compose(["device=cpu"])[0].model, 0).model
    mel = torch.from_numpy(np.array(speech.mel))
    rows = nano.generate(mel, language="en", task="transcribe", max_new_tokens=24)
    return tokenizer.batch_decode(rows, skip_special_tokens=True)


def test_a_whole_cell_of_a_real_architecture():
    options = ["model=base", "model.weights=random", "model.random_tokens=2", "quant=ggml_q4_k", "dataset.limit=1"]
    [config] = compose([*options, "dataset.splits=[clean]", "device=cpu", "device.threads=1", "tracking=off",
                        "protocol=quick", "protocol.warmup_batches=0"])  # fmt: skip
    result = run_cell(config)
    assert result.record.receipt.verified
    assert {item.tokens for item in result.utterances} == {2}


def test_rows_that_are_no_whole_blocks_are_refused_by_name(tmp_path):
    [config] = compose(["device=cpu"])
    nano = models.load(config.model, 0).model
    how = decoding(nano, config)
    with pytest.raises(
        UnsupportedError, match=r"q4_k quantizes blocks of 256 weights, the rows of .* have 192: choose"
    ):
        write(tmp_path / "model.bin", nano, "q4_k", vocabulary(512, how), 4)


def test_such_a_cell_is_unsupported_and_no_failure():
    [config] = compose(["quant=ggml_q6_k", "device=cpu", "device.threads=1", "tracking=off", "dataset.limit=1"])
    found = attempt(config, lambda *_: None)
    assert found.status == "unsupported"
    assert found.reason.startswith("q6_k quantizes blocks of 256 weights, the rows of ")


def test_a_build_that_hides_ggml_is_named():
    """What a binding linked in another way looks like: a library without these functions."""
    program = (
        "import _ctypes, _pywhispercpp; _pywhispercpp.__file__ = _ctypes.__file__\n"
        "import numpy as np; from quantlab.models.formats.ggml import blocks\n"
        "blocks.quantize(np.zeros((1, 256)), 'q4_k')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "gives no access to ggml's quantization" in done.stderr
    assert "pip install" in done.stderr.splitlines()[-1]
