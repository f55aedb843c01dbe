"""Data and scripts embedded in the page, compressed and base64-encoded so that no HTML parser takes them for markup."""

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
    """Encode a value as JSON, gzip, base64, so that a `</script>` or U+2028 in a hypothesis is harmless.

    Raises ValueError for NaN. Unprintable characters are replaced in all strings, except line breaks, which separate
    the words of texts and the lines of tracebacks.
    """
    text = json.dumps(printable_parts(value, keep="\n\t"), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return _compressed(text.encode("utf-8", "replace"))  # replace: for lone surrogates


def _compressed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def data_block(name: str, text: str) -> Markup:
    """A data block, which the browser never runs; `text` is `packed`."""
    return Markup('<script type="application/octet-stream" id="{}">{}</script>').format(printable(name), text)


@cache
def plotly() -> tuple[str, str]:
    """plotly.js, compressed to a third, and the CSP source expression that allows it to run.

    The basic bundle (lines and bars only) is a quarter of the full one. It is in assets/, as no Python package has it.
    """
    source = asset("plotly-basic.min.js").encode()
    return _compressed(source), _allowed(source)


@cache
def script() -> str:
    """The page's own script, wrapped in one closure so that nothing is global."""
    parts = "\n".join(asset(name) for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


def asset(name: str) -> str:
    """Contents of a file in assets/."""
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def policy() -> str:
    """The page's Content-Security-Policy: allows two scripts, by hash, and no network.

    Even if a hypothesis got into the markup, the browser would refuse to run it.
    """
    own = _allowed(script().encode())
    return (
        f"default-src 'none'; script-src {own} {plotly()[1]}; style-src 'unsafe-inline'; "
        "img-src data: blob:; media-src file:; form-action 'none'; base-uri 'none'"
    )


def _allowed(source: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source).digest()).decode('ascii')}'"
