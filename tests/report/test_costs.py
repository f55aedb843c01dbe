"""Bits per weight, bytes per token and bit operations, against sums over nano's layers made by hand."""

import csv
import io

import pytest
from torch import nn

from helpers.quantizing import load_nano, quant_config, quantize
from helpers.synthetic import result
from quantlab.config.options import option
from quantlab.report import costs, flat
from quantlab.report.summaries import summary

# nano: width 192, feed-forward 768, 6 and 2 layers, 512 tokens, windows of 300 positions
SQUARE, FORWARD, HEAD = 192 * 192, 2 * 192 * 768, 512 * 192
ENCODER = 6 * (4 * SQUARE + FORWARD)  # weights
CROSS = 2 * 2 * SQUARE  # keys and values
DECODER = 2 * (6 * SQUARE + FORWARD)
BIASES = 6 * (3 * 192 + 768 + 192) + 2 * (3 * 192 + 3 * 192 + 768 + 192)  # none of the keys
DECODER_BIASES = 2 * (3 * 192 + 2 * 192 + 768 + 192)


def record(name, dtype="float32", **changes):
    """A record whose receipt is read from nano, quantized."""
    quant = quant_config(name, **changes)
    model = load_nano() if dtype == "float32" else load_nano().half()
    evidence = quantize(model, quant)[2]
    config = {"quant": quant.model_dump(mode="json"), "model": {"name": "nano", **option("model", "nano")}}
    plain = result("none").record
    config = {**plain.config, **config, "runtime": {"name": "eager", "audio_ctx": "full", "dtype": dtype}}
    return plain.model_copy(update={"receipt": evidence, "config": config})


@pytest.fixture(scope="module")
def fp32():
    return record("none")


def bit_ops(found, encoder, decoder):
    """Encoder and decoder: bit operations of one position."""
    utterances, tokens, audio_s = (
        sum(getattr(split, name) for split in found.splits.values()) for name in ("utterances", "tokens", "audio_s")
    )
    return pytest.approx((utterances * 300 * encoder + tokens * decoder) / audio_s)


def test_without_quantization(fp32):
    assert costs.bits_per_weight(fp32) == 32
    assert costs.bytes_per_token(fp32) == 4 * (DECODER + DECODER_BIASES + HEAD + 192) == 4_538_112
    assert costs.bit_ops_per_s(fp32) == bit_ops(fp32, 1024 * (ENCODER + CROSS), 1024 * (DECODER + HEAD))


CODES = {
    8: lambda groups: 64 * groups,
    4: lambda groups: 32 * groups,
    2: lambda groups: 16 * groups,
    3: lambda groups: -(-groups // 10) * 64 * 4,
}  # ten rows of 64 codes in 64 int32, the last one padded


@pytest.mark.parametrize("bits", CODES)
def test_of_groups_of_64(bits):
    found = record(f"rtn_int{bits}")
    square, forward = SQUARE // 64, FORWARD // 2 // 64  # groups, each with a scale and a zero of 4 bytes
    square, forward = CODES[bits](square) + 8 * square, CODES[bits](forward) + 8 * forward
    bytes_of_all = (6 * 4 + 2 * 8) * square + (6 + 2) * 2 * forward + 4 * BIASES
    assert costs.bits_per_weight(found) == 8 * bytes_of_all / (ENCODER + CROSS + DECODER + BIASES)
    decoder = 2 * (6 * square + 2 * forward) + 4 * DECODER_BIASES
    assert costs.bytes_per_token(found) == decoder + 4 * (HEAD + 192)
    expected = bit_ops(found, 32 * bits * (ENCODER + CROSS), 32 * bits * DECODER + 1024 * HEAD)
    assert costs.bit_ops_per_s(found) == expected


def test_int4_to_the_byte():
    found = record("rtn_int4")
    assert costs.bytes_per_token(found) == 2 * 330_240 + 393_216 + 768
    assert costs.bits_per_weight(found) == 8 * 2_449_920 / 3_847_296


def test_a_shared_embedding_reads_a_row_of_the_packed_head():
    found = record("rtn_int4", embedding=True)
    head = HEAD // 2 + HEAD // 64 * 8
    assert costs.bytes_per_token(found) == 2 * 330_240 + head + round(head / 512)


def test_dynamic_int8_multiplies_8_by_8_bits():
    found = record("torch_int8")
    assert costs.bit_ops_per_s(found) == bit_ops(found, 64 * (ENCODER + CROSS), 64 * (DECODER + HEAD))
    row = 4 * 192  # of the embedding, which stays fp32
    scale_and_zero = 16 * (2 * 8 + 1)  # of each module: float64, int64
    assert costs.bytes_per_token(found) == DECODER + 4 * DECODER_BIASES + HEAD + scale_and_zero + row


def test_half_precision_counts_16_bits():
    found = record("none", dtype="float16")
    assert costs.bits_per_weight(found) == 16
    assert costs.bit_ops_per_s(found) == bit_ops(found, 256 * (ENCODER + CROSS), 256 * (DECODER + HEAD))


def at(found, **values):
    config = {name: dict(part) if isinstance(part, dict) else part for name, part in found.config.items()}
    for key, value in values.items():
        group, name = key.split("__")
        config[group] = {**config[group], name: value}
    return found.model_copy(update={"config": config})


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset__long": "chunked"},
        {"runtime__audio_ctx": "dynamic"},
        {"protocol__num_beams": 4},
        {"model__architecture": None},
        {"model__architecture": {**option("model", "nano")["architecture"], "max_source_positions": 1500}},
    ],
)
def test_windows_that_a_record_does_not_tell_are_null(fp32, changes):
    found = at(fp32, **changes)
    assert costs.bit_ops_per_s(found) is None
    assert costs.bytes_per_token(found) == costs.bytes_per_token(fp32)


def test_bits_that_a_record_does_not_tell_are_null():
    found = at(record("torch_int8"), quant__bits=None)  # whose modules do not tell theirs
    assert costs.bit_ops_per_s(found) is None
    assert costs.bits_per_weight(found) is not None


def test_matrices_of_lora_are_floats_and_count():
    plain = record("hqq_int4")
    found = at(plain, quant__recover="lora", quant__lora_rank=4)
    parts = {"encoder": 0, "decoder": 0}
    for name, module in load_nano().named_modules():
        if isinstance(module, nn.Linear) and name != "proj_out":
            once = "encoder" in name.split(".") or name.endswith(("encoder_attn.k_proj", "encoder_attn.v_proj"))
            parts["encoder" if once else "decoder"] += 4 * (module.in_features + module.out_features)
    added = costs.bit_ops_per_s(found) - costs.bit_ops_per_s(plain)
    assert added == bit_ops(plain, 32 * 32 * parts["encoder"], 32 * 32 * parts["decoder"])


def test_a_record_without_a_receipt_has_none_of_them(fp32):
    found = fp32.model_copy(update={"receipt": None})
    assert {costs.bits_per_weight(found), costs.bytes_per_token(found), costs.bit_ops_per_s(found)} == {None}


def test_csv_has_them(fp32):
    [row] = csv.DictReader(io.StringIO(flat.render([summary(fp32)])))
    assert (float(row["bits_per_weight"]), int(row["bytes_per_token"])) == (32, 4_538_112)
    assert float(row["bit_ops_per_s"]) == costs.bit_ops_per_s(fp32)
