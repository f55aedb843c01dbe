"""Copies of published models in the caches of other programs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

MOST_NAMED = 3
OTHER_NAMES = {"large": "large-v1"}  # name on the hub → name in other programs
SYSTRANS = "Systran/faster-whisper-{}", "Systran/faster-{}", "mobiuslabsgmbh/faster-whisper-{}"


def copies(repo: str) -> list[Path]:
    """Local copies of an OpenAI or Distil-Whisper model that `model.path` accepts; the hub's own copies first.

    Args:
        repo: repository on the hub, e.g. openai/whisper-base.en.
    """
    hub = _hub()
    name = repo.rpartition("/")[2].removeprefix("whisper-")
    name = OTHER_NAMES.get(name, name)
    own = _snapshots(hub, repo, "model.safetensors")
    theirs = (name, name.replace("distil-", "distil-whisper-"))
    converted = [path for form in SYSTRANS for each in dict.fromkeys(theirs)
                 for path in _snapshots(hub, form.format(each), "model.bin")]  # fmt: skip
    files = [
        _cache("whisper") / f"{name}.pt",
        _data() / "pywhispercpp" / "models" / f"ggml-{name}.bin",
        *(folder / f"ggml-{name}.bin" for folder in _snapshots(hub, "ggerganov/whisper.cpp", f"ggml-{name}.bin")),
    ]
    return [*own, *converted, *(path for path in files if path.is_file())]


def hint(repo: str) -> str:
    """A clause that lists the copies with the setting to use; empty if there are none."""
    found = [f"model.path={path}" for path in copies(repo)[:MOST_NAMED]]
    return f"copies of it are on this machine: set {' or '.join(found)}; " if found else ""


def _snapshots(hub: Path, repo: str, file: str) -> list[Path]:
    """The snapshot folders of a repository in the hub's cache that hold a file."""
    return sorted(path.parent for path in (hub / f"models--{repo.replace('/', '--')}").glob(f"snapshots/*/{file}"))


def _hub() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _cache(program: str) -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / program


def _data() -> Path:
    if sys.platform == "darwin":
        return Path("~/Library/Application Support").expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser())
