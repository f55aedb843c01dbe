"""How a model of transformers is run: compiled, and with no more of the window than holds audio."""

import dataclasses

import pytest
import torch

from quantlab import models
from quantlab.config.compose import compose
from quantlab.data import features, open_corpus
from quantlab.engines import compiled, decoding
from quantlab.engines.pytorch import Eager, positions_of
from quantlab.grid.plan import plan
from quantlab.measurement.cell import run_cell

CPU = torch.device("cpu")
OPTIONS = ("dataset.limit=3", "device=cpu", "tracking=off", "protocol.batch_size=2", "protocol.forced_tokens=8")


@pytest.fixture(scope="module")
def nano():
    [config] = compose(OPTIONS)
    checkpoint = models.load(config.model, 0)
    speech = features(open_corpus(config.dataset), checkpoint.feature_extractor).splits["clean"]
    return checkpoint.model, decoding(checkpoint.model, config), speech


@pytest.fixture(scope="module")
def built(nano):
    model, how, speech = nano
    return compiled.build(model, CPU, how, next(speech.batches(how.batch_size)))


def test_compiled_decoding_gives_the_same_tokens_also_of_a_smaller_batch(nano, built):
    model, how, speech = nano
    eager = Eager(model, CPU, how)
    sizes = []
    before = compiled.tally()
    for batch in speech.batches(how.batch_size):
        sizes.append(len(batch.ids))
        assert built.generate(batch)[0] == eager.generate(batch)[0]
        assert built.encode(batch) > 0 < built.decode(batch)
    assert sizes == [2, 1]
    assert compiled.tally().frames == before.frames > 0  # nothing is compiled once it is built


def test_a_shape_that_is_not_warm_is_counted(nano, built):
    before = compiled.tally()
    wider = dataclasses.replace(built, decoding=dataclasses.replace(built.decoding, batch_size=3))
    wider.encode(nano[2])
    assert compiled.tally().frames > before.frames


def test_a_compiled_cell_says_what_was_compiled():
    [config] = compose((*OPTIONS, "runtime=compile", "quant=hqq_int8"))
    record = run_cell(config).record
    assert record.compilation.graphs >= 2
    assert record.compilation.while_timed == 0
    assert 0 < record.stages.compile_s < record.cold_start_s
    assert record.receipt.modules_quantized > 0


@pytest.mark.parametrize(
    "argument", ["runtime.audio_ctx=dynamic", "protocol.num_beams=2", "quant=ggml_q8_0", "quant=ct2_int8"]
)
def test_what_cannot_be_compiled_is_refused(argument):
    [cell] = plan(compose([*OPTIONS, "runtime=compile", argument]))
    assert cell.refusal.status == "unsupported"
    assert "set runtime=eager" in cell.refusal.reason


def test_an_engine_with_clocks_of_its_own_has_them_in_the_record():
    [config] = compose([*OPTIONS, "quant=ggml_q8_0"])
    record = run_cell(config).record
    times = record.engine_stages
    assert times.mel_s == 0
    assert 0 < times.encode_s + times.decode_s + times.batchd_s < record.stages.measure_s * 1.05
    assert record.cold_start_s > times.load_s > 0


@pytest.mark.parametrize(
    ("audio_s", "most", "positions"),
    [(2.0, 300, 104), (0.16, 300, 8), (0.161, 300, 16), (6.0, 300, 300), (29.99, 1500, 1500)],
)
def test_positions_hold_the_audio(audio_s, most, positions):
    assert positions_of(audio_s, most) == positions
    assert positions == most or positions / 50 >= audio_s


def test_a_dynamic_window_is_the_first_part_of_the_whole_and_leaves_the_model_as_it_was(nano):
    model, how, speech = nano
    encoder = model.get_encoder()
    positions = positions_of(max(speech.audio_s), 300)
    assert positions < 300
    seen = []
    handle = encoder.register_forward_hook(lambda module, given, gave: seen.append(gave.last_hidden_state.shape[1]))
    weights = encoder.embed_positions
    dynamic = Eager(model, CPU, dataclasses.replace(how, audio_ctx="dynamic"))
    rows, _ = dynamic.generate(speech)
    dynamic.encode(speech)
    dynamic.decode(speech)
    handle.remove()
    assert seen == [positions] * 3
    assert all(rows)
    assert encoder.embed_positions is weights
    assert model.config.max_source_positions == 300


def test_a_window_that_is_full_anyway_gives_the_same_tokens(nano):
    model, how, speech = nano
    full = dataclasses.replace(speech, audio_s=(6.0,) * len(speech.ids))
    dynamic = Eager(model, CPU, dataclasses.replace(how, audio_ctx="dynamic"))
    assert dynamic.generate(full)[0] == Eager(model, CPU, how).generate(full)[0]
