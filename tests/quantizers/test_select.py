"""Which modules are quantized, which quantizer does it, and what cannot exist."""

import ast
import subprocess
import sys

import pytest
import torch

from helpers.quantizing import CONFIGS, ROOT, generate, quant_config, quantize
from quantlab.quantization import registry
from quantlab.quantization.select import select
from quantlab.util.errors import ConfigError

THIRD_PARTY = """
import torch
from torch import nn

DISTRIBUTIONS = ("half-of-it",)

class Half(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.weight = nn.Parameter(linear.weight.half(), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x):
        return nn.functional.linear(x, self.weight.float(), self.bias)

def why_unsupported(quant, device):
    return None

def setup(model, quant, names, device, calibrate):
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, Half(model.get_submodule(name)))
    return model.to(device)

def is_quantized(module):
    return isinstance(module, Half)

def kernel(module):
    return None
"""
SAME_LAYER = """
import half_of_it

DISTRIBUTIONS = ("half-of-it",)
LAYER = half_of_it
setup, why_unsupported = half_of_it.setup, half_of_it.why_unsupported
"""


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    (tmp_path / "half_of_it.py").write_text(THIRD_PARTY)
    (tmp_path / "same_layer.py").write_text(SAME_LAYER)
    (tmp_path / "incomplete.py").write_text("DISTRIBUTIONS = ()\n")
    (tmp_path / "no_layer.py").write_text(SAME_LAYER.replace("LAYER = half_of_it", "import incomplete as LAYER"))
    info = tmp_path / "half_of_it-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half-of-it\nVersion: 1.0\n")
    points = ["half = half_of_it", "same_layer = same_layer", "incomplete = incomplete", "no_layer = no_layer"]
    (info / "entry_points.txt").write_text("\n".join(["[quantlab.quantizers]", *points]))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("library", ["half", "same_layer"])
def test_another_package_registers_a_quantizer(third_party, library):
    from helpers.quantizing import load_nano

    quant = quant_config("hqq_int4", name="half", library=library)
    model, names, evidence, _ = quantize(load_nano(), quant)
    assert evidence.verified, evidence.problems
    assert evidence.modules_quantized == len(names) == evidence.modules_total - 1
    assert {item.class_after for item in evidence.modules if item.quantized} == {"Half"}
    assert registry.distributions(library) == ("half-of-it",)
    generate(model)


def test_an_incomplete_quantizer_says_what_it_lacks(third_party):
    with pytest.raises(ConfigError, match="why_unsupported, setup, is_quantized, kernel"):
        registry.get("incomplete")
    with pytest.raises(ConfigError, match="'no_layer' has no is_quantized, kernel"):
        registry.get("no_layer")


def test_unknown_library():
    with pytest.raises(ConfigError, match="did you mean 'quanto'"):
        registry.get("qanto")


def test_the_head_belongs_to_the_decoder(nano):
    names, skipped = select(nano, quant_config("quanto_int8", target="decoder"))
    assert "proj_out" in names
    assert all("decoder" in name for name in names if name != "proj_out")
    assert any("encoder_attn" in name for name in names)
    names, skipped = select(nano, quant_config("quanto_int8", target="encoder"))
    assert skipped["proj_out"] == "quant.target=encoder"


def test_what_is_left_alone_says_why(nano):
    _, skipped = select(nano, quant_config("hqq_int4", skip=["*.fc1"], target="encoder"))
    assert skipped["model.encoder.layers.1.fc1"] == "quant.skip=*.fc1"
    assert skipped["model.decoder.layers.0.fc1"] == "quant.target=encoder"
    _, skipped = select(nano, quant_config("hqq_int4"))
    assert skipped == {"proj_out": "quant.head=false"}
    names, skipped = select(nano, quant_config("none"))
    assert names == ()
    assert set(skipped.values()) == {"quant.scheme=none"}


def test_a_glob_that_matches_nothing(nano):
    with pytest.raises(ConfigError, match=r"'\*\.kproj' matches no Linear module; nearest: .*k_proj"):
        select(nano, quant_config("hqq_int4", skip=["*.kproj"]))


def test_nothing_left(nano):
    with pytest.raises(ConfigError, match="leave nothing to quantize"):
        select(nano, quant_config("hqq_int4", skip=["model.*"]))


@pytest.mark.parametrize(
    ("name", "device", "changes", "reason"),
    [
        ("torch_int8", "cuda", {}, "CPU only"),
        ("torch_int8", "mps", {}, "CPU only"),
        ("torch_int8", "cpu", {"bits": 4}, "no quant.bits=4"),
        ("quanto_fp8", "mps", {}, "no float8 on mps"),
        ("quanto_int4", "cpu", {"format": "int3", "bits": 3}, "no quant.format=int3"),
        ("quanto_int4", "cpu", {"bits": 8}, "no quant.bits=8"),
        ("quanto_int4", "cpu", {"group_size": 64}, "no quant.group_size=64"),
        ("quanto_int8", "cpu", {"activations": "int8"}, "needs quant.scheme=static"),
        ("quanto_int8", "cpu", {"scheme": "static"}, "needs quant.activations"),
        ("hqq_int4", "cpu", {"bits": 7}, "no quant.bits=7"),
        ("hqq_int4", "cpu", {"group_size": 20}, "multiple of 8"),
        ("hqq_int4", "cpu", {"group_size": None}, "needs quant.bits and quant.group_size"),
        ("bnb_nf4", "cpu", {"group_size": 48}, "no quant.group_size=48"),
        ("bnb_nf4", "cpu", {"format": "nf3"}, "no quant.format=nf3"),
        ("bnb_int8", "cpu", {"double_quant": True}, "applies to nf4 and fp4 only"),
    ],
)
def test_what_cannot_exist_has_a_reason(name, device, changes, reason):
    quant = quant_config(name, **changes)
    assert reason in (registry.get(quant.library).why_unsupported(quant, device) or "")


