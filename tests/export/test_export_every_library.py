"""Every quantizer that runs on a CPU: its model leaves the cell, and hears from disk what it heard when measured."""

import json
import math
import os
import re
import subprocess
import sys

import pytest
import soundfile
from safetensors import safe_open

from helpers.exporting import ROOT, on_cpu
from quantlab.export import load
from quantlab.export.manifest import WEIGHTS
from quantlab.util.errors import ExportError

BYTES = {"BOOL": 1, "I8": 1, "U8": 1, "F8_E4M3": 1, "F16": 2, "BF16": 2, "I32": 4, "F32": 4, "I64": 8, "F64": 8}
OWN_ENGINE = ("ct2", "ggml", "ort", "ov")
CORPUS = ROOT / "quantlab" / "assets" / "demo"


def heard(folder, ids):
    """What the README of an export tells to do, on the audio itself."""
    model, processor = load(folder)
    clips = [soundfile.read(CORPUS / id)[0] for id in ids]
    features = processor(clips, sampling_rate=16000, return_tensors="pt").input_features
    return [text.strip() for text in processor.batch_decode(model.generate(features), skip_special_tokens=True)]


@pytest.mark.parametrize("name", on_cpu())
def test_from_disk_it_hears_what_it_heard(name, exported):
    result, folder = exported(name)
    expected = {item.id: item.hypothesis.strip() for item in result.utterances}
    assert heard(folder, expected) == list(expected.values())


@pytest.mark.parametrize("name", [name for name in on_cpu() if not name.startswith(OWN_ENGINE)])
def test_the_file_holds_the_bytes_of_the_receipt(name, exported):
    """Nothing is dequantized on its way: packed integers, scales, zero points and codebooks as they were proven."""
    result, folder = exported(name)
    with safe_open(folder / WEIGHTS, "pt") as file:
        found = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  it is no mapping
        stored = sum(BYTES[item.get_dtype()] * math.prod(item.get_shape()) for item in found.values())
    assert stored == result.record.receipt.size_bytes
    manifest = json.loads((folder / "quantlab.json").read_text())
    assert manifest["tensors"].keys() == found.keys()
    assert len(manifest["modules"]) == result.record.receipt.modules_quantized
    assert manifest["cell_id"] == result.record.cell_id
    assert folder.name == f"{result.record.config['model']['name']}-{name}-cpu-{result.record.cell_id}"


@pytest.mark.parametrize("name", ["hqq_int4", "bnb_nf4", "ct2_int8"])
def test_a_fresh_process_loads_it_by_the_lines_of_its_readme(name, exported, tmp_path):
    """Far from the checkout's folder, and with no checkpoint to be found; without noise, or torch's compiler."""
    result, folder = exported(name)
    readme = (folder / "README.md").read_text()
    load_it, use_it = re.findall(r"```python\n(.*?)```", readme.replace("FOLDER", str(folder)), re.DOTALL)[:2]
    first = result.utterances[0]
    audio = f"import soundfile\naudio, _ = soundfile.read({str(CORPUS / first.id)!r})\n"
    hidden = "import quantlab.models\nquantlab.models.load = quantlab.models.locate = None\n"
    slow = {"torch._inductor.compile_fx", "torchao"} | (
        {"torch._dynamo", "scipy.optimize"} if name != "bnb_nf4" else set()
    )
    unneeded = f"import sys\nassert not {slow} & sys.modules.keys()\nprint('loaded', file=sys.stderr)\n"
    done = subprocess.run(
        [sys.executable, "-c", audio + hidden + load_it + unneeded + use_it],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert first.hypothesis.strip() in done.stdout
    assert done.stderr.startswith("loaded\n")  # what transformers says of decoding comes after
    own = "from_pretrained` of transformers cannot load this folder" in readme
    assert own == (name != "ct2_int8")


def test_ctranslate2_takes_the_folder_itself_with_the_tokenizers_words(exported):
    ctranslate2 = pytest.importorskip("ctranslate2")
    _, folder = exported("ct2_int8")
    assert ctranslate2.models.Whisper(str(folder)).n_mels == 80
    words = json.loads((folder / "vocabulary.json").read_text())
    own = json.loads((ROOT / "quantlab" / "assets" / "nano" / "tokenizer.json").read_text())["model"]["vocab"]
    assert [words[id] for id in (0, 40, 505, 511)] == [
        text for id in (0, 40, 505, 511) for text, known in own.items() if known == id
    ]


def test_whisper_cpp_prints_the_words(exported):
    """Its own program's way: the text comes out of the file, not out of our tokenizer."""
    library = pytest.importorskip("_pywhispercpp")
    result, folder = exported("ggml_q8_0")
    model, processor = load(folder)
    first = result.utterances[0]
    sound, _ = soundfile.read(CORPUS / first.id)
    model.generate(processor(sound, sampling_rate=16000, return_tensors="np").input_features)
    context = model.engine.loaded.context
    printed = "".join(
        library.whisper_full_get_segment_text(context, index).decode()
        if isinstance(library.whisper_full_get_segment_text(context, index), bytes)
        else library.whisper_full_get_segment_text(context, index)
        for index in range(library.whisper_full_n_segments(context))
    )
    assert printed.strip() == first.hypothesis.strip()


def test_a_library_that_is_not_here_is_named(exported, monkeypatch):
    _, folder = exported("hqq_int4")
    monkeypatch.setitem(sys.modules, "hqq", None)
    monkeypatch.setattr("quantlab.quantization.hqq_layer.why_not_installed", lambda *_: "hqq is not installed")
    with pytest.raises((ExportError, ValueError), match="hqq is not installed"):
        load(folder)
