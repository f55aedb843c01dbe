"""A shared MLflow server, for real: PostgreSQL, basic auth, 64 writers, and everything that can happen to a network."""

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from helpers import forked
from helpers.servers import PASSWORD, USER, Nginx, Wire
from helpers.synthetic import result
from quantlab import tracking
from quantlab.config.schema import TrackingConfig
from quantlab.records import storage

pytestmark = [pytest.mark.usefixtures("credentials"), pytest.mark.minutes]
WRITERS = 64


def place(uri, experiment):
    return TrackingConfig(name="server", uri=uri, experiment=experiment)


def write(root, count):
    cell_ids = [f"cell{index:02}" for index in range(count)]
    for index, cell_id in enumerate(cell_ids):
        storage.write(root, result("none", cell_id, minute=index))
    return cell_ids


def runs_of(config, kind="cell", root=None, **search):
    from mlflow import MlflowClient

    uri = config.uri if config.name == "server" else f"sqlite:///{root}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(config.experiment)
    query = f"tags.`quantlab.kind` = '{kind}'"
    return client, client.search_runs([experiment.experiment_id], query, max_results=1000, **search)


def once_each(config, cell_ids, root=None):
    """Every cell has one complete run and no other."""
    client, found = runs_of(config, root=root)
    assert sorted(run.data.tags["quantlab.cell_id"] for run in found) == sorted(cell_ids)
    assert {run.info.status for run in found} == {"FINISHED"}
    return client, found


def no_table(cell_ids):
    return "table", {}


def prepare(root, config):
    """Set up the store, as a grid does before its first cell."""
    tracking.sync(root, config, no_table, cells=[], sweeps=[])


def log(root, config, cell_id):
    assert tracking.sync(root, config, no_table, [cell_id], []).problems == ()


def _log_together(start, root, config, cell_id):
    start.wait()
    log(root, config, cell_id)


@pytest.mark.timeout(900)  # half a minute on a quiet machine
@pytest.mark.parametrize("name", ["local", "server"])
def test_64_processes_at_once_make_64_complete_runs(name, server, tmp_path):
    config = TrackingConfig() if name == "local" else place(server.uri, "writers")
    cell_ids = write(tmp_path, WRITERS)
    prepare(tmp_path, config)
    start = forked.CONTEXT.Barrier(WRITERS)
    writers = [forked.process(_log_together, start, tmp_path, config, one) for one in cell_ids]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(800)
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    client, found = once_each(config, cell_ids, tmp_path)
    figures = {"quality/wer_clean", "quality/wer_other", "speed/rtf_other", "size/bytes", "time/total_s"}
    assert all(figures <= run.data.metrics.keys() and "quant" in run.data.params for run in found)
    files = {"record.json", "config.yaml", "utterances.jsonl", "batches.jsonl"}
    assert {item.path for item in client.list_artifacts(found[-1].info.run_id)} == files


