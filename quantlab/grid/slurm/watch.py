"""Waiting for jobs: prints a line per recorded cell, and records cells whose job ended without a record."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from quantlab.grid.plan import Cell, Refusal
from quantlab.grid.run import Grid
from quantlab.grid.slurm import batch as batches
from quantlab.grid.slurm.batch import Batch
from quantlab.grid.slurm.place import Look, Place, log_of, look
from quantlab.grid.slurm.slurm import Job
from quantlab.grid.slurm.stop import limit_note
from quantlab.records.schema import Record, Status

RECORDS_S = 2.0  # between checks of the folder
SLURM_S = 10.0  # between queries to the controller, which all users share
STATUS: dict[str, Status] = {"TIMEOUT": "timeout", "OUT_OF_MEMORY": "oom"}  # other end states: `failed`


@dataclass
class JobWatch:
    """Waits for the cells of a grid that jobs measure."""

    grid: Grid
    waiting: dict[str, Cell]
    places: Mapping[str, Place]

    def wait(self) -> dict[str, Record]:
        """Wait until each cell has a record, and show each record when it appears.

        A job counts as ended after SLURM has reported so twice, with a check of the records in between: a requeue looks
        like an end for a moment, and a shared folder may show a new file late.
        """
        found: dict[str, Record] = {}
        doubtful: set[str] = set()
        asked_s = -SLURM_S
        while True:
            found |= self._finished()
            if not self.waiting:
                return found
            if time.monotonic() - asked_s >= SLURM_S:
                now = self._look()
                asked_s = time.monotonic()
                ended = self._ended(now)
                for id in ended.keys() & doubtful:
                    found[id] = self._lost(self.waiting.pop(id), ended[id])
                doubtful = set(ended)
            time.sleep(RECORDS_S)

    def _finished(self) -> dict[str, Record]:
        found = {}
        for id, cell in list(self.waiting.items()):
            if record := batches.made_since(self.grid.root, self.places[id].cell):
                del self.waiting[id]
                found[id] = self.grid.show(cell, record, "")
        return found

    def _look(self) -> Look:
        unique: dict[str, Batch] = {self.places[id].batch.id: self.places[id].batch for id in self.waiting}
        now = look(self.grid.root, list(unique.values()))
        states = [job.state.lower() for id in self.waiting if (job := now.job(self.places[id]))]
        summary = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
        self.grid.display.update("SLURM", summary if now.answered else "squeue does not answer", 0, 0)
        return now

    def _ended(self, now: Look) -> dict[str, Job]:
        if not now.answered:
            return {}
        jobs = {id: now.job(self.places[id]) for id in self.waiting}
        return {id: job for id, job in jobs.items() if job is not None and job.ended}

    def _lost(self, cell: Cell, job: Job) -> Record:
        """The record of a cell whose job ended without one."""
        root, batch = self.grid.root, self.places[cell.id].batch
        if limit := limit_note(root, batch, cell.id):  # and the job was not requeued
            refusal = Refusal("timeout", limit)
        else:
            why, log = f"{job.state} {job.reason}".strip(), log_of(root, batch, job.id)
            reason = f"SLURM job {job.id} ended ({why}) before the cell was done; its output: {log}"
            refusal = Refusal(STATUS.get(job.state, "failed"), reason)
        [record] = self.grid.run([replace(cell, refusal=refusal)])
        return record
