"""A real SLURM with one node, two jobs at a time, and a queue `high` that preempts the queue `low`."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.waiting import wait_until

SCRIPT = Path(__file__).parent / "cluster.sh"
NEEDED = ("sbatch", "slurmctld", "slurmd", "munged")

# torch's dynamic int8 under another name, which waits while a file exists: a cell that is in flight as long as a test
# needs it to be, and that is a good one afterwards.
HELD = """
import os, time
from quantlab.quantization.backends import torch as real

DISTRIBUTIONS = real.DISTRIBUTIONS
why_unsupported, is_quantized, kernel = real.why_unsupported, real.is_quantized, real.kernel

def setup(*arguments):
    while os.path.exists(os.environ["QUANTLAB_TEST_HOLD"]):
        time.sleep(0.1)
    return real.setup(*arguments)
"""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """The folder of a cluster that runs for the length of the tests."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: apt-get install -y --no-install-recommends slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("starting SLURM's daemons takes root")
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SCRIPT, "start", folder], check=True)
    yield folder
    subprocess.run([SCRIPT, "stop", folder], check=True)


@pytest.fixture(scope="session")
def held(tmp_path_factory):
    """A folder for PYTHONPATH with the quantizer `held`."""
    site = tmp_path_factory.mktemp("held")
    (site / "quantlab_held.py").write_text(HELD)
    info = site / "quantlab_held-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: quantlab-held\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[quantlab.quantizers]\nheld = quantlab_held\n")
    return site


class Slurm:
    """A user at the cluster, in an empty folder."""

    def __init__(self, quantlab, hold):
        self.run, self.folder, self.hold = quantlab, quantlab.folder, hold
        self.root = quantlab.folder / "mlruns"

    def sh(self, *command):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def status(self):
        """Lines of `quantlab.status` by label, and its exit code."""
        done = self.run("--root", "mlruns", "--format", "json", module="quantlab.status")
        return {line["label"]: line for line in json.loads(done.stdout)["cells"]}, done.returncode

    def until(self, what, condition, timeout_s=600):
        """What the status says once the condition holds of it."""

        def lines():
            found, _ = self.status()
            return found if condition(found) else None

        return wait_until(lines, timeout_s, lambda: f"{what}: {self.status()[0]}\n{self.told()}", every_s=0.5)

    def told(self):
        """What SLURM says of its jobs, and what they wrote."""
        logs = [path.read_text() for path in self.root.glob("jobs/*/slurm/*.out")]
        return "\n".join([self.sh("squeue", "--states=all"), *logs])

    def records(self):
        """The records by label."""
        found = [json.loads(path.read_text()) for path in self.root.glob("cells/[!.]*/record.json")]
        return {"-".join(item["config"][axis]["name"] for axis in ("model", "quant", "device")): item for item in found}


@pytest.fixture
def slurm(cluster, held, quantlab, monkeypatch):
    """Runs quantlab's commands where sbatch reaches the test cluster; nothing of it outlives the test."""
    hold = quantlab.folder / "hold"
    path = os.pathsep.join([str(held), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("SLURM_CONF", str(cluster / "slurm.conf"))
    monkeypatch.setenv("QUANTLAB_TEST_HOLD", str(hold))
    yield Slurm(quantlab, hold)
    subprocess.run(["scancel", "--quiet", "--user=root"], check=False)
    hold.unlink(missing_ok=True)
