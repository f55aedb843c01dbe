"""Fast and quiet imports of the libraries that an exported model needs."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

# Of these modules transformers imports functions that Whisper does not need; loading them takes a third of the time.
DEFERRED = (
    "scipy.optimize",  # for losses of object detection
    "torch._dynamo._trace_wrapped_higher_order_op",  # for masks of compiled attention
    "torchao.prototype.safetensors.safetensors_support",  # for checkpoints of torchao in the format of transformers
)


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Within the block, imports do not load DEFERRED and torch's compiler, and print no warnings about libraries.

    transformers imports HQQ and torchao if they are installed. These, bitsandbytes and transformers decorate
    functions by torch's compiler, which takes seconds to import. Here that is deferred to the first call of such a
    function. A name imported from a module of DEFERRED imports the module when it is called.
    """
    chatty = logging.getLogger("torch.utils._pytree")  # torchao 0.18 uses an API that torch 2.15 deprecates
    level = chatty.level
    decorators = [(vars(torch), "compile"), (vars(torch.compiler), "disable"), (vars(torch.compiler), "allow_in_graph")]
    now = [module[name] for module, name in decorators]
    chatty.setLevel(logging.ERROR)
    for module, name in decorators:
        module[name] = functools.partial(_when_called, module[name])
    dynamo = None if "torch._dynamo" in sys.modules else vars(torch).setdefault("_dynamo", _Dynamo())
    stubs = {name: _Deferred(name) for name in DEFERRED if name not in sys.modules}
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for stub in stubs.values():
            stub.remove()
        if dynamo and vars(torch).get("_dynamo") is dynamo:  # else it was imported
            del vars(torch)["_dynamo"]
        for (module, name), decorator in zip(decorators, now, strict=True):
            module[name] = decorator
        chatty.setLevel(level)


class _Deferred(types.ModuleType):
    """Stands for a module of which only functions and classes are imported: they import it when they are called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.remove()
            return getattr(importlib.import_module(self.__name__), name)(*args, **kwargs)

        return call

    def remove(self) -> None:
        """Let later imports find the module itself."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


class _Dynamo:
    """Stands for `torch._dynamo`, and imports it for anything but its decorators, which are deferred."""

    def __getattr__(self, name: str) -> Any:
        def real(*given: Any) -> Any:
            return getattr(importlib.import_module("torch._dynamo"), name)(*given)

        if name in ("allow_in_graph", "assume_constant_result"):
            return functools.partial(_when_called, real)
        return getattr(importlib.import_module("torch._dynamo"), name)


def _when_called(decorator: Callable[..., Any], function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Decorate a function at its first call, by a decorator that takes options or the function itself."""
    if function is None:
        return functools.partial(_when_called, decorator, **options)
    decorated = functools.cache(lambda: decorator(function, **options))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return decorated()(*args, **kwargs)

    return call
