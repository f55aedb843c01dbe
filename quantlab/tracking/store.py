"""The store behind MLflow: where it is, set up once, reached quickly or given up quickly."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from filelock import FileLock, Timeout

from quantlab.config import TrackingConfig
from quantlab.redact import redact
from quantlab.storage import cells_dir
from quantlab.tracking import view

_PROBE_S = 3.0  # a live server answers in milliseconds
_LOCK_S = 60.0  # the longest wait for other processes that write to the same store
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default blocks for minutes on a dead server
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it would print the password of the address
    "GIT_PYTHON_REFRESH": "quiet",
}


class TrackingError(RuntimeError):
    """MLflow could not be reached or written; records are untouched. The message says what to do next."""


@dataclass(frozen=True)
class Store:
    """An experiment in a store, with the client that talks to it."""

    client: Any  # mlflow.MlflowClient
    experiment_id: str


def prepare(root: str | Path, tracking: TrackingConfig) -> None:
    """Set up the store and the experiment, or do nothing where they are there or tracking is off.

    The first call in a process imports MLflow (about 3 s of processor time), the first for a root creates the
    database (1 to 2 s). Safe in a thread and in several processes at once.

    Raises:
        TrackingError: the store cannot be reached or written.
    """
    if tracking.name != "off":
        with opened(root, tracking):
            pass


def store_uri(root: str | Path, tracking: TrackingConfig) -> str:
    """`sqlite:///<root>/mlflow.db`, or the server's."""
    if tracking.name == "server":
        assert tracking.uri is not None  # validated by TrackingConfig
        return tracking.uri
    return _sqlite_uri(_database(root))


def _sqlite_uri(path: Path) -> str:
    """SQLAlchemy's form: the path as it is, but for the two characters that mean something in it."""
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


def _database(root: str | Path) -> Path:
    return Path(root).resolve() / "mlflow.db"


def ui_command(root: str | Path, tracking: TrackingConfig) -> str | None:
    """What a person types or opens to look at the runs; None where nothing is tracked."""
    if tracking.name == "off":
        return None
    if tracking.name == "server":
        return str(redact(tracking.uri))
    return f"mlflow ui --backend-store-uri {shlex.quote(_sqlite_uri(Path(root) / 'mlflow.db'))}"


def ui_url(root: str | Path, tracking: TrackingConfig) -> str | None:
    """Where `mlflow ui` then shows the table, columns chosen; None where that cannot be told."""
    if tracking.name != "local":
        return None
    rows = _query(_database(root), "SELECT experiment_id FROM experiments WHERE name = ?", tracking.experiment)
    return f"http://127.0.0.1:5000/{view.link(str(rows[0][0]))}" if rows else None


@contextlib.contextmanager
def opened(root: str | Path, tracking: TrackingConfig) -> Iterator[Store]:
    """The store, ready and locked against every other process that writes below the same root.

    The lock makes "look whether it is there, else create it" one step, and it keeps SQLite from running into its
    busy timeout however many processes log at once.
    """
    if tracking.name == "server":
        _probe(store_uri(root, tracking))
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        with FileLock(Path(root) / ".mlflow.lock", timeout=_LOCK_S), _translated(root, tracking):
            if tracking.name == "local":
                _ensure_database(_database(root))
            client = _client(store_uri(root, tracking))
            yield Store(client, _experiment(client, root, tracking))
    except Timeout as error:
        raise TrackingError(f"MLflow: another process held {error.lock_file} for {_LOCK_S:g} s") from None
    except (OSError, sqlite3.Error) as error:  # requests' errors are OSErrors too
        raise TrackingError(f"MLflow: {_place(root, tracking)}: {redact(str(error))}") from None


@contextlib.contextmanager
def _translated(root: str | Path, tracking: TrackingConfig) -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        text = str(redact(str(error).strip().split("\n")[0]))
        place = _place(root, tracking)
        if "out-of-date database schema" in text:
            text = f"written by another version of MLflow; run `mlflow db upgrade {place}`, or delete the file"
        raise TrackingError(f"MLflow: {place}: {text}") from None


def _place(root: str | Path, tracking: TrackingConfig) -> str:
    return str(redact(store_uri(root, tracking)))


