"""What a grid on a cluster does without one: settings, batches, what a job finds, and where everything is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import synthetic
from quantlab.cli.run import main
from quantlab.cli.status import main as status
from quantlab.config.compose import compose, read
from quantlab.config.launcher import LauncherConfig
from quantlab.grid.claims import claimed
from quantlab.grid.plan import plan
from quantlab.grid.slurm import batch as batches
from quantlab.grid.slurm import options, slurm
from quantlab.grid.slurm.array import one_script
from quantlab.grid.slurm.batch import Planned
from quantlab.grid.slurm.group import tasks
from quantlab.grid.slurm.job import Task
from quantlab.grid.slurm.script import text
from quantlab.grid.status.collect import collect
from quantlab.records import storage
from quantlab.util import machine
from quantlab.util.errors import ConfigError

CPU = LauncherConfig(cpus_per_task=3)
GPU = LauncherConfig(gpus_per_node=1, gpu_type="gpu:a100", cpus_per_task=3)


def planned(*arguments, launcher=CPU):
    cells = plan(compose(["dataset.limit=1", *arguments]), options.site(launcher))
    return [Planned.of(cell, None) for cell in cells]


def submitted(root, cells, launcher=CPU):
    batch = batches.new("sweep", launcher, cells, [[cell.id for cell in cells]])
    batches.write(root, batch)
    return batch


@pytest.fixture(autouse=True)
def hub_stays_as_it_is(monkeypatch):
    """A task makes its process offline, unless the environment says otherwise; the other tests run in this one."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


