"""MLflow tracking: a view of the records, which stay the truth. Nothing else imports MLflow.

MLflow is imported when a function needs it and never before: that costs about 4 s, which a grid with nothing
left to do must not pay.
"""

from quantlab.tracking.background import BackgroundLogger
from quantlab.tracking.store import TrackingError, Unreachable, sync_command, ui_command, ui_links
from quantlab.tracking.sync import Synced, sync

__all__ = [
    "BackgroundLogger",
    "Synced",
    "TrackingError",
    "Unreachable",
    "sync",
    "sync_command",
    "ui_command",
    "ui_links",
]
