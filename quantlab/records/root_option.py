"""The option `--root` of commands: one or several folders or archives of records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from quantlab.records import storage
from quantlab.util.command import PATH

DEFAULT = Path("mlruns")
Function = TypeVar("Function", bound=Callable[..., Any])


def root_option(more: str = "") -> Callable[[Function], Function]:
    """Decorator for `--root DIR`, passed to the function as `root`."""
    return click.option(
        "--root", type=PATH, default=DEFAULT, show_default=True, metavar="DIR", help=f"The grid's output_dir{more}."
    )


def roots_option(more: str = "") -> Callable[[Function], Function]:
    """Decorator for `--root DIR --root DIR …` of commands that only read records; passed as `roots`."""
    return click.option(
        "--root",
        "roots",
        type=PATH,
        multiple=True,
        default=[DEFAULT],
        show_default=True,
        metavar="DIR",
        help=f"The grid's output_dir, or records packed by tar{more}; may be given several times, for the records of "
        "all of them.",
    )


def no_records(*roots: str | Path) -> str:
    """Message that nothing has been measured, with the next step."""
    first = Path(roots[0])
    missing = "" if first.is_dir() else ", which is not a folder" if first.exists() else ": no such file or folder"
    below = " and ".join(map(str, roots))
    return (
        f"no records in {below}{missing}{storage.nearby(roots[0]) or '; make some: quantlab -m quant=none,torch_int8'}"
    )
