"""A key that is set acts on what is measured, or is refused in one line that says what it needs."""

import pytest

from quantlab.config.compose import compose
from quantlab.config.hydra import composed
from quantlab.config.options import names, option
from quantlab.config.parse import parse_grid
from quantlab.config.schema import QuantConfig
from quantlab.grid.plan import plan
from quantlab.quantization import registry
from quantlab.util.errors import ConfigError

# A value of each key of a quantizer that no shipped option has.
ODD = {
    "bits": 5.5, "format": "int9", "activations": "int9", "granularity": "per-tensor", "group_size": 24, "axis": 0,
    "backend": "marlin", "symmetric": None, "double_quant": None, "act_order": None, "damping": 0.5,
    "smoothing": 0.3,
}  # fmt: skip
# What each option honours of ODD; everything else is refused.
HONOURED = {
    "hqq": {"group_size", "axis"},
    "rtn": {"group_size"},
    "gptq": {"group_size", "act_order", "damping"},
    "awq": {"group_size"},
    "torch": {"granularity"},
    "smoothquant": {"granularity", "smoothing"},
    "torchao_fp8dq": {"granularity"},
    "torchao_intx": {"symmetric", "group_size"},
    "bnb_nf4": {"double_quant"},
    "bnb_fp4": {"double_quant"},
    "bnb_nf4_dq": {"double_quant"},
    "ort_int4": {"symmetric"},
    "ov_int8": {"symmetric"},
    "ov_int4": {"symmetric", "group_size"},
}
QUANTS = [name for name in names("quant") if name not in ("as_shipped", "recipe")]  # read from a file


def odd(name, key):
    usual = option("quant", name)[key]
    return (not usual) if ODD[key] is None else ODD[key]


@pytest.fixture(scope="module")
def point():
    """A composed point, since composing one for each key would take minutes."""
    [found] = composed(["device=cpu", "calibration.source=disjoint"]).points
    return found


@pytest.mark.parametrize("name", QUANTS)
def test_every_key_of_every_quantizer_is_honoured_or_refused(name, point):
    library = option("quant", name)["library"]
    for key in ODD:
        why = _why_not({**point, "quant": {**option("quant", name), key: odd(name, key)}})
        assert (why is None) == (key in {*HONOURED.get(name, ()), *HONOURED.get(library, ())}), (key, why)
        assert "\n" not in (why or "")


def _why_not(point):
    try:
        [config] = parse_grid([point])
        quantizer = registry.get(config.quant.library)
        registry.check_keys(quantizer, config.quant)
    except ConfigError as error:
        return str(error)
    return registry.why_never(quantizer, config.quant)


@pytest.mark.parametrize("name", names("quant"))
def test_no_shipped_option_trips(name):
    quant = QuantConfig.model_validate(option("quant", name))
    registry.check_keys(registry.get(quant.library), quant)
    assert registry.why_never(registry.get(quant.library), quant) is None


def test_a_key_that_is_not_read_names_those_that_are():
    with pytest.raises(
        ConfigError, match=r"quant.axis=1: torch does not read it; .* It reads quant.bits, quant.format"
    ):
        plan(compose(["device=cpu", "quant=torch_int8", "quant.axis=1"]))


