"""Check on the node that cells have the same id as when they were submitted."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace

from quantlab.config.launcher import PREFIX
from quantlab.grid.claims import slurm_job
from quantlab.grid.plan import Cell, Refusal, planner
from quantlab.grid.slurm.batch import Planned
from quantlab.recogniser.fingerprints import differences
from quantlab.util.errors import ConfigError
from quantlab.util.machine import Site, here


def plan_here(cells: Sequence[Planned]) -> list[Cell]:
    """Plan submitted cells on this node; a cell that would differ here is refused, with the reason.

    Raises:
        ConfigError: the batch was written by another version of quantlab.
    """
    find = planner(_node())
    found = []
    for planned in cells:
        cell = Cell(planned.id, planned.run_config(), planned.fingerprints, planned.versions)
        try:
            on_node = find(cell.config)
            found.append(replace(cell, refusal=_refusal(planned, on_node), corpus=on_node.corpus))
        except ConfigError as error:  # e.g. a file that existed at submission
            found.append(replace(cell, refusal=Refusal("failed", f"changed since it was submitted: {error}")))
    return found


def _refusal(planned: Planned, found: Cell) -> Refusal | None:
    if found.refusal or found.id == planned.id:
        return found.refusal
    what = "; ".join(differences(planned, found, "at submission", "here")) or "its configuration differs"
    return Refusal("failed", f"not the cell that was submitted ({what}): submit it again")


def _node() -> Site:
    """The node of this job as a site; another node may have a device that this one lacks."""
    site = here()
    return replace(site, can_change=True, why_no_device=lambda name: _with_advice(site.why_no_device(name)))


def _with_advice(reason: str | None) -> str | None:
    if reason is None:
        return None
    what, _, _ = reason.partition(";")
    return (
        f"{what} ({socket.gethostname()}, SLURM {slurm_job()}); ask for one: hydra/launcher=slurm, "
        f"{PREFIX}partition, {PREFIX}gpu_type; or use device=cpu"
    )
