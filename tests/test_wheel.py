"""The wheel holds everything that a run needs, and works where there is no checkout."""

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import quantlab

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The wheel, unpacked as an installer does."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site, shared_cache, folder, *arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(site), "QUANTLAB_CACHE": str(shared_cache)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_it_runs_outside_the_checkout(site, shared_cache, tmp_path):
    where = run(site, shared_cache, tmp_path, "-c", "import quantlab; print(quantlab.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(site)
    done = run(site, shared_cache, tmp_path, "-m", "quantlab", "quant=torch_int8", "dataset.limit=1", "tracking=off")
    assert done.returncode == 0, done.stderr
    assert "torch_int8" in done.stdout


def test_every_public_name_is_in_it(site, shared_cache, tmp_path):
    program = "import quantlab; print(*(getattr(quantlab, name) and name for name in quantlab.__all__))"
    done = run(site, shared_cache, tmp_path, "-c", program)
    assert done.stdout.split() == quantlab.__all__, done.stderr
    assert (site / "quantlab" / "py.typed").is_file()


def test_the_script_is_the_front_door(site, shared_cache, tmp_path):
    [script] = importlib.metadata.distributions(name="quantlab", path=[str(site)])
    [found] = script.entry_points.select(group="console_scripts")
    program = f"from {found.module} import {found.attr}; {found.attr}()"
    done = run(site, shared_cache, tmp_path, "-c", program, "--version")
    assert (done.returncode, done.stdout) == (0, f"quantlab {script.version}\n"), done.stderr


def test_experiments_are_in_it(site, shared_cache, tmp_path):
    done = run(site, shared_cache, tmp_path, "-m", "quantlab", "experiment=paper_table2", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "librispeech" in done.stdout


def test_the_launcher_is_in_it(site, shared_cache, tmp_path):
    where = run(site, shared_cache, tmp_path, "-c", "import hydra_plugins.quantlab_launcher as l; print(l.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(site)
    done = run(site, shared_cache, tmp_path, "-m", "quantlab", "-m", "hydra/launcher=slurm", "hydra.launcher.wiat=1")
    assert done.returncode == 2
    assert "did you mean 'hydra.launcher.wait'?" in done.stderr
    keys = ("-m", "hydra/launcher=slurm_cpu", "hydra.launcher.additional_parameters={array: 1}", "quant=none,bnb_nf4")
    done = run(site, shared_cache, tmp_path, "-m", "quantlab.sbatch", *keys)
    assert done.returncode == 2, done.stdout
    assert "set by quantlab" in done.stderr
