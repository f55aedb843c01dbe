"""Recordings heard by the model's own timestamps, as transformers' `generate` hears what is longer than a window."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile
import torch
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

from quantlab.config.compose import compose
from quantlab.data import SplitFeatures, features, open_corpus
from quantlab.engines import Passages, windows_of
from quantlab.engines.long_form import FALLBACKS
from quantlab.engines.pytorch import Eager
from quantlab.grid.plan import plan
from quantlab.measurement.cell import run_cell
from quantlab.models import ASSETS
from quantlab.models.decoding import Decoding, LongForm
from quantlab.records.cell_id import hashed
from quantlab.util.errors import CheckpointError, ConfigError

CPU = torch.device("cpu")
POSITIONS, BINS = 50, 8  # a window of one second
END, START, NO_TIMES = 20, 21, 22
LENGTHS_S = (2.6, 0.7, 3.05)
RATE = 16_000


def shaped(positions, **keys):
    """Random weights that leave room for timestamps after NO_TIMES."""
    torch.manual_seed(3)
    config = WhisperConfig(
        vocab_size=NO_TIMES + 2 + positions, d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=64,
        decoder_ffn_dim=64, encoder_attention_heads=2, decoder_attention_heads=2, num_mel_bins=BINS, init_std=0.4,
        max_source_positions=positions, max_target_positions=48, decoder_start_token_id=START, bos_token_id=END,
        eos_token_id=END, pad_token_id=END, suppress_tokens=None, begin_suppress_tokens=None, **keys,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    model.generation_config = GenerationConfig(
        decoder_start_token_id=START, bos_token_id=END, eos_token_id=END, pad_token_id=END, max_length=48,
        no_timestamps_token_id=NO_TIMES, is_multilingual=False, suppress_tokens=[START, NO_TIMES],
        begin_suppress_tokens=[END], max_initial_timestamp_index=25, return_timestamps=False, prev_sot_token_id=19,
    )  # fmt: skip
    return model


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads of torch cost more than these models."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model():
    return shaped(POSITIONS)


@pytest.fixture(scope="module")
def mels():
    dice = np.random.default_rng(0)
    return [dice.standard_normal((BINS, round(100 * length_s)), dtype=np.float32) for length_s in LENGTHS_S]


def speech_of(mels):
    """As the cache has them: rows of a window, end to end."""
    rows, stored = [], []
    for mel in mels:
        rows.append(len(stored))
        short = -mel.shape[1] % (2 * POSITIONS)
        padded = np.pad(mel, ((0, 0), (0, short)), constant_values=7)  # what is not audio must not be heard
        stored += np.split(padded, padded.shape[1] // (2 * POSITIONS), axis=1)
    seconds = tuple(mel.shape[1] / 100 for mel in mels)
    count = len(mels)
    return SplitFeatures(
        ids=tuple(map(str, range(count))), texts=("",) * count, speakers=(None,) * count,
        audio_s=seconds, new_s=seconds, stored=np.stack(stored), rows=tuple(rows),
    )  # fmt: skip


def eager(model, fallbacks=False, condition=False, **keys):
    how = Decoding(
        batch_size=4, max_new_tokens=20, min_new_tokens=0, forced_tokens=4, num_beams=1, audio_ctx="full",
        language=None, prompt=(START,), end=END, suppressed=(), suppressed_first=(),
        long_form=LongForm(fallbacks, condition),
    )  # fmt: skip
    return Eager(model, CPU, dataclasses.replace(how, **keys))


def directly(model, mels, **options):
    """transformers on its own."""
    longest = max(mel.shape[1] for mel in mels)
    batch = torch.tensor(np.stack([np.pad(mel, ((0, 0), (0, longest - mel.shape[1]))) for mel in mels]))
    mask = torch.tensor([[1] * mel.shape[1] + [0] * (longest - mel.shape[1]) for mel in mels])
    torch.manual_seed(0)
    found = model.generate(
        batch, attention_mask=mask, return_timestamps=True, max_new_tokens=20, do_sample=False, **options
    )
    return [[token for token in row if token != END] for row in found.tolist()]


@pytest.mark.parametrize(
    ("how", "options"),
    [
        ({}, {}),
        ({"condition": True}, {"condition_on_prev_tokens": True}),
        ({"fallbacks": True}, FALLBACKS),
        ({"num_beams": 2}, {"num_beams": 2}),
    ],
)
def test_what_is_heard_is_what_transformers_hears(model, mels, how, options):
    for some in (mels, mels[:1], mels[1:2]):
        torch.manual_seed(0)
        rows, seconds = eager(model, **how).generate(speech_of(some))
        assert rows == directly(model, some, **options)
        assert seconds > 0
    assert any(token > NO_TIMES for row in rows for token in row)


def test_what_a_recording_is_does_not_depend_on_its_batch(model, mels):
    together, _ = eager(model).generate(speech_of(mels))
    assert together == [eager(model).generate(speech_of([mel]))[0][0] for mel in mels]


def test_every_token_that_was_generated_counts(model, mels):
    """Also those that a window loses to the next one; each window is decoded once."""
    calls = []
    handle = model.get_decoder().register_forward_hook(lambda _, inputs, output: calls.append(1))
    try:
        [row], _ = eager(model).generate(speech_of(mels[:1]))
    finally:
        handle.remove()
    windows = windows_of(row)
    assert isinstance(row, Passages)
    assert len(windows) >= 3 > 1 == len(windows_of([1, 2]))
    ended = sum(len(window) < 20 for window in windows)  # a step more, for the end token
    assert sum(map(len, windows)) + ended == len(calls)
    assert sum(map(len, windows)) >= len(row)


def test_fixed_work_is_of_all_windows_in_the_encoder_and_of_the_first_in_the_decoder(model, mels):
    shapes = []
    handle = model.get_encoder().register_forward_hook(lambda _, inputs, output: shapes.append(tuple(inputs[0].shape)))
    try:
        engine, speech = eager(model), speech_of(mels)
        assert engine.encode(speech) > 0
        assert [shape[0] for shape in shapes] == [3, 3, 2]  # 3, 1 and 4 rows, as many at a time as there are recordings
        assert engine.decode(speech) > 0
        assert shapes[3:] == [(3, BINS, 100)]
    finally:
        handle.remove()


# from files


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The shipped model with a timestamp for each place of its window, which it has never been taught."""
    folder = tmp_path_factory.mktemp("timed") / "timed"
    processor = WhisperProcessor.from_pretrained(ASSETS / "nano")
    model = WhisperForConditionalGeneration.from_pretrained(ASSETS / "nano")
    torch.manual_seed(0)
    model.resize_token_embeddings(512 + 301)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """The words of the demo corpus twice over: 14 s and 3 s."""
    folder = tmp_path_factory.mktemp("recordings")
    clips = [soundfile.read(path, dtype="float32")[0] for path in sorted((ASSETS / "demo/clean").glob("*.ogg"))[:6]]
    samples = {"long": np.concatenate(clips)[: 14 * RATE + 77], "short": clips[0]}
    for name, part in samples.items():
        soundfile.write(folder / f"{name}.wav", part, RATE, subtype="FLOAT")
    rows = [{"audio": f"{name}.wav", "text": name} for name in samples]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "m.jsonl", list(samples.values())


