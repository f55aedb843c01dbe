"""Overrides at random, of keys that there are: cells that could be run, or one line a mistake, before anything is."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.damage import JUNK, NUMBERS, tried
from quantlab.config.compose import compose
from quantlab.config.key_names import keys
from quantlab.config.schema import RunConfig
from quantlab.grid.plan import plan
from quantlab.util import quoting
from quantlab.util.errors import ConfigError

pytestmark = pytest.mark.fuzz
KEYS = sorted(key for key in keys(RunConfig) if "." in key or key not in RunConfig.model_fields or key in ("seed",))
PATHS = st.sampled_from(
    [".", "/", "/dev/null", "/dev/zero", "~", "~nobody/x", "a=b", "x" * 5000, "../../..", "\0", " "]
)
VALUES = NUMBERS | PATHS | JUNK | st.sampled_from(["zz", "de", "none", "cpu", "int8", "all", "[]"])


@tried(0.5)
@example(changes={"model.path": "x" * 5000})
@given(changes=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
def test_overrides(changes):
    arguments = [quoting.override(key, value) for key, value in changes.items()]
    try:
        cells = plan(compose([*arguments, "device=cpu"]))
    except ConfigError as error:
        for line in str(error).split("\n"):
            assert len(line) < 1000 + 9 * sum(map(len, arguments)), "what was given, and how it is written"
            assert "Traceback" not in line
    else:
        assert all(cell.refusal is None or "\n" not in cell.refusal.reason for cell in cells)
