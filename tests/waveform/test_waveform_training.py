"""Shards, augmentation of waveforms, and a run that can be stopped and resumed."""

import json
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from training.nano import corpus as nano_corpus
from training.nano import features, text, voices
from training.nano.augment import HARD_SNR_DB, Dice
from training.waveform import augment, corpus, data, recognisers
from training.waveform.data import Batch
from training.waveform.options import Options
from training.waveform.train import train
from training.waveform.trainer import Trainer

CPU = torch.device("cpu")
needs_espeak = pytest.mark.skipif(
    bool(voices.missing_programs(["espeak"])), reason="espeak-ng is not installed (Debian package espeak-ng)"
)


def write_shard(folder, index, count=12):
    """Noises of different lengths as if they were speech."""
    rng, sentences = np.random.default_rng(index), text.sentences("train", 400, 0)
    pieces = [rng.integers(-9000, 9000, rng.integers(12_000, 30_000)).astype(np.int16) for _ in range(count)]
    starts = np.cumsum([0, *map(len, pieces)])
    rows = [
        {"text": sentences[20 * index + i], "speaker": "x", "start": int(starts[i]), "samples": len(piece)}
        for i, piece in enumerate(pieces)
    ]
    folder.mkdir(exist_ok=True)
    np.save(folder / f"train-{index:03d}.npy", np.concatenate(pieces))
    (folder / f"train-{index:03d}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    write_shard(tmp_path / "data", 0)
    return tmp_path / "data"


def around(noise_power=1.0):
    noises = noise_power**0.5 * torch.randn(2, 200_000, generator=torch.Generator().manual_seed(0))
    rooms = torch.zeros(3, 9600)
    rooms[:, 0] = 1
    return data.Surroundings(rooms, noises)


def batch(size=4, length=32_000):
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(length) / 16_000)
    lengths = torch.tensor([length] + [length // 2] * (size - 1))
    return Batch(tone * (torch.arange(length) < lengths[:, None]), lengths, ["a"] * size)


def test_utterances_are_cut_out_of_the_shards_and_surrounded_by_silence(folder):
    speech = data.read_shards(folder)
    rows = [json.loads(line) for line in (folder / "train-000.jsonl").read_text().splitlines()]
    assert [u.text for u in speech.utterances] == [row["text"] for row in rows]
    made = speech.batch([3, 5], Dice(0, CPU), 0.0)
    for i, index in enumerate((3, 5)):
        own = speech.samples(speech.utterances[index])
        sound = made.samples[i].nonzero()[:, 0]
        start = int(sound[0])
        np.testing.assert_allclose(made.samples[i, start : start + len(own)], own[own.nonzero()[0][0] :][: len(own)])
        assert len(own) <= made.lengths[i] <= len(own) + 2 * data.LONGEST_LEAD_S * 16_000


def test_another_speed_changes_the_length(folder):
    speech = data.read_shards(folder)
    made = speech.batch([0] * 50, Dice(0, CPU), 1.0)
    own = speech.utterances[0].samples
    lead = 2 * data.LONGEST_LEAD_S * 16_000
    assert own + lead < made.lengths.max() <= own / data.FACTORS[0] + lead
    assert made.lengths.min() >= own / data.FACTORS[1]


def test_shards_count_up_to_the_first_that_is_missing(folder):
    write_shard(folder, 1)
    write_shard(folder, 3)
    assert len(data.read_shards(folder).shards) == 2
    assert len(data.read_shards(folder, 1).shards) == 1


def test_without_shards_the_error_says_how_to_make_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"training\.waveform\.corpus"):
        train(Options("ctc", tmp_path, tmp_path / "out", utterances=1))


@needs_espeak
def test_the_speech_is_nanos(tmp_path, monkeypatch):
    monkeypatch.setattr(nano_corpus.roster, "training_voice", lambda rng: voices.Voice("espeak", "en-us+m1"))
    sentences = text.sentences("train", 6, 0)
    nano_corpus._make_shard(nano_corpus.prepared(tmp_path / "nano"), 0, sentences, 0)
    corpus.make_shard(nano_corpus.prepared(tmp_path / "waveform"), 0, sentences, 0)
    frames = np.load(tmp_path / "nano" / "train-000.npy").astype(np.float32)
    speech = data.read_shards(tmp_path / "waveform")
    again = np.concatenate([features.log_power(speech.samples(u)) for u in speech.utterances]).astype(np.float32)
    assert again.shape == frames.shape
    loud = frames > frames.max() - 4  # where 16 bits are enough
    np.testing.assert_allclose(again[loud], frames[loud], atol=0.02)


def test_same_seed_same_batch():
    first, second = (augment.augment(batch(), around(), Dice(5, CPU), 1.0) for _ in range(2))
    torch.testing.assert_close(first.samples, second.samples, rtol=0, atol=0)
    other = augment.augment(batch(), around(), Dice(6, CPU), 1.0)
    assert (other.samples - first.samples).abs().max() > 0.1


def test_augmentation_keeps_shape_ends_and_range():
    made = augment.augment(batch(), around(), Dice(0, CPU), 1.0)
    assert made.samples.shape == (4, 32_000)
    assert made.samples[1:, 16_000:].abs().max() == 0
    assert 0.05 < made.samples.abs().max() < 1.05
    assert torch.isfinite(made.samples).all()


def test_noise_reaches_the_ratio_it_was_drawn_for():
    """A tone of power 1/2 and noise of power 100 at level 1: the ratio must lie within the drawn range."""
    before = batch(size=200)
    mixed = augment.add_noise(before.samples, before.lengths, around(100.0).noises, Dice(0, CPU), torch.ones(200))
    added = (mixed - before.samples).square().mean(1)
    noisy = added > 1e-9
    snr_db = 10 * torch.log10(0.5 / added[noisy])
    assert 0.6 < noisy.float().mean() < 0.9
    assert snr_db.min() >= HARD_SNR_DB - 0.1
    assert snr_db.max() <= 30.1


def test_a_room_convolves():
    """A room that is an echo after 100 samples: the first 100 are dry, and what follows has the echo added."""
    rooms = torch.zeros(1, 9600)
    rooms[0, [0, 100]] = torch.tensor([1.0, 0.5])
    samples = torch.randn(50, 4000)
    spectrum = torch.fft.rfft(samples, n=16_384)
    wet = torch.fft.irfft(augment._in_rooms(spectrum, rooms, Dice(0, CPU), 1.0))[:, :4000]
    expected = samples.clone()
    expected[:, 100:] += 0.5 * samples[:, :-100]
    echoed = (wet - samples).abs().amax(1) > 0.01
    assert 5 < echoed.sum() < 30
    torch.testing.assert_close(wet[echoed], expected[echoed], atol=1e-4, rtol=0)
    torch.testing.assert_close(wet[~echoed], samples[~echoed], atol=1e-4, rtol=0)


def test_gaps_are_short():
    lengths = torch.full((300,), 32_000)
    gaps = augment._gaps(lengths, 32_000, Dice(0, CPU), 1.0)
    assert 0.6 < gaps.any(1).float().mean() < 0.8
    assert gaps.sum(1).max() <= augment.GAPS * (augment.GAP_S * 16_000 + 1)


@pytest.mark.parametrize("name", ["ctc", "moonshine"])
def test_a_resumed_run_equals_an_uninterrupted_one(folder, tmp_path, monkeypatch, name):
    monkeypatch.setattr(recognisers, "training_sentences", lambda: text.sentences("train", 2000, 0))
    common = {"model": name, "data": folder, "utterances": 1000, "batch_frames": 500}
    train(Options(out=tmp_path / "whole", steps=4, **common))
    train(Options(out=tmp_path / "parts", steps=2, **common))
    train(Options(out=tmp_path / "parts", steps=4, resume=True, **common))
    whole, parts = (load_file(tmp_path / run / "export" / "model.safetensors") for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for key, weight in whole.items():
        torch.testing.assert_close(weight, parts[key], rtol=0, atol=0)


def test_shards_that_come_later_are_used_from_the_next_epoch_on(folder, tmp_path):
    options = Options("ctc", folder, tmp_path / "out", utterances=1000, batch_frames=1000, resume=True)
    options.out.mkdir()
    trainer = Trainer(options)
    trainer.progress.batch = 1
    write_shard(folder, 1)
    trainer.save()
    assert len(Trainer(options).speech.shards) == 1
    batches = trainer._batches()
    while trainer.progress.epoch == 0:
        next(batches)
    assert len(trainer.speech.shards) == 2


def test_the_average_of_constant_weights_is_these(folder, tmp_path):
    trainer = Trainer(Options("ctc", folder, tmp_path, utterances=1000))
    before = {name: weight.clone() for name, weight in trainer.average.items()}
    for _ in range(3):
        trainer._update_average()
    for name, weight in before.items():
        torch.testing.assert_close(trainer.average[name], weight)
    random_weight = random.Random(0).choice(sorted(before))
    with trainer._averaged():
        torch.testing.assert_close(trainer.recogniser.model.state_dict()[random_weight], before[random_weight])
