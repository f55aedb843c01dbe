"""Losses of modules on nano, against sums written out with other functions."""

import pytest
import torch
from scipy.special import rel_entr
from torch.nn.functional import cross_entropy

from quantlab import models
from quantlab.allocation.sensitivity import divergences, estimates, rounded
from quantlab.config.compose import compose
from quantlab.engines import decoding
from quantlab.engines.clocks import Clocks
from quantlab.recogniser.assemble import prepared
from quantlab.recogniser.calibrate import calibration_alone, calibration_runs
from quantlab.recogniser.fingerprints import resolve

MODULES = ("model.encoder.layers.5.fc2", "model.decoder.layers.1.encoder_attn.v_proj", "model.decoder.layers.0.fc1")
FORMATS = dict.fromkeys(MODULES, (2.0, 4.0, 8.0))


@pytest.fixture(scope="module")
def runs():
    """Nano and three utterances of different lengths."""
    few = "device=cpu device.threads=1 device.pin=false dataset.limit=15".split()
    [config] = compose(["quant=gptq_int4", "calibration.source=disjoint", *few])
    config = resolve(config)
    with prepared(config) as device:
        checkpoint = models.load(config.model, 0, "float32")
        speech, _ = calibration_alone(config, checkpoint.feature_extractor)
        how = decoding(checkpoint.model, config)
        yield checkpoint.model, calibration_runs(config, checkpoint, speech, device, how, Clocks(device))


def one_by_one(model, lesson):
    """Log-probabilities by a plain pass, and the tokens that follow."""
    logits = model(input_features=lesson.inputs, decoder_input_ids=lesson.tokens).logits
    return logits[lesson.predicts].log_softmax(-1)


def test_a_lesson_teaches_the_labels_after_the_prompt_and_then_the_end(runs):
    model, data = runs
    lessons = list(data.lessons(1))
    assert len(lessons) == len(data.labels) == 3
    for lesson, label in zip(lessons, data.labels, strict=True):
        prompt = data.decoding.prompt
        assert lesson.tokens.tolist() == [[*prompt, *label]]
        assert lesson.targets.tolist() == [*label, model.generation_config.eos_token_id]
        greedy = one_by_one(model, lesson).argmax(-1)  # what the model heard, as no token is suppressed in nano
        assert greedy.tolist() == lesson.targets.tolist()


def test_padding_changes_no_prediction(runs):
    model, data = runs
    [batch] = data.lessons(16)
    assert len({len(label) for label in data.labels}) > 1
    with torch.no_grad():
        alone = torch.cat([one_by_one(model, lesson) for lesson in data.lessons(1)])
        torch.testing.assert_close(one_by_one(model, batch), alone, rtol=1e-4, atol=1e-4)
    assert batch.targets.tolist() == [token for lesson in data.lessons(1) for token in lesson.targets.tolist()]


def test_divergence_is_the_mean_over_tokens_of_scipys(runs):
    model, data = runs
    before = {name: model.get_submodule(name).weight.clone() for name in MODULES}
    found = divergences(model, FORMATS, 64, data.lessons(2))
    for name in MODULES:
        linear = model.get_submodule(name)
        assert torch.equal(linear.weight, before[name])
        total, tokens = 0.0, 0
        with torch.no_grad():
            for lesson in data.lessons(1):
                expected = one_by_one(model, lesson).double().exp().numpy()
                linear.weight.copy_(rounded(before[name], 4.0, 64))
                total += rel_entr(expected, one_by_one(model, lesson).double().exp().numpy()).sum()
                linear.weight.copy_(before[name])
                tokens += len(lesson.targets)
        assert found[name][4.0] == pytest.approx(total / tokens, rel=1e-3)
        assert 0 < found[name][8.0] < found[name][4.0] < found[name][2.0]


def test_the_estimate_is_half_the_squared_gradient_times_the_squared_error(runs):
    model, data = runs
    found = estimates(model, FORMATS, 64, data.lessons(1))
    squares, tokens = dict.fromkeys(MODULES, 0), 0
    for lesson in data.lessons(1):
        model.zero_grad()
        logits = model(input_features=lesson.inputs, decoder_input_ids=lesson.tokens).logits[0]
        cross_entropy(logits[-len(lesson.targets) :], lesson.targets, reduction="sum").backward()
        squares = {name: total + model.get_submodule(name).weight.grad ** 2 for name, total in squares.items()}
        tokens += len(lesson.targets)
    model.zero_grad()
    for name in MODULES:
        weight = model.get_submodule(name).weight.detach()
        expected = (squares[name] * (rounded(weight, 2.0, 64) - weight) ** 2).sum().item() / 2 / tokens
        assert found[name][2.0] == pytest.approx(expected, rel=1e-4)
        assert 0 < found[name][8.0] < found[name][4.0] < found[name][2.0]


def test_both_put_modules_in_one_order(runs):
    model, data = runs
    modules = {  # from the least to the most of fp32's text that they change
        "model.encoder.layers.4.self_attn.k_proj": (3.0,),
        "model.encoder.layers.0.self_attn.q_proj": (3.0,),
        "model.encoder.layers.2.self_attn.v_proj": (3.0,),
        "model.encoder.layers.0.fc1": (3.0,),
    }
    measured, estimated = (
        {name: losses[3.0] for name, losses in way(model, modules, 64, data.lessons(1)).items()}
        for way in (divergences, estimates)
    )
    # not in size: tokens of which the model is certain have small gradients, so the estimate is the smaller one
    assert sorted(modules, key=measured.__getitem__) == sorted(modules, key=estimated.__getitem__) == list(modules)
