"""Paths of the files that ship with quantlab: configuration, models, corpora."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ASSETS = PACKAGE / "assets"  # the shipped model and corpora


def shared_dir(name: str) -> Path:
    """`conf` or `experiments`: beside the package in a checkout, inside it in a wheel."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name
