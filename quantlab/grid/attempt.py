"""A cell as run in this process: its result, or why it has none."""

from __future__ import annotations

import errno
import tempfile
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantlab.config.schema import RunConfig
from quantlab.records.schema import CellResult, Receipt, Status
from quantlab.util.errors import UnsupportedError

if TYPE_CHECKING:  # quantlab.measurement.cell imports torch, which the parent avoids
    from quantlab.measurement.cell import Progress
    from quantlab.recogniser.fingerprints import Identity


@dataclass(frozen=True)
class Failure:
    """Why a cell has no result."""

    status: Status
    reason: str  # one line
    traceback: str | None = None
    receipt: Receipt | None = None


Outcome = CellResult | Failure


def attempt(config: RunConfig, progress: Progress, known: Identity | None = None) -> Outcome:
    """Run `run_cell`, and turn exceptions into a Failure."""
    from quantlab.measurement.cell import run_cell

    try:
        return run_cell(config, progress, known)
    except Exception as error:
        return Failure(
            status=_status(error),
            reason=_one_line(error),
            traceback=traceback.format_exc(),
            receipt=getattr(error, "receipt", None),
        )


def _status(error: Exception) -> Status:
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
        return "oom"  # torch's CPU allocator raises a plain RuntimeError
    return "unsupported" if isinstance(error, UnsupportedError) else "failed"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        text += f"; make room in {tempfile.gettempdir()}, or set TMPDIR to a larger folder, unless output_dir is full"
    return text if type(error).__module__.startswith("quantlab") else f"{type(error).__name__}: {text}"
