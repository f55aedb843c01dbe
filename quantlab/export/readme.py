"""README of an exported folder."""

from __future__ import annotations

from quantlab.export.manifest import NAME, WEIGHTS, Manifest
from quantlab.util.printable import markdown

BY_QUANTLAB = """\
quantlab loads it, without the checkpoint that it was made from and without a network; the versions below are known to:

```python
from quantlab.export import load

model, processor = load("FOLDER")  # this folder
```

`processor` makes features of 16 kHz audio, `model.generate` turns them into token ids, `processor` those into text:

```python
features = processor(audio, sampling_rate=16000, return_tensors="pt").input_features
print(processor.batch_decode(model.generate(features), skip_special_tokens=True))
```
"""
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
}
NOT_BY_TRANSFORMERS = f"""\
`from_pretrained` of transformers cannot load this folder: the tensors are in `{WEIGHTS}`, packed as the library that
quantized them holds them, and there is no `model.safetensors`.
"""


def readme(manifest: Manifest) -> str:
    """README in Markdown, without paths of this machine."""
    quant = manifest.quant
    versions = ", ".join(f"{markdown(name)} {markdown(version)}" for name, version in sorted(manifest.versions.items()))
    parts = [
        f"# {markdown(manifest.label)}\n",
        f"A Whisper model quantized by quantlab, quant={markdown(quant.name)}, as it was measured: "
        f"cell `{manifest.cell_id}`, on {manifest.device}.\n",
        BY_QUANTLAB,
        IN_ITS_OWN.get(quant.library, NOT_BY_TRANSFORMERS),
        f"`{NAME}` says what is where. Made with {versions}.\n",
    ]
    return "\n".join(parts)
