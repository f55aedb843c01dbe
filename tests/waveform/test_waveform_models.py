"""The training's own forward passes against transformers' models, the tokenizers, and what is taken over from nano."""

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from quantlab.util.resources import ASSETS
from training.nano import text
from training.nano.model import CHARACTERS, encode
from training.waveform import ctc, moonshine, teacher
from training.waveform.convolution import convolve
from training.waveform.data import Batch
from training.waveform.recognisers import NEW, read, write
from training.waveform.trainer import optimizers

SENTENCES = text.sentences("train", 2000, 0)
LENGTHS = (24_000, 40_000, 9_000)


@pytest.fixture(scope="module")
def nano():
    return teacher.load(ASSETS / "nano")


def new(name):
    torch.manual_seed(0)
    if name == "ctc":
        processor = ctc.build_processor()
        return ctc.Ctc(ctc.build(processor).eval(), processor)
    processor = moonshine.train_processor(SENTENCES)
    return moonshine.Moonshine(moonshine.build(processor).eval(), processor)


@pytest.fixture(scope="module", params=sorted(NEW))
def recogniser(request):
    return new(request.param)


def ragged_batch():
    samples = torch.zeros(len(LENGTHS), 48_000)
    for row, length in zip(samples, LENGTHS, strict=True):
        row[:length] = 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(length))
    return Batch(samples, torch.tensor(LENGTHS), ["one", "two", "three"])


@pytest.mark.parametrize(("kernel", "stride"), [(10, 5), (3, 2), (2, 2), (127, 64), (7, 3), (4, 1), (5, 2)])
def test_convolution_is_torchs(kernel, stride):
    layer = torch.nn.Conv1d(3, 8, kernel, stride)
    hidden = torch.randn(2, 3, 401)
    torch.testing.assert_close(convolve(hidden.mT, layer).mT, layer(hidden), atol=1e-5, rtol=1e-4)


def test_a_batch_is_heard_as_transformers_hears_its_utterances_alone(recogniser):
    batch = ragged_batch()
    encoder = recogniser.model.wav2vec2 if isinstance(recogniser, ctc.Ctc) else recogniser.model.model.encoder
    with torch.inference_mode():
        ours = recogniser.encode(batch)
        for row, (samples, length) in enumerate(zip(batch.samples, LENGTHS, strict=True)):
            inputs = recogniser.processor(samples[:length].numpy(), sampling_rate=16_000, return_tensors="pt")
            theirs = encoder(**inputs).last_hidden_state[0]
            assert len(theirs) == ours.frames[row]
            torch.testing.assert_close(ours.hidden[row, : len(theirs)], theirs, atol=1e-4, rtol=1e-4)


def test_frames_lie_where_centre_and_stride_say(recogniser):
    """A click changes most the frame whose centre it hits."""
    frame = 30
    samples = 0.01 * torch.randn(1, 40_000, generator=torch.Generator().manual_seed(0))
    clicked = samples.clone()
    clicked[0, round(recogniser.centre + frame * recogniser.stride)] += 0.5
    with torch.inference_mode():
        before, after = (recogniser.front(Batch(s, torch.tensor([40_000]), [""])) for s in (samples, clicked))
    assert (after - before).norm(dim=-1)[0].argmax().item() == pytest.approx(frame, abs=1)


def test_layers_are_fit_for_groups_of_64(recogniser):
    linears = [module for module in recogniser.model.modules() if isinstance(module, torch.nn.Linear)]
    assert linears
    assert all(linear.in_features % 64 == 0 for linear in linears)


def test_a_folder_gives_the_same_model_and_processor(recogniser, tmp_path):
    write(recogniser, tmp_path)
    again, processor = read(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    for name, weight in recogniser.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], weight, rtol=0, atol=0)
    ids = processor.tokenizer("the clever box").input_ids
    assert ids == recogniser.processor.tokenizer("the clever box").input_ids
    assert processor.feature_extractor.do_normalize == isinstance(recogniser, ctc.Ctc)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 20_000_000


def test_optimizers_share_all_parameters_between_them(recogniser):
    muon, adamw = ({id(p) for group in o.param_groups for p in group["params"]} for o in optimizers(recogniser))
    assert not muon & adamw
    assert muon | adamw == {id(p) for p in [*recogniser.model.parameters(), *recogniser.heads.parameters()]}


def test_normalisation_is_the_extractors():
    batch = ragged_batch()
    audio = [row[:length].numpy() for row, length in zip(batch.samples, LENGTHS, strict=True)]
    extractor = ctc.build_processor().feature_extractor
    theirs = extractor(audio, sampling_rate=16_000, return_tensors="pt", padding=True).input_values
    torch.testing.assert_close(ctc.normalized(batch)[:, : theirs.shape[1]], theirs, atol=1e-4, rtol=1e-4)


