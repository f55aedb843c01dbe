"""MLflow's store: location, set-up, and connection with time limits."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from quantlab.config.schema import TrackingConfig
from quantlab.tracking import view
from quantlab.tracking.errors import Damaged, TrackingError, Unreachable
from quantlab.tracking.markers import database, experiment_marker, query, recalled, remember
from quantlab.tracking.reach import reach
from quantlab.util.address import Address, opened
from quantlab.util.redact import redact

T = TypeVar("T")
_PATIENT_S = 5.0  # a server that 64 processes write to may take longer than a grid would wait
_PAUSES_S = (1.0, 4.0)  # before it is tried again
_LOCK_S = 300.0  # the longest wait for other processes that write to the same local store
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # The default blocks for minutes on a dead server, and a request sent again makes a second run: what failed is
    # looked up again before it is repeated (quantlab.tracking.runs).
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds, of one request; a grid waits less (quantlab.tracking.outbox)
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it would print the password of the address
    "GIT_PYTHON_REFRESH": "quiet",
}
_BROKEN = (  # what SQLite says of a file that is none of theirs any more
    *("file is not a database", "disk image is malformed", "file is encrypted", "unsupported file format"),
    *("no such table", "no such column", "malformed database schema"),
)
_WHO = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def _go_on() -> None:
    """What a store does between two requests if nobody asks for more."""


@dataclass(frozen=True)
class Store:
    """An experiment in a store, with the client that talks to it."""

    client: Any  # mlflow.MlflowClient
    experiment_id: str
    shared: bool = False  # others write to it without our lock
    pause: Callable[[], None] = _go_on  # called between two requests; may block


def prepare(root: str | Path, tracking: TrackingConfig) -> None:
    """Set up the store and the experiment, or do nothing where they are there or tracking is off.

    The first call in a process imports MLflow (about 3 s of processor time), the first for a root creates the
    database (1 to 2 s). Safe in a thread and in several processes at once.

    Raises:
        TrackingError: the store cannot be reached or written.
    """
    if tracking.name != "off":
        with_store(root, tracking, lambda store: None)


def store_uri(root: str | Path, tracking: TrackingConfig) -> str:
    """`sqlite:///<root>/mlflow.db`, or the server's."""
    if tracking.name == "server":
        return server_uri(tracking)
    return _sqlite_uri(database(root))


def server_uri(tracking: TrackingConfig) -> str:
    """The whole address of the server, with what is secret of it: for the connection alone.

    Raises:
        TrackingError: a part of it is in no file and not in the environment.
    """
    assert tracking.uri is not None  # validated by TrackingConfig
    try:
        return opened(tracking.uri)
    except ValueError as error:
        raise TrackingError(f"MLflow: {tracking.uri}: {error}") from None


def _sqlite_uri(path: Path) -> str:
    """SQLAlchemy's form: the path as it is, but for the two characters that mean something in it."""
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


def ui_command(root: str | Path, tracking: TrackingConfig) -> str | None:
    """What a person types or opens to look at the runs; None where nothing is tracked."""
    if tracking.name == "off":
        return None
    if tracking.name == "server":
        return str(tracking.uri)
    return f"mlflow ui --backend-store-uri {shlex.quote(_sqlite_uri(Path(root) / 'mlflow.db'))}"


def ui_links(root: str | Path, tracking: TrackingConfig, sweep: str | None = None) -> dict[str, str]:
    """Name → address of the pages that are ready to be looked at; of one sweep, or of all.

    Empty where nothing was logged yet. Of a local store, they work while `mlflow ui` runs.
    """
    experiment_id = None if tracking.name == "off" else _experiment_id(root, tracking)
    if experiment_id is None:
        return {}
    place = "http://127.0.0.1:5000" if tracking.name == "local" else Address(str(tracking.uri)).link
    return {name: f"{place}/{link}" for name, link in view.links(experiment_id, sweep).items()}


def _experiment_id(root: str | Path, tracking: TrackingConfig) -> str | None:
    if tracking.name == "server":
        return recalled(experiment_marker(root), tracking)
    rows = query(database(root), "SELECT experiment_id FROM experiments WHERE name = ?", tracking.experiment)
    return str(rows[0][0]) if rows else None


def with_store(root: str | Path, tracking: TrackingConfig, action: Callable[[Store], T]) -> T:
    """What `action` makes of the store. A server that does not answer is given up in seconds; one that did answer and
    then let a request fail is busy or was just started again, and is tried twice more: `action` must bear that.

    Raises:
        Unreachable: nothing answers.
        TrackingError: the store cannot be written.
    """
    if tracking.name == "server":
        reach(server_uri(tracking), _PATIENT_S)
        for pause_s in _PAUSES_S:
            with contextlib.suppress(Unreachable), connected(root, tracking) as store:
                return action(store)
            time.sleep(pause_s)
    with connected(root, tracking) as store:
        return action(store)


