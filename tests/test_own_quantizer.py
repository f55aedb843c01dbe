"""The quantizer of the how-to, its files as the page shows them: installed, measured, exported, loaded."""

import subprocess
import sys

import pytest

from helpers.documents import commands, environment, on_less, run, run_program, write_files

PAGE = "docs/how-to/quantizer.md"
LESS = "dataset.limit=2 tracking=off"
LOADED = """
from pathlib import Path
from quantlab.export import load

[folder] = Path("exported").glob("nano-absmax_int8-*")
model, _ = load(folder)
print(type(model.model.encoder.layers[0].fc1).__name__)
"""


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A folder with the package of the page, installed beside it, without a package index."""
    folder = tmp_path_factory.mktemp("third_party")
    write_files(PAGE, folder / "quantlab-absmax")
    command = ["uv", "pip", "install", "--offline", "--no-deps", "--no-build-isolation", "--target", "site"]
    subprocess.run(
        [sys.executable, "-m", *command, "--python", sys.executable, "./quantlab-absmax"], cwd=folder, check=True
    )
    return folder


def test_its_commands_measure_and_export_it(reader, shared_cache, warm):
    variables = environment(shared_cache, reader / "site", warm=warm)
    install, grid, export = commands(PAGE)
    assert install == "pip install ./quantlab-absmax"
    done = run(on_less(grid, LESS), reader, variables)
    assert done.returncode == 0, done.stderr
    [row] = [line.split() for line in done.stdout.splitlines() if "absmax_int8" in line and line.startswith("nano")]
    assert row[-1] == "ok"
    assert "68.4" in row  # smaller by %: a byte a weight, and a scale for each row
    done = run(on_less(export, LESS), reader, variables)
    assert done.returncode == 0, done.stderr
    done = run_program(LOADED, reader, variables)
    assert done.stdout.split() == ["Int8Linear"], done.stderr


def test_its_keys_can_be_overridden_and_what_it_cannot_do_is_a_row(reader, shared_cache, warm):
    _, grid, _ = commands(PAGE)
    variables = environment(shared_cache, reader / "site", warm=warm)
    done = run(on_less(grid, f"{LESS} quant.target=encoder quant.bits=4"), reader, variables)
    assert "absmax has no quant.bits=4.0: set quant.bits=8" in done.stdout
