"""While a folder is loaded, what libraries decorate with torch's compiler waits for its first call."""

import subprocess
import sys

import pytest
import torch

from helpers.exporting import ROOT
from quantlab.export import imports
from quantlab.export.imports import quick_imports


def test_a_function_is_compiled_at_its_first_call_and_once(monkeypatch):
    compiled = []

    def compile_now(function, **options):
        compiled.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compile_now)
    with quick_imports():

        @torch.compile(dynamic=True)
        def double(x):
            return 2 * x

        same = torch.compile(lambda x: x)
        never = torch.compiler.disable(lambda x: x + 1)
    assert torch.compile is compile_now
    assert compiled == []
    assert (double(2), double(3), same(1), never(1)) == (4, 6, 1, 2)
    assert compiled == [{"dynamic": True}, {}]
    assert double.__name__ == "double"


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """The name of a module whose import is to be deferred; the rest of what is stubbed stays as it is here."""
    (tmp_path / "slow_to_import.py").write_text("class Pair:\n    def __init__(self, *items): self.items = items\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(imports, "DEFERRED", ("slow_to_import",))
    yield "slow_to_import"
    sys.modules.pop("slow_to_import", None)


def test_a_name_of_a_deferred_module_imports_it_when_called(slow):
    with quick_imports():
        from slow_to_import import Pair as Later
    assert slow not in sys.modules
    assert Later(1, 2).items == (1, 2)
    from slow_to_import import Pair

    assert type(Later(1, 2)) is Pair


def test_within_the_block_too(slow):
    with quick_imports():
        from slow_to_import import Pair as Later

        assert Later(3).items == (3,)
    assert Later(3).items == (3,)


def test_a_module_that_was_imported_before_is_not_replaced(slow):
    import slow_to_import

    with quick_imports():
        from slow_to_import import Pair
    assert Pair is slow_to_import.Pair


def test_torchs_compiler_is_there_afterwards():
    with quick_imports():
        pass
    assert torch._dynamo.allow_in_graph(abs) is abs


LIBRARY = """
import contextlib, logging, os, sys
from quantlab.util.console import libraries_silent
print("before")
with libraries_silent():
    print("printed")
    os.write(2, b"from C")
    handler = logging.StreamHandler()  # on standard error, for good
with contextlib.suppress(KeyError), libraries_silent():
    raise KeyError
print("after")
handler.emit(logging.makeLogRecord({"msg": "still works"}))
"""


def test_what_libraries_print_does_not_reach_the_terminal():
    done = subprocess.run([sys.executable, "-c", LIBRARY], capture_output=True, text=True, cwd=ROOT, check=True)
    assert (done.stdout, done.stderr) == ("before\nafter\n", "still works\n")
