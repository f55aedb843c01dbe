"""The launcher of `hydra/launcher=slurm`. Hydra takes launchers from packages below `hydra_plugins` alone.

Nothing is launched in here: quantlab collects every point of the grid, validates all, and only then submits jobs
(`quantlab.grid.slurm`). What the launcher is told is validated there too, so that a mistake is one clear line.
"""

from __future__ import annotations

from hydra._internal.core_plugins.basic_launcher import BasicLauncher


class SlurmLauncher(BasicLauncher):
    """Composes each point and hands it to quantlab's collector, one after the other."""

    def __init__(self, **_settings: object) -> None:
        super().__init__()  # the settings are quantlab.config.launcher's
