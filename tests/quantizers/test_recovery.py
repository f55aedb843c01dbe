"""Training after quantization: gradients, what is trained, what is kept, and what the record says."""

import math

import pytest
import torch
from torch import nn

from helpers.calibrating import SCORED, not_scored
from helpers.corpora import write_jsonl
from helpers.quantizing import OnNoise, load_nano, noise, quant_config
from quantlab.analysis.pairs import find_baselines
from quantlab.config.compose import compose
from quantlab.config.recovery import RecoveryConfig
from quantlab.export import load
from quantlab.measurement.cell import run_cell
from quantlab.quantization import hqq_layer, receipt, registry
from quantlab.quantization.backends import awq
from quantlab.quantization.recovery import Recovery, Trainable
from quantlab.quantization.recovery.distil import Example, batches, divergence, rate
from quantlab.quantization.rounding import nearest
from quantlab.quantization.select import select
from quantlab.recogniser.fingerprints import identify, resolve
from quantlab.util.errors import ConfigError

CPU = torch.device("cpu")


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.manual_seed(seed))


def packed(bits=3, inputs=64, outputs=24):
    linear = nn.Linear(inputs, outputs).eval()
    model = nn.Sequential(linear)
    weight = linear.weight.detach().clone()
    quant = quant_config(f"rtn_int{bits}", group_size=16)
    hqq_layer.put(model, "0", nearest(weight, quant), quant, CPU)
    return model[0], weight


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_what_is_unpacked_computes_the_same_and_packs_to_the_same_bits(bits):
    layer, _ = packed(bits)
    opened, x = hqq_layer.unpack(layer), seeded(5, 64)
    torch.testing.assert_close(Trainable(opened, layer.bias)(x), layer(x))
    before = {key: layer.meta[key].clone() for key in ("scale", "zero")} | {"codes": layer.W_q.clone()}
    hqq_layer.repack(layer, Trainable(opened, layer.bias).rounded())
    assert torch.equal(layer.W_q, before["codes"])
    assert all(torch.equal(layer.meta[key], before[key]) for key in ("scale", "zero"))


@pytest.mark.parametrize("name", ["scale", "zero", "bias"])
def test_gradients_are_those_of_finite_differences(name):
    layer, _ = packed()
    trainable = Trainable(hqq_layer.unpack(layer), layer.bias).double()
    x, target = seeded(7, 64).double(), seeded(7, 24)
    parameter = getattr(trainable, name)

    def loss():
        return (trainable(x) - target.double()).square().mean()

    loss().backward()
    step = 1e-6
    for at in range(0, parameter.numel(), 7):
        found = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.view(-1)[at] += sign * step
                found.append(loss().item())
                parameter.view(-1)[at] -= sign * step
        assert parameter.grad.view(-1)[at].item() == pytest.approx((found[0] - found[1]) / (2 * step), rel=1e-4)


def test_weights_begin_at_their_codes_and_as_near_to_the_original_as_these_allow():
    layer, weight = packed(2)
    opened = hqq_layer.unpack(layer)
    trainable = Trainable(opened, layer.bias, weight)
    assert torch.equal(trainable.rounded().codes, opened.codes)
    scale = opened.levels.scale.expand(24, 4, 16).flatten(1)
    inside = (weight - opened.values()).abs() < 0.49 * scale
    assert inside.float().mean() > 0.9
    assert torch.equal(trainable.weight[inside], weight[inside])


def test_a_weight_has_the_gradient_of_its_rounded_value_unless_it_is_outside_of_the_levels():
    layer, weight = packed(2)
    trainable = Trainable(hqq_layer.unpack(layer), None, weight)
    with torch.no_grad():
        trainable.weight[0, 0] = 100.0
    trainable(torch.ones(1, 64)).sum().backward()
    expected = torch.ones(24, 64)
    expected[0, 0] = 0
    torch.testing.assert_close(trainable.weight.grad, expected)


def test_divergence_of_a_case_by_hand():
    """Two tokens of a vocabulary of two: ½ KL((½, ½) ‖ (¾, ¼)) + ½ · 0."""
    logits = torch.tensor([[[math.log(3), 0.0], [0.0, 0.0]]])

    class Output:
        def __init__(self):
            self.logits = logits

    example = Example(lambda model: Output(), torch.zeros(2, 4))
    expected = 0.5 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    assert divergence(None, example, torch.ones(2, 4)).item() == pytest.approx(expected, rel=1e-5)


