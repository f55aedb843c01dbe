import ast
import json
import math
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

import quantlab
from helpers import forked
from helpers.compared import careful_grid
from helpers.synthetic import bad_result, grid, result, split_result
from quantlab import tracking
from quantlab.config.schema import TrackingConfig
from quantlab.records import storage
from quantlab.records.schema import CellResult, FixedWork, Noise, Speed, Stages
from quantlab.report import plots
from quantlab.tracking import runs
from quantlab.tracking.summary import note_sweep

LOCAL = TrackingConfig()
SWEEP = "sweep1"
# Names that stores of earlier versions hold: a run is found by them again, so they never change.
OWN_TAGS = {f"quantlab.{name}" for name in "kind cell_id record root created_at writer sweep content".split()}


def prepare(root):
    """Set up the store, as a grid does before its first cell."""
    return tracking.sync(root, LOCAL, no_table, cells=[], sweeps=[])


def no_table(cell_ids):
    return "table", {}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One store for the whole file, set up in a thread while this one imports, as the grid does."""
    folder = tmp_path_factory.mktemp("runs")
    thread = threading.Thread(target=prepare, args=(folder,))
    thread.start()
    import pandas  # noqa: F401
    import transformers  # noqa: F401

    thread.join(120)
    assert (folder / "mlflow.db").exists()
    return folder


@pytest.fixture(scope="module")
def client(root):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")


def _log(root, written: CellResult) -> str:
    """The id of a record's run, logged as a grid does after a cell."""
    cell_id = written.record.cell_id
    storage.write(root, written)
    note_sweep(root, f"{SWEEP}-{cell_id}", [cell_id])
    sync(root, cell_id)
    [run] = runs_of(root, cell_id)
    return run.info.run_id


def sync(root, *cell_ids, draw=no_table, sweeps=()):
    """What a grid does after a cell, or at its end."""
    found = tracking.sync(root, LOCAL, draw, list(cell_ids), sweeps, limit_s=math.inf)
    assert found.problems == ()
    return found


def runs_of(root, cell_id, view=1):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store_uri(root))
    return client.search_runs(["1"], f"tags.`quantlab.cell_id` = '{cell_id}'", view)


def store_uri(root):
    return "sqlite:///" + str(root / "mlflow.db").replace("%", "%25").replace("?", "%3F")


def test_a_record_reads_back_from_mlflow(root, client):
    written = result("hqq_int4", "full", quant__skip=["*.k_proj", "*.v_proj"]).record
    run = client.get_run(_log(root, result("hqq_int4", "full", quant__skip=["*.k_proj", "*.v_proj"])))
    assert run.info.run_name == "nano-hqq_int4-cpu (quant.format=int4, quant.skip=*.k_proj,*.v_proj)"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == round(1000 * written.stages.total_s)
    clean = written.splits["clean"]
    expected = {
        "quality/wer_clean": clean.wer,
        "quality/cer_clean": clean.cer,
        "quality/wer_other": written.splits["other"].wer,
        "speed/rtf_clean": clean.rtf,
        "speed/tokens_per_s_clean": clean.tokens_per_s,
        "speed/latency_p50_s_clean": clean.latency_p50_s,
        "size/bytes": written.receipt.size_bytes,
        "size/reduction": written.size_reduction,
        "memory/peak_bytes": written.peak_memory_bytes,
        "time/load_s": written.stages.load_s,
        "time/total_s": written.stages.total_s,
    }
    assert {name: run.data.metrics[name] for name in expected} == pytest.approx(expected)
    params = {
        "model": "nano", "quant": "hqq_int4", "device": "cpu", "runtime": "eager", "dataset": "demo",
        "protocol": "paper", "seed": "0", "weights": "pretrained", "library": "hqq", "bits": "4", "format": "int4",
        "scheme": "weight-only",
        "group_size": "64", "target": "all", "skip": "*.k_proj,*.v_proj", "head": "False", "threads": "2",
        "batch_size": "16",
    }  # fmt: skip
    assert params.items() <= run.data.params.items()
    tags = {
        "status": "ok", "verified": "true", "quantlab.cell_id": "full", "quantlab.sweep": f"{SWEEP}-full",
        "quantlab.kind": "cell", "version.torch": "2.15.0", "processor": "a processor",
    }  # fmt: skip
    assert tags.items() <= run.data.tags.items()
    assert OWN_TAGS - {"quantlab.content"} <= run.data.tags.keys()
    assert {tag for tag in run.data.tags if tag.startswith("quantlab.")} <= OWN_TAGS


