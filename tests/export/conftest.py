"""Cells of the shipped model, measured and exported by the real libraries; each quantizer once for the whole run."""

import contextlib
import os
from pathlib import Path

import pytest
import torch
import yaml

from quantlab import quantizers
from quantlab.app import compose
from quantlab.cell import run_cell
from quantlab.config import QuantConfig

ROOT = Path(__file__).resolve().parents[2]
FEW = (
    "device=cpu device.threads=1 device.pin=false dataset.limit=2 dataset.splits=[other] protocol=quick tracking=off"
).split()


def on_cpu():
    """The files of conf/quant that run on a CPU."""
    found = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "conf" / "quant").glob("*.yaml"))}
    parsed = {name: QuantConfig.model_validate(raw) for name, raw in found.items()}
    return [
        name for name, quant in parsed.items() if quantizers.get(quant.library).why_unsupported(quant, "cpu") is None
    ]


def configure(name, directory, *more):
    [config] = compose([f"quant={name}", f"export.dir={directory}", *FEW, *more])
    return config


@pytest.fixture(scope="session", autouse=True)
def quiet_and_single(shared_cache):
    """One thread: small products gain nothing from a second. And the cache of features that the other tests use."""
    threads, before = torch.get_num_threads(), os.environ.get("QUANTLAB_CACHE")
    torch.set_num_threads(1)
    os.environ["QUANTLAB_CACHE"] = str(shared_cache)
    yield
    torch.set_num_threads(threads)
    with contextlib.suppress(KeyError):
        del os.environ["QUANTLAB_CACHE"]
    if before is not None:
        os.environ["QUANTLAB_CACHE"] = before


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The result of a cell and the folder of its model: `exported("hqq_int4")`."""
    directory, known = tmp_path_factory.mktemp("exported"), {}

    def measure(name):
        if name not in known:
            result = run_cell(configure(name, directory))
            assert result.exported.problem is None, result.exported.problem
            known[name] = result, Path(result.exported.folder)
        return known[name]

    return measure