WITHOUT_EFFECT = [
    ("quant.bits=4", "quant.bits=4: no effect on quant=none, as nothing is quantized"),
    ("quant.scheme=static", "quant.scheme=static: no effect on quant=none"),
    ("quant=ct2_int8 quant.scheme=none", "quant.scheme=none quantizes nothing"),
    ("quant=torch_int8 quant.group_size=32", "quant.group_size=32: no effect on quant=torch_int8, as quant."),
    ("quant=none,torch_int8 quant.group_size=32", "quant.group_size=32: no effect on quant="),
    ("quant=torch_int8,hqq_int4 quant.group_size=32", "quant.group_size=32: no effect on quant=torch_int8"),
    ("quant=none,hqq_int4 calibration.fraction=0.5", "calibration.fraction=0.5: no effect without a static scheme"),
    ("quant=hqq_int4 calibration.limit=5", "calibration.limit=5: no effect without a quantizer that it calibrates"),
    (
        "quant=gptq_int3 calibration.source=disjoint calibration.limit=5",
        "calibration.limit=5: no effect without calibration.source=manifest (what other sources take of the evaluated "
        "corpus is set by calibration.fraction)",
    ),
    ("protocol.budget_s=3 protocol.rel_ci=0.1", "protocol.rel_ci=0.1, protocol.budget_s=3.0: no effect without"),
    ("runtime.streaming.chunk_s=2", "runtime.streaming.chunk_s=2.0: no effect without runtime=streaming"),
    ("runtime=compile runtime.streaming.agreement=3", "runtime.streaming.agreement=3: no effect without runtime=str"),
    (
        "runtime=streaming protocol.batch_size=1 runtime.streaming.window_s=5",
        "runtime.streaming.window_s=5.0: no effect without runtime.streaming.policy=sliding_window",
    ),
    (
        "runtime=streaming protocol.batch_size=1 runtime.streaming.keep_s=0.5",
        "runtime.streaming.keep_s=0.5: no effect without runtime.streaming.policy=sliding_window",
    ),
    (
        "runtime=streaming protocol.batch_size=1 runtime.streaming.policy=sliding_window runtime.streaming.agreement=3",
        "runtime.streaming.agreement=3: no effect without runtime.streaming.policy=local_agreement",
    ),
    ("dataset.chunk_overlap_s=2", "dataset.chunk_overlap_s=2.0: no effect without dataset.long=chunked"),
    ("dataset.noise.seed=3", "dataset.noise.seed=3: no effect without noise"),
    ("model.random_tokens=5", "model.random_tokens=5: no effect without model.weights=random"),
    ("model.architecture.d_model=96", "model.architecture: no effect without model.weights=random"),
    ("model.revision=abc", "model.revision=abc: no effect without a model of the hub"),
    ("dataset.repo=a/b", "dataset.repo=a/b: no effect without a corpus of the hub"),
    ("dataset.text_column=words", "dataset.text_column=words: no effect without a corpus with columns"),
]  # fmt: skip


def test_a_checkpoint_with_a_name_of_its_own_keeps_the_architecture_of_its_option():
    for line in ("model.name=mine", "model=base model.name=mine model.path=folder"):
        assert compose(line.split())[0].model.name == "mine"


@pytest.mark.parametrize(("line", "says"), WITHOUT_EFFECT)
def test_a_key_that_acts_in_no_cell(line, says):
    with pytest.raises(ConfigError) as refused:
        compose(line.split())
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "line",
    [
        "quant=none,hqq_int4 quant.group_size=32,64 quant.skip=[*.fc1]",  # the baseline has no groups
        "quant=none,torchao_intx quant.granularity=per-channel,per-group quant.group_size=64,32",
        "quant=none,quanto_int8 quant.scheme=static quant.activations=int8 calibration.fraction=0.5",
        "calibration.source=disjoint calibration.fraction=0.5",
        "protocol=paper,careful protocol.budget_s=3",
        "dataset.noise.kind=white dataset.noise.snr_db=inf,10 dataset.noise.seed=3",
        "model.weights=random,pretrained model.random_tokens=5 model.architecture.d_model=96",
        "dataset=manifest dataset.path=x dataset.text_column=words",
        "runtime=eager,streaming runtime.streaming.chunk_s=0.5,2 protocol.batch_size=1",
        "runtime=streaming runtime.streaming.policy=local_agreement,sliding_window runtime.streaming.window_s=5 "
        "runtime.streaming.agreement=3 protocol.batch_size=1",
    ],
)
def test_a_key_that_acts_in_one_cell_of_a_sweep(line):
    assert compose(line.split())


@pytest.mark.parametrize("line", ["quant=bnb_nf4 quant.format=nf3", "quant=none,bnb_nf4 quant.format=nf3"])
def test_what_no_machine_can_do_ends_the_grid_before_it_begins(line):
    with pytest.raises(
        ConfigError, match=r"no quant.format=nf3; it has int8, nf4, fp4; did you mean quant.format=nf4\?"
    ):
        plan(compose(["device=cpu", *line.split()]))


def test_what_another_quantizer_of_the_sweep_can_do_is_a_row():
    cells = plan(compose(["device=cpu", "quant=torch_int8,hqq_int4", "quant.bits=4"]))
    assert [cell.refusal and cell.refusal.status for cell in cells] == ["unsupported", None]


@pytest.mark.parametrize(("name", "more"), [("torch_int8", "device=cuda"), ("hqq_int4", "quant.backend=gemlite")])
def test_what_this_machine_lacks_is_a_row(name, more, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)  # nothing is installed
    device = [] if more.startswith("device") else ["device=cpu"]
    [cell] = plan(compose([f"quant={name}", more, *device]))
    assert cell.refusal.status == "unsupported"


@pytest.mark.parametrize(
    ("line", "meant"),
    [("runtime.dtype=flaot16", "float16"), ("protocol.interleave=tru", "true"), ("device.name=gpu", "cuda")],
)
def test_a_mistyped_value_suggests_the_nearest(line, meant):
    with pytest.raises(ConfigError, match=rf"; did you mean '{meant}'\?$"):
        compose([line])
