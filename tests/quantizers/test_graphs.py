"""ONNX Runtime and OpenVINO: graphs that decode as transformers does, and receipts that are read off them."""

import dataclasses
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

from helpers.arithmetic import FLOAT, Shape
from helpers.quantizing import quant_config
from quantlab import models
from quantlab.config.compose import compose
from quantlab.data import features, open_corpus
from quantlab.engines import decoding
from quantlab.engines.pytorch import Eager
from quantlab.models.formats.onnx import graph as graphs
from quantlab.models.formats.onnx.whisper import decoder, encoder
from quantlab.quantization import receipt
from quantlab.quantization.backends import ort, ov
from quantlab.quantization.select import HEAD, select
from quantlab.util.errors import ConfigError, UnsupportedError

CPU = torch.device("cpu")
BACKENDS = {"ort": ort, "ov": ov}
NAMES = [f"{library}_{format}" for library in BACKENDS for format in ("fp32", "int8", "int4")]
EXACT = ["ort_fp32", "ov_fp32"]


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


def converted(shipped, name, /, **changes):
    """What the library holds, and the receipt."""
    quant = quant_config(name, **changes)
    names, skipped = select(shipped.model, quant)
    before = receipt.snapshot(shipped.model)
    found = BACKENDS[quant.library].convert(shipped.model, quant, names, CPU, shipped.decoding, 1)
    return found, receipt.read_converted(before, found, names, skipped)


@pytest.fixture(scope="module", params=EXACT)
def exact(request, shipped):
    return converted(shipped, request.param)[0].engine


@pytest.mark.parametrize(
    "changes",
    [{}, {"audio_ctx": "dynamic"}, {"max_new_tokens": 5}, {"suppressed": (20, 21)}, {"suppressed_first": (16, 17)}],
)
@pytest.mark.parametrize("size", [1, 10])
def test_in_fp32_the_tokens_are_those_of_transformers(exact, shipped, changes, size):
    how = dataclasses.replace(shipped.decoding, **changes)
    eager, here = Eager(shipped.model, CPU, how), dataclasses.replace(exact, decoding=how)
    if "suppressed" in changes or "suppressed_first" in changes:
        eager.model.generation_config.suppress_tokens = list(how.suppressed)
        eager.model.generation_config.begin_suppress_tokens = list(how.suppressed_first)
    try:
        for batch in list(shipped.speech.batches(size))[:3]:
            assert here.generate(batch)[0] == eager.generate(batch)[0]
    finally:
        eager.model.generation_config.suppress_tokens = list(shipped.decoding.suppressed)
        eager.model.generation_config.begin_suppress_tokens = list(shipped.decoding.suppressed_first)


def test_a_forced_number_of_tokens_is_decoded(exact, shipped):
    how = dataclasses.replace(shipped.decoding, min_new_tokens=7, max_new_tokens=7)
    batch = next(shipped.speech.batches(3))
    found, seconds = dataclasses.replace(exact, decoding=how).generate(batch)
    assert [len(row) for row in found] == [7, 7, 7]
    assert seconds > 0
    assert exact.encode(batch) > 0
    assert exact.decode(batch) > 0


def size_of(shape, name, of_weight):
    """Bytes of the tensors; `of_weight` gives those of a quantized Linear's weight with its scales and zero points."""
    weights = [(o, i) for o, i, _ in shape.linears()]
    return FLOAT * (shape.params() - sum(o * i for o, i in weights)) + sum(of_weight(o, i) for o, i in weights)


