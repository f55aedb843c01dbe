"""Simulation of many jobs with one writer: `python benchmarks/one_writer.py --service-s 0.03`.

Each job measures a cell, passes its result to the writer (a lock, a database), waits until it is written, and continues
with the next cell. Assumptions: cell times are exponentially distributed, the jobs' starts are spread over one
cell, and the writer serves in order of arrival, with a constant service time. It prints how busy the writer is, how
long a result waits, and the share of time that the jobs lose.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass

CELLS = 50  # measured by each job


@dataclass(frozen=True)
class Outcome:
    busy: float  # share of the time that the writer writes
    wait_median_s: float  # in the queue, writing itself left out
    wait_p99_s: float
    lost: float  # share of the jobs' time spent waiting and writing


def simulate(jobs: int, cell_s: float, service_s: float, seed: int = 0) -> Outcome:
    """Simulate `jobs` jobs of `CELLS` cells each; the writer takes `service_s` per result."""
    chance = random.Random(seed)
    arrivals = [(chance.uniform(0, cell_s), CELLS) for _ in range(jobs)]  # when a result is ready, cells still to do
    heapq.heapify(arrivals)
    free_s = 0.0
    waits_s = []
    while arrivals:
        ready_s, left = heapq.heappop(arrivals)
        begin_s = max(ready_s, free_s)
        free_s = begin_s + service_s
        waits_s.append(begin_s - ready_s)
        if left > 1:
            heapq.heappush(arrivals, (free_s + chance.expovariate(1 / cell_s), left - 1))
    waits_s.sort()
    inside_s = sum(waits_s) + len(waits_s) * service_s
    return Outcome(
        busy=len(waits_s) * service_s / free_s,
        wait_median_s=waits_s[len(waits_s) // 2],
        wait_p99_s=waits_s[int(0.99 * len(waits_s))],
        lost=inside_s / (inside_s + len(waits_s) * cell_s),
    )


def table(sizes: Sequence[int], cell_s: float, service_s: float) -> str:
    """Table with one line per number of jobs."""
    lines = ["| jobs | writer busy | wait, median | wait, 99 % | time lost |", "|---|---|---|---|---|"]
    for jobs in sizes:
        found = simulate(jobs, cell_s, service_s)
        waits = f"{found.wait_median_s:.2f} s | {found.wait_p99_s:.2f} s"
        lines.append(f"| {jobs:,} | {found.busy:.0%} | {waits} | {found.lost:.1%} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table of a simulation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[16, 64, 256, 1000, 4000])
    parser.add_argument("--cell-s", type=float, default=60.0, help="mean time of a cell (default: %(default)s)")
    parser.add_argument("--service-s", type=float, required=True, help="of the writer, for one result")
    options = parser.parse_args()
    print(table(options.jobs, options.cell_s, options.service_s))


if __name__ == "__main__":
    main()
