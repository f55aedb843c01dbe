"""Cells side by side: who may run beside whom, with which cores, and that nothing is lost or mixed up."""

import io
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import synthetic
from helpers.loads import put
from helpers.waiting import wait_until
from quantlab import models
from quantlab.config.compose import compose, read
from quantlab.grid.attempt import Failure
from quantlab.grid.finished import beside, finished
from quantlab.grid.jobs import check_jobs
from quantlab.grid.memory import Memory, available_bytes
from quantlab.grid.plan import Cell, plan
from quantlab.grid.progress import Display
from quantlab.grid.schedule import Schedule
from quantlab.grid.shares import Share, Shares
from quantlab.recogniser.fingerprints import resolve
from quantlab.records import storage
from quantlab.util import machine
from quantlab.util.console import console
from quantlab.util.errors import ConfigError
from quantlab.util.machine import Site

GB = 1 << 30
linux = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot pin")
two_cores = pytest.mark.skipif(machine.usable_cores() < 2, reason="two cells need two cores")


def first_free(count, free, taken):
    return tuple(sorted(free)[:count])


def site(threads=8, gpus=0):
    return Site("cuda" if gpus else "cpu", threads, lambda name: None, gpus)


def cell(name, *overrides, threads=1, device="cpu"):
    [config] = compose([f"device={device}", f"device.threads={threads}", *overrides])
    return Cell(name, config, {"checkpoint": "sha256:nano"})


def schedule(jobs, cores=4, gpus=(), free_bytes=1 << 50):
    return Schedule(jobs, Shares(range(cores), gpus, first_free), Memory(lambda: free_bytes))


def admitted(which, cells):
    """The seats of the cells that may start now, in order."""
    seats = []
    for item in cells:
        if seat := which.admit(item, [(other, 0) for other in seats]):
            seats.append(seat)
    return seats


def test_each_cell_has_cores_of_its_own_and_as_many_as_it_has_threads():
    seats = admitted(schedule(3), [cell("a"), cell("b", threads=2), cell("c"), cell("d")])
    assert [(seat.cell.id, seat.share.cores) for seat in seats] == [("a", (0,)), ("b", (1, 2)), ("c", (3,))]


def test_who_needs_more_cores_than_are_free_waits_and_others_pass():
    which = schedule(4)
    seats = admitted(which, [cell("a", threads=2), cell("b", threads=3), cell("c")])
    assert [seat.cell.id for seat in seats] == ["a", "c"]
    which.leave(seats[0])
    assert which.admit(cell("b", threads=3), [(seats[1], 0)]).share.cores == (0, 1, 3)


def test_what_is_timed_with_care_is_alone_before_and_after():
    careful, other = cell("careful", "protocol.interleave=true"), cell("other")
    assert [seat.cell.id for seat in admitted(schedule(2), [careful, other])] == ["careful"]
    assert admitted(schedule(2), [careful])[0].share is None  # as with jobs=1: it chooses its cores itself
    assert [seat.cell.id for seat in admitted(schedule(2), [other, careful])] == ["other"]


def test_one_job_is_in_turn_with_the_whole_machine():
    [seat] = admitted(schedule(1), [cell("a"), cell("b")])
    assert (seat.cell.id, seat.share) == ("a", None)


def test_one_cell_per_gpu_by_the_names_of_the_outside():
    cells = [cell(name, device="cuda") for name in "abc"]
    which = schedule("auto", cores=8, gpus=("2", "GPU-7f"))
    seats = admitted(which, [*cells, cell("on the cpu")])
    assert [(seat.cell.id, seat.share.gpu, seat.share.cores) for seat in seats] == [
        ("a", "2", (0,)), ("b", "GPU-7f", (1,)), ("on the cpu", None, (2,))]  # fmt: skip
    which.leave(seats[0])
    assert which.admit(cells[2], [(seat, 0) for seat in seats[1:]]).share.gpu == "2"


