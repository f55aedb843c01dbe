"""MLflow tracking: a view of the records, which are authoritative. No other package imports MLflow.

MLflow is imported only by functions that need it: the import takes about 4 s, which a grid with nothing left to do
must not spend.
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