def configured(manifest, *more):
    fixed = ("dataset=manifest", f"dataset.path={manifest}", "device=cpu", "device.threads=1", "device.pin=false")
    return compose([*fixed, "dataset.long=sequential", "tracking=off", "protocol.warmup_batches=0", *more])


def test_a_cell_hears_a_recording_as_transformers_does(checkpoint, recordings, monkeypatch, tmp_path):
    """From its file on: features of the whole, no window that was cut beforehand."""
    monkeypatch.setenv("QUANTLAB_CACHE", str(tmp_path))
    manifest, samples = recordings
    [config] = configured(manifest, f"model.path={checkpoint}")
    result = run_cell(config)
    model = WhisperForConditionalGeneration.from_pretrained(checkpoint).eval()
    processor = WhisperProcessor.from_pretrained(checkpoint)
    whole = processor(samples[0], sampling_rate=RATE, truncation=False, padding="longest", return_tensors="pt")
    model.generation_config.max_initial_timestamp_index = 50
    tokens = model.generate(
        whole.input_features, return_timestamps=True, language="en", task="transcribe", max_new_tokens=60
    )
    assert result.utterances[0].hypothesis == processor.batch_decode(tokens, skip_special_tokens=True)[0] != ""
    assert [item.audio_s for item in result.utterances] == [len(part) / RATE for part in samples]
    [batch] = result.batches
    assert (batch.utterances, batch.audio_s) == (2, pytest.approx(sum(map(len, samples)) / RATE))
    assert batch.tokens == sum(item.tokens for item in result.utterances)


