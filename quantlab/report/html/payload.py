"""What the page carries besides its markup: compressed, and in letters that no HTML parser takes for markup."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from functools import cache
from importlib.resources import files

from markupsafe import Markup

from quantlab.util.printable import printable, printable_parts

_SCRIPTS = ("base.js", "labels.js", "scatter.js", "forest.js", "table.js", "words.js", "cell.js", "main.js")


def packed(value: object) -> str:
    """JSON, gzip, base64: a `</script>` or U+2028 in a hypothesis cannot get out of it. No NaN: it would raise.

    Every text in it is printable; line breaks stay, which part what was said into words and a traceback into lines.
    """
    text = json.dumps(printable_parts(value, keep="\n\t"), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return _compressed(text.encode("utf-8", "replace"))  # replace: a lone surrogate


def _compressed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def data_block(name: str, text: str) -> Markup:
    """A block that the browser keeps and never runs; `text` is `packed`."""
    return Markup('<script type="application/octet-stream" id="{}">{}</script>').format(printable(name), text)


@cache
def plotly() -> tuple[str, str]:
    """plotly.js, compressed (a third of its size), and the source expression that lets it run.

    Its basic bundle, with lines and bars only, is a quarter of the whole, and no package of Python brings it.
    """
    source = asset("plotly-basic.min.js").encode()
    return _compressed(source), _allowed(source)


@cache
def script() -> str:
    """The page's own script: one closure, so that nothing of it is global."""
    parts = "\n".join(asset(name) for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


def asset(name: str) -> str:
    """A file that ships beside this module."""
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def policy() -> str:
    """The page's Content-Security-Policy: two scripts by their hash, and no network.

    Should a hypothesis ever get into the markup, the browser refuses to run it.
    """
    own = _allowed(script().encode())
    return (
        f"default-src 'none'; script-src {own} {plotly()[1]}; style-src 'unsafe-inline'; "
        "img-src data: blob:; media-src file:; form-action 'none'; base-uri 'none'"
    )


def _allowed(source: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source).digest()).decode('ascii')}'"
