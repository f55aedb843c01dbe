import json
import os
import socket
import threading
from pathlib import Path

import psutil
import pytest
import torch

from helpers.loads import put, stranger
from quantlab.config.hydra import composed
from quantlab.config.parse import parse_config
from quantlab.measurement.environment import describe
from quantlab.util import machine

CPU = "sys/devices/system/cpu"
linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin")
two_cores = pytest.mark.skipif(machine.usable_cores() < 2, reason="one core: there is nothing to choose")


def cores(root, packages, siblings=1, khz=()):
    """A tree of `len(packages)` cores; neighbours share a physical core where siblings=2."""
    for core, package in enumerate(packages):
        first = core - core % siblings
        together = ",".join(str(first + place) for place in range(siblings))
        put(root, **{f"{CPU}/cpu{core}/topology/physical_package_id": package})
        put(root, **{f"{CPU}/cpu{core}/topology/thread_siblings_list": together})
        if khz:
            put(root, **{f"{CPU}/cpu{core}/cpufreq/cpuinfo_max_freq": khz[core]})
    return root


@linux
def test_core_times_are_those_of_psutil():
    before = psutil.cpu_times(percpu=True)
    found = machine.core_times()
    after = psutil.cpu_times(percpu=True)
    if machine.read_text(Path("/sys/devices/system/cpu/offline")):
        pytest.skip("a core is offline: psutil's list has no core numbers then")
    for core, (low, high) in enumerate(zip(before, after, strict=True)):
        busy = [t.user + t.nice + t.system + t.irq + t.softirq for t in (low, high)]
        assert busy[0] - 0.011 <= found[core].busy_s <= busy[1] + 0.011
        assert low.steal - 0.011 <= found[core].steal_s <= high.steal + 0.011


def test_core_times_go_by_number_where_a_core_is_offline(tmp_path):
    put(
        tmp_path,
        **{"proc/stat": "cpu 3 0 0 0 0 0 0 0 0 0\ncpu0 100 20 30 9 9 4 6 7 50 0\ncpu2 1 0 0 0 0 0 0 0 0 0\nctxt 5"},
    )
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    found = machine.core_times(tmp_path)
    assert set(found) == {0, 2}
    assert found[0].busy_s == pytest.approx(160 * tick_s)  # idle, iowait and guests (in user already) left out
    assert found[0].steal_s == pytest.approx(7 * tick_s)
    assert machine.core_times(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    ("what", "packages", "siblings", "khz", "loads", "count", "chosen"),
    [
        ("the idler of two", "00", 1, (), (0.9, 0.1), 1, (1,)),
        ("no halves of one core", "0000", 2, (), (0, 0, 0, 0), 2, (0, 2)),
        ("not beside a busy half", "0000", 2, (), (0.0, 1.0, 0.1, 0.1), 1, (2,)),
        ("both halves rather than a busy core", "0000", 2, (), (0, 0, 1, 1), 2, (0, 1)),
        ("second halves come last", "0000", 2, (), (0, 0, 0, 0), 3, (0, 1, 2)),
        ("one processor", "0011", 1, (), (0.1, 0.2, 0.0, 0.2), 2, (2, 3)),
        ("free cores before one processor", "0011", 1, (), (0.0, 1.0, 1.0, 0.0), 2, (0, 3)),
        ("halves of the other processor are none", "00001111", 2, (), (1, 1, 0, 0, 0, 0, 0, 0), 2, (4, 6)),
        ("the fast ones", "0000", 1, (3e6, 3e6, 5e6, 5e6), (0, 0, 0.1, 0.1), 2, (2, 3)),
        ("a free slow one before a busy fast one", "00", 1, (3e6, 5e6), (0, 1), 1, (0,)),
    ],
)  # fmt: skip
def test_idlest(tmp_path, what, packages, siblings, khz, loads, count, chosen):
    root = cores(tmp_path, packages, siblings, [int(value) for value in khz])
    assert machine.idlest(count, dict(enumerate(loads)), root) == chosen, what


def test_idlest_without_a_word_about_the_cores(tmp_path):
    assert machine.idlest(2, {3: 0.5, 4: 0.0, 9: 0.1}, tmp_path) == (4, 9)


@linux
@two_cores
def test_pin_moves_every_thread_and_pinned_gives_the_cores_back():
    before, seen, done = machine.affinity(), {}, threading.Event()

    def work(name):
        done.wait(10)
        seen[name] = os.sched_getaffinity(0)

    early = threading.Thread(target=work, args=("early",))
    early.start()
    with machine.pinned(1) as chosen:
        late = threading.Thread(target=work, args=("late",))
        late.start()
        done.set()
        early.join()
        late.join()
        assert len(chosen) == 1
        assert machine.affinity() == chosen
    assert seen == {"early": set(chosen), "late": set(chosen)}
    assert machine.affinity() == before


@linux
@two_cores
@pytest.mark.alone
def test_pin_keeps_off_a_busy_core():
    usable = machine.affinity()
    for busy in usable[:2]:
        with stranger(busy):
            for _ in range(40):  # the other core may be busy too, with what else this machine does
                with machine.pinned(1) as chosen:
                    pass
                if chosen != (busy,):
                    break
            assert chosen != (busy,)


@linux
def test_pin_changes_nothing_when_every_core_is_needed():
    usable = machine.affinity()
    assert machine.pin(len(usable)) == machine.pin(10_000) == machine.affinity() == usable


def test_pin_where_the_system_cannot(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert machine.pin(1) == ()
    with machine.pinned(1) as chosen:
        assert chosen == ()


@pytest.mark.parametrize(
    ("flags", "virtual"),
    [("flags\t: fpu hypervisor lm", True), ("flags\t: fpu lm", False), ("Features\t: fp asimd", None)],
)
def test_is_virtual(tmp_path, flags, virtual):
    put(tmp_path, **{"proc/cpuinfo": f"processor\t: 0\n{flags}"})
    assert machine.is_virtual(tmp_path) is virtual


def test_environment_tells_threads_and_cores_and_no_name_or_path():
    [point] = composed([]).points
    found = describe(parse_config({key: point[key] for key in point if key != "only"}), torch.device("cpu"))
    assert found["affinity"] == list(machine.affinity())
    assert len(found["load_average"]) == 3
    expected = {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_PROC_BIND", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    assert set(found["thread_variables"]) == expected
    assert found["thread_pools"], "torch brings an OpenMP runtime"
    assert {"openmp"} <= {pool["user_api"] for pool in found["thread_pools"]}
    openmp = next(pool for pool in found["thread_pools"] if pool["user_api"] == "openmp")
    assert openmp["num_threads"] == torch.get_num_threads()
    text = json.dumps(found)
    assert socket.gethostname() not in json.dumps({key: found[key] for key in found if key != "platform"})
    assert str(Path.home()) not in text
    assert "/lib" not in text
    assert ".so" not in text


def test_environment_of_a_machine_with_frequencies(tmp_path):
    from quantlab.measurement.environment import _frequency

    for core, governor in enumerate(["powersave", "performance"]):
        put(tmp_path, **{f"{CPU}/cpu{core}/cpufreq/scaling_governor": governor})
        put(tmp_path, **{f"{CPU}/cpu{core}/cpufreq/cpuinfo_max_freq": 3_000_000 + core})
    assert _frequency((0, 1), tmp_path) == {"governor": "performance, powersave", "max_frequency_mhz": 3000.001}
    assert _frequency((), tmp_path) == {"governor": None, "max_frequency_mhz": None}
