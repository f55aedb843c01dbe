"""HTML from Python, escaped by construction: what is not `Html` already is text."""

from __future__ import annotations

import html
from collections.abc import Iterable

from quantlab.util.printable import printable

_VOID = frozenset({"br", "input", "meta"})


class Html(str):
    """Markup that may stand in a page as it is."""


def tag(name: str, *children: object, **attributes: object) -> Html:
    """An element.

    Args:
        name: of the element.
        children: markup, text, or iterables of them; None is left out.
        attributes: `class_` is `class` and `data_cell` is `data-cell`; True is an attribute without a value, None
            and False are none at all.
    """
    opened = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{opened}>")
    return Html(f"<{name}{opened}>{join(*children)}</{name}>")


def join(*children: object) -> Html:
    """Several children without an element around them."""
    return Html("".join(map(_child, children)))


def _child(child: object) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, Iterable) and not isinstance(child, str):
        return join(*child)
    return html.escape(printable(str(child)))


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(printable(str(value)))}"'
