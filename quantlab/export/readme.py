"""README of an exported folder."""

from __future__ import annotations

from pathlib import Path

from quantlab.config.types import Family
from quantlab.export.manifest import NAME, WEIGHTS, Manifest
from quantlab.report.wording import megabytes
from quantlab.util.printable import markdown

BY_QUANTLAB = """\
quantlab loads it, without the checkpoint that it was made from and without a network; the versions below are known to:

```python
from quantlab.export import load

model, processor = load("FOLDER")  # this folder
```
"""
USE: dict[Family, str] = {
    "whisper": """\
`processor` makes features of 16 kHz audio, `model.generate` turns them into token ids, `processor` those into text:

```python
features = processor(audio, sampling_rate=16000, return_tensors="pt").input_features
print(processor.batch_decode(model.generate(features), skip_special_tokens=True))
```
""",
    "moonshine": """\
`processor` takes 16 kHz audio, one utterance, `model.generate` turns it into token ids, `processor` those into text:

```python
inputs = processor(audio, sampling_rate=16000, return_tensors="pt")
print(processor.batch_decode(model.generate(**inputs), skip_special_tokens=True))
```
""",
    "ctc": """\
`processor` takes 16 kHz audio, one utterance, `model` scores the tokens of each frame, and `processor` writes the best,
without repetitions and blanks:

```python
inputs = processor(audio, sampling_rate=16000, return_tensors="pt")
print(processor.batch_decode(model(**inputs).logits.argmax(-1)))
```
""",
}
IN_ITS_OWN = {  # library → how to load the folder with the library's own programs
    "ct2": """\
CTranslate2 and faster-whisper take the folder itself:

```python
model = ctranslate2.models.Whisper("FOLDER")
model = faster_whisper.WhisperModel("FOLDER")
```
""",
    "ggml": """\
whisper.cpp takes the file itself:

```sh
whisper-cli -m FOLDER/ggml-model.bin --suppress-nst -nfa -f audio.wav
```
""",
    "ort": """\
ONNX Runtime takes the two files, an encoder and a decoding step with its keys and values as inputs and outputs:

```python
encoder, decoder = (onnxruntime.InferenceSession(f"FOLDER/{name}.onnx") for name in ("encoder", "decoder"))
```
""",
    "ov": """\
OpenVINO takes the two files, an encoder and a decoding step with its keys and values as inputs and outputs:

```python
encoder, decoder = (openvino.Core().compile_model(f"FOLDER/{name}.xml", "CPU") for name in ("encoder", "decoder"))
```
""",
}
NOT_BY_TRANSFORMERS = f"""\
`from_pretrained` of transformers cannot load this folder: the tensors are in `{WEIGHTS}`, packed as the library that
quantized them holds them, and there is no `model.safetensors`.
"""
NAMES: dict[Family, str] = {"whisper": "Whisper", "moonshine": "Moonshine", "ctc": "CTC"}
MODEL_FILES = (".safetensors", ".bin", ".onnx", ".data", ".xml")
REST = {  # library → what its file holds besides the weights that quantlab counts as size
    "ggml": "rows that whisper.cpp's fixed vocabulary and text length require, mel filters and words",
}


def sizes(folder: Path, manifest: Manifest) -> str:
    """Size of an export's model files, and how it differs from the size of the model in tables and limits."""
    files = [path.stat().st_size for path in folder.iterdir() if path.suffix in MODEL_FILES]
    file_bytes = sum(files)
    text = f"{'files' if len(files) > 1 else 'file'}: {megabytes(file_bytes)} MB"
    if manifest.size_bytes is None:  # of an earlier version
        return text
    text += f"; weights (the size in reports): {megabytes(manifest.size_bytes)} MB"
    more = megabytes(file_bytes) != megabytes(manifest.size_bytes) and file_bytes > manifest.size_bytes
    return (
        f"{text}, the rest is {REST.get(manifest.quant.library, 'names and layout of the tensors')}" if more else text
    )


def readme(folder: Path, manifest: Manifest, family: Family) -> str:
    """README in Markdown, without paths of this machine."""
    quant = manifest.quant
    versions = ", ".join(f"{markdown(name)} {markdown(version)}" for name, version in sorted(manifest.versions.items()))
    parts = [
        f"# {markdown(manifest.label)}\n",
        f"A {NAMES[family]} model quantized by quantlab, quant={markdown(quant.name)}, as it was measured: "
        f"cell `{manifest.cell_id}`, on {manifest.device}.\n",
        BY_QUANTLAB,
        USE[family],
        f"Model {sizes(folder, manifest)}.\n",
        IN_ITS_OWN.get(quant.library, NOT_BY_TRANSFORMERS),
        f"`{NAME}` says what is where. Made with {versions}.\n",
    ]
    return "\n".join(parts)
