"""Grids as jobs of a real SLURM: submitted, stopped in every way it has, and looked at meanwhile."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from helpers.waiting import wait_until
from quantlab.grid.claims import owner as owner_of
from quantlab.grid.slurm import slurm as ask

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1200), pytest.mark.minutes]

ROOT = Path(__file__).resolve().parents[2]
ON = (
    *("hydra/launcher=slurm_cpu", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2"),
    "hydra.launcher.timeout_min=30",
)
TINY = ("model=nano", "dataset.limit=1", "dataset.splits=[clean]", "protocol=quick")
SMALL = (*TINY, "tracking=off")
GO_HOME = "hydra.launcher.wait=false"


def states(lines):
    return {label: line["state"] for label, line in lines.items()}


def test_an_array_from_start_to_end(slurm):
    command = ("-m", *ON, "quant=none,torch_int8", *SMALL)
    done = slurm.run(*command)
    assert done.returncode == 0, done.stderr
    assert "submitted 2 cells in 2 jobs of SLURM" in done.stderr
    assert len(re.findall(r"[12]/2 ✓ nano-", done.stderr)) == 2, "no line for each cell as it came"
    assert "torch_int8" in done.stdout, "no table"
    lines, code = slurm.status()
    assert code == 0
    assert states(lines) == {"nano-none-cpu": "ok", "nano-torch_int8-cpu": "ok"}
    assert [re.fullmatch(r"\d+_[01]", line["job"]) is not None for line in lines.values()] == [True, True]
    assert all((slurm.folder / line["log"]).read_text() for line in lines.values())
    assert {record["config"]["device"]["threads"] for record in slurm.records().values()} == {1}
    again = slurm.run(*command)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("recorded before") == 2
    assert "submitted" not in again.stderr


def test_what_runs_is_what_was_composed(slurm, monkeypatch):
    """A checkout of the user's own, whose YAML is edited between submission and start."""
    checkout = slurm.folder / "checkout"
    for part in ("quantlab", "conf", "experiments", "hydra_plugins"):
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(checkout), os.environ["PYTHONPATH"]]))
    held_back = "hydra.launcher.additional_parameters={hold: true}"
    done = slurm.run(*ON, "quant=hqq_int8", GO_HOME, held_back, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "quantlab status --root mlruns" in done.stderr
    lines, code = slurm.status()
    assert (states(lines), code) == ({"nano-hqq_int8-cpu": "pending"}, 1)
    assert lines["nano-hqq_int8-cpu"]["detail"] == "JobHeldUser"
    twice = slurm.run(*ON, "quant=hqq_int8", GO_HOME, held_back, *SMALL)
    assert "not submitted again, as in jobs of an earlier command: 1 cell" in twice.stderr

    yaml = checkout / "conf" / "quant" / "hqq_int8.yaml"
    was = int(re.search(r"^group_size: (\d+)", yaml.read_text(), re.MULTILINE)[1])
    yaml.write_text(re.sub(r"^group_size: \d+", f"group_size: {was // 2}", yaml.read_text(), flags=re.MULTILINE))
    slurm.sh("scontrol", "release", lines["nano-hqq_int8-cpu"]["job"])
    slurm.until("ok", lambda now: states(now) == {"nano-hqq_int8-cpu": "ok"})
    [record] = slurm.records().values()
    assert record["config"]["quant"]["group_size"] == was


def test_stopped_again_and_again_each_cell_is_measured_once(slurm):
    """A requeue, a preemption and a node that fails, each while the second of two cells is in flight."""
    slurm.hold.touch()
    command = ("-m", *ON, "hydra.launcher.cells_per_job=2", "quant=torch_int8", "quant.library=torch,held", *SMALL)
    done = slurm.run(*command, "seed=7", GO_HOME)
    assert done.returncode == 0, done.stderr
    assert "in 1 job of SLURM" in done.stderr
    [batch] = (slurm.root / "jobs").glob("*/batch.json")
    first, second = json.loads(batch.read_text())["tasks"][0]
    started = batch.parent / "started" / "0.json"

    def in_flight(starts):
        def holds():
            return started.exists() and json.loads(started.read_text())["starts"] == starts and owner(slurm, second)

        wait_for(f"the second cell in flight, start {starts}", holds, slurm)

    in_flight(1)
    before = (slurm.root / "cells" / first / "record.json").stat().st_mtime_ns
    job = json.loads(started.read_text())["job"]
    slurm.sh("scontrol", "requeue", job)
    in_flight(2)
    slurm.sh("sbatch", "--partition=high", "--cpus-per-task=2", "--output=/dev/null", "--wrap=sleep 2")
    in_flight(3)
    node = slurm.sh("sinfo", "--noheader", "--format=%n").split()[0]
    slurm.sh("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    # a node that comes back with the job still on it is drained, and the job is held
    wait_for("the job is off the node", lambda: not steps(job.partition("_")[0]), slurm)
    slurm.sh("scontrol", "update", f"nodename={node}", "state=resume")
    in_flight(4)
    slurm.hold.unlink()
    wait_for("both recorded", lambda: (slurm.root / "cells" / second / "record.json").exists(), slurm)
    assert (slurm.root / "cells" / first / "record.json").stat().st_mtime_ns == before, "a finished cell was repeated"
    assert [json.loads(path.read_text())["status"] for path in slurm.root.glob("cells/[!.]*/record.json")] == ["ok"] * 2


def test_after_scancel_the_same_command_does_the_rest(slurm):
    slurm.hold.touch()
    command = ("-m", *ON, "hydra.launcher.cells_per_job=3", "quant=torch_int8", "quant.library=torch,held", *SMALL)
    assert slurm.run(*command, GO_HOME).returncode == 0
    [batch] = (slurm.root / "jobs").glob("*/batch.json")
    first, second = json.loads(batch.read_text())["tasks"][0]
    wait_for("the second cell is held", lambda: collect(slurm)[-1]["detail"] == "quantize", slurm)
    running = collect(slurm)[-1]
    assert (running["cell_id"], running["state"]) == (second, "running")
    assert running["host"]
    slurm.sh("scancel", running["job"])
    wait_for("lost", lambda: [line["state"] for line in collect(slurm)] == ["ok", "lost"], slurm)
    assert "CANCELLED" in collect(slurm)[1]["detail"]
    slurm.hold.unlink()
    before = (slurm.root / "cells" / first / "record.json").stat().st_mtime_ns
    done = slurm.run(*command)
    assert done.returncode == 0, done.stderr
    assert "submitted 1 cell in 1 job of SLURM" in done.stderr
    assert [line["state"] for line in collect(slurm)] == ["ok", "ok"]
    assert (slurm.root / "cells" / first / "record.json").stat().st_mtime_ns == before


def test_the_printed_script_is_all_that_sbatch_needs(slurm):
    arguments = ("-m", *ON, "hydra.launcher.cells_per_job=2", 'hydra.launcher.setup=["export SET_UP=done"]')
    printed = slurm.run(*arguments, "quant=none,torch_int8", *SMALL, module="quantlab.sbatch")
    assert printed.returncode == 0, printed.stderr
    lines, code = slurm.status()
    assert set(states(lines).values()) == {"not submitted"}
    assert code == 1
    script = slurm.folder / "job.sh"
    script.write_text(printed.stdout)
    subprocess.run(["bash", "-n", script], check=True)
    assert "\nexport SET_UP=done\n" in printed.stdout
    slurm.sh("sbatch", str(script))
    queued, _ = slurm.status()
    assert set(states(queued).values()) <= {"pending", "running"}
    lines = slurm.until("ok", lambda now: set(states(now).values()) == {"ok"})
    assert all(re.fullmatch(r"\d+_0", line["job"]) for line in lines.values())
    nothing = slurm.run(*arguments, "quant=none,torch_int8", *SMALL, module="quantlab.sbatch")
    assert (nothing.returncode, nothing.stdout) == (0, "")


def test_ctrl_c_leaves_the_jobs(slurm):
    slurm.hold.touch()
    process = slurm.run.start(*ON, "quant=torch_int8", "quant.library=held", *SMALL)
    wait_for("submitted", lambda: list(slurm.root.glob("jobs/*/submitted.json")), slurm)
    time.sleep(1)  # the line that says so
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "submitted jobs continue" in output
    slurm.hold.unlink()
    wait_for("ok", lambda: [line["state"] for line in collect(slurm)] == ["ok"], slurm)


def test_what_sbatch_refuses_is_one_line_and_leaves_nothing(slurm):
    done = slurm.run(*ON, "hydra.launcher.partition=nowhere", *SMALL)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "nvalid partition" in done.stderr
    assert list(slurm.root.glob("jobs/[!.]*")) == []


def test_what_slurm_has_forgotten_is_no_error(slurm):
    """This cluster keeps no accounting, as many do not; squeue calls a job that is gone an error."""
    assert ask.queue(["99999"]) == {}
    assert ask.queue(["99999", "99998"], ["no-such-name"]) == {}
    assert ask.history(["99999"]) == {}
    assert ask.max_array_size() == 2


def submitted(slurm):
    """The SLURM jobs of the only batch so far: the file is written again after each array."""
    return [job for path in slurm.root.glob("jobs/*/submitted.json") for job in json.loads(path.read_text())["jobs"]]


def test_24_cells_with_one_job_cancelled_and_one_timed_out(slurm, postgres, server, credentials):
    """Held cells hang: one job of them is cancelled, the other one runs into its limit. Resumed, all are good.

    Meanwhile the database of the shared MLflow is stopped for a minute.
    """
    slurm.hold.touch()
    tracked = ("tracking=server", f"tracking.uri={server.uri}", "tracking.experiment=slurm")
    seeds = "seed=" + ",".join(map(str, range(12)))
    command = ("-m", *ON, "hydra.launcher.cells_per_job=6")
    command += ("quant=torch_int8", "quant.library=torch,held", seeds, *TINY, *tracked)
    process = slurm.run.start(*command)
    wait_for("both arrays are submitted", lambda: len(submitted(slurm)) == 4, slurm)
    [batch] = (slurm.root / "jobs").glob("*/batch.json")
    tasks, jobs = json.loads(batch.read_text())["tasks"], submitted(slurm)
    assert [len(task) for task in tasks] == [6, 6, 6, 6]
    assert [job.partition("_")[2] for job in jobs] == ["0", "1", "0", "1"], "two arrays, as one holds two jobs here"

    wait_for("the first cell is recorded", lambda: list(slurm.root.glob("cells/[!.]*/record.json")), slurm)
    postgres.stop()
    stopped_s = time.monotonic()
    wait_for("the third job hangs", lambda: owner(slurm, tasks[2][0]), slurm)
    slurm.sh("scancel", jobs[2])
    wait_for("the fourth job hangs", lambda: owner(slurm, tasks[3][0]), slurm)
    minutes = int(slurm.sh("squeue", "--noheader", "--format=%M", f"--jobs={jobs[3]}").split(":")[0]) + 2
    slurm.sh("scontrol", "update", f"jobid={jobs[3]}", f"timelimit={minutes}")
    wait_for("the database was away for a minute", lambda: time.monotonic() - stopped_s > 60, slurm)
    postgres.start()
    wait_for("the fourth job is at its limit", lambda: list(batch.parent.glob("interrupted/*.json")), slurm)
    slurm.hold.unlink()
    slurm.sh("scontrol", "update", f"jobid={jobs[3]}", "timelimit=30")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 1, output
    found = records(slurm)
    assert [found[id]["status"] for id in tasks[0] + tasks[1]] == ["ok"] * 12
    assert {found[id]["status"] for id in tasks[2]} == {"failed"}
    assert all(f"SLURM job {jobs[2]} ended (CANCELLED" in found[id]["reason"] for id in tasks[2])
    late = found[tasks[3][0]]
    assert late["status"] == "timeout"
    assert f"not done within the time limit of its job, {minutes}:00" in late["reason"]
    assert jobs[3] in late["reason"]
    assert [found[id]["status"] for id in tasks[3][1:]] == ["ok"] * 5, "the rest of the job did not go on"

    good = {id: record["created_at"] for id, record in found.items() if record["status"] == "ok"}
    done = slurm.run(*command, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "submitted 7 cells" in done.stderr
    assert done.stderr.count("recorded before") == 17
    found = records(slurm)
    assert [record["status"] for record in found.values()] == ["ok"] * 24
    assert all(found[id]["created_at"] == when for id, when in good.items()), "a finished cell was repeated"
    assert sorted(in_mlflow(server.uri, "slurm")) == sorted((id, "FINISHED") for id in found)


def records(slurm):
    return {path.parent.name: json.loads(path.read_text()) for path in slurm.root.glob("cells/[!.]*/record.json")}


def in_mlflow(uri, experiment):
    """Cell and state of every run that shows a cell."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    place = [client.get_experiment_by_name(experiment).experiment_id]
    runs = client.search_runs(place, "tags.`quantlab.kind` = 'cell'", max_results=1000)
    return [(run.data.tags["quantlab.cell_id"], run.info.status) for run in runs]


def collect(slurm):
    done = slurm.run("--root", "mlruns", "--format", "json", module="quantlab.status")
    return json.loads(done.stdout)["cells"]


def owner(slurm, cell_id):
    """Whether a cell is being measured, by the library's own means."""
    return owner_of(slurm.root, cell_id)


def steps(job):
    """What SLURM runs of a job on this machine."""
    found = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in found if line.startswith(f"slurmstepd: [{job}.")]


def wait_for(what, condition, slurm, timeout_s=600):
    wait_until(condition, timeout_s, lambda: f"{what}\n{collect(slurm)}\n{slurm.told()}", every_s=0.5)
