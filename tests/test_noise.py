import os
import time
from types import SimpleNamespace

import psutil
import pytest
import torch

from helpers.loads import child, put, spin, stranger
from quantlab.measurement.interference import Monitor, cgroup_throttles, flags, frequency_mhz, thermal_throttles
from quantlab.records.schema import Noise
from quantlab.util import machine, nvml

pytestmark = pytest.mark.alone

CPU = torch.device("cpu")
SYS_CPU = "sys/devices/system/cpu"
linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin")


def busy_s(core):
    """By another library than ours."""
    times = psutil.cpu_times(percpu=True)[core]
    return times.user + times.nice + times.system + times.irq + times.softirq


def cpu_s(*pids):
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def watched(core, seconds, own=()):
    """What the watch says of `seconds` of work on a core, and what psutil says of others' share of it."""
    watch = Monitor(CPU, [core])
    watch.start()
    start, before = time.perf_counter(), busy_s(core) - cpu_s(os.getpid(), *own)
    spin(seconds)
    others = (busy_s(core) - cpu_s(os.getpid(), *own) - before) / (time.perf_counter() - start)
    return watch.read(), others


@linux
def test_a_busy_stranger_is_seen_and_flagged():
    with machine.pinned(1) as (core, *_), stranger(core) as pid:
        before, start = cpu_s(pid), time.perf_counter()
        noise, others = watched(core, 2)
        strangers = (cpu_s(pid) - before) / (time.perf_counter() - start)
    assert strangers > 0.15  # it ran: half of the core, less what else this machine does
    assert noise.other_load_share == pytest.approx(others, abs=0.06)
    assert noise.other_load_share > strangers - 0.06
    assert any(flag.startswith("other processes took ") for flag in noise.flags)


@linux
def test_own_work_is_no_other_load():
    with machine.pinned(1) as (core, *_):
        noise, others = watched(core, 2)
    assert noise.other_load_share == pytest.approx(max(others, 0), abs=0.06)
    assert noise.other_load_share < 0.9  # our own work filled the core, but for what others took


@linux
def test_the_work_of_a_child_is_own_work():
    with machine.pinned(1) as (core, *_), child(core) as pid:
        before = cpu_s(pid)
        noise, others = watched(core, 2, own=[pid])
        assert cpu_s(pid) - before > 0.3
    assert noise.other_load_share == pytest.approx(max(others, 0), abs=0.06)


@linux
def test_all_usable_cores_are_watched_unless_some_are_named():
    watch = Monitor(CPU)
    watch.start()
    time.sleep(0.5)
    assert watch.read().steal_share is not None


def stat(*cores):
    """/proc/stat of cores given as (busy, steal), in ticks."""
    return "\n".join(f"cpu{core} {busy} 0 0 0 0 0 0 {steal} 0 0" for core, (busy, steal) in enumerate(cores))


