"""Two sweeps over the same root at the same time: every cell once, and both tables are whole.

The witness is a third party's quantizer that writes down each time that it is asked to quantize.
"""

import json
import re
import signal
from collections import Counter

import pytest

from helpers.waiting import wait_until
from quantlab.grid import claims
from quantlab.records import storage

pytestmark = pytest.mark.minutes

HERE = ("device=cpu", "device.threads=1", "dataset.limit=2", "protocol=quick")
TARGETS = ("all", "encoder", "decoder")
SWEEP = ("-m", "quant=torch_int8", "quant.library=witness", f"quant.target={','.join(TARGETS)}", *HERE)


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """How often each cell was quantized so far."""
    path = tmp_path / "witness"
    monkeypatch.setenv("QUANTLAB_WITNESS", str(path))
    return lambda: Counter(path.read_text().splitlines() if path.exists() else [])


def together(quantlab, command, count=2):
    """Outputs and exit codes of as many processes, started at the same time."""
    processes = [quantlab.start(*command, fresh=False) for _ in range(count)]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    return outputs, [process.returncode for process in processes]


def report(quantlab):
    return json.loads(quantlab("--format", "json", module="quantlab.report").stdout)


def test_every_cell_once(quantlab, seen):
    outputs, codes = together(quantlab, (*SWEEP, "seed=0,1"))
    assert codes == [0, 0], outputs
    assert seen() == {f"witness {target}": 2 for target in TARGETS}  # one for each seed
    assert {cell["status"] for cell in report(quantlab)} == {"ok"}
    assert len(report(quantlab)) == 6
    for output in outputs:
        assert len(re.findall(r"^ *\d/6 ✓", output, re.MULTILINE)) == 6, output  # whoever measured it
        assert len(re.findall(r"^nano +torch_int8", output, re.MULTILINE)) == 6, output  # the table
    verified = quantlab(module="quantlab.verify")
    assert verified.returncode == 0, verified.stdout
    root = quantlab.folder / "mlruns"
    assert not list((root / "claims").glob("*.json"))
    assert not list((root / "cells").glob(".*.tmp"))


def test_without_resume_they_share_the_cells_too(quantlab, seen):
    assert quantlab(*SWEEP, "tracking=off").returncode == 0
    assert quantlab(*SWEEP, "tracking=off", "resume=false").returncode == 0
    assert seen() == {f"witness {target}": 2 for target in TARGETS}  # no claim stands in the way of the second time
    outputs, codes = together(quantlab, (*SWEEP, "tracking=off", "resume=false"))
    assert codes == [0, 0], outputs
    assert seen() == {f"witness {target}": 3 for target in TARGETS}


def test_what_failed_in_one_is_not_tried_by_the_other(quantlab, seen):
    command = ("quant=torch_int8", "quant.library=failing_witness", "tracking=off", *HERE)
    outputs, codes = together(quantlab, command)
    assert codes == [1, 1], outputs
    assert seen() == {"failing_witness all": 1}
    assert sum("being measured by another process; waiting" in output for output in outputs) == 1
    assert all("seen, and failed" in output for output in outputs)
    assert quantlab(*command).returncode == 1  # but the next command does
    assert seen() == {"failing_witness all": 2}


def test_a_kill_hands_the_cell_to_the_other(quantlab, seen):
    """The one that measures is killed; the one that waits for it measures the cell."""
    root = quantlab.folder / "mlruns"
    first = quantlab.start("quant=torch_int8", "quant.library=hang", "tracking=off", *HERE)
    cell_id = wait_until(lambda: next((path.stem for path in (root / "claims").glob("*.json")), None))
    assert claims.owner(root, cell_id)["pid"] == str(first.pid)
    second = quantlab.start("quant=torch_int8", "quant.library=hang", "tracking=off", "timeout_s=1", *HERE)
    for line in second.stdout:
        if "being measured by another process" in line:
            break
    assert storage.recorded(root) == []
    first.send_signal(signal.SIGKILL)
    first.wait()
    output, _ = second.communicate(timeout=100)
    assert second.returncode == 1, output
    assert storage.read(root, cell_id).status == "timeout"  # its own limit: it was measured, by the second
    assert claims.owner(root, cell_id) is None
