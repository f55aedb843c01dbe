"""The receipt tells what a model holds, and catches what a library left alone or should have."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from transformers import WhisperConfig, WhisperForConditionalGeneration

from quantlab.config.schema import QuantConfig
from quantlab.quantization import receipt, registry
from quantlab.quantization.select import replace, select

LIBRARIES = {
    "torch": {"bits": 8, "format": "int8", "scheme": "dynamic"},
    "quanto": {"bits": 8, "format": "int8"},
    "hqq": {"bits": 4, "group_size": 32},
    "bnb": {"format": "nf4"},
}
VICTIM = "model.decoder.layers.0.fc2"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small products gain nothing from a second thread, and lose much where tests run beside each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny_whisper():
    config = WhisperConfig(
        d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=128, decoder_ffn_dim=128, vocab_size=96, num_mel_bins=8, max_source_positions=20,
        max_target_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=1, decoder_start_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return WhisperForConditionalGeneration(config).eval()


class Case:
    """A model quantized by a library, its original kept, and the receipt read whenever asked."""

    def __init__(self, library, **changes):
        self.quant = QuantConfig(name=library, library=library, **(LIBRARIES[library] | changes))
        self.model = tiny_whisper()
        self.original = copy.deepcopy(self.model)
        self.quantizer = registry.get(library)
        self.names, self.skipped = select(self.model, self.quant)
        self.before = receipt.snapshot(self.model)
        self.model = self.quantizer.setup(self.model, self.quant, self.names, torch.device("cpu"), print)

    def read(self):
        return receipt.read(self.before, self.model, self.names, self.skipped, self.quantizer)


@pytest.fixture(params=LIBRARIES)
def case(request):
    return Case(request.param)


def test_every_module_is_listed_with_what_it_stores(case):
    evidence = case.read()
    assert evidence.verified, evidence.problems
    assert evidence.modules_total == 6 + 10 + 1
    assert evidence.modules_quantized == len(case.names) == 16
    item = next(item for item in evidence.modules if item.name == VICTIM)
    assert item.class_before == "Linear"
    assert item.bytes_before == 4 * (64 * 128 + 64)
    assert item.bytes_after < item.bytes_before
    assert any("int8" in dtype for dtype in item.dtypes.values())  # int8, uint8, qint8
    assert item.dtypes != {"weight": "float32", "bias": "float32"}
    head = next(item for item in evidence.modules if item.name == "proj_out")
    assert (head.quantized, head.skipped, head.kernel) == (False, "quant.head=false", None)
    assert sum(evidence.bytes_by_dtype.values()) == evidence.size_bytes == receipt.size_bytes(case.model)


def test_a_layer_left_alone_is_named(case):
    replace(case.model, VICTIM, case.original.get_submodule(VICTIM))
    evidence = case.read()
    assert not evidence.verified
    assert evidence.problems == (f"{VICTIM} is unchanged: Linear in float32",)
    assert evidence.modules_quantized == 15


def test_a_library_that_did_nothing_is_named_layer_by_layer(case):
    case.model = case.original
    evidence = case.read()
    assert not evidence.verified
    assert [problem.split()[0] for problem in evidence.problems] == list(case.names)


def test_an_extra_layer_that_changed_is_named(case):
    other = Case(case.quant.library, head=True)
    replace(case.model, "proj_out", other.model.get_submodule("proj_out"))
    evidence = case.read()
    assert not evidence.verified
    assert len(evidence.problems) == 1
    assert evidence.problems[0].startswith("proj_out changed from Linear in float32 to ")


def test_a_changed_module_that_is_no_linear_is_named(case):
    norm = case.model.get_submodule("model.encoder.layer_norm")
    norm.half()
    assert case.read().problems == (
        "model.encoder.layer_norm changed from LayerNorm in float32 to LayerNorm in float16 although it should not",
    )


def test_a_layer_that_only_lost_precision_is_not_quantized(case):
    half = copy.deepcopy(case.original.get_submodule(VICTIM)).half()
    replace(case.model, VICTIM, half)
    assert case.read().problems == (f"{VICTIM} is not quantized: Linear in float16",)


def test_a_layer_that_keeps_its_weights_beside_does_not_shrink(case):
    case.model.get_submodule(VICTIM).kept = {"fp32": [case.original.get_submodule(VICTIM).weight]}
    (problem,) = case.read().problems
    assert problem.startswith(f"{VICTIM} did not shrink: 33024 bytes before, ")


def test_a_missing_and_an_added_module_are_named(case):
    del case.model.model.encoder.layers[0].fc1
    case.model.extra = nn.LayerNorm(4)
    assert set(case.read().problems) == {
        "model.encoder.layers.0.fc1 is gone",
        "extra appeared: LayerNorm in float32",
    }


def test_the_baseline_changes_nothing():
    model = tiny_whisper()
    none = registry.get("none")
    names, skipped = select(model, QuantConfig(name="none", library="none", scheme="none"))
    before = receipt.snapshot(model)
    evidence = receipt.read(before, model, names, skipped, none)
    assert evidence.verified
    assert evidence.size_bytes == evidence.baseline_bytes == 4 * evidence.params
    replace(model, VICTIM, Case("hqq").model.get_submodule(VICTIM))
    assert not receipt.read(before, model, names, skipped, none).verified


def test_the_snapshot_keeps_no_weight_alive():
    model = tiny_whisper()
    alive = weakref.ref(model.proj_out.weight)
    before = receipt.snapshot(model)
    del model
    gc.collect()
    assert alive() is None
    assert before.params > 0


def test_tied_weights_count_once():
    model = nn.Module()
    model.a, model.b = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
    model.b.weight = model.a.weight
    assert receipt.size_bytes(model) == 10 * 4 * 4
    model.c = nn.Linear(4, 10, bias=False)
    model.c.weight = nn.Parameter(model.a.weight.data.view(10, 4))  # another parameter, the same memory
    assert receipt.size_bytes(model) == 10 * 4 * 4
    model.b.weight = nn.Parameter(model.a.weight.detach().clone())
    assert receipt.size_bytes(model) == 2 * 10 * 4 * 4


def test_the_baseline_is_fp32_whatever_the_checkpoint_has():
    model = nn.Linear(4, 10).half()
    model.register_buffer("steps", torch.zeros(3, dtype=torch.int64))
    before = receipt.snapshot(model)
    assert before.baseline_bytes == 4 * 50 + 8 * 3
    assert receipt.size_bytes(model) == 2 * 50 + 8 * 3


def test_tensors_are_found_wherever_they_hide():
    class State:
        def __init__(self):
            self.table = (torch.zeros(5, dtype=torch.uint8), {"deep": [torch.zeros(3)]})
            self.itself = self

    module = nn.Linear(2, 2, bias=False)
    module.state = State()
    module.weight.scale = torch.zeros(7, dtype=torch.float16)
    assert receipt.size_bytes(module) == 16 + 5 + 12 + 14


def test_a_model_without_memory_has_a_size():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 3))
    model[1].weight = model[0].weight
    assert receipt.size_bytes(model) == 4 * (15 + 5 + 3)