def test_the_rate_rises_then_falls_and_every_pass_over_the_data_has_every_utterance():
    rates = [rate(step, 100) for step in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.05, abs=0.01)
    order = batches(10, 4, seed=3)
    seen = [index for _ in range(5) for index in next(order)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def passes(count=6):
    """Utterances of seeded noise with seeded tokens."""

    def one(seed, model):
        tokens = torch.randint(5, 300, (1, 9), generator=torch.manual_seed(seed))
        sound = torch.roll(noise(model)[:1], seed, 2)
        return model(input_features=sound, decoder_input_ids=tokens)

    return [lambda model, seed=seed: one(seed, model) for seed in range(count)]


def recover(library="rtn_int2", tick=lambda step: None, **changes):
    """The recovered model, the quantized one without, and what the training says of itself."""
    usual = {"steps": 20, "batch_size": 2, "learning_rate": 0.002, "held_out": 0.3, "patience": 20}
    how = RecoveryConfig(**(usual | changes.pop("how", {})))
    quant = quant_config(library, **({"group_size": 16} | changes))
    quantizer = registry.get(quant.library)
    model = load_nano()
    names, skipped = select(model, quant)
    before = receipt.snapshot(model)
    recovery = Recovery(model, names, quant, how, passes(), seed=0)
    model = quantizer.setup(model, quant, names, CPU, None)
    plain = quantizer.setup(load_nano(), quant, names, CPU, None)
    found = recovery.run(model, names, quantizer, tick)
    return model, plain, found, receipt.read(before, model, names, skipped, quantizer)


@pytest.mark.parametrize("recovers", ["scales", "weights"])
def test_it_comes_closer_to_the_original_and_adds_nothing(recovers):
    model, plain, found, evidence = recover(recover=recovers)
    assert evidence.verified, evidence.problems
    assert evidence.size_bytes == receipt.size_bytes(plain)
    assert found.loss_after < 0.85 * found.loss_before
    assert (found.utterances, found.held_out) == (4, 2)
    pairs = [(a, b) for a, b in zip(model.modules(), plain.modules(), strict=True) if hqq_layer.is_quantized(a)]
    same_codes = [torch.equal(a.W_q, b.W_q) for a, b in pairs]
    assert all(same_codes) == (recovers == "scales")
    assert not any(torch.equal(a.meta["scale"], b.meta["scale"]) for a, b in pairs)
    assert torch.equal(model.proj_out.weight, plain.proj_out.weight)  # tied to the embedding, not trained
    assert not torch.equal(model.model.decoder.layer_norm.weight, plain.model.decoder.layer_norm.weight)


def test_weights_begin_at_those_that_awq_has_scaled():
    """Trained so little that they stay: those that round to their codes are the original's times the folded scale."""
    quant = quant_config("awq_int3", group_size=16, recover="weights")
    how = RecoveryConfig(steps=1, batch_size=1, learning_rate=1e-9)
    model, original = load_nano(), load_nano()
    names, _ = select(model, quant)
    recovery = Recovery(model, names, quant, how, passes(), seed=0)
    model = awq.setup(model, quant, names, CPU, OnNoise())
    block, unscaled = model.model.encoder.layers[1], original.model.encoder.layers[1]
    scale = unscaled.final_layer_norm.weight.detach() / block.final_layer_norm.weight.detach()
    assert scale.max() / scale.min() > 1.5
    expected, opened, begun = unscaled.fc1.weight.detach() * scale, hqq_layer.unpack(block.fc1), []
    recovery.run(model, names, awq, lambda step: begun.append(block.fc1.weight.detach().clone()))
    levels = opened.levels.scale.expand(-1, -1, 16).flatten(1)
    inside = (expected - opened.values()).abs() < 0.48 * levels
    assert inside.float().mean() > 0.9
    torch.testing.assert_close(begun[0][inside], expected[inside])


def test_an_interrupted_training_goes_on_and_a_finished_one_is_not_repeated(tmp_path, monkeypatch):
    def stop(step):
        if step == 7:
            raise KeyboardInterrupt

    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "whole"))
    whole, *_ = recover(recover="scales")
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "in parts"))
    with pytest.raises(KeyboardInterrupt):
        recover(tick=stop, recover="scales")
    steps = []
    parts, *_ = recover(tick=steps.append, recover="scales")
    assert steps[0] == 7  # the last check was after step 6
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    again, *_ = recover(tick=steps.append, recover="scales")
    assert len(steps) == 14
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), parts.parameters(), strict=True))


def test_training_that_makes_it_worse_is_stopped_and_undone(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))
    model, plain, found, _ = recover("rtn_int8", recover="scales", how={"learning_rate": 1.0, "patience": 3})
    assert (found.steps, found.best_step) == (3, 0)
    assert found.loss_after == found.loss_before
    ours = model.model.encoder.layers[0].fc1
    assert torch.equal(ours.meta["scale"], plain.model.encoder.layers[0].fc1.meta["scale"])


