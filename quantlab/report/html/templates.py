"""Jinja templates of the page, with autoescape."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from quantlab.util.printable import printable


def render(name: str, **values: object) -> Markup:
    """Render a template of assets/."""
    return Markup(environment().get_template(f"{name}.html.j2").render(values))


@cache
def environment() -> Environment:
    """Jinja environment that escapes, renders None as nothing, and raises on undefined names."""
    return Environment(
        loader=PackageLoader(__package__, "assets"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _shown(value: object) -> object:
    """Prepare a value for a template, before escaping: unprintable characters replaced, None as nothing."""
    if value is None:
        return ""
    return value if hasattr(value, "__html__") else printable(str(value))
