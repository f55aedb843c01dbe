"""Records → MLflow. Records are the truth and MLflow is a view of them; nothing else here imports MLflow.

MLflow is imported when a function needs it and never before: that costs about 4 s, which a grid with nothing
left to do must not pay.
"""

from quantlab.tracking.log import log_cell, log_sweep, rebuild
from quantlab.tracking.store import TrackingError, prepare, ui_command, ui_url

__all__ = ["TrackingError", "log_cell", "log_sweep", "prepare", "rebuild", "ui_command", "ui_url"]
