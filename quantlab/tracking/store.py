"""MLflow's store: its address, reachability and set-up, and its errors as one line each."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from quantlab.config.schema import TrackingConfig
from quantlab.tracking import view
from quantlab.util.address import VARIABLE, Address, opened
from quantlab.util.redact import redact

_PROBE_S = 1.5  # a reachable server answers in milliseconds
_PATIENT_S = 5.0  # for `quantlab sync`: a server that 64 processes write to may take longer
_LOCK_S = 300.0  # the longest wait for other processes that write to the same local store
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it would include the password
    "GIT_PYTHON_REFRESH": "quiet",
}
# Timeout of a request in seconds, and number of retries; MLflow's defaults block for minutes if the server is down.
_PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
_HASTY = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "4", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
_GIVEN = {name: os.environ[name] for name in _HASTY if name in os.environ}  # settings of the user take precedence
_BROKEN = (  # parts of SQLite's messages for a damaged file
    *("file is not a database", "disk image is malformed", "file is encrypted", "unsupported file format"),
    *("no such table", "no such column", "malformed database schema"),
)
_WHO = "authentication failed: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
_MEANING = {  # part of an error of the network or of MLflow, which wrap the cause several times → message
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted: set MLFLOW_TRACKING_SERVER_CERT_PATH to its file",
    "timed out": "timed out",
    "Connection refused": "connection refused",
    "Connection reset": "connection reset",
    "Name or service not known": "no such host",
    "not authenticated": _WHO,
    "Can't locate revision": "written by a newer version of MLflow: install that version, or move the file "
    "away and run quantlab sync",
}


class TrackingError(RuntimeError):
    """MLflow could not be reached or written to; records are unaffected. The message says what to do next."""

    passes = True  # whether retrying may help


class Damaged(TrackingError):  # noqa: N818  as below
    """The database itself is damaged and has to be replaced."""

    passes = False


class Unreachable(TrackingError):  # noqa: N818  a state of the world, as quantlab.util.errors.Unavailable is
    """The server does not answer, or only with server errors, so further records would fail too."""


@dataclass(frozen=True)
class Store:
    """An experiment in a store, with its client."""

    root: Path  # the folder of records
    tracking: TrackingConfig
    client: Any  # mlflow.MlflowClient
    experiment_id: str
    lock: contextlib.AbstractContextManager[Any]  # makes search and creation one step


def database(root: str | Path) -> Path:
    """Path of the local database."""
    return Path(root).resolve() / "mlflow.db"


def ui_command(root: str | Path, tracking: TrackingConfig) -> str | None:
    """Command or address that shows the runs; None with `tracking=off`."""
    if tracking.name == "off":
        return None
    if tracking.name == "server":
        return str(tracking.uri)
    return f"mlflow ui --backend-store-uri {shlex.quote(_sqlite_uri(Path(root) / 'mlflow.db'))}"


def ui_links(tracking: TrackingConfig, experiment_id: str, sweep: str | None = None) -> dict[str, str]:
    """Name → address of the pages of one sweep or of all; for a local store they need a running `mlflow ui`."""
    place = "http://127.0.0.1:5000" if tracking.name == "local" else Address(str(tracking.uri)).link
    return {name: f"{place}/{link}" for name, link in view.links(experiment_id, sweep).items()}


def sync_command(root: str | Path, tracking: TrackingConfig) -> str:
    """Command that logs everything later."""
    hides = isinstance(tracking.uri, Address) and tracking.uri.hides  # secrets are not printed
    uri = f'"${VARIABLE}"' if hides else shlex.quote(str(tracking.uri))
    place = f" --uri {uri}" if tracking.name == "server" else ""
    experiment = f" --experiment {shlex.quote(tracking.experiment)}" if tracking.experiment != "quantlab" else ""
    return f"quantlab sync --root {shlex.quote(str(root))}{place}{experiment}"


def query(root: str | Path, sql: str, value: str) -> str | None:
    """Query SQLite directly for one value, since importing MLflow takes 4 s.

    The queried tables and columns have kept their names since MLflow 1.0. If they change, the result is None, and
    MLflow is used.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{database(root).as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute(sql, [value]).fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else str(row[0])


class _Limited:
    """A client that sends no further request after waiting for answers for some seconds in total.

    Only waiting counts, not the time between requests. Incomplete work is repeated, as after a kill.
    """

    def __init__(self, client: Any, limit_s: float) -> None:
        self._client, self._limit_s, self._waited_s = client, limit_s, 0.0

    def __getattr__(self, name: str) -> Any:
        return partial(self._ask, getattr(self._client, name))

    def _ask(self, request: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if self._waited_s > self._limit_s:
            raise Unreachable(f"MLflow: no answer within {self._limit_s:.1f} s")
        began_s = time.monotonic()
        try:
            return request(*arguments, **options)
        finally:
            self._waited_s += time.monotonic() - began_s


@contextlib.contextmanager
def connected(root: str | Path, tracking: TrackingConfig, limit_s: float | None = None) -> Iterator[Store]:
    """Open the store, after a check that it answers.

    A local one is locked against all other processes that write below the same root, so that SQLite does not reach its
    busy timeout if many processes log at once. A server has no lock; duplicate runs of concurrent writers are resolved
    by `quantlab.tracking.runs`.

    Args:
        root: the folder of records.
        tracking: the store to open.
        limit_s: that of `quantlab.tracking.sync.sync`; importing MLflow does not count.

    Raises:
        Unreachable: the server does not answer.
        TrackingError: the store cannot be written to.
    """
    root = Path(root)
    if tracking.name == "server":
        _probe(tracking, _PATIENT_S if limit_s is None else _PROBE_S)
    _load(_PATIENT if limit_s is None else _HASTY)
    from mlflow import MlflowClient

    with translated(root, tracking):
        if tracking.name == "server":
            client = _Limited(MlflowClient(_server_uri(tracking)), math.inf if limit_s is None else limit_s)
            yield Store(root, tracking, client, _experiment(client, root, tracking), contextlib.nullcontext())
            return
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / ".mlflow.lock", timeout=_LOCK_S, poll_interval=0.2)
        with lock:
            _make_database(database(root))
        client = MlflowClient(_sqlite_uri(database(root)))  # slower than logging a cell, and needs no lock
        with lock:
            experiment_id = _experiment(client, root, tracking)
        yield Store(root, tracking, client, experiment_id, lock)


def _server_uri(tracking: TrackingConfig) -> str:
    """Complete address of the server, including secrets; only for the connection."""
    assert tracking.uri is not None  # validated by TrackingConfig
    try:
        return opened(tracking.uri)
    except ValueError as error:
        raise TrackingError(f"MLflow: {tracking.uri}: {error}") from None


def _probe(tracking: TrackingConfig, timeout_s: float) -> None:
    """Check that the server is reachable, without importing MLflow; any status below 500 passes."""
    uri = _server_uri(tracking)
    if not uri.startswith(("http://", "https://")):
        return
    import requests

    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    trusted = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True
    cert = os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
    try:
        with requests.get(
            f"{uri.rstrip('/')}/health", timeout=timeout_s, verify=not insecure and trusted, cert=cert, stream=True
        ) as answer:
            status = answer.status_code
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        raise Unreachable(f"MLflow: the server {Address(uri)} cannot be reached ({_explain(error, uri)})") from None
    if status >= 500:
        raise Unreachable(f"MLflow: the server {Address(uri)} answers with HTTP status {status}")


def _load(requests: dict[str, str]) -> None:
    """Import MLflow, with timeouts and logging set for a grid."""
    os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})
    os.environ.update(requests | _GIVEN)
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic"):  # hides "Creating initial MLflow database tables..."
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it also raises the errors that it logs


