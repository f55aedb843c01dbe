"""What decoding starts from, ends with and never takes follows from the tokenizer, whatever else a folder says.

Each damaged folder decodes as the intact one, by every engine, or is refused in one line.
"""

import json
import shutil

import pytest

from quantlab import models
from quantlab.config.compose import compose
from quantlab.config.schema import Architecture, ModelConfig
from quantlab.engines import decoding
from quantlab.measurement.cell import run_cell
from quantlab.models import folder as folders
from quantlab.models import tokens
from quantlab.util.errors import CheckpointError, UnsupportedError

GENERATION = "generation_config.json"
SAID = json.loads((models.ASSETS / "nano" / GENERATION).read_text())
OUTDATED = {  # as transformers made it of config.json, before there was a file
    "begin_suppress_tokens": [503], "bos_token_id": 503, "decoder_start_token_id": 504, "eos_token_id": 503,
    "max_length": 64, "pad_token_id": 503, "_from_model_config": True, "suppress_tokens": [],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """The shipped checkpoint, its weights by a link."""
    return linked(tmp_path / "checkpoint")


def linked(path):
    path.mkdir()
    for file in (models.ASSETS / "nano").iterdir():
        if file.suffix == ".json":
            shutil.copy(file, path)
    (path / "model.safetensors").symlink_to(models.ASSETS / "nano" / "model.safetensors")
    return path


def at(path, **keys):
    return ModelConfig(name="mine", source="hub", path=str(path), **keys)


def edit(path, **keys):
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def cell(path, *arguments):
    options = [
        "device=cpu",
        "device.threads=1",
        "device.pin=false",
        "tracking=off",
        "protocol=quick",
        "protocol.warmup_batches=0",
    ]
    [config] = compose([*options, "dataset.limit=4", f"model.path={path}", *arguments])
    return config


def decoded_by(path):
    return decoding(models.load(at(path), 0).model, cell(path))


@pytest.fixture(scope="module")
def intact():
    return decoded_by(models.ASSETS / "nano")


LOST = ["decoder_start_token_id", "eos_token_id", "pad_token_id", "lang_to_id", "task_to_id", "is_multilingual",
        "no_timestamps_token_id", "language", "task", "return_timestamps", "max_length"]  # fmt: skip
HARMLESS = {  # what decoding is not to follow
    "old": {"forced_decoder_ids": [[1, 505], [2, 506]], "language": None, "task": None},
    "another task": {"task": "translate", "language": "de", "return_timestamps": True},
    "a search": {"num_beams": 5, "do_sample": True, "temperature": 2.0, "max_length": 3},
    "a list of one end": {"eos_token_id": [503]},
    "another padding": {"pad_token_id": 7},
}


@pytest.mark.parametrize(
    "lost", [[key] for key in LOST] + [LOST], ids=lambda keys: keys[0] if len(keys) == 1 else "all"
)
def test_what_is_lost_is_derived(lost, folder, intact):
    (folder / GENERATION).write_text(json.dumps({key: value for key, value in SAID.items() if key not in lost}))
    assert decoded_by(folder) == intact


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_the_protocol_decides_is_not_the_files_to_say(change, folder, intact):
    edit(folder / GENERATION, **change)
    assert decoded_by(folder) == intact


WRONG = [
    ({"decoder_start_token_id": 503}, "decoder_start_token_id=503, but its tokenizer has 504"),
    ({"eos_token_id": 504}, "eos_token_id=504, but its tokenizer has 503"),
    ({"eos_token_id": [503, 1]}, r"eos_token_id=\[503, 1\], but its tokenizer has 503"),
    ({"eos_token_id": "503"}, "eos_token_id='503', but its tokenizer has 503"),
    ({"no_timestamps_token_id": 510}, "no_timestamps_token_id=510, but its tokenizer has 511"),
    ({"is_multilingual": False}, "is_multilingual=False, but its tokenizer has True"),
    ({"lang_to_id": {"<|en|>": 506}}, r"lang_to_id has '<\|en\|>' at 506, but by its tokenizer it is 505"),
    ({"lang_to_id": {"<|de|>": 505}}, r"lang_to_id has '<\|de\|>' at 505, but by its tokenizer there is no such token"),
    ({"lang_to_id": ["<|en|>"]}, "lang_to_id=.* expected names and token ids"),
    ({"task_to_id": {"transcribe": 506}}, "task_to_id has 'transcribe' at 506, but by its tokenizer it is 507"),
    ({"suppress_tokens": [503]}, "suppress_tokens holds the end token 503"),
    ({"suppress_tokens": [-1]}, r"suppress_tokens=\[-1\]: expected a list of token ids below 512"),
    ({"suppress_tokens": 5}, "suppress_tokens=5: expected a list of token ids"),
    ({"begin_suppress_tokens": [512]}, "begin_suppress_tokens=.* expected a list of token ids below 512"),
    ({"alignment_heads": [[2, 0]]}, "alignment_heads=.* pairs of a layer below 2 and a head below 3"),
    ({"alignment_heads": "all"}, "alignment_heads=.* pairs of a layer"),
    ({"repetition_penalty": 1.3}, "repetition_penalty=1.3: not every engine supports this"),
    ({"no_repeat_ngram_size": 3}, "no_repeat_ngram_size=3: not every engine supports this"),
    ({"bad_words_ids": [[5]]}, "bad_words_ids=.* not every engine supports this"),
    ({"min_length": 9}, "min_length=9: not every engine"),
    ({"no_speech_threshold": 0.6}, "no_speech_threshold=0.6: not every engine"),
]


@pytest.mark.parametrize(("change", "says"), WRONG, ids=lambda item: "-".join(item) if isinstance(item, dict) else "")
@pytest.mark.parametrize("file", [GENERATION, "config.json"])
def test_a_contradiction_is_refused(file, change, says, folder):
    if file == "config.json" and "alignment_heads" in change:
        pytest.skip("no key of that file")
    if file == "config.json" and change.keys() & {"suppress_tokens", "begin_suppress_tokens"}:
        (folder / GENERATION).unlink()  # which wins over it
    edit(folder / file, **change)
    with pytest.raises(CheckpointError, match=says) as refused:
        models.fingerprint(at(folder), 0)
    assert "\n" not in str(refused.value)


def rename(folder, old, new):
    text = (folder / "tokenizer.json").read_text()
    assert old in text
    (folder / "tokenizer.json").write_text(text.replace(old, new))


@pytest.mark.parametrize("text", ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"])
def test_a_tokenizer_without_special_tokens(text, folder):
    rename(folder, text, "<|lost|>")
    with pytest.raises(CheckpointError, match=r"its tokenizer has no <\|"):
        models.fingerprint(at(folder), 0)


def test_a_tokenizer_of_another_checkpoint(folder):
    edit(folder / "config.json", vocab_size=500)
    with pytest.raises(CheckpointError, match=r"has a token 511, but config\.json has vocab_size=500"):
        models.fingerprint(at(folder), 0)


# every engine alike


@pytest.fixture(scope="module")
def texts():
    return heard(cell(models.ASSETS / "nano"))


def heard(config):
    return [item.hypothesis for item in run_cell(config).utterances]


@pytest.mark.parametrize("quant", ["none", "ggml_f16", "ct2_float32", "ort_fp32", "ov_fp32"])
@pytest.mark.parametrize("said", [None, OUTDATED], ids=["no file", "outdated"])
def test_every_engine_hears_the_same(quant, said, folder, texts):
    if said is None:
        (folder / GENERATION).unlink()
    else:
        (folder / GENERATION).write_text(json.dumps(said))
    assert heard(cell(folder, f"quant={quant}")) == texts


@pytest.mark.parametrize("quant", ["none", "ggml_f16", "ct2_float32", "ort_fp32", "ov_fp32"])
def test_english_alone(quant, folder):
    """Neither language nor task in the prompt, and nothing in their place that config.json would force."""
    rename(folder, "<|en|>", "<|other|>")
    edit(folder / GENERATION, is_multilingual=False)
    how = decoded_by(folder)
    assert (how.prompt, how.language) == ((504, 511), None)
    plain = heard(cell(folder, f"quant={quant}"))
    edit(folder / "config.json", forced_decoder_ids=[[1, 505], [2, 506]])
    (folder / GENERATION).unlink()
    assert heard(cell(folder, f"quant={quant}")) == plain


def test_lists_of_what_never_comes_are_openais(folder):
    """Marks that nobody speaks, control tokens; what a checkpoint says itself stays, an empty list too."""
    checkpoint = models.load(at(folder), 0)
    special = folders.check(folder)
    made = tokens.generation_config(tokens.Tokens(**{**vars(special), "suppressed": None, "suppressed_first": None}),
                                    checkpoint.tokenizer, 64)  # fmt: skip
    never = [checkpoint.tokenizer.decode([id]) for id in made.suppress_tokens]
    assert set(tokens.CONTROL) - set(never) == {"<|nocaptions|>"}
    assert "'" not in never, "it is spoken: don't"
    assert " " not in never
    assert made.begin_suppress_tokens == [checkpoint.tokenizer.convert_tokens_to_ids("Ġ"), 503]
    edit(folder / GENERATION, suppress_tokens=[], begin_suppress_tokens=[])
    empty = models.load(at(folder), 0).model.generation_config
    assert (empty.suppress_tokens, empty.begin_suppress_tokens) == ([], [])


# languages


@pytest.mark.parametrize("quant", ["none", "ggml_f16", "ct2_float32", "ort_fp32", "ov_fp32"])
def test_a_language_that_the_checkpoint_does_not_know(quant, folder):
    """`run_cell` of a notebook, which plans nothing."""
    with pytest.raises(UnsupportedError, match=r"^dataset\.language=de: model checkpoint has no such .* it knows en$"):
        run_cell(cell(folder, f"quant={quant}", "dataset.language=de"))


def test_random_weights_of_english_alone():
    """OpenAI's vocabulary for it, which names languages that the model does not know."""
    shape = Architecture(d_model=32, encoder_layers=1, decoder_layers=1, attention_heads=2, ffn_dim=64,
                         num_mel_bins=80, vocab_size=51_864, max_source_positions=100)  # fmt: skip
    model = models.load(ModelConfig(name="t", source="hub", weights="random", architecture=shape), 0).model
    how = decoding(model, cell(models.ASSETS / "nano"))
    assert (how.prompt, how.end, how.language) == ((50_257, 50_362), 50_256, None)
