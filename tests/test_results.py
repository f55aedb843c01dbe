"""The records that docs/results/ shows: whole, and every figure follows from their raw data."""

import json
from pathlib import Path

import pytest

from quantlab.cli.verify import main as verify
from quantlab.report.__main__ import main as report

ARCHIVES = sorted((Path(__file__).parents[1] / "docs" / "results").glob("*.tar.xz"))


@pytest.mark.parametrize("path", ARCHIVES, ids=lambda path: path.name)
def test_published_records_are_verified_and_open(path, capsys):
    assert verify(["--root", str(path)]) == 0
    assert "figures verified" in capsys.readouterr().out
    assert report(["--root", str(path), "--format", "json"]) == 0
    cells = json.loads(capsys.readouterr().out)
    assert {cell["status"] for cell in cells} == {"ok"}
    assert all(cell["receipt"]["verified"] for cell in cells)


def test_there_are_some():
    assert ARCHIVES
