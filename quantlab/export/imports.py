"""Fast and quiet imports of the libraries that an exported model needs."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Within the block, imports do not load torch's compiler and print no warnings that a user cannot act on.

    transformers imports HQQ and torchao if they are installed. These, bitsandbytes and transformers decorate
    functions with `torch.compile` and `torch.compiler.disable`, which import torch's compiler and take seconds. Here
    that is deferred to the first call of such a function.
    """
    chatty = logging.getLogger("torch.utils._pytree")  # torchao 0.18 uses an API that torch 2.15 deprecates
    level = chatty.level
    decorators = [(vars(torch), "compile"), (vars(torch.compiler), "disable")]
    now = [module[name] for module, name in decorators]
    chatty.setLevel(logging.ERROR)
    for module, name in decorators:
        module[name] = functools.partial(_when_called, module[name])
    try:
        yield
    finally:
        for (module, name), decorator in zip(decorators, now, strict=True):
            module[name] = decorator
        chatty.setLevel(level)


def _when_called(decorator: Callable[..., Any], function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Decorate a function at its first call, by a decorator that takes options or the function itself."""
    if function is None:
        return functools.partial(_when_called, decorator, **options)
    decorated = functools.cache(lambda: decorator(function, **options))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return decorated()(*args, **kwargs)

    return call
