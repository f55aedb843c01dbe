"""While a folder is loaded, what libraries decorate with torch's compiler waits for its first call."""

import torch

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
