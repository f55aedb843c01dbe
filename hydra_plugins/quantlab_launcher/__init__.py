"""The launcher of `hydra/launcher=slurm`. Hydra only finds launchers in packages below `hydra_plugins`.

It launches nothing itself: quantlab collects all points of the grid, validates them, and only then submits jobs
(`quantlab.grid.slurm`). The launcher's settings are validated there too, so that an error is one clear line.
"""

from __future__ import annotations

from hydra._internal.core_plugins.basic_launcher import BasicLauncher


class SlurmLauncher(BasicLauncher):
    """Composes each point in turn and passes it to quantlab's collector."""

    def __init__(self, **_settings: object) -> None:
        super().__init__()  # the settings are validated by quantlab.config.launcher
