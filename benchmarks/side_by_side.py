"""Throughput of cells side by side: one thread each, two at a time, against the same cells in turn with two threads.

    python benchmarks/side_by_side.py --repetitions 3 model.path=tiny.en model.name=tiny.en dataset.limit=40

Both ways measure the same quantizers on the same corpus, alternately, each time into an empty folder. The features are
extracted beforehand. Arguments that are not options go to quantlab.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAYS = {
    "in turn, all threads": ("jobs=1", "device.threads={jobs}"),
    "side by side, one thread each": ("jobs={jobs}", "device.threads=1"),
}


def main() -> int:
    """Run both ways alternately, and print the seconds of each and the ratio."""
    options, further = _parser().parse_known_args()
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for repetition in range(-1, options.repetitions):  # the first one fills the caches of features and of files
        for way in WAYS:
            seconds = _seconds(way, options, further)
            if repetition >= 0:
                found[way].append(seconds)
                print(f"{repetition + 1}  {way}: {seconds:.1f} s (load {os.getloadavg()[0]:.1f})", flush=True)
    in_turn, beside = found.values()
    ratios = [one / other for one, other in zip(in_turn, beside, strict=True)]
    for way, all_s in found.items():
        print(f"{way}: median {statistics.median(all_s):.1f} s")
    print(f"throughput: {statistics.median(ratios):.2f} times ({', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    return 0


def _seconds(way: str, options: argparse.Namespace, further: list[str]) -> float:
    """Wall seconds of a whole grid, including its start."""
    keys = [key.format(jobs=options.jobs) for key in WAYS[way]]
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", f"quant={options.quant}", "device=cpu", "tracking=off", f"output_dir={Path(folder) / 'root'}"]
        began_s = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "quantlab", *command, *keys, *further], check=True, capture_output=True, text=True
        )
        return time.perf_counter() - began_s


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="cells side by side, and threads of a cell in turn")
    parser.add_argument("--quant", default="none,torch_int8,hqq_int4,quanto_int8", help="the cells")
    return parser


if __name__ == "__main__":
    sys.exit(main())
