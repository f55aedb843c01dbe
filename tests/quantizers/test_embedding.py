"""quant.embedding: the token embedding, quantized with the output projection that it is one matrix with."""

import pytest
import torch

from helpers.arithmetic import FLOAT, Shape, size_bytes, weight_bytes
from helpers.quantizing import generate, quant_config
from quantlab.config.compose import compose
from quantlab.grid.plan import plan
from quantlab.quantization import registry
from quantlab.quantization.embedding import EMBEDDING
from quantlab.quantization.select import select
from quantlab.util.errors import ConfigError

CAN = [
    ("quanto_int8", {}),
    ("quanto_fp8", {}),
    ("quanto_int8_static", {}),
    ("hqq_int8", {}),
    ("hqq_int4", {}),
    ("hqq_int4", {"group_size": 32}),
    ("hqq_int3", {}),
    ("hqq_int2", {}),
    ("hqq_ternary", {}),
    ("hqq_int1", {}),
    ("torchao_int8wo", {}),
    ("torchao_int8dq", {}),
    ("torchao_intx", {}),
    ("torchao_intx", {"bits": 3, "symmetric": False, "granularity": "per-channel", "group_size": None}),
]
BY_ARITHMETIC = [name for name, changes in CAN if not changes and not name.startswith("torchao")]


@pytest.mark.parametrize(("name", "changes"), CAN)
@pytest.mark.parametrize("head", [True, False])
def test_the_embedding_is_the_rows_of_the_quantized_projection(name, changes, head, quantized):
    result = quantized(name, embedding=True, head=head, **changes)
    evidence = result.receipt
    assert evidence.verified, evidence.problems
    assert "proj_out" in result.names  # whatever quant.head says: it is the same matrix
    [item] = [item for item in evidence.modules if item.name == EMBEDDING]
    assert (item.class_before, item.class_after, item.quantized) == ("Embedding", "SharedEmbedding", True)
    model = result.model
    ids = torch.tensor([[0, 1, 5], [50, model.config.vocab_size - 1, 7]])
    with torch.no_grad():
        rows = model.model.decoder.embed_tokens(ids)
        # the projection of unit vectors is its matrix; static schemes round those too
        matrix = dequantized(model.proj_out)
    assert rows.shape == (*ids.shape, model.config.d_model)
    torch.testing.assert_close(rows, matrix[ids].to(rows.dtype), rtol=1e-5, atol=1e-6)
    assert generate(model).shape[0] == 2


def dequantized(head):
    """The whole matrix, as the library itself gives it."""
    return head.dequantize() if hasattr(head, "dequantize") else head.weight.dequantize()


@pytest.mark.parametrize("name", BY_ARITHMETIC)
def test_its_size_follows_from_the_architecture(name, quantized):
    """No fp32 copy is left, and nothing is counted twice."""
    result = quantized(name, embedding=True)
    shape = Shape.of(result.model.config)
    matrix = FLOAT * shape.vocab * shape.d
    expected = size_bytes(name, shape, head=False) - matrix + weight_bytes(name, shape.vocab, shape.d)
    assert result.receipt.size_bytes == expected
    assert result.receipt.baseline_bytes == FLOAT * shape.params()


def test_no_fp32_matrix_is_left(quantized):
    model = quantized("torchao_int8wo", embedding=True).model
    large = model.config.vocab_size * model.config.d_model
    assert [name for name, parameter in model.named_parameters() if parameter.numel() == large] == ["proj_out.weight"]
    assert (
        quantized("torchao_int8wo", embedding=True).receipt.size_bytes < quantized("torchao_int8wo").receipt.size_bytes
    )


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("bnb_nf4", {}, "bitsandbytes repacks"),
        ("bnb_int8", {}, "bitsandbytes repacks"),
        ("torch_int8", {}, "torch packs"),
        ("ggml_q8_0", {}, "whisper.cpp's embedding is its output head"),
        ("ct2_int8", {}, "CTranslate2 always quantizes the embedding"),
        ("quanto_int4", {}, "quant=quanto_int8"),
        ("torchao_int4wo", {}, "quant=torchao_intx"),
        ("hqq_int4", {"axis": 0}, "quant.axis=1"),
        ("hqq_int4", {"backend": "gemlite"}, "quant.backend=null"),
    ],
)
def test_who_cannot_says_so_in_one_line(name, changes, reason):
    quant = quant_config(name, embedding=True, **changes)
    quantizer = registry.get(quant.library)
    why = quantizer.why_unsupported(quant, "cpu") or registry.why_no_embedding(quantizer, quant)
    assert reason in why
    assert "\n" not in why
    assert "set quant.embedding=false" in why or "quant.axis" in why


@pytest.mark.parametrize(
    ("changes", "kept"),
    [({"target": "encoder"}, "quant.target=encoder"), ({"skip": ["proj_*"]}, r"quant.skip=proj_\*")],
)
def test_half_of_a_matrix_cannot_be_left_alone(changes, kept, nano):
    with pytest.raises(ConfigError, match=f"quantizes proj_out too, but {kept} excludes it"):
        select(nano, quant_config("hqq_int4", embedding=True, **changes))


def test_the_baseline_has_no_such_key():
    assert quant_config("none", embedding=True) == quant_config("none")


def test_a_compiled_cell_is_refused_before_it_is_measured():
    [cell] = plan(compose(["device=cpu", "quant=hqq_int4", "quant.embedding=true", "runtime=compile"]))
    assert (cell.refusal.status, "set runtime=eager" in cell.refusal.reason) == ("unsupported", True)