@pytest.fixture
def no_slurm(monkeypatch, tmp_path):
    """A node that has none of SLURM's commands."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["hydra/launcher=slrm"], "hydra/launcher=slrm: no such hydra/launcher; did you mean 'slurm"),
        (["hydra/launcher=slurm", "hydra.launcher.partiton=x"], "did you mean 'hydra.launcher.partition'?"),
        (["-m", "hydra/launcher=slurm", "hydra.launcher.partiton=x"], "did you mean 'hydra.launcher.partition'?"),
        (["-m", "hydra/launcher=slurm", "+hydra.launcher.gpu=1"], "hydra.launcher.gpu: no such key; did you mean"),
        (["hydra.launcher.partition=x"], "no such key of this launcher: add hydra/launcher=slurm"),
        (["hydra/launcher=slurm", "hydra.launcher.timeout_min=-5"], "timeout_min=-5: input should be greater than 0"),
        (["hydra/launcher=slurm", "hydra.launcher.mem_gb=-1"], "mem_gb=-1: input should be greater than 0"),
        (["hydra/launcher=slurm", "hydra.launcher.gpus_per_node=-1"], "input should be greater than or equal to 0"),
        (["hydra/launcher=slurm", "hydra.launcher.cells_per_job=0"], "cells_per_job=0: input should be greater than 0"),
        (["hydra/launcher=slurm", "hydra.launcher.wait=maybe"], "wait='maybe': expected true or false"),
        (["hydra/launcher=slurm", "hydra.launcher.setup=module"], "setup='module': expected a list"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert len(message.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_sbatch_it_says_where_to_go(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["-m", "hydra/launcher=slurm", "quant=none,torch_int8"]) == 2
    assert "no sbatch on this machine; run the command on a login node" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "gpus"), [("slurm", 1), ("slurm_cpu", 0)])
@pytest.mark.parametrize("sweep", [(), ("-m",)])
def test_presets(name, gpus, sweep):
    launcher = read([*sweep, f"hydra/launcher={name}", "hydra.launcher.setup=[module load cuda, x]"]).launcher
    assert launcher is not None
    assert launcher.gpus_per_node == gpus
    assert launcher.setup == ("module load cuda", "x")
    assert launcher.wait is True
    assert read(["quant=none"]).launcher is None


def test_every_key_has_its_comment(capsys):
    yaml = (Path(__file__).parents[1] / "conf/hydra/launcher/slurm.yaml").read_text()
    for key in LauncherConfig.model_fields:
        [line] = [line for line in yaml.splitlines() if line.startswith(f"{key}:")]
        assert "#" in line
    assert main(["-m", "hydra/launcher=slurm", "--cfg", "hydra"]) == 0
    shown = capsys.readouterr().out
    assert all(f"    {key}:" in shown for key in LauncherConfig.model_fields)


def test_a_cell_is_resolved_for_the_job_and_not_for_the_node_that_submits():
    [on_gpu] = plan(compose(["device=auto"]), options.site(GPU))
    assert (on_gpu.config.device.name, on_gpu.config.device.threads, on_gpu.refusal) == ("cuda", 3, None)
    [on_cpu] = plan(compose(["device=auto"]), options.site(CPU))
    assert (on_cpu.config.device.name, on_cpu.config.device.threads) == ("cpu", 3)
    [named] = plan(compose(["device=cuda", "device.threads=5"]), options.site(GPU))
    assert (named.config.device.threads, named.refusal) == (5, None)
    [without] = plan(compose(["device=cuda"]), options.site(CPU))
    assert without.refusal.status == "failed", "another launcher has the device, so nothing is settled"
    assert "gpus_per_node=1" in without.refusal.reason
    [never] = plan(compose(["device=cuda", "quant=torch_int8"]), options.site(GPU))
    assert never.refusal.status == "unsupported"


def test_cells_of_a_checkpoint_share_a_job():
    def cell(id, checkpoint, corpus):
        marks = {"checkpoint": checkpoint, "corpus": corpus}
        return Planned(id=id, label=id, config={}, fingerprints=marks, versions={})

    cells = [cell("1", "a", "x"), cell("2", "b", "x"), cell("3", "a", "y"), cell("4", "a", "x"), cell("5", "b", "y")]
    assert tasks(cells, 1) == [["1"], ["4"], ["3"], ["2"], ["5"]]
    assert tasks(cells, 2) == [["1", "4"], ["3"], ["2", "5"]]
    assert tasks(cells, 9) == [["1", "4", "3"], ["2", "5"]]


def test_options_of_sbatch():
    launcher = LauncherConfig(
        partition="gpu,short", gpus_per_node=2, gpu_type="gpu:a100", mem_gb=1.5, additional_parameters={"mem": "9G"}
    )
    found = options.sbatch_options(launcher, "name")
    assert found["partition"] == "gpu,short"
    assert found["gpus-per-node"] == "a100:2"
    assert found["mem"] == "9G", "additional_parameters win"
    assert "account" not in found
    assert options.sbatch_options(LauncherConfig(mem_gb=1.5), "name")["mem"] == "1536M"
    with pytest.raises(ConfigError, match="array: set by quantlab"):
        options.sbatch_options(LauncherConfig(additional_parameters={"array": "0-3"}), "name")


@pytest.mark.parametrize("timeout_min", [1, 2, 5, 15, 60, 2880])
def test_a_job_is_told_of_its_limit_in_time_and_not_at_once(timeout_min):
    delay_s = options.signal_delay_s(timeout_min)
    assert 10 <= delay_s <= 90
    assert delay_s <= 60 * timeout_min / 5


def test_a_script_that_no_array_holds_names_the_way_out(tmp_path, no_slurm):
    cells = [Planned(id=str(n), label="x", config={}, fingerprints={}, versions={}) for n in range(2500)]
    batch = batches.new("sweep", CPU, cells, tasks(cells, 1))
    with pytest.raises(ConfigError, match=r"2500 jobs, and an array holds 1000: set .*cells_per_job=3"):
        one_script(tmp_path, batch)


def test_a_script_starts_at_the_first_of_its_tasks(tmp_path):
    cells = [Planned(id=str(n), label="x", config={}, fingerprints={}, versions={}) for n in range(7)]
    script = text(tmp_path, batches.new("sweep", CPU, cells, tasks(cells, 2)), range(2, 4))
    assert "#SBATCH --array=0-1%2\n" in script
    assert script.splitlines()[1].startswith("# 3 cells of quantlab")
    shell = script.replace("exec ", "echo ")
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "1"}
    done = subprocess.run(["bash"], input=shell, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("--task 3")


def test_a_batch_comes_back_as_it_was_written(tmp_path):
    batch = submitted(tmp_path, planned("quant=hqq_int4", "quant.skip=['*.fc1','*.fc2']", "dataset.splits=[clean]"))
    again = batches.read(tmp_path, batch.id)
    assert again == batch
    [config] = [cell.run_config() for cell in again.cells]
    assert config.quant.skip == ("*.fc1", "*.fc2")
    (tmp_path / "jobs" / batch.id / "batch.json").write_text('{"id": 3}')
    with pytest.raises(ValueError, match="is not a batch of this quantlab"):
        batches.read(tmp_path, batch.id)
    assert list(batches.read_all(tmp_path)) == []


def run_task(root, batch):
    assert Task(str(root), batch.id, 0).run() == len(batch.cells)
    return [storage.read(root, cell.id) for cell in batch.cells]


def test_other_versions_in_the_job_are_a_failure_that_names_them(tmp_path):
    [cell] = planned("quant=none")
    older = cell.model_copy(update={"id": "0" * 16, "versions": cell.versions | {"torch": "1.0"}})
    [record] = run_task(tmp_path, submitted(tmp_path, [older]))
    assert record.status == "failed"
    assert f"version of torch: 1.0 at submission, {cell.versions['torch']} here" in record.reason


def test_another_file_in_the_job_is_a_failure_that_names_it(tmp_path):
    [cell] = planned("quant=none")
    changed = cell.model_copy(update={"id": "0" * 16, "fingerprints": cell.fingerprints | {"corpus": "sha256:0"}})
    [record] = run_task(tmp_path, submitted(tmp_path, [changed]))
    assert record.status == "failed"
    assert "content of the corpus: sha256:0 at submission" in record.reason


@pytest.mark.skipif(machine.cuda_devices() > 0, reason="there is a GPU here")
def test_a_node_without_the_device_settles_nothing(tmp_path):
    cells = planned("quant=none", "device=cuda", launcher=GPU)
    [record] = run_task(tmp_path, submitted(tmp_path, cells, GPU))
    assert record.status == "failed"
    assert "ask for one: hydra/launcher=slurm" in record.reason


def test_what_the_limit_ended_becomes_a_row_and_is_not_tried_again(tmp_path):
    batch = submitted(tmp_path, planned("quant=none"))
    note = {"reason": "not done within the time limit of its job, 1:00", "job": "7_0"}
    batches.write_json(batches.folder(tmp_path, batch.id) / "interrupted" / f"{batch.cells[0].id}.json", note)
    [record] = run_task(tmp_path, batch)
    assert (record.status, record.reason) == ("timeout", note["reason"])
    assert Task(str(tmp_path), batch.id, 0).run() == 0, "a second start repeats it"


def test_an_unknown_task_is_no_traceback(tmp_path, capsys):
    from quantlab.cli.work import main as work

    assert work(["--root", str(tmp_path), "--batch", "none", "--task", "0"]) == 2
    assert "no batch 'none'" in capsys.readouterr().err


def test_status_tells_of_records_claims_and_batches(tmp_path, capsys, no_slurm):
    assert status(["--root", str(tmp_path)]) == 1
    cells = planned("quant=hqq_int4")
    batch = submitted(tmp_path, cells)
    [line] = collect(tmp_path)
    assert (line.state, line.label, line.job) == ("not submitted", "nano-hqq_int4-cpu", None)
    batches.write_json(batches.folder(tmp_path, batch.id) / "submitted.json", {"jobs": ["12"]})
    [line] = collect(tmp_path)
    assert (line.state, line.job, line.detail) == ("pending", "12", "SLURM cannot be queried from here")
    with claimed(tmp_path, cells[0].id, "nano-hqq_int4-cpu"), claimed(tmp_path, "f" * 16, "small-none-cpu"):
        lines = collect(tmp_path)
        assert [line.state for line in lines] == ["running", "running"]
        assert [line.label for line in lines] == ["nano-hqq_int4-cpu", "small-none-cpu"]
        assert all(line.host for line in lines)
    capsys.readouterr()
    assert status(["--root", str(tmp_path), "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["counts"] == {"pending": 1}


def test_status_of_1000_records_imports_no_large_library(tmp_path):
    record = synthetic.result("hqq_int4").record
    for number in range(1000):
        folder = storage.cells_dir(tmp_path) / f"{number:016x}"
        folder.mkdir(parents=True)
        own = record.model_copy(update={"cell_id": folder.name})
        (folder / "record.json").write_text(own.model_dump_json(indent=1) + "\n")
    command = [sys.executable, "-X", "importtime", "-m", "quantlab.status", "--root", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("1,000 cells: 1,000 ok\n")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "mlflow", "transformers", "hydra"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0:07", 7), ("1:00", 60), ("2:03:04", 7384), ("1-02:03:04", 93784), ("INVALID", None), ("", None)],
)
def test_times_of_squeue(text, seconds):
    assert slurm._seconds(text) == seconds


def test_offline_a_missing_model_says_how_to_fetch_it(tmp_path):
    program = (
        "from quantlab import models; from quantlab.config.compose import compose; "
        "models.locate(compose(['model=tiny'])[0].model)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "openai/whisper-tiny" in done.stderr
    assert "quantlab fetch model=tiny …" in done.stderr