@pytest.mark.parametrize(
    "name", [name for name in CONFIGS if not name.startswith(("torch_int8", "smoothquant_", "ggml_", "ort_", "ov_"))]
)
def test_everything_else_exists_on_cuda(name):
    quant = quant_config(name)
    assert registry.get(quant.library).why_unsupported(quant, "cuda") is None


def test_asking_imports_neither_torch_nor_a_library():
    code = (
        "import sys\n"
        "from quantlab.quantization import registry\n"
        "from quantlab.config.options import names, option\n"
        "from quantlab.config.schema import QuantConfig\n"
        "for name in names('quant'):\n"
        "    quant = QuantConfig.model_validate(option('quant', name))\n"
        "    for device in ('cpu', 'cuda', 'mps'):\n"
        "        registry.get(quant.library).why_unsupported(quant, device)\n"
        "    registry.distributions(quant.library)\n"
        "heavy = {'torch', 'transformers', 'hqq', 'bitsandbytes', 'optimum', 'torchao', 'ctranslate2', 'gguf'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "group_size"), [("hqq_int4", 128), ("hqq_int8", 72), ("bnb_nf4", 128), ("bnb_nf4_dq", 512)]
)
def test_a_group_that_does_not_fit_names_the_module(name, group_size, quantized):
    with pytest.raises(ConfigError, match=r"model\.encoder\.layers\.0\.self_attn\.k_proj.*quant\.skip"):
        quantized(name, group_size=group_size)


def test_hqq_refuses_a_number_of_groups_that_does_not_pack():
    from quantlab.quantization.backends import hqq

    model = torch.nn.Sequential(torch.nn.Linear(64, 6))
    with pytest.raises(ConfigError, match="cannot cut 0"):
        hqq.setup(model, quant_config("hqq_int2"), ("0",), torch.device("cpu"), print)


def test_hqq_groups_along_either_axis(quantized):
    result = quantized("hqq_int4", axis=0)
    assert result.receipt.verified
    assert result.model.get_submodule(result.names[0]).meta["axis"] == 0
    generate(result.model)


def test_bnb_takes_rows_that_its_fused_cpu_kernel_does_not():
    from quantlab.quantization.backends import bnb

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 33)).eval()
    x = torch.randn(2, 64)
    with torch.no_grad():
        expected = model(x)
        got = bnb.setup(model, quant_config("bnb_nf4"), ("0",), torch.device("cpu"), print)(x)
    assert (got - expected).norm() / expected.norm() < 0.2


def test_bnb_stays_in_evaluation_mode(quantized):
    """In training mode bitsandbytes multiplies another way."""
    assert not any(module.training for module in quantized("bnb_int8").model.modules())


def test_bnb_leaves_other_imports_alone():
    from quantlab.quantization.backends.bnb import _hidden

    with _hidden("colorsys"), pytest.raises(ImportError):
        import colorsys
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)


def test_quanto_does_without_a_compiler(quantized, tmp_path, monkeypatch):
    from optimum.quanto.library.extensions import get_extension

    compiled = quantized("quanto_int4")
    extension = get_extension("quanto_cpp")
    monkeypatch.setattr(extension, "_lib", None)
    monkeypatch.setattr(extension, "build_directory", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.warns(UserWarning, match="unpacking with torch instead"):
        without = quantized("quanto_int4")
    assert without.receipt.verified
    assert "torch unpacking" in without.receipt.modules[0].kernel
    assert torch.equal(generate(without.model), generate(compiled.model))
    for bits in (2, 4):
        packed = torch.arange(256, dtype=torch.uint8).reshape(64, 4)
        by_hand = [[(int(value) >> shift) % 2**bits for value in packed.flatten()] for shift in range(0, 8, bits)]
        assert torch.ops.quanto.unpack(packed, bits).flatten().tolist() == [value for row in by_hand for value in row]


def test_a_module_that_calibration_never_reached_is_named(nano):
    from helpers.quantizing import load_nano
    from quantlab.quantization.backends import quanto

    model, quant = load_nano(), quant_config("quanto_int8_static")
    names, _ = select(model, quant)
    with pytest.raises(ConfigError, match=r"never reached .*proj_out"):
        quanto.setup(model, quant, names, torch.device("cpu"), lambda model: None)


LIBRARY_FILES = {
    "hqq": {"quantization/backends/hqq.py", "quantization/hqq_layer.py"},
    "optimum": {"quantization/backends/quanto.py"},
    "bitsandbytes": {"quantization/backends/bnb.py"},
    "torchao": {"quantization/backends/torchao.py"},
    "ctranslate2": {"quantization/backends/ct2.py", "engines/ctranslate2.py", "bundle/measure.py"},
    "_pywhispercpp": {
        "quantization/backends/ggml.py",
        "engines/whispercpp.py",
        "engines/whispercpp_times.py",
        "models/formats/ggml/blocks.py",
        "bundle/measure.py",
    },
    "gguf": {"models/convert/from_ggml.py"},
}


def test_a_library_is_imported_in_its_own_file_only_and_when_called():
    package = ROOT / "quantlab"
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text())
        at_import = {id(node) for node in tree.body}
        for node in ast.walk(tree):
            for library in imported(node) & LIBRARY_FILES.keys():
                assert path.relative_to(package).as_posix() in LIBRARY_FILES[library], f"{path} imports {library}"
                assert id(node) not in at_import, f"{path} imports {library} before it is called"


def imported(node):
    """Top-level names of the packages that a statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return {str(node.module).partition(".")[0]}
    return set()
