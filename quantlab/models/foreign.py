"""Error messages for unsupported kinds of `model.path`: what it is and what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from quantlab.models.files import is_there, read_json
from quantlab.util.errors import ConfigError, shortened

MERGE = "merge it first (`merge_and_unload` of peft, then `save_pretrained`) and give that folder"
ORIGINAL = "give the transformers folder that it was made from; quantlab quantizes and converts by itself"
EXPECTED = "expected a folder that `save_pretrained` or CTranslate2 wrote, a ggml-*.bin of whisper.cpp, or OpenAI's .pt"
FILES = re.compile(r"ggml-.+\.bin|.+\.pt")  # of whisper.cpp, of OpenAI
EXPORT = "quantlab.json"  # the manifest of an export
GGML_FILE = "ggml-model.bin"  # in exports of whisper.cpp, and in folders that people publish
BY_START = {  # first bytes of a file → what it is, and what to do
    b"GGUF": f"is a GGUF file: {ORIGINAL} (quant=ggml_q5_0)",
}


def why_not_a_checkpoint(path: Path) -> str | None:
    """The end of a sentence that says what a path holds instead of a checkpoint; None if unknown."""
    return _file(path) if path.is_file() else _folder(path) if path.is_dir() else None


def _file(path: Path) -> str:
    if path.name in ("config.json", "model.safetensors", "model.bin"):
        return f"is a file: give its folder, model.path={path.parent}"
    with path.open("rb") as file:
        start = file.read(4)
    known = next((what for begins, what in BY_START.items() if start.startswith(begins)), None)
    return known or f"is a file; {EXPECTED}"


def exported(folder: Path) -> str | None:
    """The end of a sentence on a folder that quantlab exported: what measures it; None for another folder."""
    if not is_there(folder / EXPORT):
        return None
    quant = _json(folder / EXPORT).get("quant")
    name = quant.get("name") if isinstance(quant, dict) else None
    what = f"is an export of quantlab, quant={shortened(name)[1:-1] if isinstance(name, str) else 'unknown'}"
    if (folder / GGML_FILE).is_file():
        return f"{what}: its file is measured by quant=as_shipped model.path={folder / GGML_FILE}"
    if (folder / "model.bin").is_file():
        return f"{what}: it is measured by quant=as_shipped model.path={folder}"
    return (
        f"{what}: quantlab.export.load reads it, a grid does not; to measure it, give the checkpoint that it was made "
        f"from, and the same quant"
    )


def _folder(folder: Path) -> str | None:
    if what := exported(folder):
        return what
    if is_there(folder / "adapter_config.json"):
        return f"is an adapter of {_base_model(folder)}: {MERGE}"
    if _is_whisper(folder):
        return None
    if snapshots := sorted(path.parent for path in folder.glob("snapshots/*/config.json")):
        return f"is the hub's cache of a repository: give its snapshot, model.path={snapshots[-1]}"
    names = {path.name for path in folder.iterdir()}
    if "model.bin" in names and names & {"vocabulary.json", "vocabulary.txt"}:
        return "has a model.bin that is not a CTranslate2 Whisper model: convert it again, or give its source"
    if "weights.npz" in names:
        return f"is an MLX model: {ORIGINAL}"
    for suffix, what in ((".gguf", "GGUF"), (".onnx", "ONNX"), (".nemo", "NeMo")):
        if found := sorted(name for name in names if name.endswith(suffix)):
            return f"has {shortened(found[0])}, a file of {what}: {ORIGINAL}"
    if "config.json" not in names and (files := sorted(name for name in names if FILES.fullmatch(name))):
        return f"is a folder of model files: give one of them, e.g. model.path={folder / files[-1]}"
    if "config.json" not in names and (inner := sorted(path.parent for path in folder.glob("*/config.json"))):
        return f"has no config.json, {len(inner)} of its folders have: give one of them, e.g. model.path={inner[-1]}"
    return None


def _is_whisper(folder: Path) -> bool:
    return _json(folder / "config.json").get("model_type") == "whisper"


def _base_model(folder: Path) -> str:
    name = _json(folder / "adapter_config.json").get("base_model_name_or_path")
    return shortened(name).strip("'\"") if isinstance(name, str) and name else "another checkpoint"


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path) if is_there(path) else {}
    except ConfigError:
        return {}
