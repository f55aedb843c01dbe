"""What is printed to be pasted gives the configuration that it was made of, composed by Hydra itself."""

import shlex

import pytest

from quantlab.config import overrides
from quantlab.config.hydra import composed
from quantlab.config.options import names, option
from quantlab.config.overrides import command
from quantlab.config.parse import parse_config

CLIP = {"test": {"config": "en", "split": "test"}}
ASKED = [
    ["model=base", "model.path=models/epoch=3-step=100", "quant=hqq_int4", "quant.group_size=32", "quant.head=true"],
    ["dataset=manifest", "dataset.path=My Corpus (v2)/m.jsonl", "dataset.limit=2", "dataset.language=de"],
    ["dataset=manifest", 'dataset.path=a,b\'s "c" ${x}.jsonl', "quant=torchao_intx", "quant.bits=3"],
    ["model.path=tuned", "quant=quanto_int8_static", "calibration.source=disjoint", "calibration.fraction=0.25"],
    ["dataset=fleurs", "dataset.hub_splits.test.config=fr_fr", "dataset.splits=[test]", "quant=bnb_nf4_dq"],
    ["dataset.noise.kind=white", "dataset.noise.snr_db=10", "runtime=compile", "runtime.dtype=bfloat16"],
    ["runtime=streaming", "protocol.batch_size=1", "runtime.streaming.chunk_s=0.5"],
    [
        "runtime=compile",
        "runtime.streaming.policy=sliding_window",
        "runtime.streaming.window_s=5",
        "protocol.batch_size=1",
    ],
    [
        "model=small",
        "model.weights=random",
        "tracking=off",
        "seed=7",
        "timeout_s=60",
        "stats.margin=1",
        "isolate=false",
    ],
    ["protocol=careful", "protocol.batch_size=4", "quant=ggml_q4_k", "quant.skip=[*.k_proj,model.encoder.layers.0.*]"],
    ["model.name=mine", "quant=torch_int8", "quant.name=own", "protocol.name=mine", "dataset.name=ours"],
]


def of(*arguments):
    return [parse_config({k: v for k, v in point.items() if k != "only"}) for point in composed(arguments).points]


def as_asked(arguments):
    """What the arguments mean as text: this test has no quoting of its own."""
    from quantlab.util.quoting import override

    texts = ("model.path", "dataset.path")
    return [override(*item.split("=", 1)) if item.startswith(texts) else item for item in arguments]


def pasted(line):
    """Every point of the grids that a printed line asks for."""
    commands = line.split(" && ")
    assert all(part.startswith("quantlab ") for part in commands)
    return [config for part in commands for config in of(*shlex.split(part)[1:])]


@pytest.mark.parametrize("arguments", ASKED, ids=lambda arguments: arguments[-1])
def test_the_command_gives_the_same_cell_and_its_baseline(arguments):
    [asked] = of("device=cpu", "device.threads=2", *as_asked(arguments))
    found = pasted(command(asked.model_dump(mode="json"), "mlruns"))
    assert found[-1] == asked
    if asked.quant.name != "none":
        assert len(found) == 2
        assert found[0].quant.name == found[0].quant.library == "none"
        assert found[0] == asked.model_copy(update={"quant": found[0].quant})


NEEDED = {"manifest": {"path": "x"}, "librispeech_dir": {"path": "x"}, "server": {"uri": "http://x"}}


@pytest.mark.parametrize("group", overrides.GROUPS)
def test_every_option_is_told_by_its_name_alone(group):
    base = parse_config(_plain(of("device=cpu")[0]))
    for name in names(group):
        needed = NEEDED.get(name, {})
        part = type(getattr(base, group)).model_validate({**option(group, name), **needed})
        found = overrides.overrides(_plain(base) | {group: part.model_dump(mode="json")})
        if name != "auto":
            assert found.get(group, name) == name
            assert found.keys() - overrides.GROUPS == {f"{group}.{key}" for key in needed}


def _plain(config):
    return config.model_dump(mode="json")


def test_a_key_can_be_reset_and_the_folder_of_the_records_is_told():
    [asked] = of("device=cpu", "dataset.limit=6", "dataset.splits=[clean]")
    [found] = pasted(command(asked.model_dump(mode="json"), "my runs", reset=("dataset.limit",)))
    assert (found.dataset.limit, found.dataset.splits, found.output_dir) == (None, ("clean",), "my runs")


def test_what_was_hidden_is_not_pasted():
    [asked] = of("device=cpu", "tracking=server", "tracking.uri=http://x")
    config = asked.model_dump(mode="json")
    config["tracking"]["uri"] = "http://***@host"
    assert "***" not in command(config, "mlruns")
