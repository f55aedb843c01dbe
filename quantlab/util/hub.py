"""Files of the Hugging Face hub: from the cache, else by download, else a one-line error.

`huggingface_hub` retries for 23 s before it reports a missing network; here one short request decides.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal

from quantlab.util.errors import ConfigError, Unavailable

Kind = Literal["model", "dataset"]
PATIENCE_S = 5.0  # timeout for the first answer of the hub
_cache_only = ContextVar("cache_only", default=False)


@contextlib.contextmanager
def cache_only() -> Iterator[None]:
    """Within the block the hub is not contacted: anything not cached is `Unavailable`."""
    before = _cache_only.set(True)
    try:
        yield
    finally:
        _cache_only.reset(before)


def snapshot(
    repo: str,
    revision: str | None,
    kind: Kind,
    patterns: Sequence[str],
    complete: Callable[[Path], bool],
    ways_out: str,
) -> Path:
    """The folder that holds one revision of a repository; its name is the commit.

    Args:
        repo: `owner/name`.
        revision: commit, tag or branch; None: the newest one, or the newest in the cache.
        kind: type of the repository.
        patterns: globs of the files to fetch.
        complete: whether a cached folder holds all of them.
        ways_out: advice that ends the message if there is neither hub nor cache.

    Raises:
        Unavailable: not cached, and the hub did not answer.
        ConfigError: the hub has no such repository or revision.
    """
    folder, whole = _cached(repo, revision, kind, patterns)
    usable = folder is not None and complete(folder)
    if folder is not None and usable and whole:
        return folder
    try:
        _ask(repo, revision, kind, ways_out)
        return _fetch(repo, revision, kind, patterns, ways_out)
    except Unavailable:
        if folder is None or not usable:
            raise
        return folder  # cached by another program, without some files that it did not need


def commit(repo: str, revision: str | None, kind: Kind) -> str:
    """The commit that `snapshot` would use: pinned, else cached, else the hub's newest, else unknown."""
    if revision is not None:
        return revision
    folder, _ = _cached(repo, revision, kind, patterns=())
    if folder is not None:
        return folder.name
    try:
        return _ask(repo, revision, kind, ways_out="")
    except Unavailable:
        return "unknown"


def _cached(repo: str, revision: str | None, kind: Kind, patterns: Sequence[str]) -> tuple[Path | None, bool]:
    """The cached folder of a revision, and whether it holds every file that matches `patterns`."""
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            repo, revision=revision, repo_type=kind, local_files_only=True, allow_patterns=list(patterns)
        )
    except FileNotFoundError as error:  # IncompleteSnapshotError of huggingface_hub 2 names the folder
        path = getattr(error, "snapshot_path", None)
        return (Path(path) if path else None), False
    except huggingface_hub.errors.HFValidationError as error:
        raise ConfigError(f"{repo!r} is not a hub repository: {error}") from None
    return Path(folder), True


def _ask(repo: str, revision: str | None, kind: Kind, ways_out: str) -> str:
    """Ask the hub for the commit of a revision.

    Runs in a thread with a deadline, since the client's timeouts do not cover a name server that does not answer.
    """
    import huggingface_hub
    from huggingface_hub import errors

    here = f"{kind} {repo}@{revision or 'main'} is not on this machine"
    if huggingface_hub.constants.HF_HUB_OFFLINE or _cache_only.get():
        raise Unavailable(f"{here} and HF_HUB_OFFLINE forbids fetching it; {ways_out}")
    answer = _within(
        PATIENCE_S + 1,
        lambda: huggingface_hub.HfApi().repo_info(repo, revision=revision, repo_type=kind, timeout=PATIENCE_S),
    )
    if isinstance(answer, errors.GatedRepoError):
        raise Unavailable(f"{here} and the hub requires a login for it (`hf auth login`); {ways_out}")
    if isinstance(answer, errors.RepositoryNotFoundError | errors.RevisionNotFoundError):
        raise ConfigError(f"the hub has no {kind} {repo} at revision {revision or 'main'}: check repo and revision")
    if isinstance(answer, BaseException):
        why = str(answer).split("\n")[0] or type(answer).__name__
        raise Unavailable(f"{here} and {huggingface_hub.constants.ENDPOINT} cannot be reached ({why}); {ways_out}")
    return str(answer.sha)


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """Run a call with a time limit, else raise TimeoutError; the abandoned thread ends with the process."""
    outcome: list[Any] = [TimeoutError(f"no answer within {seconds:.0f} s")]

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[-1]


def _fetch(repo: str, revision: str | None, kind: Kind, patterns: Sequence[str], ways_out: str) -> Path:
    """Download by branch or tag name, not by commit, so that the cache maps the name to its commit when offline."""
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            repo, revision=revision, repo_type=kind, allow_patterns=list(patterns)
        )
    except huggingface_hub.errors.GatedRepoError:
        raise Unavailable(f"the hub requires a login for {kind} {repo} (`hf auth login`); {ways_out}") from None
    except Exception as error:  # network, proxy and disk raise different types
        why = str(error).split("\n")[0] or type(error).__name__
        raise Unavailable(
            f"{kind} {repo}@{revision or 'main'}: the download broke off ({why}); run again, or {ways_out}"
        ) from error
    return Path(folder)