def test_features_of_a_recording_are_those_of_the_whole(recordings, tmp_path):
    manifest, samples = recordings
    extractor = WhisperProcessor.from_pretrained(ASSETS / "nano").feature_extractor
    [config] = configured(manifest)
    for _ in range(2):  # computed, and from the cache
        [split] = features(open_corpus(config.dataset), extractor, tmp_path).splits.values()
        assert split.stored.shape == (4, 80, 600)
        assert [next(batch.utterances()) for batch in split.batches(1)] == [(0, 1), (0, 1)]
        for position, part in enumerate(samples):
            direct = extractor(part, sampling_rate=RATE, truncation=False, padding="longest", return_tensors="np")
            mel = split.take([position]).recording(0)
            assert mel.shape == direct.input_features[0].shape
            np.testing.assert_allclose(mel[:, :-2], direct.input_features[0][:, :-2], atol=1e-5)


# what cannot be


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (["quant=ct2_int8"], "ct2 has its own engine"),
        (["quant=ggml_q8_0"], "ggml has its own engine"),
        (["runtime=compile"], "runtime=compile decodes without"),
        (["runtime.audio_ctx=dynamic"], "needs whole windows"),
        (["model.weights=random"], "its weights are random"),
        (["dataset.long=chunked", "protocol.fallbacks=true"], "protocol.fallbacks=true needs dataset.long=sequential"),
        (["dataset.long=null", "protocol.condition_on_prev_tokens=true"], "condition_on_prev_tokens=true needs"),
    ],
)
def test_a_cell_that_cannot_go_by_timestamps_says_why(checkpoint, recordings, asked, reason):
    [cell] = plan(configured(recordings[0], f"model.path={checkpoint}", *asked))
    assert cell.refusal.status == "unsupported"
    assert reason in cell.refusal.reason
    assert "\n" not in cell.refusal.reason


def test_a_model_without_timestamps_is_refused_before_anything_is_measured(recordings):
    with pytest.raises(ConfigError, match=r"model nano has 0 timestamps of the 301 .* dataset.long=chunked or consec"):
        plan(configured(recordings[0]))


@pytest.mark.parametrize("value", ["a second", -1, 301, True])
def test_a_latest_start_that_is_none_is_refused(checkpoint, recordings, tmp_path, value):
    for path in checkpoint.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    said = json.loads((tmp_path / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps(said | {"max_initial_timestamp_index": value}))
    with pytest.raises((ConfigError, CheckpointError), match="max_initial_timestamp_index"):
        plan(configured(recordings[0], f"model.path={tmp_path}"))


def test_what_came_later_is_in_the_identity_only_where_it_is_heard(recordings):
    def id_of(*asked, without=()):
        [config] = configured(recordings[0], *asked)
        dumped = config.model_dump(mode="json")
        kept = {key: value for key, value in dumped["protocol"].items() if key not in without}
        return hashed(dumped | {"protocol": kept}, {}, {})

    both = ("fallbacks", "condition_on_prev_tokens")
    assert id_of("dataset.long=null") == id_of("dataset.long=null", without=both)
    assert id_of("dataset.long=null") != id_of("dataset.long=null", "protocol.fallbacks=true")
    assert id_of() != id_of(without=both)  # what was called so until then was another procedure
    assert len({id_of(), id_of("protocol.fallbacks=true"), id_of("protocol.condition_on_prev_tokens=true")}) == 3