@contextlib.contextmanager
def translated(root: str | Path, tracking: TrackingConfig) -> Iterator[None]:
    """Turn all errors of MLflow into TrackingError, with a message of one line and without credentials."""
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    place = str(tracking.uri) if tracking.name == "server" else _sqlite_uri(database(root))
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
        raise kind(f"MLflow: {place}: {_explain(error, place)}") from None


def _damaged(error: Exception, root: str | Path, tracking: TrackingConfig) -> Damaged | None:
    """The error for a damaged local database, with the command that rebuilds it; None for other errors."""
    sign = next((sign for sign in _BROKEN if sign in str(error)), None)
    if sign is None or tracking.name != "local":
        return None
    path = shlex.quote(str(Path(root) / database(root).name))
    return Damaged(
        f"MLflow: {path} is damaged ({sign}); the records are not affected, and it can be rebuilt from them: "
        f"mv {path} {path}.damaged && quantlab sync --root {shlex.quote(str(root))}"
    )


def _explain(error: Exception, place: str) -> str:
    """The cause of an error in one line."""
    text = " ".join(str(error).split())
    if "out-of-date database schema" in text:
        return f"written by another version of MLflow; run `mlflow db upgrade {place}`, or delete the file"
    if busy := re.search(r"too many (\d+) error responses", text):
        return f"HTTP status {busy[1]}"
    if getattr(error, "get_http_status_code", lambda: None)() == 401:
        return _WHO
    meant = next((meaning for sign, meaning in _MEANING.items() if sign in text), None)
    return meant or redact(str(error).strip().split("\n")[0])


def _sqlite_uri(path: Path) -> str:
    """Address of a database for SQLAlchemy, with its two special characters escaped."""
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


def _make_database(path: Path) -> None:
    """Create the database if it is missing, and check that it can be written to, which MLflow would retry for minutes.

    It is created under another name and then renamed, so that a kill leaves no partly migrated one.
    """
    from mlflow import MlflowClient

    if not path.exists():
        fresh = path.with_name(".mlflow.db.new")
        fresh.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(fresh)):
            MlflowClient(_sqlite_uri(fresh)).search_experiments(max_results=1)
        fresh.replace(path)
    with contextlib.closing(sqlite3.connect(path, timeout=_LOCK_S)) as connection:
        connection.execute("BEGIN IMMEDIATE")


def _experiment(client: Any, root: str | Path, tracking: TrackingConfig) -> str:
    """Id of the experiment, which is created or restored if necessary."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(tracking.experiment)
    if found is None:
        artifacts = None if tracking.name == "server" else (Path(root).resolve() / "artifacts").as_uri()
        try:
            made = str(client.create_experiment(tracking.experiment, artifacts))
        except MlflowException:  # another process has created it
            found = client.get_experiment_by_name(tracking.experiment)
            if found is None:
                raise
        else:
            client.set_experiment_tag(made, "mlflow.experimentKind", "custom_model_development")
            client.set_experiment_tag(made, "mlflow.note.content", view.experiment_note(made))
            client.set_experiment_tag(made, *view.saved_view(["clean", "other"]))
            return made
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)
