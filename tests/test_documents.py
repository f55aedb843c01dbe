"""Every grid that a page of the documents shows can be composed."""

import re
import shlex

import pytest

from helpers.documents import ROOT
from quantlab.config.compose import read

PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*/*.md"))
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
