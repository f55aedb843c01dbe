"""The page's templates: Jinja's, which escape what is not markup of their own."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from quantlab.util.printable import printable


def render(name: str, **values: object) -> Markup:
    """A template of assets/, filled in."""
    return Markup(environment().get_template(f"{name}.html.j2").render(values))


@cache
def environment() -> Environment:
    """Escapes, shows None as nothing, and raises at a name that it is not given."""
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
    """Every value that a template shows, before it is escaped: printable; nothing where there is none."""
    if value is None:
        return ""
    return value if hasattr(value, "__html__") else printable(str(value))
