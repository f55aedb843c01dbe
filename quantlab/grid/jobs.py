"""Whether this machine has what `jobs` asks for."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.config.schema import RunConfig
from quantlab.util.counted import counted
from quantlab.util.errors import ConfigError
from quantlab.util.machine import Site, affinity


def check_jobs(configs: Sequence[RunConfig], site: Site) -> None:
    """Refuse a number of cells side by side that cannot be honoured.

    Args:
        configs: the cells of a grid, as given.
        site: the machine that runs them.

    Raises:
        ConfigError: the cells differ in it, or there are too few cores or GPUs.
    """
    given = dict.fromkeys(config.jobs for config in configs)
    if len(given) > 1:
        raise ConfigError(f"jobs={','.join(map(str, given))}: one value for the whole grid, it cannot be swept over")
    [jobs] = given or [1]
    if jobs == 1:
        return
    if not affinity():
        raise ConfigError(f"jobs={jobs}: this system cannot give a process cores of its own: leave jobs out")
    beside = [config for config in configs if not config.protocol.interleave]
    if not beside:
        raise ConfigError(f"jobs={jobs}: a cell that is timed in turns with its baseline runs alone: leave jobs out")
    devices = {site.device if config.device.name == "auto" else config.device.name for config in beside}
    if isinstance(jobs, int):
        _check_number(jobs, devices, site)
    elif "cuda" not in devices and not any(config.device.threads for config in beside):
        raise ConfigError(
            f"jobs=auto: on {' and '.join(sorted(devices))} it divides the cores by device.threads, which is not set; "
            "set it, or jobs=N"
        )


def _check_number(jobs: int, devices: set[str], site: Site) -> None:
    if jobs > site.threads:
        raise ConfigError(
            f"jobs={jobs}: each cell has cores of its own, and this process may use {counted(site.threads, 'core')}"
        )
    if devices == {"cuda"} and jobs > site.gpus > 0:
        raise ConfigError(f"jobs={jobs}: each cell has a GPU of its own, and there {_are(site.gpus)}: set jobs=auto")


def _are(gpus: int) -> str:
    return "is 1 GPU" if gpus == 1 else f"are {gpus} GPUs"