def _ensure_database(path: Path) -> None:
    """Make the database if it is not there; see that it can be written, as MLflow would try that for minutes.

    It is made under another name and renamed, so that a kill leaves no half-migrated one.

    Raises:
        sqlite3.Error: it is no database, or cannot be written.
    """
    if not path.exists():
        fresh = path.with_name(".mlflow.db.new")
        fresh.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(fresh)):
            _client(_sqlite_uri(fresh)).search_experiments(max_results=1)
        fresh.replace(path)
    with contextlib.closing(sqlite3.connect(path, timeout=_LOCK_S)) as database:
        database.execute("BEGIN IMMEDIATE")


def _client(uri: str) -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("mlflow", "alembic"):  # "Creating initial MLflow database tables..." is nothing a user needs
        logging.getLogger(name).setLevel(logging.WARNING)
    return mlflow.MlflowClient(tracking_uri=uri)


def _experiment(client: Any, root: str | Path, tracking: TrackingConfig) -> str:
    """Id of the experiment, made or brought back to life if need be."""
    found = client.get_experiment_by_name(tracking.experiment)
    if found is None:
        artifacts = None if tracking.name == "server" else (Path(root).resolve() / "artifacts").as_uri()
        made = str(client.create_experiment(tracking.experiment, artifacts))
        client.set_experiment_tag(made, "mlflow.experimentKind", "custom_model_development")
        client.set_experiment_tag(made, "mlflow.note.content", view.experiment_note(made))
        client.set_experiment_tag(made, *view.saved_view(["clean", "other"]))
        return made
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _probe(uri: str) -> None:
    """Find out in seconds whether anything answers: any HTTP answer will do, whatever its status.

    Raises:
        TrackingError: nothing answers.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    try:
        urllib.request.urlopen(f"{bare.rstrip('/')}/health", timeout=_PROBE_S).close()
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise TrackingError(
            f"MLflow: no server answers at {bare} ({reason}); start it, or use tracking=local"
        ) from None


def cell_marker(root: str | Path, cell_id: str) -> Path:
    """In the cell's folder, so that it goes when the record is replaced."""
    return cells_dir(root) / cell_id / "mlflow.json"


def sweep_marker(root: str | Path, sweep: str, content: str) -> Path:
    """One for each content (a hash of what the summary shows), so that a changed sweep is logged again."""
    return Path(root) / "sweeps" / f"{sweep}.{content}.json"


def logged_run(marker: Path, root: str | Path, tracking: TrackingConfig) -> str | None:
    """Id of the run that was logged to this store before, by its marker; without importing MLflow."""
    run_id = _markers(marker).get(_marker_key(tracking))
    if run_id is None or tracking.name == "server":
        return run_id
    return run_id if _in_database(_database(root), run_id) else None


def remember(marker: Path, tracking: TrackingConfig, run_id: str) -> None:
    """Leave the marker that `logged_run` reads; it may hold several stores."""
    marker.parent.mkdir(exist_ok=True)
    fresh = marker.with_suffix(f".{os.getpid()}.tmp")
    fresh.write_text(json.dumps(_markers(marker) | {_marker_key(tracking): run_id}, indent=1), encoding="utf-8")
    fresh.replace(marker)


def _markers(marker: Path) -> dict[str, str]:
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _marker_key(tracking: TrackingConfig) -> str:
    """Which store; a local one by name, since its folder may have moved together with the records."""
    place = "local" if tracking.name == "local" else redact(tracking.uri)
    return f"{place} {tracking.experiment}"


def _in_database(path: Path, run_id: str) -> bool:
    """Whether the database holds the run (deleted by a user counts: that was their wish)."""
    return bool(_query(path, "SELECT 1 FROM runs WHERE run_uuid = ?", run_id))


def _query(path: Path, sql: str, value: str) -> list[tuple[Any, ...]]:
    """Ask SQLite itself, since MLflow would take 4 s to answer.

    The tables and columns asked for have kept their names since MLflow 1.0; should they change, the answer is
    nothing, and MLflow is asked.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            return database.execute(sql, [value]).fetchall()
    except sqlite3.Error:
        return []
