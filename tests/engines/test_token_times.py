"""Word times by cross-attention: against hand-made matrices, exhaustive search, CTranslate2, and shifted audio."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from quantlab import models
from quantlab.config.compose import compose
from quantlab.data import features, open_corpus
from quantlab.engines import compiled, decoding
from quantlab.engines.alignment import POSITION_S, attention_matrix, best_path, median_filter, positions_in, starts
from quantlab.engines.pytorch import Eager
from quantlab.engines.whispercpp_times import PRESETS
from quantlab.quantization import registry
from quantlab.quantization.select import select
from quantlab.util.errors import UnsupportedError

CPU = torch.device("cpu")
OPTIONS = ("dataset.limit=12", "device=cpu", "runtime.word_times=true", "dataset.splits=[clean]")


def test_the_path_through_a_matrix_by_hand():
    attention = np.array(
        [
            [9.0, 8.0, -1.0, -1.0, -1.0],
            [-1.0, -1.0, 7.0, -1.0, -1.0],
            [-1.0, -1.0, -1.0, 6.0, 9.0],
        ]
    )
    assert best_path(-attention) == [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4)]
    assert starts(attention) == [0.0, pytest.approx(0.04), pytest.approx(0.06)]


@pytest.mark.parametrize(("shape", "path"), [((1, 3), [(0, 0), (0, 1), (0, 2)]), ((3, 1), [(0, 0), (1, 0), (2, 0)])])
def test_a_single_row_or_column_has_one_path(shape, path):
    assert best_path(np.ones(shape)) == path


def cheapest(cost):
    """By trying every path."""
    rows, columns = cost.shape

    def from_here(row, column):
        if (row, column) == (rows - 1, columns - 1):
            return cost[row, column]
        after = [(row + 1, column), (row, column + 1), (row + 1, column + 1)]
        return cost[row, column] + min(from_here(*place) for place in after if place[0] < rows and place[1] < columns)

    return from_here(0, 0)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**31))
def test_no_path_is_cheaper(rows, columns, seed):
    cost = np.random.default_rng(seed).normal(size=(rows, columns))
    path = best_path(cost)
    assert (path[0], path[-1]) == ((0, 0), (rows - 1, columns - 1))
    assert {(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(path)} <= {(0, 1), (1, 0), (1, 1)}
    assert sum(cost[place] for place in path) == pytest.approx(cheapest(cost))


def test_the_median_filter_is_that_of_scipy():
    values = np.random.default_rng(0).normal(size=(2, 3, 40))
    expected = ndimage.median_filter(values, size=(1, 1, 7), mode="mirror")
    np.testing.assert_array_equal(median_filter(values, 7), expected)
    np.testing.assert_array_equal(median_filter(values[..., :3], 7), values[..., :3])  # too short to be mirrored


def test_a_broken_model_has_times_all_the_same():
    assert np.isfinite(attention_matrix(torch.full((2, 4, 9), float("nan")))).all()


@pytest.fixture(scope="module")
def nano():
    [config] = compose(OPTIONS)
    checkpoint = models.load(config.model, 0)
    speech = features(open_corpus(config.dataset), checkpoint.feature_extractor).splits["clean"]
    return checkpoint.model, decoding(checkpoint.model, config), speech


@pytest.fixture(scope="module")
def eager(nano):
    model, how, speech = nano
    engine = Eager(model, CPU, how)
    rows, _ = engine.generate(speech)
    return engine, rows, engine.align(speech, rows)[0]


def test_heads_that_a_checkpoint_does_not_name_are_those_of_the_upper_half(nano):
    assert nano[1].alignment.heads == ((1, 0), (1, 1), (1, 2))  # two layers of three heads
    assert nano[1].alignment.most_tokens == 64 - 4 - 1


def test_every_token_begins_after_the_one_before_and_within_the_audio(nano, eager):
    speech = nano[2]
    _, rows, found = eager
    for row, times, positions in zip(rows, found, positions_in(speech), strict=True):
        assert len(times) == len(row) + 1
        assert times[0] == 0
        assert times == sorted(times)
        assert times[-1] < positions * POSITION_S
    assert eager[0].model.model.decoder.layers[1].encoder_attn.q_proj._forward_hooks == {}


def test_alone_and_in_a_batch_the_times_are_the_same(nano, eager):
    engine, rows, found = eager
    assert engine.align(nano[2].take([5]), [rows[5]])[0] == [found[5]]


def test_silence_before_the_speech_moves_every_word_by_its_length(nano, eager):
    """80 ms are four positions; the first token has no start of its own."""
    speech = nano[2]
    engine, rows, found = eager
    silence = np.full((*speech.mel.shape[:2], 8), speech.mel.min(), np.float32)
    later = dataclasses.replace(
        speech,
        stored=np.concatenate([silence, speech.mel[:, :, :-8]], axis=2),
        rows=tuple(range(len(rows))),
        audio_s=tuple(audio_s + 0.08 for audio_s in speech.audio_s),
    )
    moved = engine.align(later, rows)[0]
    shifts = np.concatenate([np.subtract(after, before)[1:] for before, after in zip(found, moved, strict=True)])
    assert np.median(shifts) == pytest.approx(0.08)


def test_a_text_of_every_position_has_times_of_what_fits(nano, eager):
    engine = eager[0]
    [times], _ = engine.align(nano[2].take([0]), [[42] * 60])
    assert len(times) == engine.decoding.alignment.most_tokens + 1
    [times], _ = engine.align(nano[2].take([0]), [[]])
    assert times == [0.0]


def converted(nano, library, format):
    model, how, _ = nano
    [config] = compose([*OPTIONS, f"quant={library}_{format}"])
    names, _ = select(model, config.quant)
    return registry.get(library).convert(model, config.quant, names, CPU, how, 1).engine


def test_ctranslate2_finds_the_same_times(nano, eager):
    """An independent implementation, given the same heads."""
    pytest.importorskip("ctranslate2")
    _, rows, found = eager
    other = converted(nano, "ct2", "float32").align(nano[2], rows)[0]
    errors = np.abs(np.concatenate(found) - np.concatenate(other))
    assert np.mean(errors <= 0.02) > 0.98  # a tie may be decided by rounding


def test_whispercpp_finds_nearly_the_same_times(nano, eager):
    """It smooths and normalises over the whole window, with its padding."""
    pytest.importorskip("_pywhispercpp")
    speech = nano[2]
    engine, (_, rows, found) = converted(nano, "ggml", "f16"), eager
    assert engine.generate(speech)[0] == rows
    other, seconds = engine.align(speech, rows)
    assert seconds > 0
    errors = np.abs(np.concatenate(found) - np.concatenate(other))
    assert np.median(errors) <= 0.02
    assert np.mean(errors <= 0.1) > 0.9


def test_whispercpp_decodes_no_other_text_for_the_times_of_this_one(nano, eager):
    pytest.importorskip("_pywhispercpp")
    with pytest.raises(RuntimeError, match="other tokens"):
        converted(nano, "ggml", "f16").align(nano[2].take([0]), [[1, 2, 3]])


def test_whispercpp_aligns_whole_windows_only(nano):
    model, how, speech = nano
    with pytest.raises(UnsupportedError, match=r"set runtime.audio_ctx=full"):
        converted((model, dataclasses.replace(how, audio_ctx="dynamic"), speech), "ggml", "f16")


def test_half_a_window_gives_nearly_the_same_times(nano, eager):
    """With runtime.audio_ctx=dynamic the encoder does not see the padding."""
    model, how, speech = nano
    shorter = Eager(model, CPU, dataclasses.replace(how, audio_ctx="dynamic"))
    found = shorter.align(speech, eager[1])[0]
    assert np.median(np.abs(np.concatenate(found) - np.concatenate(eager[2]))) <= 0.04


def test_the_heads_of_openais_models_are_known_to_whispercpp_by_name():
    transformers = pytest.importorskip("ctranslate2.converters.transformers")
    known = transformers._WHISPER_ALIGNMENT_HEADS
    names = {"large": "large-v1"}
    for model, heads in known.items():
        size = model.removeprefix("openai/whisper-")
        preset = PRESETS[tuple(heads[0]), len(heads)]
        assert preset == names.get(size, size).upper().replace("-", "_").replace(".", "_"), model


def test_compiled_cells_are_aligned_without_compiling(nano, eager):
    model, how, speech = nano
    engine = compiled.build(model, CPU, how, next(speech.batches(how.batch_size)))
    before = compiled.tally()
    assert engine.align(speech, eager[1])[0] == eager[2]
    assert compiled.tally().frames == before.frames
