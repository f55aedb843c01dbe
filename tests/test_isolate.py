"""What the process that starts cells keeps from the user."""

import subprocess
import sys
import warnings

from quantlab.grid.process import Workers


def test_a_resource_tracker_that_is_started_again_is_not_told():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Workers()
        warnings.warn("resource_tracker: process died unexpectedly, relaunching", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(item.message) for item in told] == ["something else"]


CELL = """
import sys
import quantlab.grid.preload
from quantlab.config.compose import compose
from quantlab.grid.attempt import attempt

[config] = compose(["device=cpu", "dataset.limit=2", "tracking=off"])
before = set(sys.modules)
assert attempt(config, lambda stage, done, total: None).record.status == "ok"
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""


def test_a_cell_imports_no_package_that_the_server_could_have(tmp_path):
    ran = subprocess.run([sys.executable, "-c", CELL], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert set(ran.stdout.split()) <= {"quantlab", "transformers", "multiprocessing", "whisper_normalizer"}