@pytest.mark.parametrize("library", ["hqq_int3", "bnb_nf4"])
def test_lora_comes_closer_too_and_its_bytes_are_counted(library):
    changes = {"axis": 1} if library == "hqq_int3" else {}
    model, plain, found, evidence = recover(library, recover="lora", lora_rank=4, group_size=64, **changes)
    assert evidence.verified, evidence.problems
    assert found.loss_after < 0.98 * found.loss_before
    linears = [module for module in load_nano().modules() if isinstance(module, nn.Linear)]
    added = sum(4 * 4 * (linear.in_features + linear.out_features) for linear in linears[:-1])  # but proj_out
    assert evidence.size_bytes == receipt.size_bytes(plain) + added
    assert found.parameters * 4 == added
    assert all(item.kernel.endswith("LoRA, rank 4") for item in evidence.modules if item.quantized)
    for name, tensor in plain.state_dict().items():  # codes, scales, norms
        if isinstance(tensor, torch.Tensor) and name in model.state_dict():
            assert torch.equal(model.state_dict()[name], tensor), name


def test_a_damaged_state_is_not_read_and_a_cache_that_cannot_be_written_costs_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))
    first, *_ = recover(recover="scales", how={"steps": 2})
    [state] = (tmp_path / "recovery").iterdir()
    state.write_bytes(state.read_bytes()[:1000])
    again, *_ = recover(recover="scales", how={"steps": 2})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path / "file"))  # no folder can be made there
    without, *_ = recover(recover="scales", how={"steps": 2})
    for other in (again, without):
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.fixture
def calibration(tmp_path):
    """Of utterances that are not scored, without texts."""
    write_jsonl(tmp_path / "calibration.jsonl", [{**row, "text": ""} for row in not_scored()])
    return ["calibration.source=manifest", f"calibration.path={tmp_path / 'calibration.jsonl'}"]


@pytest.mark.parametrize("how", ["rtn_int2 scales", "gptq_int3 weights", "bnb_nf4 lora", "hqq_int4 lora"])
def test_a_cell_is_trained_on_unlabelled_audio_exported_and_recorded(calibration, tmp_path, how):
    name, recovers = how.split()
    line = (f"quant={name}", f"quant.recover={recovers}", "recovery.steps=4", "recovery.batch_size=2")
    [config] = compose([*SCORED, *calibration, *line, f"export.dir={tmp_path / 'out'}"])
    record = run_cell(config).record
    assert record.status == "ok"
    layers = [item for item in record.receipt.modules if item.quantized]
    assert all(item.bits == record.setting("quant.bits") for item in layers) or name.startswith("bnb")
    assert record.recovered.utterances + record.recovered.held_out == len(record.calibration_ids) == 6
    assert record.recovered.loss_after <= record.recovered.loss_before
    assert record.stages.recover_s > 0
    [plain] = compose([*SCORED, "quant=none"])
    baseline = run_cell(plain).record
    assert find_baselines([baseline, record])[record.cell_id] == baseline.cell_id
    [folder] = (tmp_path / "out").iterdir()
    load(folder)  # without calibration data; the export itself has compared every token


def test_only_cells_that_are_trained_have_other_ids(calibration):
    def ids(*line):
        return [identify(resolve(config)).id for config in compose([*SCORED, *line])]

    [plain] = ids("quant=none")
    none, scales = ids("-m", "quant=none,gptq_int3", "quant.recover=scales", "recovery.steps=300", *calibration)
    assert none == plain
    [untrained] = ids("quant=gptq_int3", *calibration)
    [shorter] = ids("quant=gptq_int3", "quant.recover=scales", *calibration)
    assert len({none, scales, untrained, shorter}) == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("quant=rtn_int3 quant.recover=scales", "quant.recover=scales would be scored on the utterances"),
        ("quant=rtn_int3 recovery.steps=5", "recovery.steps=5: no effect without quant.recover"),
        ("quant=rtn_int3 quant.recover=scales runtime.dtype=bfloat16 calibration.source=disjoint", "dtype=float32"),
        ("quant=rtn_int3 quant.recover=scale calibration.source=disjoint", "scales"),
    ],
)
def test_a_line_that_cannot_be_is_refused_at_once(line, message):
    with pytest.raises(ConfigError, match=message):
        compose([*line.split(), "device=cpu"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "quant=bnb_nf4",
            "trains the layers of hqq_*, rtn_*, gptq_*, awq_*, recipe: choose one of these, or set quant.recover=lora, "
            "which bnb_nf4 allows",
        ),
        ("quant=hqq_int4 quant.axis=0", "set quant.axis=1"),
        ("quant=hqq_int4 quant.embedding=true", "set quant.embedding=false"),
    ],
)
def test_a_quantizer_that_cannot_be_trained_is_unsupported(line, message):
    [config] = compose([*line.split(), "quant.recover=scales", "calibration.source=disjoint", "device=cpu"])
    quantizer = registry.get(config.quant.library)
    assert message in registry.why_never(quantizer, config.quant)


def test_one_utterance_is_too_few():
    with pytest.raises(ConfigError, match="needs 2 calibration utterances or more"):
        Recovery(load_nano(), (), quant_config("rtn_int3", recover="scales"), RecoveryConfig(), passes(1), 0)