@pytest.mark.parametrize(
    ("outside", "count", "names"),
    [(None, 2, ("0", "1")), ("3,1", 2, ("3", "1")), ("GPU-a,GPU-b,9", 2, ("GPU-a", "GPU-b")), ("", 0, ())],
)
def test_gpus_are_named_as_cuda_visible_devices_does(monkeypatch, outside, count, names):
    monkeypatch.setattr(machine, "cuda_devices", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if outside is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", outside)
    assert machine.cuda_names() == names


@linux
def test_a_process_enters_its_share(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    before = os.sched_getaffinity(0)
    try:
        Share((max(before),), "1").enter()
        assert os.sched_getaffinity(0) == {max(before)}
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    finally:
        os.sched_setaffinity(0, before)


def test_halves_of_a_core_that_others_have_come_last(tmp_path):
    for core in range(4):
        put(
            tmp_path,
            **{f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list": "0-1" if core < 2 else "2-3"},
        )
    assert machine.choose_cores(2, [1, 2, 3], [0], tmp_path) == (2, 3)
    assert machine.choose_cores(3, [1, 2, 3], [0], tmp_path) == (1, 2, 3)


def test_a_cell_waits_for_memory_but_never_for_ever():
    one, two = cell("one"), cell("two")
    which = schedule(2, free_bytes=GB // 2)
    [seat] = admitted(which, [one, two])  # too little even for the first, which nobody can make room for
    assert seat.cell is one
    which.leave(seat)
    assert which.admit(two, []) is not None


def test_memory_that_others_will_still_take_is_kept_for_them():
    one, two = cell("one"), cell("two")
    memory = Memory(lambda: 3 * GB)
    needed = memory.needed_bytes(one)
    weights = models.shipped("nano") / "model.safetensors"  # in fp32
    assert needed - GB == pytest.approx(3 * weights.stat().st_size, rel=0.01)
    assert memory.has_room(two, [(one, needed)])
    assert not Memory(lambda: 2 * GB).has_room(two, [(one, 0)])
    memory.saw(one, 2 * GB)
    assert memory.needed_bytes(two) == 2 * GB  # of the same checkpoint
    assert memory.needed_bytes(replace(two, fingerprints={"checkpoint": "another"})) == needed
    assert not memory.has_room(two, [(one, 0)])


def test_the_limit_of_a_container_counts(tmp_path):
    group = "sys/fs/cgroup/a"
    put(tmp_path, **{"proc/self/cgroup": "0::/a/b", f"{group}/b/memory.max": "max", f"{group}/b/memory.current": "5"})
    put(tmp_path, **{f"{group}/memory.max": "1000", f"{group}/memory.current": "900"})
    put(tmp_path, **{f"{group}/memory.stat": "anon 600\ninactive_file 300"})
    assert available_bytes(tmp_path) == 400
    assert available_bytes(tmp_path / "nowhere") > 1000


@pytest.mark.parametrize(
    ("overrides", "threads"),
    [
        (["jobs=2"], 4), (["jobs=3"], 2), (["jobs=1"], 8), (["jobs=2", "device.threads=3"], 3),
        (["jobs=2", "protocol.interleave=true"], 8), (["jobs=auto"], 8),
    ],
)  # fmt: skip
def test_no_number_of_threads_means_the_cores_of_a_share(overrides, threads):
    [config] = compose(["device=cpu", *overrides])
    assert resolve(config, site(8)).device.threads == threads


def test_with_one_cell_a_gpu_the_cores_are_shared_by_as_many():
    [config] = compose(["device=cuda", "jobs=auto"])
    assert resolve(config, site(8, gpus=4)).device.threads == 2


def test_how_many_run_at_the_same_time_is_no_part_of_the_id_but_the_threads_are():
    def ids(*overrides):
        return [item.id for item in plan(compose(["device=cpu", *overrides]), site(8))]

    assert ids("jobs=2", "device.threads=1") == ids("jobs=1", "device.threads=1")
    assert ids("jobs=2") == ids("jobs=1", "device.threads=4") != ids("jobs=1")


@pytest.mark.parametrize(
    ("overrides", "where", "said"),
    [
        (["jobs=1,2"], site(), "jobs=1,2: one value for the whole grid"),
        (["jobs=9"], site(), "jobs=9: each cell has cores of its own, and this process may use 8 cores"),
        (["jobs=auto", "device=cpu"], site(), "jobs=auto: on cpu it divides the cores by device.threads"),
        (["jobs=2", "device=cuda"], site(gpus=1), "there is 1 GPU: set jobs=auto"),
        (["jobs=2", "protocol=careful"], site(), "jobs=2: a cell that is timed in turns with its baseline runs alone"),
    ],
)
def test_what_cannot_be_honoured_here_is_refused(overrides, where, said):
    with pytest.raises(ConfigError, match=said):
        check_jobs(compose(overrides), where)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["jobs=0"], "jobs=0: expected a whole number of cells"),
        (["jobs=many"], "jobs='many': expected a whole number of cells"),
        (["jobs=true"], "jobs=True: expected a whole number"),
        (["jobs=2", "isolate=false"], "jobs=2: isolate=false measures in this process"),
        (["jobs=2", "device.pin=false"], "jobs=2: each cell is pinned"),
        (["-m", "jobs=2", "hydra/launcher=slurm"], "jobs=2: a SLURM job measures its cells in turn"),
        (["-m", "jobs=auto", "hydra/launcher=slurm_cpu"], "jobs=auto: a SLURM job measures its cells in turn"),
    ],
)
def test_what_contradicts_it_is_refused_in_one_line(overrides, said):
    with pytest.raises(ConfigError, match=said) as refused:
        read(overrides)
    assert len(str(refused.value).splitlines()) == 1


def test_a_record_names_what_ran_at_the_same_time():
    result = synthetic.result("none")
    config = result.record.config | {"jobs": 2}
    result = result.model_copy(update={"record": result.record.model_copy(update={"config": config})})
    assert beside(result, set()) is result
    told = beside(result, {"b1", "a1"}).record.noise
    assert told.beside == ("a1", "b1")
    assert told.flags == ("other cells ran at the same time (jobs=2)",)
    failed = beside(finished(Failure("failed", "why"), cell("f"), 1.0), {"a1"}).record.noise
    assert (failed.beside, failed.flags) == (("a1",), ())  # it has no times to doubt


@pytest.mark.parametrize("terminal", [False, True])
def test_lines_of_cells_side_by_side_can_be_told_apart(terminal):
    out = io.StringIO()
    with Display(3, console(file=out, width=200, force_terminal=terminal)) as display:
        for label in ("one", "two"):
            display.begin(label)
            display.update(label, f"stage of {label}", 1, 4)
        display.end("two", synthetic.result("none", "two").record)
        display.put_off("one")
        display.begin("three")
        display.begin("one")
        for label in ("three", "one"):
            display.end(label, synthetic.result("none", label).record)
    text = out.getvalue()
    for number, label in enumerate(("one", "two", "three"), 1):
        assert f"{number}/3 ✓ {label}" in text.replace("\x1b[32m", "").replace("\x1b[0m", "")
    if terminal:  # both bars are drawn together
        assert "1/3 one · stage of one" in text.split("stage of two")[0]
        assert "2/3 two · stage of two" in text
    else:
        assert [line for line in text.splitlines() if "started" in line] == [
            "1/3   one started", "2/3   two started", "3/3   three started", "1/3   one started"]  # fmt: skip


SMALL = ("dataset.limit=3", "protocol=quick", "tracking=off", "device=cpu", "device.threads=1", "jobs=2")


def records(folder):
    return {record.cell_id: record for record in storage.read_all(folder)}


def by_library(folder):
    return {record.setting("quant.library"): record for record in storage.read_all(folder)}


def processes(root):
    """Processes of cells, which hold their log open: log → process."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            log = Path(os.readlink(f"/proc/{pid}/fd/1"))
        except OSError:
            continue
        if log.parent == root / "logs":
            found[log.stem] = int(pid)
    return found


def cores_of(pid):
    [line] = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Cpus_allowed_list")
    ]
    return line.split()[1]


@pytest.mark.minutes
@two_cores
def test_two_at_a_time_give_what_they_give_in_turn(quantlab):
    command = ("-m", "quant=none,torch_int8,hqq_int4", *SMALL)
    done = quantlab(*command)
    assert done.returncode == 0, done.stderr
    in_turn = quantlab(*command, "jobs=1", "output_dir=in_turn")
    assert in_turn.returncode == 0, in_turn.stderr
    both, one = records(quantlab.folder / "mlruns"), records(quantlab.folder / "in_turn")
    assert both.keys() == one.keys()
    for id, record in both.items():
        assert record.splits["other"].wer == one[id].splits["other"].wer
        assert storage.read_utterances(quantlab.folder / "mlruns", id) == storage.read_utterances(
            quantlab.folder / "in_turn", id
        )
        assert len(record.environment["affinity"]) == record.environment["threads"] == 1
        assert record.noise.beside, "three cells on two cores: each had company"
        assert all(id in both[other].noise.beside for other in record.noise.beside)
        assert not one[id].noise.beside
    rows = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("nano")]
    assert rows == ["none", "torch_int8", "hqq_int4"]
    assert "other cells ran at the same time (jobs=2)" in done.stdout
    assert quantlab("--root", "mlruns", module="quantlab.verify").returncode == 0
    assert quantlab(*command).stderr.count("recorded before") == 3


@pytest.mark.minutes
@two_cores
def test_a_killed_cell_harms_none_beside_it(quantlab):
    root = quantlab.folder / "mlruns"
    process = quantlab.start("-m", "quant=torch_int8", "quant.library=hang,raise,torch", *SMALL)
    hanging = wait_until(lambda: found if len(found := processes(root)) == 2 else None)
    allowed = [cores_of(pid) for pid in hanging.values()]
    assert len(set(allowed)) == 2, allowed
    assert all(core.isdigit() for core in allowed), "one core each"
    good = wait_until(lambda: by_library(root).get("torch"))
    [pid] = processes(root).values()  # the hanging one, for which nobody waited
    os.kill(pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 1
    found = by_library(root)
    assert {name: record.status for name, record in found.items()} == {
        "hang": "failed",
        "raise": "failed",
        "torch": "ok",
    }
    assert "SIGKILL" in found["hang"].reason
    assert found["torch"] == good
    assert set(found["hang"].noise.beside) == {found["raise"].cell_id, found["torch"].cell_id}
    assert "3/3 ✓" in output, "it keeps the number with which it began"


@pytest.mark.minutes
@two_cores
def test_one_that_takes_too_long_ends_alone(quantlab):
    done = quantlab("-m", "quant=torch_int8", "quant.library=hang,torch", "timeout_s=60", *SMALL)
    assert done.returncode == 1
    assert {name: item.status for name, item in by_library(quantlab.folder / "mlruns").items()} == {
        "hang": "timeout", "torch": "ok"}  # fmt: skip


@pytest.mark.minutes
@two_cores
def test_out_of_memory_beside_others_is_tried_alone(quantlab):
    done = quantlab("-m", "quant=torch_int8", "quant.library=memory,torch", *SMALL)
    assert done.stderr.count("ran out of memory beside other cells") == 1
    found = by_library(quantlab.folder / "mlruns")
    assert {name: item.status for name, item in found.items()} == {"memory": "oom", "torch": "ok"}
    assert found["memory"].noise is None, "it was alone the second time"


@pytest.mark.minutes
@two_cores
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interruption_ends_all_and_the_same_command_goes_on(quantlab, stop):
    root = quantlab.folder / "mlruns"
    process = quantlab.start("-m", "quant=torch_int8", "quant.library=hang", "quant.target=encoder,decoder", *SMALL)
    wait_until(lambda: len(processes(root)) == 2)
    process.send_signal(stop)
    output, _ = process.communicate(timeout=30)
    wait_until(lambda: not processes(root))
    assert list(storage.read_all(root)) == []
    if stop is signal.SIGINT:
        assert process.returncode == 130
        assert "0 of 2 cells recorded" in output
    assert len(list((root / "claims").glob("*.json"))) == 2, "status tells of both"
    again = quantlab(
        "-m", "quant=torch_int8", "quant.library=hang", "quant.target=encoder,decoder", *SMALL, "timeout_s=5"
    )
    assert again.returncode == 1
    assert [record.status for record in storage.read_all(root)] == ["timeout", "timeout"]


@pytest.mark.minutes
@two_cores
def test_what_is_timed_in_turns_runs_alone(quantlab):
    """The claims tell who is being measured: while a careful cell is, nobody else."""
    root = quantlab.folder / "mlruns"
    command = ("-m", "quant=none,torch_int8", "protocol.interleave=true,false", "protocol.budget_s=2", *SMALL)
    listed = quantlab(*command, "--dry-run").stdout
    process = quantlab.start(*command)
    seen = set()

    def ended():
        seen.add(frozenset(path.stem for path in (root / "claims").glob("*.json")))
        return process.poll() is not None

    wait_until(ended, at_most_s=250, every_s=0.02)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    found = records(root)
    careful = {id for id, record in found.items() if record.setting("protocol.interleave")}
    assert len(careful) == 2, listed
    assert all(together == {id} for id in careful for together in seen if id in together)
    assert all((record.noise.beside == ()) == (id in careful) for id, record in found.items())
    assert frozenset(found.keys() - careful) in seen


def test_the_keys_of_a_record_reproduce_the_cell(tmp_path):
    from quantlab.config.overrides import command

    [config] = compose(["device=cpu", "jobs=2", "device.threads=1"])
    assert "jobs" not in command(json.loads(config.model_dump_json()), "mlruns")
