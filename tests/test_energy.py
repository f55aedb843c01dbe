import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from helpers.loads import put
from quantlab.util.energy import Meter

pytest.importorskip("zeus", reason="needs the extra: pip install quantlab[energy]")
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def powercap(tmp_path, monkeypatch):
    """A processor with memory, one without, and the zone of the whole machine, where zeus looks for RAPL."""
    from zeus.device.cpu import rapl

    zones = {"intel-rapl:0": "package-0", "intel-rapl:0/intel-rapl:0:0": "core", "intel-rapl:0/intel-rapl:0:1": "dram",
             "intel-rapl:1": "package-1", "intel-rapl:2": "psys"}  # fmt: skip
    for folder, name in zones.items():
        put(tmp_path, **{f"{folder}/name": name, f"{folder}/max_energy_range_uj": 262_143_000_000})
    monkeypatch.setattr(rapl, "RAPL_DIR", str(tmp_path))
    rapl.rapl_is_available.cache_clear()

    def use(package_0, dram, package_1):
        """Put the counters at these joules; the zones that must not be counted go far ahead."""
        joules = dict(zip(zones, (package_0, 5 * package_0, dram, package_1, 9 * package_0), strict=True))
        put(tmp_path, **{f"{folder}/energy_uj": round(value * 1e6) for folder, value in joules.items()})

    use(1000, 100, 2000)
    use.root = tmp_path
    yield use
    rapl.rapl_is_available.cache_clear()


def test_energy_of_processors_and_memory(powercap):
    meter = Meter(CPU)
    assert meter.source == "RAPL package-0, RAPL dram, RAPL package-1"
    assert meter.energy_j is None  # nothing measured yet
    meter.start()
    powercap(1010, 103, 2000.5)
    meter.stop()
    assert meter.energy_j == pytest.approx(13.5)


def test_regions_add_up_and_what_lies_between_does_not(powercap):
    meter = Meter(CPU)
    meter.start()
    powercap(1010, 100, 2000)
    meter.sample()
    powercap(1020, 100, 2000)
    meter.stop()
    powercap(1500, 100, 2000)
    meter.sample()  # of no region
    meter.start()
    powercap(1505, 100, 2000)
    meter.stop()
    assert meter.energy_j == pytest.approx(25)


def test_a_counter_may_begin_again_between_two_readings(powercap):
    meter = Meter(CPU)
    meter.start()
    powercap(262_000, 100, 2000)
    meter.sample()
    powercap(57, 100, 2000)
    meter.sample()
    powercap(262_100, 100, 2000)
    meter.sample()
    powercap(7, 100, 2000)
    meter.stop()
    assert meter.energy_j == pytest.approx(2 * 262_143 - 1000 + 7)


def test_a_counter_that_goes_away_leaves_no_half_sum(powercap):
    meter = Meter(CPU)
    meter.start()
    (powercap.root / "intel-rapl:1/energy_uj").unlink()
    meter.sample()
    meter.stop()
    assert (meter.energy_j, meter.source) == (None, None)


def test_a_counter_that_is_not_for_us(powercap):
    (powercap.root / "intel-rapl:0/energy_uj").unlink()
    (powercap.root / "intel-rapl:0/energy_uj").mkdir()  # reading it fails, for root too
    assert Meter(CPU).source is None


def test_nothing_runs_beside_the_measurement(powercap):
    before = psutil.Process().children(recursive=True)
    meter = Meter(CPU)
    meter.start()
    meter.stop()
    assert meter.energy_j == 0
    assert psutil.Process().children(recursive=True) == before


class FakeGPUs:
    """Stands in for zeus's GPUs where there is none; says nothing about a real one."""

    def __init__(self, supported=True):
        self.supported, self.mj = supported, 5_000_000

    def supports_get_total_energy_consumption(self, index):
        return self.supported

    def get_total_energy_consumption(self, index):
        self.mj += 1500 * (index + 1)
        return self.mj


def test_energy_of_a_gpu(monkeypatch):
    import zeus.device
    from zeus.device.gpu.common import GPUs

    assert {name for name in vars(FakeGPUs) if "energy" in name} <= set(vars(GPUs)), "zeus has other names now"
    monkeypatch.setattr(zeus.device, "get_gpus", FakeGPUs)
    meter = Meter(torch.device("cuda:1"))
    meter.start()
    meter.stop()
    assert (meter.energy_j, meter.source) == (3, "NVML")
    monkeypatch.setattr(zeus.device, "get_gpus", lambda: FakeGPUs(supported=False))  # older than Volta
    assert Meter(CUDA).source is None


@pytest.mark.parametrize("device", [CPU, CUDA, torch.device("mps")])
def test_none_where_zeus_is_not_installed(device, powercap, monkeypatch):
    for name in [*(name for name in sys.modules if name.split(".")[0] == "zeus"), "zeus"]:
        monkeypatch.setitem(sys.modules, name, None)
    check_absent(Meter(device))


@pytest.mark.skipif(Path("/sys/class/powercap/intel-rapl").exists(), reason="this machine has RAPL")
def test_none_on_a_machine_without_a_counter():
    check_absent(Meter(CPU))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_none_without_a_gpu():
    check_absent(Meter(CUDA))


def check_absent(meter):
    meter.start()
    meter.sample()
    meter.stop()
    assert meter.energy_j is None
    assert meter.source is None


def test_the_import_is_a_light_one_and_silent():
    program = """
import sys, types, psutil
from quantlab.util.energy import Meter
meter = Meter(types.SimpleNamespace(type="cpu", index=None))
meter.start(); meter.stop()
heavy = {"torch", "pandas", "sklearn"} & set(sys.modules)
assert not heavy, heavy
assert "zeus.device" in sys.modules
assert not psutil.Process().children()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