def test_figures_that_do_not_exist_are_absent(root, client):
    plain = client.get_run(_log(root, result("none", "plain")))
    assert "time/calibrate_s" not in plain.data.metrics
    assert "memory/peak_reserved_bytes" not in plain.data.metrics
    assert not [name for name in plain.data.metrics if "p90" in name or "p99" in name]
    assert not {"bits", "group_size", "format", "skip", "calibration_source"} & set(plain.data.params)
    failed = client.get_run(_log(root, bad_result("failed", "no", cell_id="nothing")))
    assert failed.data.metrics == {}
    random = result("none", "random").record
    splits = {name: split_result(None, 0.0121) for name in random.splits}
    run = client.get_run(_log(root, CellResult(record=random.model_copy(update={"splits": splits}))))
    assert "quality/wer_clean" not in run.data.metrics
    assert "speed/rtf_clean" in run.data.metrics


def test_figures_are_rounded_to_be_read_and_bytes_are_exact(root, client):
    written = result("none", "digits").record
    counts = {"substitutions": 25, "hits": 4, "ref_words": 29, "wer": 25 / 29}
    splits = {"clean": written.splits["clean"].model_copy(update=counts)}
    written = written.model_copy(update={"splits": splits, "peak_memory_bytes": 12_345_678_901})
    metrics = client.get_run(_log(root, CellResult(record=written))).data.metrics
    assert metrics["quality/wer_clean"] == 0.862069
    assert metrics["memory/peak_bytes"] == 12_345_678_901


def test_zero_is_a_figure(root, client):
    metrics = client.get_run(_log(root, result("none", "zero"))).data.metrics
    assert metrics["size/reduction"] == 0
    assert metrics["quality/loop_share_clean"] == 0


def test_what_the_timing_found_is_there(root, client):
    speed = Speed(ratio=0.84, ci95=(0.83, 0.85), converged=True, verdict="faster", blocks=12)
    work = FixedWork(batch_size=16, forced_tokens=32, encoder_s=0.2, encoder_rtf=0.01, token_s=0.004)
    noise = Noise(flags=("other processes took 34 % of the cores", "throttled once by the cgroup's CPU quota"))
    stages = Stages(load_s=0.3, quantize_s=0.4, first_inference_s=0.1)
    changes = {"speed": speed, "fixed_work": work, "noise": noise, "stages": stages, "energy_j": 31.5}
    written = result("none", "timed").record.model_copy(update=changes)
    run = client.get_run(_log(root, CellResult(record=written)))
    found = run.data.metrics
    assert (found["speed/ratio"], found["speed/encoder_s"], found["speed/token_s"]) == (0.84, 0.2, 0.004)
    assert (found["time/cold_start_s"], found["energy/joules"]) == (0.8, 31.5)
    assert run.data.tags["speed"] == "faster"
    assert run.data.tags["noise"] == "; ".join(noise.flags)


def test_static_schemes_tell_where_they_calibrated(root, client):
    run = client.get_run(_log(root, result("quanto_int8_static", "static")))
    assert run.data.params["calibration_source"] == "eval"


@pytest.mark.parametrize(
    ("status", "shown"), [("failed", "FAILED"), ("oom", "FAILED"), ("timeout", "FAILED"), ("unsupported", "FINISHED")]
)
def test_what_did_not_end_well_has_a_status_and_a_reason(root, client, status, shown):
    run = client.get_run(_log(root, bad_result(status, "because\nof this", cell_id=f"bad-{status}")))
    assert run.info.status == shown
    assert (run.data.tags["status"], run.data.tags["reason"]) == (status, r"because\nof this")


