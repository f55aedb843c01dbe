"""Exports of the shipped model, one for each engine, and an environment with nothing but numpy and the engine."""

import importlib.metadata
import os
import subprocess
import sys
import venv
import wave
from pathlib import Path

import numpy as np
import pytest

from helpers.bundling import QUANTS
from helpers.exporting import configure
from quantlab.bundle.__main__ import main as bundle
from quantlab.data.audio import decode
from quantlab.data.corpus import open_corpus
from quantlab.measurement.cell import run_cell
from quantlab.records import storage

PACKAGES = ("numpy", "pywhispercpp", "ctranslate2", "onnxruntime", "flatbuffers", "protobuf", "PyYAML", "setuptools")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Six utterances of demo as 16-bit WAV: a manifest whose clips are exactly its audio."""
    folder = tmp_path_factory.mktemp("corpus")
    dataset = configure("none", folder).dataset.model_copy(update={"limit": 6, "splits": ("other",)})
    lines = []
    for number, item in enumerate(open_corpus(dataset).splits["other"]):
        samples = decode(item.audio, item.part, None).samples
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes())
        # an id with letters that no file name, shell or Markdown takes as they are
        lines.append(f'{{"audio": "{number}.wav", "text": "{item.text}", "id": "a/..\\\\u2028|{number} é"}}\n')
    (folder / "six.jsonl").write_text("".join(lines))
    return folder / "six.jsonl"


@pytest.fixture(scope="session")
def home(tmp_path_factory, corpus):
    """The root of records at home, and the export of each cell: fp32 by PyTorch, and one of each engine."""
    folder = tmp_path_factory.mktemp("home")
    keys = ("dataset=manifest", f"dataset.path={corpus}", "dataset.splits=null", "dataset.limit=null")
    exports = {}
    for name in ("none", *QUANTS):
        result = run_cell(configure(name, folder / "exported", *keys))
        assert result.exported.problem is None, result.exported.problem
        storage.write(folder / "mlruns", result)
        exports[name] = Path(result.exported.folder)
    return folder / "mlruns", exports


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """An interpreter that sees only numpy, the engines and what these need: no quantlab, torch or transformers."""
    folder = tmp_path_factory.mktemp("device") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    for name in PACKAGES:
        found = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not top.endswith(".pth"):
                (site / top).symlink_to(found.locate_file(top))
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def measure(python):
    """Runs measure.py of a bundle there, isolated from everything of this process."""

    def run(folder, *arguments, device="board", **options):
        return subprocess.run(
            [python, "-I", folder / "measure.py", "--device", device, "--threads", "1", *arguments],
            cwd="/", env={"PATH": os.defpath}, capture_output=True, text=True, timeout=280, check=False, **options,
        )  # fmt: skip

    return run


@pytest.fixture
def bundled(home, tmp_path, capsys):
    """Makes a bundle of some exports."""
    root, exports = home

    def make(*names, keys=(), out="bundle"):
        folders = [str(exports[name]) for name in names]
        code = bundle([*folders, *keys, "--root", str(root), "--out", str(tmp_path / out)])
        said = capsys.readouterr()
        assert code == 0, said.err
        make.said = said.out
        return tmp_path / out

    return make
