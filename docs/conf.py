"""Sphinx configuration of the site: Markdown by MyST, the theme furo, the reference by `generate`; works offline."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

project = "quantlab"
author = "The quantlab developers"
project_copyright = f"{author}, Apache-2.0"
version = release = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser", "generate"]
myst_enable_extensions = ["smartquotes"]
myst_heading_anchors = 4
highlight_language = "none"

html_theme = "furo"
html_title = f"quantlab {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