def test_ctc_writes_every_character_and_its_blank_is_the_padding():
    tokenizer = ctc.build_processor().tokenizer
    ids = tokenizer(CHARACTERS.strip() + " z").input_ids
    assert tokenizer.unk_token_id not in ids
    assert len(tokenizer) == len(ctc.VOCABULARY)
    b, c, blank = *tokenizer.convert_tokens_to_ids(["b", "c"]), tokenizer.pad_token_id
    bar = tokenizer.convert_tokens_to_ids("|")
    assert tokenizer.decode([b, b, blank, b, blank, bar, bar, c]) == "bb c"


def test_moonshines_tokenizer():
    tokenizer = moonshine.train_processor(SENTENCES).tokenizer
    assert tokenizer.convert_tokens_to_ids(["<unk>", "<s>", "</s>"]) == [0, 1, 2]
    assert len(tokenizer) == 512
    assert tokenizer.decode(tokenizer("the wooden box").input_ids) == "the wooden box"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "</s>")


def test_decoder_batch_by_hand():
    model = new("moonshine").model
    inputs, labels = moonshine.decoder_batch([[7, 8], [9]], model)
    assert inputs.tolist() == [[1, 7, 8], [1, 9, 2]]
    assert labels.tolist() == [[7, 8, 2], [9, 2, -100]]


def test_generate_writes_what_teacher_forcing_prefers():
    """One more token from `generate` is the likeliest one of the training's decoder."""
    recogniser = new("moonshine")
    samples = 0.1 * torch.randn(1, 30_000)
    with torch.inference_mode():
        ids = recogniser.model.generate(samples, attention_mask=torch.ones_like(samples).long(), max_new_tokens=3)
        encoded = recogniser.encode(Batch(samples, torch.tensor([30_000]), [""]))
        decoded = recogniser.model.model.decoder(input_ids=ids[:, :-1], encoder_hidden_states=encoded.hidden)
        scores = recogniser.model.proj_out(decoded.last_hidden_state)
    assert scores.argmax(-1).tolist() == ids[:, 1:].tolist()


def test_ctc_starts_with_nanos_layers(nano):
    """The same input of the first layer, without positions, gives the same output and the same scores."""
    recogniser = new("ctc")
    recogniser.start_from(nano)
    hidden = torch.randn(2, 50, 192)
    ours, theirs = hidden, hidden
    source = nano.model.model.encoder
    with torch.inference_mode():
        for mine, layer in zip(recogniser.model.wav2vec2.encoder.layers, source.layers, strict=True):
            ours = mine(ours)
            theirs = layer(theirs, None)
            theirs = theirs[0] if isinstance(theirs, tuple) else theirs
        ours = recogniser.model.lm_head(recogniser.model.wav2vec2.encoder.layer_norm(ours))
        theirs = nano.heads.ctc(source.layer_norm(theirs))
    blank, a = (ctc.VOCABULARY.index(token) for token in ("<pad>", "a"))
    torch.testing.assert_close(ours[..., blank], theirs[..., len(CHARACTERS)], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(ours[..., a], theirs[..., CHARACTERS.index("a")], atol=1e-3, rtol=1e-3)


def test_moonshine_starts_with_what_there_is_a_place_for(nano):
    recogniser = new("moonshine")
    recogniser.start_from(nano)
    mine, theirs = recogniser.model.model.encoder.layers[2], nano.model.model.encoder.layers[2]
    torch.testing.assert_close(mine.self_attn.q_proj.weight, theirs.self_attn.q_proj.weight)
    torch.testing.assert_close(mine.mlp.fc2.weight, theirs.fc2.weight[:, : moonshine.FEED_FORWARD])
    normal = torch.randn(5, 192)
    with torch.inference_mode():
        ours = mine.mlp.fc1(mine.post_attention_layernorm(normal))
        expected = theirs.fc1(theirs.final_layer_norm(normal))[:, : moonshine.FEED_FORWARD]
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_the_hint_is_nanos_own_encoder(nano):
    """Against the features of `WhisperFeatureExtractor` for 6 s, in bfloat16."""
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal(96_000)).astype(np.float32)
    extractor = AutoProcessor.from_pretrained(ASSETS / "nano").feature_extractor
    mel = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.inference_mode():
        expected = encode(nano.model, mel) - nano.model.model.encoder.layer_norm.bias
        hint = nano.hint(torch.from_numpy(samples)[None])
    assert hint.hidden.shape == hint.front.shape == (1, 300, 192)
    assert (hint.hidden - expected).square().mean() < 0.01 * expected.square().mean()


def test_hint_loss_by_hand():
    """The teacher's frames are 0, 1, 2, ...: at 1.25 times its rate and a quarter frame later the student is exact."""
    taught = torch.arange(20.0)[None, :, None].repeat(1, 1, 2)
    student = (0.25 + 1.25 * torch.arange(12.0))[None, :, None].repeat(1, 1, 2)
    frames = torch.tensor([10])
    assert teacher.hint_loss(student, taught, frames, 80, 400).item() == pytest.approx(0, abs=1e-9)
    off = teacher.hint_loss(student + 1, taught, frames, 80, 400).item()
    spread = (student[0, :10, 0] - student[0, :, 0].mean()).square().mean().item()
    assert off == pytest.approx(1 / spread, rel=1e-5)