def test_a_very_long_reason_is_cut(root, client):
    run = client.get_run(_log(root, bad_result("failed", "x" * 20_000, cell_id="long")))
    assert run.data.tags["reason"] == "x" * 500


def test_artifacts_are_the_record_and_its_configuration(root, client, tmp_path):
    written = result("hqq_int3", "files")
    run_id = _log(root, written)
    names = {item.path for item in client.list_artifacts(run_id)}
    assert names == {"record.json", "config.yaml", "utterances.jsonl", "batches.jsonl"}
    folder = Path(client.download_artifacts(run_id, "", str(tmp_path)))
    assert json.loads((folder / "record.json").read_text())["cell_id"] == "files"
    assert yaml.safe_load((folder / "config.yaml").read_text()) == written.record.config
    assert len((folder / "utterances.jsonl").read_text().splitlines()) == 320
    assert (root / "artifacts" / run_id).is_dir()


def test_a_failure_has_its_traceback_as_a_file(root, client):
    run_id = _log(root, bad_result("failed", "no", cell_id="trace"))
    assert "traceback.txt" in {item.path for item in client.list_artifacts(run_id)}


def test_the_corpus_is_the_run_s_input(root, client):
    (used,) = client.get_run(_log(root, result("none", "corpus"))).inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("demo", "d" * 36)
    assert json.loads(used.dataset.source) == {"source": "shipped"}
    assert json.loads(used.dataset.profile)["clean"]["utterances"] == 160


def test_a_record_is_logged_once(root, client):
    run_id = _log(root, result("none", "once"))
    assert [sync(root, "once").logged, tracking.sync(root, LOCAL, no_table, ["once"], []).logged] == [0, 0]
    assert [run.info.run_id for run in runs_of(root, "once")] == [run_id]


def test_a_run_of_0_1_0_is_known_by_the_name_that_its_tag_had(root, client):
    run_id = _log(root, result("none", "former"))
    client.set_tag(run_id, "quantlab.records.schema", client.get_run(run_id).data.tags["quantlab.record"])
    client.delete_tag(run_id, "quantlab.record")
    assert sync(root, "former").logged == 0


def test_a_new_record_of_a_cell_replaces_its_run(root, client):
    first = _log(root, bad_result("failed", "once", cell_id="again"))
    second = _log(root, result("none", "again"))
    assert first != second
    (run,) = runs_of(root, "again")
    assert (run.info.run_id, run.data.tags["status"]) == (second, "ok")


def test_a_run_that_a_kill_left_half_logged_is_replaced(root, client):
    written = result("none", "killed")
    storage.write(root, written)
    tags = runs.identity(root, "killed").tags() | {"quantlab.created_at": written.record.created_at}
    half = client.create_run("1", tags=tags).info.run_id
    assert sync(root, "killed").interrupted == 1
    [run] = runs_of(root, "killed")
    assert run.info.run_id != half


def test_a_run_that_somebody_gave_up_too_early_says_so_no_more(root, client):
    run_id = _log(root, result("none", "late"))
    client.set_tag(run_id, "reason", "interrupted: not completed by process 1 on elsewhere in 20 minutes")
    sync(root, "late")
    assert "reason" not in client.get_run(run_id).data.tags


def test_a_run_that_the_user_deleted_stays_deleted_until_it_is_asked_for(root, client):
    run_id = _log(root, result("none", "deleted"))
    client.delete_run(run_id)
    assert sync(root, "deleted").logged == 0
    assert runs_of(root, "deleted") == []
    assert tracking.sync(root, LOCAL, no_table, ["deleted"], []).logged == 1
    assert len(runs_of(root, "deleted")) == 1


def test_a_cell_without_a_record_is_named(root):
    [problem] = tracking.sync(root, LOCAL, no_table, ["ghost"], []).problems
    assert "ghost cannot be read" in problem


