"""Cells of the shipped model, measured and exported by the real libraries; each quantizer once for the whole run."""

import contextlib
import os
from pathlib import Path

import pytest
import torch

from helpers.exporting import configure
from quantlab.measurement.cell import run_cell


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