@contextlib.contextmanager
def connected(root: str | Path, tracking: TrackingConfig, pause: Callable[[], None] = _go_on) -> Iterator[Store]:
    """The store, once it is known to answer.

    A local one is locked against every other process that writes below the same root: the lock makes "look whether
    it is there, else create it" one step, and it keeps SQLite from running into its busy timeout however many
    processes log at once. A server has no lock; what two writers did at once is settled by `quantlab.tracking.runs`.
    """
    with _translated(root, tracking):
        Path(root).mkdir(parents=True, exist_ok=True)
        if tracking.name == "server":
            yield _server(root, tracking, pause)
            return
        lock = FileLock(Path(root) / ".mlflow.lock", timeout=_LOCK_S)
        if not database(root).exists():
            with lock:
                _make_database(database(root))
        _see_that_it_can_be_written(database(root))
        client = _client(store_uri(root, tracking))  # takes longer than logging a cell, and needs no lock
        with lock.acquire(poll_interval=0.2):  # 64 processes that look 20 times a second would be a load of their own
            yield Store(client, _experiment(client, root, tracking))


def _server(root: str | Path, tracking: TrackingConfig, pause: Callable[[], None]) -> Store:
    client = _client(store_uri(root, tracking))
    experiment_id = _experiment(client, root, tracking)
    remember(experiment_marker(root), tracking, experiment_id)
    return Store(client, experiment_id, shared=True, pause=pause)


@contextlib.contextmanager
def _translated(root: str | Path, tracking: TrackingConfig) -> Iterator[None]:
    """Whatever goes wrong with MLflow becomes one kind of error, in one line and without credentials."""
    load()
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    place = str(tracking.uri) if tracking.name == "server" else store_uri(root, tracking)
    try:
        yield
    except Timeout as error:
        raise TrackingError(f"MLflow: another process held {error.lock_file} for {_LOCK_S:g} s") from None
    except MlflowException as error:
        kind = Unreachable if error.get_http_status_code() in (401, 403, *range(500, 600)) else TrackingError
        raise _damaged(error, root, tracking) or kind(f"MLflow: {place}: {_explain(error, place)}") from None
    except (SQLAlchemyError, sqlite3.Error, CommandError) as error:
        raise _damaged(error, root, tracking) or TrackingError(f"MLflow: {place}: {_explain(error, place)}") from None
    except OSError as error:  # requests' errors are OSErrors too
        kind = Unreachable if tracking.name == "server" else TrackingError
        raise kind(f"MLflow: {place}: {redact(str(error))}") from None


def _damaged(error: Exception, root: str | Path, tracking: TrackingConfig) -> Damaged | None:
    """What to do about a local database that is broken; None where that is not the trouble."""
    sign = next((sign for sign in _BROKEN if sign in str(error)), None)
    if sign is None or tracking.name != "local":
        return None
    path = shlex.quote(str(Path(root) / database(root).name))
    return Damaged(
        f"MLflow: {path} is damaged ({sign}); nothing that was measured is lost, as it is made from the records: "
        f"mv {path} {path}.damaged && quantlab sync --root {shlex.quote(str(root))}"
    )


def _explain(error: Exception, place: str) -> str:
    text = redact(str(error).strip().split("\n")[0])
    if "out-of-date database schema" in text:
        return f"written by another version of MLflow; run `mlflow db upgrade {place}`, or delete the file"
    if "Can't locate revision" in text:
        return "written by a newer version of MLflow; install that, or move the file away: sync makes another one"
    if busy := re.search(r"too many (\d+) error responses", text):
        return f"it answers {busy[1]}"
    status = getattr(error, "get_http_status_code", lambda: None)()
    if status == 401 or "not authenticated" in text:
        return f"it does not know who you are: {_WHO}"
    return text


def _make_database(path: Path) -> None:
    """Unless another process has; under another name and then renamed, so that a kill leaves no half-migrated one."""
    if path.exists():
        return
    fresh = path.with_name(".mlflow.db.new")
    fresh.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(fresh)):
        _client(_sqlite_uri(fresh)).search_experiments(max_results=1)
    fresh.replace(path)


def _see_that_it_can_be_written(path: Path) -> None:
    """MLflow would try that for minutes.

    Raises:
        sqlite3.Error: it is no database, or cannot be written.
    """
    with contextlib.closing(sqlite3.connect(path, timeout=_LOCK_S)) as connection:
        connection.execute("BEGIN IMMEDIATE")


def load() -> None:
    """Import MLflow, with the habits that a grid needs."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic"):  # "Creating initial MLflow database tables..." is nothing a user needs
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # what it logs of an error is raised as well


def _client(uri: str) -> Any:
    import mlflow

    return mlflow.MlflowClient(tracking_uri=uri)


def _experiment(client: Any, root: str | Path, tracking: TrackingConfig) -> str:
    """Id of the experiment, made or brought back to life if need be."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(tracking.experiment)
    if found is None:
        try:
            return _new_experiment(client, root, tracking)
        except MlflowException:  # another process was quicker
            found = client.get_experiment_by_name(tracking.experiment)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _new_experiment(client: Any, root: str | Path, tracking: TrackingConfig) -> str:
    artifacts = None if tracking.name == "server" else (Path(root).resolve() / "artifacts").as_uri()
    made = str(client.create_experiment(tracking.experiment, artifacts))
    client.set_experiment_tag(made, "mlflow.experimentKind", "custom_model_development")
    client.set_experiment_tag(made, "mlflow.note.content", view.experiment_note(made))
    client.set_experiment_tag(made, *view.saved_view(["clean", "other"]))
    return made
