"""The Markdown of the documents: lists render as lists, and every grid that a page shows can be composed."""

import importlib
import re
import shlex
from pathlib import Path

import griffe
import pytest
from markdown_it import MarkdownIt

from helpers.documents import ROOT
from quantlab.config.compose import read
from quantlab.util.console import COMMANDS

PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*/*.md"))
ALL = sorted(
    str(path.relative_to(ROOT)) for part in ("*.md", "docs/**/*.md", "quantlab/**/*.md") for path in ROOT.glob(part)
)
MARKDOWN = MarkdownIt("commonmark").enable("table")
ITEM = re.compile(r" *(?:[-*+]|\d+[.)]) +")
GRID = re.compile(r"^(?: {4})?(?:python -m )?quantlab ((?:-m|[\w/.]+=|'[\w/.]+=)(?:.*\\\n)*.*)$", re.MULTILINE)
NOT_COMPOSED = ("--config-dir", "--cfg")  # options of one's own have a test of theirs; prints and ends
PLACEHOLDERS = ("…", "=FILE", "KIND")


def _grids(page):
    found = GRID.findall((ROOT / page).read_text(encoding="utf-8"))
    return [line for line in found if not any(part in line for part in NOT_COMPOSED + PLACEHOLDERS)]


@pytest.mark.parametrize("page", [page for page in PAGES if _grids(page)])
def test_its_grids_compose(page):
    for line in _grids(page):
        assert read(shlex.split(line.replace("\\\n", " "), comments=True)).configs, line


def _misplaced(text):
    """Lines of lists that are not where they were meant: the documents' lists are flat, their items indented.

    Markdown accepts such lines: an indented item becomes a list within the item above it, or its text.
    """
    lines, columns, found = text.splitlines(), [], []
    for token in MARKDOWN.parse(text):
        if token.type == "list_item_open":
            columns.append(len(ITEM.match(lines[token.map[0]])[0]))
            found += [lines[token.map[0]]] * (len(columns) > 1)
        elif token.type == "list_item_close":
            columns.pop()
        elif token.type == "inline" and columns:
            below = lines[token.map[0] + 1 : token.map[1]]
            found += [
                line for line in below if ITEM.match(line) or line[: columns[-1]].strip() or line[columns[-1]] == " "
            ]
        elif token.type == "inline":
            found += [line for line in lines[token.map[0] : token.map[1]] if line.startswith(" ") or ITEM.match(line)]
    return found


@pytest.mark.parametrize("page", ALL)
def test_its_lists_render_as_lists(page):
    assert _misplaced((ROOT / page).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("- One\n  goes on.\n- Two\n\n1. Three\n   goes on.\n2. Four", []),
        ("- One\ngoes on.", ["goes on."]),
        ("- One\n   goes on.", ["   goes on."]),
        ("- One\n  - Two", ["  - Two"]),
        ("1. One\n   goes on.\n   2. Two", ["   2. Two"]),
        ("Text\n  goes on.", ["  goes on."]),
        ("Text\n2. Two", ["2. Two"]),
    ],
)
def test_a_misplaced_line_is_found(text, lines):
    assert _misplaced(text) == lines


@pytest.mark.parametrize("page", [page for page in ALL if page != "CHANGELOG.md"])
def test_its_targets_of_make_and_its_commands_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE)) <= {*targets}
    assert set(re.findall(r"`quantlab (\w+)(?=[ `])", text)) <= {*COMMANDS}


def test_what_a_function_returns_is_shown_whole(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    generate = importlib.import_module("generate")
    code = (
        'def count() -> int:\n    """Count.\n\n    Returns:\n        Cells, in order: the first one first.\n    """\n'
    )
    module = griffe.visit("module", filepath=Path("module.py"), code=code)
    assert "- Cells, in order: the first one first." in generate._docstring(module["count"])
