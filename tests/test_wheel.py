"""The wheel holds everything that a run needs, and works where there is no checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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