def test_two_copies_of_a_folder_synced_at_once_are_there_once(server, tmp_path):
    config = place(server.uri, "copies")
    cell_ids = write(tmp_path / "one", 12)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    command = [sys.executable, "-m", "quantlab", "sync", "--uri", server.uri, "--experiment", "copies", "--root"]
    both = [
        subprocess.Popen([*command, str(tmp_path / name)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for name in ("one", "two")
    ]
    said = [process.communicate(timeout=200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all("12 records" in text for text in said)
    once_each(config, cell_ids)
    assert tracking.sync(tmp_path / "two", config, no_table).logged == 0


def test_the_same_cell_of_two_machines_is_there_twice_and_a_replaced_record_once(server, tmp_path):
    config = place(server.uri, "machines")
    for minute, name in enumerate(("laptop", "workstation")):
        storage.write(tmp_path / name, result("none", "same", minute=minute))
        assert tracking.sync(tmp_path / name, config, no_table).logged == 1
    assert len(runs_of(config)[1]) == 2
    storage.write(tmp_path / "laptop", result("none", "same", minute=9))
    assert tracking.sync(tmp_path / "laptop", config, no_table).logged == 1
    created = {run.data.tags["quantlab.created_at"] for run in runs_of(config)[1]}
    assert created == {"2026-11-21T03:09:00+00:00", "2026-11-21T03:01:00+00:00"}


def test_a_raw_file_that_is_none_is_named_and_the_others_are_logged(server, tmp_path):
    config = place(server.uri, "raw")
    cell_ids = write(tmp_path, 3)
    raw = tmp_path / "cells" / cell_ids[0] / "batches.jsonl"
    raw.unlink()
    os.mkfifo(raw)
    found = tracking.sync(tmp_path, config, no_table)
    assert found.logged == 2
    [problem] = found.problems
    assert cell_ids[0] in problem
    assert "not a regular file" in problem
    once_each(config, cell_ids[1:])


def _die_while_logging(root, config, cell_id, how):
    from quantlab.tracking import log as module

    module._log_corpus = lambda *_: os.kill(os.getpid(), how)  # the moment; the death is real
    log(root, config, cell_id)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_whose_process_was_killed_is_closed_with_the_reason(how, server, tmp_path):
    config = place(server.uri, f"killed{how}")
    cell_ids = write(tmp_path, 3)
    victim = forked.process(_die_while_logging, tmp_path, config, cell_ids[1], how)
    victim.start()
    victim.join(100)
    assert victim.exitcode == -how
    assert [run.info.status for run in runs_of(config)[1]] == ["RUNNING"]
    empty = tmp_path / "another machine"
    storage.write(empty, result("none", "other"))
    assert tracking.sync(empty, config, no_table).interrupted == 1
    closed = next(run for run in runs_of(config)[1] if run.info.status != "FINISHED")
    assert (closed.info.status, closed.data.tags["status"]) == ("KILLED", "interrupted")
    assert f"process {victim.pid} on {socket.gethostname()} ended" in closed.data.tags["reason"]
    assert tracking.sync(tmp_path, config, no_table).logged == 3
    once_each(config, [*cell_ids, "other"])


def test_a_run_that_a_living_process_writes_is_left_alone(server, tmp_path):
    config = place(server.uri, "living")
    cell_ids = write(tmp_path, 1)
    entered, go_on = forked.CONTEXT.Event(), forked.CONTEXT.Event()
    writer = forked.process(_wait_while_logging, tmp_path, config, cell_ids[0], entered, go_on)
    writer.start()
    assert entered.wait(100)
    shutil.copytree(tmp_path / "cells", tmp_path / "copy" / "cells")
    found = tracking.sync(tmp_path / "copy", config, no_table)
    assert (found.logged, found.interrupted) == (1, 0)
    assert sorted(run.info.status for run in runs_of(config)[1]) == ["FINISHED", "RUNNING"]
    go_on.set()
    writer.join(100)
    once_each(config, cell_ids)


def _wait_while_logging(root, config, cell_id, entered, go_on):
    from quantlab.tracking import log as module

    real = module._log_corpus

    def later(*arguments):
        entered.set()
        go_on.wait(100)
        real(*arguments)

    module._log_corpus = later
    log(root, config, cell_id)


def logger_of(root, config, cell_ids):
    said = []
    logger = tracking.BackgroundLogger(root, config, said.append)
    logger.begin("sweep1", cell_ids)
    return logger, said


def finish(logger, root, cell_ids):
    logger.finish([storage.read(root, cell_id) for cell_id in cell_ids], no_table)


def test_with_a_dead_server_every_cell_is_done_and_mlflow_is_not_imported(tmp_path):
    write(tmp_path, 3)
    program = """
import sys
from quantlab import tracking
from quantlab.config.schema import TrackingConfig
from quantlab.records import storage
ids = ["cell00", "cell01", "cell02"]
logger = tracking.BackgroundLogger(sys.argv[1], TrackingConfig(name="server", uri=sys.argv[2]), print)
records = [storage.read(sys.argv[1], one) for one in ids]
logger.begin("s", ids); logger.prepare(); [logger.log(one) for one in ids]
logger.finish(records, None)
print("mlflow" in sys.modules)
"""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://me:geheim@127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-c", program, str(tmp_path), uri]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    *said, last = done.stdout.splitlines()
    assert last == "False", done.stdout + done.stderr
    assert sum("connection refused" in line for line in said) == 1, "it is said once"
    assert f"3 of 3 cells not yet in MLflow; once it is reachable, run: quantlab sync --root {tmp_path}" in said[-1]
    assert said[-1].endswith('--uri "$MLFLOW_TRACKING_URI"'), "a printed address has no password"
    assert "geheim" not in done.stdout + done.stderr


def test_a_server_that_accepts_and_never_answers_stops_no_cell(tmp_path):
    cell_ids = write(tmp_path, 2)
    wire = Wire(0)
    wire.silent = True
    logger, said = logger_of(tmp_path, place(wire.uri, "silent"), cell_ids)
    logger.prepare()
    for cell_id in cell_ids:
        logger.log(cell_id)
    finish(logger, tmp_path, cell_ids)
    assert "2 of 2 cells not yet in MLflow" in said[-1]
    with pytest.raises(tracking.Unreachable, match="timed out"):
        tracking.sync(tmp_path, place(wire.uri, "silent"), no_table)
    wire.close()


def test_a_slow_server_gets_as_far_as_ten_seconds_take_it_and_sync_does_the_rest(server, tmp_path):
    config = place(server.uri, "slow")
    cell_ids = write(tmp_path, 3)
    prepare(tmp_path, config)
    wire = Wire(server.port)
    wire.delay_s = 1.0
    logger, _ = logger_of(tmp_path, place(wire.uri, "slow"), cell_ids)
    logger.prepare()
    for cell_id in cell_ids:
        logger.log(cell_id)
    finish(logger, tmp_path, cell_ids)
    before = wire.messages
    time.sleep(6)
    assert wire.messages == before, "nothing goes on while a cell would be timed"
    wire.close()
    tracking.sync(tmp_path, config, no_table)
    once_each(config, cell_ids)


def test_a_database_that_stops_in_the_middle_loses_nothing(server, postgres, tmp_path):
    config = place(server.uri, "stopped")
    cell_ids = write(tmp_path, 6)
    logger, said = logger_of(tmp_path, config, cell_ids)
    logger.prepare()
    logger.log(cell_ids[0])
    postgres.stop()
    for cell_id in cell_ids[1:3]:
        logger.log(cell_id)
    postgres.start()
    for cell_id in cell_ids[3:]:
        logger.log(cell_id)
    finish(logger, tmp_path, cell_ids)
    assert "not in MLflow yet" in said[0]
    if tracking.sync(tmp_path, config, no_table).logged:
        assert "quantlab sync" in said[-1]
    once_each(config, cell_ids)
    assert len(runs_of(config, "summary")[1]) == 1


def test_a_server_that_is_killed_and_started_again_loses_nothing(server, tmp_path):
    config = place(server.uri, "restarted")
    cell_ids = write(tmp_path, 5)
    logger, said = logger_of(tmp_path, config, cell_ids)
    logger.prepare()
    logger.log(cell_ids[0])
    server.kill()
    for cell_id in cell_ids[1:3]:
        logger.log(cell_id)
    server.start()
    for cell_id in cell_ids[3:]:
        logger.log(cell_id)
    finish(logger, tmp_path, cell_ids)
    assert "cannot be reached" in said[0]
    if tracking.sync(tmp_path, config, no_table).logged:
        assert "quantlab sync" in said[-1]
    else:
        assert "MLflow is reachable again" in said[-1]
    once_each(config, cell_ids)
    assert all("sweep1" in link for link in logger.links.values())


def test_who_is_not_let_in_is_told_what_to_set(server, tmp_path, monkeypatch):
    write(tmp_path, 1)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a wrong password")
    with pytest.raises(tracking.TrackingError, match="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"):
        log(tmp_path, place(server.uri, "quantlab"), "cell00")


@pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx: apt-get install nginx-light")
def test_tls_and_a_token_from_the_environment(server, tmp_path, tmp_path_factory, monkeypatch):
    basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    nginx = Nginx(tmp_path_factory.mktemp("nginx"), server.port, "a-token-of-some-length", basic)
    config = place(nginx.uri, "tls")
    write(tmp_path, 1)
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token-of-some-length")
    try:
        with pytest.raises(tracking.Unreachable, match="MLFLOW_TRACKING_SERVER_CERT_PATH"):
            log(tmp_path, config, "cell00")
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(nginx.certificate))
        log(tmp_path, config, "cell00")
        client, [run] = once_each(config, ["cell00"])
        assert "record.json" in {item.path for item in client.list_artifacts(run.info.run_id)}
        monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
        with pytest.raises(tracking.TrackingError, match="MLFLOW_TRACKING_TOKEN"):
            tracking.sync(tmp_path, config, no_table)
    finally:
        nginx.close()


LEAKY = """
import os
class Leaky:
    DISTRIBUTIONS = ()
    __name__ = "quantlab_leaky"
    def why_unsupported(self, quant, device): return None
    def is_quantized(self, module): return False
    def kernel(self, module): return None
    def setup(self, model, *_):
        print(dict(os.environ), flush=True)
        secrets = " ".join(os.environ[name] for name in ("HF_TOKEN", "LEAKY_URI", "AWS_SECRET_ACCESS_KEY"))
        raise ValueError(f"401 for {secrets}")
leaky = Leaky()
"""


@pytest.mark.timeout(900)  # half a minute on a quiet machine, but it starts everything there is
def test_no_secret_is_written_anywhere(server, postgres, tmp_path, shared_cache):
    """The whole command, with a library that prints its environment and fails with it in its message."""
    site = tmp_path / "site"
    info = site / "quantlab_leaky-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "quantlab_leaky.py").write_text(LEAKY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: quantlab-leaky\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[quantlab.quantizers]\nleaky = quantlab_leaky:leaky\n")
    secrets = {
        "HF_TOKEN": "hf_abcdefghijklmnopqrstuv",
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        "LEAKY_URI": "https://me:geheim17@host/corpus",
    }
    environment = os.environ | secrets | {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    uri = server.uri.replace("://", f"://{USER}:{PASSWORD}@")
    command = [sys.executable, "-m", "quantlab", "-m", "quant=torch_int8", "quant.library=torch,leaky", "device=cpu"]
    command += ["dataset.limit=2", "protocol=quick", "tracking=server", f"tracking.uri={uri}"]
    command += ["tracking.experiment=leaky", f"output_dir={tmp_path}/runs"]
    done = subprocess.run(
        command,
        env=environment | {"QUANTLAB_CACHE": str(shared_cache)},
        capture_output=True,
        cwd=tmp_path,
        timeout=600,
        check=False,
    )
    assert done.returncode == 1, done.stderr.decode()
    files = [path for folder in (tmp_path / "runs", server.files) for path in folder.rglob("*") if path.is_file()]
    written = {str(path): path.read_bytes() for path in files} | {"PostgreSQL": postgres.dump()}
    written |= {"stdout": done.stdout, "stderr": done.stderr}
    _, found = runs_of(place(server.uri, "leaky"))
    assert sorted(run.info.status for run in found) == ["FAILED", "FINISHED"]
    assert b"401 for ***" in written["PostgreSQL"], "the reason is there, without its secrets"
    names = secrets | {"the password in LEAKY_URI": "geheim17"}
    for name, secret in names.items():
        assert [where for where, content in written.items() if secret.encode() in content] == [], name
