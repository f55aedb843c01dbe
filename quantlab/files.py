"""Files that anybody may have put there: regular ones of bounded size are read, whatever else is refused at once."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

NOTE_BYTES = 1 << 20  # of a small file of JSON; those that quantlab writes have a few hundred


def read_bytes(path: str | Path, most: int) -> bytes:
    """What is in a regular file of at most `most` bytes.

    A pipe would be waited for, a device has no end, and a link leads out of the folder that was asked for.

    Raises:
        FileNotFoundError: there is none.
        OSError: it is none of these; the message names the file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # the last is a socket's
            raise _not_read(path, "a link, a pipe or a device, expected a regular file") from None
        raise
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise _not_read(path, "no regular file")
    with os.fdopen(handle, "rb") as file:
        content = b"" if found.st_size > most else file.read(most + 1)
    if len(content) > most or found.st_size > most:
        raise _not_read(path, f"{max(found.st_size, len(content)):,} bytes, expected {most:,} at most")
    return content


def _not_read(path: str | Path, why: str) -> OSError:
    return OSError(errno.EINVAL, why, str(path))


def read_note(path: str | Path, most: int = NOTE_BYTES) -> dict[str, Any]:
    """A JSON object in a file; empty where there is none that can be read."""
    try:
        found = json.loads(read_bytes(path, most))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