def test_what_the_files_tell_becomes_figures_and_flags(tmp_path):
    def tell(busy, steal, throttled, hot, khz):
        put(tmp_path, **{"proc/stat": stat((busy, steal), (0, 0))})
        put(tmp_path, **{"proc/self/cgroup": "0::/box", "sys/fs/cgroup/box/cpu.stat": f"nr_throttled {throttled}"})
        put(tmp_path, **{f"{SYS_CPU}/cpu0/thermal_throttle/core_throttle_count": hot})
        put(tmp_path, **{f"{SYS_CPU}/cpu0/cpufreq/scaling_cur_freq": khz})

    ticks = os.sysconf("SC_CLK_TCK")
    tell(busy=1000, steal=50, throttled=3, hot=7, khz=3_200_000)
    watch = Monitor(CPU, [0, 1], root=tmp_path)
    watch.start()
    start = time.perf_counter()
    time.sleep(0.5)
    tell(busy=1000 + ticks // 2, steal=50 + ticks // 4, throttled=15, hot=8, khz=2_100_000)
    seconds = time.perf_counter() - start
    noise = watch.read()
    assert noise.steal_share == pytest.approx(0.25 / (2 * seconds), rel=0.2)
    assert noise.other_load_share == pytest.approx(0.5 / (2 * seconds), rel=0.2)
    assert noise.frequency_mhz == (2100, 3200)
    assert (noise.cgroup_throttled, noise.thermal_throttled) == (12, 1)
    other, steal, *rest = noise.flags
    assert other == f"other processes took {100 * noise.other_load_share:.0f} % of the cores"
    assert steal == f"the hypervisor took {100 * noise.steal_share:.0f} % (steal)"
    assert rest == [
        "core frequency varied between 2.1 and 3.2 GHz",
        "throttled 12 times by the cgroup's CPU quota",
        "throttled once by the processor's temperature",
    ]


def test_a_machine_that_does_not_tell(tmp_path):
    watch = Monitor(CPU, [0], root=tmp_path)
    watch.start()
    watch.sample()
    assert watch.read() == Noise()
    assert Monitor(CPU, [7], root=tmp_path)._cores == (7,)


def test_a_core_that_is_not_told_of_makes_no_share(tmp_path):
    put(tmp_path, **{"proc/stat": stat((10, 0))})
    watch = Monitor(CPU, [0, 5], root=tmp_path)
    watch.start()
    assert watch.read().other_load_share is None


def test_samples_are_taken_now_and_then(tmp_path):
    put(tmp_path, **{f"{SYS_CPU}/cpu0/cpufreq/scaling_cur_freq": 3_000_000})
    watch = Monitor(CPU, [0], root=tmp_path)
    watch.start()
    put(tmp_path, **{f"{SYS_CPU}/cpu0/cpufreq/scaling_cur_freq": 1_000_000})
    watch.sample()  # too early, a batch of a small model is shorter
    put(tmp_path, **{f"{SYS_CPU}/cpu0/cpufreq/scaling_cur_freq": 2_000_000})
    time.sleep(0.26)
    watch.sample()
    put(tmp_path, **{f"{SYS_CPU}/cpu0/cpufreq/scaling_cur_freq": 2_500_000})
    assert watch.read().frequency_mhz == (2000, 3000)
    watch.start()
    assert watch.read().frequency_mhz == (2500, 2500)


@pytest.mark.parametrize(
    ("noise", "available_s", "flagged"),
    [
        (Noise(steal_share=0.019, other_load_share=0.049), 60, []),
        (Noise(steal_share=0.06), 60, ["the hypervisor took 6 % (steal)"]),
        (Noise(other_load_share=0.34), 60, ["other processes took 34 % of the cores"]),
        (Noise(other_load_share=0.34), 0.1, []),  # three ticks of the kernel's clock
        (Noise(frequency_mhz=(2900, 3200)), 60, []),
        (Noise(frequency_mhz=(2800, 3200)), 60, ["core frequency varied between 2.8 and 3.2 GHz"]),
        (Noise(cgroup_throttled=0, thermal_throttled=0), 60, []),
        (Noise(cgroup_throttled=1), 60, ["throttled once by the cgroup's CPU quota"]),
        (Noise(gpu_clock_mhz=(900, 1980)), 60, ["GPU clock varied between 0.9 and 2.0 GHz"]),
        (Noise(gpu_throttled=("power cap",)), 60, ["GPU clock limited: power cap"]),
        (Noise(gpu_throttled=("clocks set by the user",)), 60, []),
    ],
)
def test_flags(noise, available_s, flagged):
    assert list(flags(noise, available_s)) == flagged


def test_flags_of_company_on_the_gpu():
    assert flags(Noise(), 60, gpu_processes=1) == ("1 other process on the GPU",)
    assert flags(Noise(), 60, gpu_processes=2) == ("2 other processes on the GPU",)


@pytest.mark.parametrize(
    ("what", "own", "files", "count"),
    [
        ("v2", "0::/a/b", {"a/b/cpu.stat": 3, "a/cpu.stat": 4}, 7),
        ("v2, own namespace", "0::/", {"cpu.stat": 5}, 5),
        ("v1", "4:memory:/m\n3:cpu,cpuacct:/a\n0::/", {"cpu,cpuacct/a/cpu.stat": 6, "memory/m/cpu.stat": 100}, 6),
        ("v1, the folder of the host is not seen", "3:cpu:/docker/1234", {"cpu/cpu.stat": 2}, 2),
        ("hybrid", "1:cpu:/\n0::/a", {"cpu/cpu.stat": 1, "unified/a/cpu.stat": 2}, 3),
        ("no group", "0::/", {}, None),
    ],
)
def test_cgroup_throttles(tmp_path, what, own, files, count):
    put(tmp_path, **{"proc/self/cgroup": own})
    for path, throttled in files.items():
        text = f"nr_periods 9000\nnr_throttled {throttled}\nthrottled_usec 123456"
        put(tmp_path, **{f"sys/fs/cgroup/{path}": text})
    assert cgroup_throttles(tmp_path) == count, what


def test_cgroup_throttles_of_a_root_group_that_counts_none(tmp_path):
    put(tmp_path, **{"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.stat": "usage_usec 77"})
    assert cgroup_throttles(tmp_path) is None
    assert cgroup_throttles(tmp_path / "nowhere") is None


def test_thermal_throttles_count_a_processor_once(tmp_path):
    for core in range(4):
        put(tmp_path, **{f"{SYS_CPU}/cpu{core}/topology/physical_package_id": core // 2})
        put(tmp_path, **{f"{SYS_CPU}/cpu{core}/thermal_throttle/core_throttle_count": 1})
        put(tmp_path, **{f"{SYS_CPU}/cpu{core}/thermal_throttle/package_throttle_count": 10 * (1 + core // 2)})
    assert thermal_throttles([0, 1], tmp_path) == 2 + 10
    assert thermal_throttles([1, 2], tmp_path) == 2 + 10 + 20
    assert thermal_throttles([9], tmp_path) is None


def test_the_frequency_is_that_of_the_core_at_work(tmp_path):
    put(tmp_path, **{f"{SYS_CPU}/cpu0/cpufreq/scaling_cur_freq": 800_000})  # rests
    put(tmp_path, **{f"{SYS_CPU}/cpu1/cpufreq/scaling_cur_freq": 3_100_000})
    assert frequency_mhz([0, 1], tmp_path) == 3100
    assert frequency_mhz([0], tmp_path) == 800


@pytest.mark.parametrize(
    ("mhz", "flag", "found"), [("3100.500", "", 3100.5), ("3100.500", "hypervisor", None), ("Unknown", "", None)]
)
def test_the_frequency_of_cpuinfo_unless_a_hypervisor_wrote_it(tmp_path, mhz, flag, found):
    told = enumerate((mhz, "4000.000"))
    blocks = [f"processor\t: {core}\ncpu MHz\t\t: {text}\nflags\t\t: fpu {flag}" for core, text in told]
    put(tmp_path, **{"proc/cpuinfo": "\n\n".join(blocks)})
    assert frequency_mhz([0], tmp_path) == found


class FakeNVML:
    """Stands in for pynvml where there is no GPU: answers as documented. It says nothing about a real driver."""

    NVML_CLOCK_SM = 1

    class NVMLError(Exception):
        pass

    def __init__(self, samples, violations=(), processes=1, old=False):
        self.samples, self.violations, self.processes, self.old = iter(samples), violations, processes, old

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle):  # noqa: N802
        if self.old:
            raise self.NVMLError
        return self.nvmlDeviceGetCurrentClocksThrottleReasons(handle)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):  # noqa: N802
        self.clock, reasons = next(self.samples)
        return reasons

    def nvmlDeviceGetClockInfo(self, handle, which):  # noqa: N802
        return self.clock

    def nvmlDeviceGetViolationStatus(self, handle, policy):  # noqa: N802
        if policy not in self.violations:
            raise self.NVMLError
        return SimpleNamespace(violationTime=self.violations[policy])

    def nvmlDeviceGetComputeRunningProcesses(self, handle):  # noqa: N802
        return [SimpleNamespace(pid=-number, usedGpuMemory=number * 1000) for number in range(1, self.processes + 1)]


@pytest.mark.parametrize("old", [False, True])
def test_gpu_samples(old):
    fake = FakeNVML([(300, 0x1), (1980, 0x0), (1400, 0x4 | 0x20)], violations={1: 5}, processes=3, old=old)
    watch = nvml.GpuMonitor(fake, handle=None)
    for _ in range(3):
        watch.sample()
    assert watch.clock_mhz == (1400, 1980)  # the resting one is left out
    assert watch.throttled() == ("power cap", "heat (software)")
    fake.violations[1] = 6  # between two samples
    assert watch.throttled() == ("power cap", "heat (software)", "heat")
    assert watch.other_processes() == 2
    watch.start()
    assert (watch.clock_mhz, watch.throttled()) == (None, ())


def test_gpu_memory_is_that_of_this_process_whoever_allocated_it(monkeypatch):
    watch = nvml.GpuMonitor(FakeNVML([], processes=3), handle=None)
    assert watch.process_bytes() is None  # none of the three is known to be ours
    monkeypatch.setattr("os.getpid", lambda: -2)
    assert watch.process_bytes() == 2000
    monkeypatch.setattr(watch, "_processes", lambda: [])
    assert watch.process_bytes() == 2000  # the most that was seen
    alone = nvml.GpuMonitor(FakeNVML([], processes=1), handle=None)
    assert alone.process_bytes() == 1000  # a container numbers processes by itself


def test_gpu_that_only_rested():
    watch = nvml.GpuMonitor(FakeNVML([(300, 0x1), (345, 0x1)], processes=0), handle=None)
    watch.sample()
    watch.sample()
    assert (watch.clock_mhz, watch.throttled(), watch.other_processes()) == ((300, 345), (), 0)


def test_gpu_reasons_have_the_numbers_of_the_bindings():
    import pynvml

    named = {
        "SwPowerCap": "power cap", "HwSlowdown": "hardware slowdown", "SyncBoost": "sync boost",
        "SwThermalSlowdown": "heat (software)", "HwThermalSlowdown": "heat (hardware)",
        "HwPowerBrakeSlowdown": "power brake", "DisplayClockSetting": "display clocks",
        "ApplicationsClocksSetting": "clocks set by the user",
    }  # fmt: skip
    for name, word in named.items():
        assert nvml.words(getattr(pynvml, f"nvmlClocksEventReason{name}")) == [word]
    assert nvml.words(pynvml.nvmlClocksEventReasonGpuIdle) == []
    assert nvml.words(1 << 40) == ["reason 0x10000000000"]
    numbers = (pynvml.NVML_PERF_POLICY_POWER, pynvml.NVML_PERF_POLICY_THERMAL, pynvml.NVML_PERF_POLICY_BOARD_LIMIT)
    assert tuple(nvml.POLICIES) == numbers


@pytest.mark.skipif(machine.cuda_devices() > 0, reason="there is a GPU")
def test_no_gpu_here():
    assert nvml.nvml() is None
    assert nvml.driver_version() is None
    assert nvml.watch(torch.device("cuda")) is None


@pytest.mark.gpu
@pytest.mark.skipif(machine.cuda_devices() == 0, reason="no CUDA device")
def test_a_real_gpu_tells():
    watch = Monitor(torch.device("cuda"))
    watch.start()
    torch.ones(4096, 4096, device="cuda").matmul(torch.ones(4096, 4096, device="cuda")).sum().item()
    low, high = watch.read().gpu_clock_mhz
    assert 0 < low <= high
    assert watch.gpu_process_bytes() > 3 * 4096 * 4096 * 4
