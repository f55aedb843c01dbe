"""Where the YAML that ships with quantlab lies."""

from __future__ import annotations

from pathlib import Path


def shared_dir(name: str) -> Path:
    """`conf` or `experiments`: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name