def _log_in_process(root: Path, cell_ids: list[str]) -> None:
    for cell_id in cell_ids:
        sync(root, cell_id)


def test_eight_processes_at_once_log_every_record_once(root, client):
    cell_ids = [f"many{index}" for index in range(4)]
    for cell_id in cell_ids:
        storage.write(root, result("none", cell_id))
    workers = [forked.process(_log_in_process, root, cell_ids[k % 4 :] + cell_ids) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert [len(runs_of(root, cell_id)) for cell_id in cell_ids] == [1] * 4


def test_no_credential_reaches_mlflow(root, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrst")
    config = {"tracking__uri": "http://me:geheim@host:5000", "dataset__repo": "https://me:geheim@host/corpus"}
    leaky = result("none", "leaky", **config).record
    reason = "401 at http://me:geheim@host for hf_abcdefghijklmnopqrst"
    storage.write(root, CellResult(record=leaky))
    path = root / "cells" / "leaky" / "record.json"  # as an older version may have left it
    path.write_text(
        leaky.model_copy(update={"reason": reason, "traceback": reason, "status": "failed"}).model_dump_json()
    )
    summary_of(root, "leaky", ["leaky"], lambda cell_ids: (reason, {}))
    everything = b"".join(
        p.read_bytes() for p in [root / "mlflow.db", *(root / "artifacts").rglob("*.*")] if p.is_file()
    )
    assert b"nano-none-cpu" in everything
    assert b"geheim" not in everything
    assert b"hf_abcdef" not in everything


def summary_of(root, sweep, cell_ids, draw=no_table):
    """The id of the summary run of a sweep, brought as at the end of a grid."""
    from mlflow import MlflowClient

    note_sweep(root, sweep, cell_ids)
    tracking.sync(root, LOCAL, draw, cell_ids, [sweep], limit_s=math.inf)
    query = f"tags.`quantlab.kind` = 'summary' and tags.`quantlab.sweep` = '{sweep}'"
    [run] = MlflowClient(tracking_uri=store_uri(root)).search_runs(["1"], query)
    return run.info.run_id


def test_a_sweep_has_one_summary_run_with_the_table(root, client):
    cell_ids = [f"{SWEEP}-{cell_id}" for cell_id in ("a", "b", "c")]
    runs = [
        _log(root, written)
        for written in (
            result("none", cell_ids[0]),
            result("hqq_int3", cell_ids[1]),
            bad_result("unsupported", "no", cell_id=cell_ids[2]),
        )
    ]
    first = summary_of(root, "s1", cell_ids, lambda cell_ids: ("model  quant\nnano  none", {}))
    run = client.get_run(first)
    assert (run.info.run_name, run.info.status) == ("sweep-s1", "FINISHED")
    expected = {"cells": 3, "cells_ok": 2, "cells_unsupported": 1, "best_bytes": round(13_100_000 * 0.29)}
    assert {f"summary/{name}": value for name, value in expected.items()}.items() <= run.data.metrics.items()
    best = storage.read(root, cell_ids[0]).splits["clean"].wer
    assert run.data.metrics["summary/best_wer_clean"] == pytest.approx(best)
    assert Path(client.download_artifacts(first, "table.txt")).read_text().startswith("model  quant")
    assert all(run_id in run.data.tags["mlflow.note.content"] for run_id in runs)
    assert all("s1" in client.get_run(run_id).data.tags["quantlab.sweep"].split() for run_id in runs)
    assert summary_of(root, "s1", cell_ids) == first
    assert "quantlab.content" in run.data.tags
    assert {tag for tag in run.data.tags if tag.startswith("quantlab.")} <= OWN_TAGS


def test_a_sweep_s_plots_are_drawn_once_and_can_be_looked_at(root, client, tmp_path):
    calls = []

    def draw(cell_ids):
        calls.append(1)
        return "table", plots.figures(careful_grid())

    _log(root, result("none", "plots"))
    first = summary_of(root, "plots", ["plots"], draw)
    assert summary_of(root, "plots", ["plots"], draw) == first
    assert len(calls) == 1
    folder = Path(client.download_artifacts(first, "plots", str(tmp_path)))
    drawn = {path.name: path.read_bytes() for path in folder.rglob("*.png")}
    assert set(drawn) == {"wer_against_speed.png", "wer_increase.png", "verdicts.png"}
    assert all(content.startswith(b"\x89PNG") for content in drawn.values())


def test_a_sweep_that_goes_on_updates_its_summary(root, client):
    _log(root, result("none", "on-a"))
    first = summary_of(root, "s2", ["on-a", "on-b"], lambda cell_ids: ("one", {}))
    assert client.get_run(first).data.metrics["summary/cells"] == 1
    _log(root, result("hqq_int4", "on-b"))
    assert summary_of(root, "s2", ["on-a", "on-b"], lambda cell_ids: ("two", {})) == first
    assert client.get_run(first).data.metrics["summary/cells"] == 2
    assert Path(client.download_artifacts(first, "table.txt")).read_text() == "two"
    assert len(client.search_runs(["1"], "tags.`quantlab.sweep` = 's2'")) == 1


def test_a_sweep_without_a_good_cell_has_a_summary(root, client):
    _log(root, bad_result("failed", "no", cell_id="none-good"))
    run = client.get_run(summary_of(root, "s3", ["none-good", "never-recorded"]))
    assert run.data.metrics == {"summary/cells": 1, "summary/cells_failed": 1}


def test_the_experiment_explains_itself_and_offers_a_view_with_metrics(root, client):
    experiment = client.get_experiment_by_name("quantlab")
    assert experiment.artifact_location == (root / "artifacts").as_uri()
    assert "viewStateShareKey=quantlab" in experiment.tags["mlflow.note.content"].splitlines()[0]
    view = json.loads(experiment.tags["mlflow.sharedViewState.quantlab"])
    assert "metrics.`quality/wer_clean`" in json.loads(view["state"])["selectedColumns"]
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`quality/wer_clean`", True)
    assert view["selectedColumns"] == json.loads(view["state"])["selectedColumns"]


def test_where_to_look(root):
    assert tracking.ui_command("mlruns", LOCAL) == "mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db"
    links = tracking.ui_links(LOCAL, "1", SWEEP)
    assert all(link.startswith("http://127.0.0.1:5000/#/experiments/1/runs?") for link in links.values())
    assert tracking.BackgroundLogger(root / "nowhere", LOCAL, print).links == {}
    server = TrackingConfig(name="server", uri="http://me:geheim@host:5000")
    assert tracking.ui_command("mlruns", server) == "http://***@host:5000"
    assert tracking.ui_command("mlruns", TrackingConfig(name="off")) is None
    assert tracking.sync_command("my runs", server) == ("quantlab sync --root 'my runs' --uri \"$MLFLOW_TRACKING_URI\"")


def test_sync_makes_the_view_from_the_records_alone(tmp_path):
    from mlflow import MlflowClient

    cell_ids = grid(tmp_path)
    found = tracking.sync(tmp_path, LOCAL, no_table)
    assert (found.records, found.logged, found.interrupted, found.problems) == (len(cell_ids), len(cell_ids), 0, ())
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    first = {run.data.tags["quantlab.cell_id"]: run.info.run_id for run in client.search_runs(["1"])}
    assert set(first) == set(cell_ids)
    shutil.rmtree(tmp_path / "cells" / cell_ids[0])
    assert tracking.sync(tmp_path, LOCAL, no_table).logged == 0
    second = {run.data.tags["quantlab.cell_id"]: run.info.run_id for run in client.search_runs(["1"])}
    assert second == {cell_id: run_id for cell_id, run_id in first.items() if cell_id != cell_ids[0]}


def test_records_moved_together_with_their_store_are_known(root, tmp_path):
    _log(root, result("none", "moved"))
    (tmp_path / "cells").mkdir()
    shutil.copytree(root / "cells" / "moved", tmp_path / "cells" / "moved")
    shutil.copy(root / "mlflow.db", tmp_path)
    assert sync(tmp_path, "moved").logged == 0


def test_a_folder_with_an_odd_name(tmp_path):
    name = "my runs 100%25 #1? ü'"
    run_id = _log(tmp_path / name, result("none", "a1"))
    assert (tmp_path / name / "artifacts" / run_id / "artifacts" / "record.json").exists()
    assert sync(tmp_path / name, "a1").logged == 0
    assert (tmp_path / name / "mlflow.db").exists()


def test_off_does_nothing(tmp_path):
    storage.write(tmp_path, result("none", "a1"))
    logger = tracking.BackgroundLogger(tmp_path, TrackingConfig(name="off"), print)
    logger.begin(SWEEP, ["a1"])
    logger.prepare()
    logger.log("a1")
    logger.finish([storage.read(tmp_path, "a1")], no_table)
    assert logger.links == {}
    assert [path.name for path in tmp_path.iterdir()] == ["cells"]


def test_a_grid_s_runs_are_there_after_each_cell_and_its_summary_at_the_end(root, client):
    said = []
    logger = tracking.BackgroundLogger(root, LOCAL, said.append)
    logger.begin("a-grid", ["grid-a", "grid-b"])
    logger.prepare()
    for cell_id in ("grid-a", "grid-b"):
        storage.write(root, result("none", cell_id))
        logger.log(cell_id)
        assert runs_of(root, cell_id)[0].data.tags["quantlab.sweep"] == "a-grid"
    logger.finish([storage.read(root, cell_id) for cell_id in ("grid-a", "grid-b")], no_table)
    assert all("viewStateShareKey=a-grid" in link for link in logger.links.values())
    assert said == []


def test_a_finished_grid_does_not_import_mlflow(root):
    _log(root, result("none", "resumed"))
    summary_of(root, "resumed", ["resumed"])
    program = (
        "import sys; from quantlab import tracking; from quantlab.config.schema import TrackingConfig as T;"
        "from quantlab.records import storage;"
        "logger = tracking.BackgroundLogger(sys.argv[1], T(), print); logger.begin('resumed', ['resumed']);"
        "logger.finish([storage.read(sys.argv[1], 'resumed')], None);"
        "print(sorted(logger.links), 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout == "['charts', 'table'] False\n"
    assert done.stderr == ""


def test_setting_up_says_nothing(tmp_path):
    program = (
        "import sys; from quantlab import tracking; from quantlab.config.schema import TrackingConfig as T;"
        "tracking.BackgroundLogger(sys.argv[1], T(), print).prepare()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    assert [process.communicate(timeout=120)[0] for process in both] == [b"", b""]
    assert [process.returncode for process in both] == [0, 0]


def test_a_store_of_another_version_says_what_to_do(root, tmp_path):
    shutil.copy(root / "mlflow.db", tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(tracking.TrackingError, match="mlflow db upgrade"):
        prepare(tmp_path)


def test_a_file_that_is_no_database_is_named_at_once(tmp_path):
    (tmp_path / "mlflow.db").write_text("not a database, " * 100)
    with pytest.raises(tracking.TrackingError, match=r"mlflow\.db is damaged \(file is not a database\)"):
        prepare(tmp_path)


def test_a_kill_while_the_database_is_made_leaves_no_half_one(root, tmp_path):
    (tmp_path / ".mlflow.db.new").write_bytes((root / "mlflow.db").read_bytes()[:50_000])
    assert not (tmp_path / "mlflow.db").exists()
    assert prepare(tmp_path).experiment_id == "1"
    assert not (tmp_path / ".mlflow.db.new").exists()


def test_a_folder_that_cannot_be_written_is_a_tracking_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(tracking.TrackingError, match="file"):
        prepare(tmp_path / "file" / "runs")


def test_nothing_else_imports_mlflow():
    package = Path(quantlab.__file__).parent
    importers = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if any(name.split(".")[0] == "mlflow" for name in _imported(node))
    }
    assert importers == {"tracking"}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []
