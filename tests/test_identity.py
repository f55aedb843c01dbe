"""What somebody works on changes its cells with every edit, whatever its version says; the rest of them stay."""

import json
import os
import sys

import pytest

from quantlab.config.compose import compose
from quantlab.grid.plan import plan
from quantlab.recogniser.fingerprints import library_versions

READER = """
from quantlab.data.readers.manifest import read_shipped

def read(dataset):
    return read_shipped(dataset.model_copy(update={"source": "shipped", "name": "demo"}))
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A package of a third party with a quantizer and a reader, as `pip install` leaves it, on the path."""
    package = tmp_path / "theirs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "library.py").write_text(
        "from quantlab.quantization.backends.torch import *\nDISTRIBUTIONS = ('theirs-kernels',)\nK = 1\n"
    )
    (package / "reader.py").write_text(READER)
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[quantlab.quantizers]\ntheirs = theirs.library\n[quantlab.datasets]\ntheirs = theirs.reader:read\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirs"]:
        del sys.modules[name]


def cell(*options):
    [found] = plan(compose(["device=cpu", "dataset.limit=1", *options]))
    return found


THEIRS = {
    "a quantizer": ("quant=torch_int8", "quant.library=theirs"),
    "a reader": ("dataset.source=theirs",),
}


def edit(path, before, after):
    """With the size, and the time of the last change, that it had."""
    told = path.stat()
    text = path.read_text()
    assert before in text
    assert len(before) == len(after)
    path.write_text(text.replace(before, after))
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))


@pytest.mark.parametrize("what", THEIRS)
def test_an_edit_without_a_new_version_is_another_cell(site, what):
    before, ours = cell(*THEIRS[what]), cell("quant=torch_int8")
    assert before.versions["theirs (source)"]
    assert cell(*THEIRS[what]).id == before.id
    edit(site / "theirs" / "library.py", "K = 1", "K = 2")
    after = cell(*THEIRS[what])
    assert after.id != before.id
    assert after.config == before.config
    (site / "theirs" / "helper.py").write_text("")
    assert cell(*THEIRS[what]).id != after.id, "a file more is a change too"
    assert cell("quant=torch_int8").id == ours.id, "cells that do not need it stay"
    assert not any("source" in name for name in ours.versions)


def test_a_library_that_is_worked_on_in_place(site):
    """By PEP 610, as `pip install --editable` notes it."""
    folder = site / "their kernels"
    (folder / "src" / "kernels").mkdir(parents=True)
    source = folder / "src" / "kernels" / "fast.py"
    source.write_text("K = 1\n")
    (folder / ".venv").mkdir()
    info = site / "theirs_kernels-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs-kernels\nVersion: 2.0\n")
    note = {"url": folder.as_uri(), "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(note))
    before = cell(*THEIRS["a quantizer"])
    assert before.versions["theirs-kernels (source)"]
    (folder / ".venv" / "tool.py").write_text("")
    assert cell(*THEIRS["a quantizer"]).id == before.id, "an environment is no source"
    edit(source, "K = 1", "K = 2")
    assert cell(*THEIRS["a quantizer"]).id != before.id


def test_quantlab_itself_counts_by_its_version():
    """It is installed in place wherever it is developed; a change to the report changes no figure."""
    found = library_versions(compose(["device=cpu"])[0])
    assert not any("source" in name for name in found)