@pytest.mark.parametrize(
    ("name", "of_weight"),
    [
        ("ort_fp32", lambda o, i: FLOAT * o * i),
        ("ov_fp32", lambda o, i: FLOAT * o * i),
        ("ort_int8", lambda o, i: o * i + FLOAT * o + o),  # zero points of 0 in int8
        ("ov_int8", lambda o, i: o * i + 2 * o),
        ("ort_int4", lambda o, i: o * i // 2 + (FLOAT + 0.5) * o * i // 32),
        ("ov_int4", lambda o, i: o * i // 2 + (2 + 0.5) * o * i // 32),
    ],
)
def test_receipt(name, of_weight, shipped):
    before = {key: value.clone() for key, value in shipped.model.state_dict().items()}
    found, evidence = converted(shipped, name)
    assert evidence.verified, evidence.problems
    quantized = not name.endswith("fp32")
    assert evidence.modules_quantized == (evidence.modules_total - 1 if quantized else 0)
    constants = evidence.size_bytes - size_of(Shape.of(shipped.model.config), name, of_weight)
    assert 0 <= constants < 4000  # shapes and masks
    assert all(torch.equal(value, before[key]) for key, value in shipped.model.state_dict().items())
    assert found.kernel.startswith({"ort": "ONNX Runtime MatMul", "ov": "OpenVINO "}[name.partition("_")[0]])
    assert "undef" not in found.kernel


@pytest.mark.parametrize("name", ["ort_int8", "ov_int8", "ort_int4", "ov_int4"])
@pytest.mark.parametrize("changes", [{"head": True}, {"target": "decoder"}, {"skip": ("*.fc1",)}], ids=str)
def test_only_what_is_asked_for_is_quantized(name, changes, shipped):
    names, _ = select(shipped.model, quant_config(name, **changes))
    found, evidence = converted(shipped, name, **changes)
    assert evidence.verified, evidence.problems
    assert {item.name for item in evidence.modules if item.quantized} == set(names)
    assert (HEAD in names) == ("head" in changes)
    assert found.engine.generate(next(shipped.speech.batches(2)))[0]


@pytest.mark.parametrize("name", ["ort_int8", "ov_int8"])
def test_a_graph_that_is_left_unquantized_is_no_receipt(name, shipped, monkeypatch):
    which = ov if name.startswith("ov") else ort
    function = "_compress" if which is ov else "_quantize"
    real = getattr(which, function)
    monkeypatch.setattr(which, function, lambda plain, quant, products, path: real(plain, quant, [], path))
    _, evidence = converted(shipped, name)
    assert not evidence.verified
    assert len(evidence.problems) == evidence.modules_total - 1
    assert "did not shrink" in evidence.problems[0]


@pytest.mark.parametrize("name", NAMES)
def test_beams_are_refused(name, shipped):
    how = dataclasses.replace(shipped, decoding=dataclasses.replace(shipped.decoding, num_beams=2))
    with pytest.raises(ConfigError, match=r"decodes greedily here: set protocol\.num_beams=1, not 2"):
        converted(how, name)


@pytest.mark.parametrize(
    ("name", "changes", "of_group"),
    [
        ("ort_int4", {"symmetric": True}, FLOAT),
        ("ort_int4", {"group_size": 64}, FLOAT + 0.5),
        ("ov_int4", {"symmetric": True}, 2),
        ("ov_int4", {"group_size": 24}, 2 + 0.5),
        ("ov_int8", {"symmetric": False}, 2 + 1),
    ],
    ids=str,
)
def test_groups_and_zero_points_are_those_asked_for(name, changes, of_group, shipped):
    _, evidence = converted(shipped, name, **changes)
    assert evidence.verified, evidence.problems
    shape = Shape.of(shipped.model.config)
    [layer] = [item for item in evidence.modules if item.name == "model.decoder.layers.1.fc2"]
    groups = shape.d if name == "ov_int8" else layer.bytes_before // 4 // changes.get("group_size", 32)
    codes = (shape.d * shape.ffn) // (1 if name == "ov_int8" else 2)
    assert layer.bytes_after == pytest.approx(codes + of_group * groups, rel=0.01)


def test_groups_that_do_not_fit_are_one_line(shipped):
    with pytest.raises(UnsupportedError, match="NNCF cannot compress the encoder in groups of 100") as refused:
        converted(shipped, "ov_int4", group_size=100)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["ort_fp32", "ort_int8", "ort_int4"])
def test_weights_that_do_not_fit_into_one_message_lie_beside_it(name, shipped, monkeypatch, tmp_path):
    batch = next(shipped.speech.batches(4))
    expected = converted(shipped, name)[0].engine.generate(batch)[0]
    monkeypatch.setattr(graphs, "IN_ONE_FILE", 1000)
    quant = quant_config(name)
    names, _ = select(shipped.model, quant)
    found = ort.convert(shipped.model, quant, names, CPU, shipped.decoding, 1, keep=tmp_path)
    assert (tmp_path / "encoder.onnx.data").stat().st_size > 10 * (tmp_path / "encoder.onnx").stat().st_size
    assert found.engine.generate(batch)[0] == expected


def test_the_graphs_are_valid(shipped):
    for model in (
        encoder(shipped.model),
        decoder(shipped.model, own_head=False),
        decoder(shipped.model, own_head=True),
    ):
        onnx.checker.check_model(model, full_check=True)
        assert {item.type.tensor_type.elem_type for item in model.graph.output} == {onnx.TensorProto.FLOAT}


def test_activations_are_quantized_only_if_the_scheme_says_so(shipped):
    """On the same int8 weights; the plugin's default would quantize them in both."""
    batch = next(shipped.speech.batches(4))
    mel = np.array(batch.mel)
    fp32, weights, both = (
        converted(shipped, "ov_int8" if scheme else "ov_fp32", **({"scheme": scheme} if scheme else {}))[0].engine
        for scheme in (None, "weight-only", "dynamic")
    )
    reference, one, other = (np.array(engine.graphs.encode(mel)[1]) for engine in (fp32, weights, both))
    assert 0 < np.abs(one - reference).max() < np.abs(other - reference).max()


CELL = """
from quantlab.config.compose import compose
from quantlab.measurement.cell import run_cell

[config] = compose(["quant=ov_int8", "device=cpu", "dataset.limit=1", "tracking=off"])
assert run_cell(config).record.status == "ok"
from nncf.telemetry.wrapper import telemetry
print(type(telemetry).__module__)
"""


def test_nncf_reports_its_use_to_nobody(tmp_path):
    """Its own stub takes the place of what would send; under pytest it always does."""
    ran = subprocess.run([sys.executable, "-c", CELL], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ran.stdout.split()[-1] == "unittest.mock"
