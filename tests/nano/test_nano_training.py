"""Losses, optimiser and the loop: small cases with known answers, and a run that can be stopped and resumed."""

import itertools
import math

import pytest
import torch
from safetensors.torch import load_file

from training.nano import corpus, data, losses, optim, text, voices
from training.nano.model import CHARACTERS, Heads, build, encode
from training.nano.options import Options, Progress
from training.nano.tokenizer import SPECIAL_TOKENS, prompt_ids, text_ids, train_processor
from training.nano.train import train
from training.nano.trainer import optimizers

needs_espeak = pytest.mark.skipif(
    bool(voices.missing_programs(["espeak"])), reason="espeak-ng is not installed (Debian package espeak-ng)"
)


@pytest.fixture(scope="module")
def processor():
    return train_processor(text.sentences("train", 2000, 0))


@pytest.fixture(scope="module")
def model(processor):
    torch.manual_seed(0)
    return build(processor).eval()


def test_tokenizer_round_trip_and_prompt(processor):
    ids = text_ids(processor, "the wooden box")
    assert processor.tokenizer.decode(ids).strip() == "the wooden box"
    assert len(processor.tokenizer) == 512
    names = processor.tokenizer.convert_ids_to_tokens(prompt_ids(processor))
    assert names == ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    assert set(SPECIAL_TOKENS) <= set(processor.tokenizer.get_vocab())


def test_cropped_encoder_is_whispers_encoder(model):
    features = torch.randn(2, 80, 600)
    with torch.inference_mode():
        theirs = model.model.encoder(features).last_hidden_state
        torch.testing.assert_close(encode(model, features), theirs, atol=1e-5, rtol=1e-5)
        assert encode(model, features[..., :100]).shape == (2, 50, 192)


def test_decoder_batch_by_hand(processor):
    prompt, end = prompt_ids(processor), processor.tokenizer.eos_token_id
    inputs, labels = losses.decoder_batch([[7, 8], [9]], processor)
    assert inputs.tolist() == [[*prompt, 7, 8], [*prompt, 9, end]]
    assert labels.tolist() == [[-100, -100, -100, 7, 8, end], [-100, -100, -100, 9, end, -100]]


def test_ctc_loss_against_a_sum_over_all_paths():
    scores = torch.randn(1, 4, len(CHARACTERS) + 1)
    probabilities = scores[0].softmax(-1)
    blank, a, b = len(CHARACTERS), 1, 2
    total = 0.0
    for path in itertools.product((a, b, blank), repeat=4):
        collapsed = [symbol for symbol, _ in itertools.groupby(path) if symbol != blank]
        if collapsed == [a, b]:
            total += math.prod(probabilities[t, symbol].item() for t, symbol in enumerate(path))
    loss = losses.ctc_loss(scores, [[a, b]], torch.tensor([4]))
    assert loss.item() == pytest.approx(-math.log(total) / 2, rel=1e-5)


def test_flat_targets_spread_characters_evenly():
    targets = losses.flat_targets([[5, 6, 7]], torch.tensor([6]), 8)
    assert targets.tolist() == [[5, 5, 6, 6, 7, 7, -100, -100]]


@pytest.mark.parametrize("shape", [(64, 192), (192, 64), (96, 384)])
def test_orthogonalize_keeps_singular_vectors_and_evens_their_values(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    result = optim.orthogonalize(matrix)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    in_basis = left.T @ result @ right.T
    values = in_basis.diagonal()
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert (in_basis - values.diag()).abs().max() < 0.15  # bfloat16


def test_muon_update_has_the_size_it_promises():
    matrix = torch.nn.Parameter(torch.zeros(192, 192))
    matrix.grad = torch.randn(192, 192)
    optim.Muon([matrix], lr=0.01).step()
    assert matrix.detach().pow(2).mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.2)


def test_learning_rate_warms_up_holds_and_falls_to_zero():
    assert optim.rate_factor(0, 0.0) == pytest.approx(1 / optim.WARMUP_STEPS)
    assert optim.rate_factor(1000, 0.1) == 1.0
    assert optim.rate_factor(1000, 0.65) == pytest.approx(0.5)
    assert optim.rate_factor(1000, 1.0) == 0.0


def test_progress_needs_a_length(tmp_path):
    with pytest.raises(ValueError, match="utterances or minutes"):
        Progress().share(Options(tmp_path, tmp_path))
    assert Progress(seen=5).share(Options(tmp_path, tmp_path, utterances=20)) == 0.25


def test_optimizers_share_all_parameters_between_them(model):
    heads = Heads()
    muon, adamw = (
        {id(p) for group in optimizer.param_groups for p in group["params"]} for optimizer in optimizers(model, heads)
    )
    trained = {id(p) for p in [*model.parameters(), *heads.parameters()] if p.requires_grad}
    assert not muon & adamw
    assert muon | adamw == trained


def test_an_epoch_hears_every_synthetic_utterance_once():
    lengths = [50 + 7 * i % 500 for i in range(300)]
    utterances = [data.Utterance(0, 0, frames, (1,), (1,), human=i >= 250) for i, frames in enumerate(lengths)]
    plan = data.epoch_plan(utterances, 0, 0, 3000, short_only=False)
    heard = sorted(index for batch in plan for index in batch)
    assert [index for index in heard if index < 250] == list(range(250))
    assert sum(index >= 250 for index in heard) == 25
    assert all(len(batch) * max(lengths[i] for i in batch) <= 3000 for batch in plan)
    assert plan == data.epoch_plan(utterances, 0, 0, 3000, short_only=False)
    assert plan != data.epoch_plan(utterances, 1, 0, 3000, short_only=False)


def test_training_without_shards_says_how_to_make_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"training\.nano\.corpus"):
        train(Options(tmp_path, tmp_path / "out", utterances=1, processes=1))


@needs_espeak
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    def only_espeak(rng):
        return voices.Voice("espeak", rng.choice(("en-us+m1", "en-gb+f2")))

    monkeypatch.setattr(corpus.roster, "training_voice", only_espeak)
    corpus._make_shard(corpus.prepared(tmp_path / "data"), 0, text.sentences("train", 24, 0), 0)
    common = {"data": tmp_path / "data", "utterances": 1000, "processes": 1, "batch_frames": 900}
    train(Options(out=tmp_path / "whole", steps=4, **common))
    train(Options(out=tmp_path / "parts", steps=2, **common))
    train(Options(out=tmp_path / "parts", steps=4, resume=True, **common))
    whole, parts = (load_file(tmp_path / run / "export" / "model.safetensors") for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name, weight in whole.items():
        torch.testing.assert_close(weight, parts[name], rtol=0, atol=0)
