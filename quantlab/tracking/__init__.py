"""MLflow tracking: a view of the records, which stay the truth. Nothing else imports MLflow.

MLflow is imported when a function needs it and never before: that costs about 4 s, which a grid with nothing
left to do must not pay.
"""

from quantlab.tracking.errors import TrackingError, Unreachable
from quantlab.tracking.log import log_cell
from quantlab.tracking.outbox import Outbox, sync_command
from quantlab.tracking.store import prepare, ui_command, ui_links
from quantlab.tracking.summary import log_sweep
from quantlab.tracking.sync import Synced, sync

__all__ = [
    "Outbox",
    "Synced",
    "TrackingError",
    "Unreachable",
    "log_cell",
    "log_sweep",
    "prepare",
    "sync",
    "sync_command",
    "ui_command",
    "ui_links",
]
