"""Time to rebuild MLflow from many records: `python benchmarks/sync.py`.

Makes the synthetic records of `benchmarks/report.py`, syncs them into a SQLite store, and syncs again, when
nothing is missing. Prints wall and processor seconds of this process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from quantlab import tracking
from quantlab.config.schema import TrackingConfig
from quantlab.records import storage
from report import records


def main() -> None:
    """Time the first and the second sync for each number of records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[100, 1000], help="how many (default: 100 1000)")
    parser.add_argument("--uri", help="a server instead of SQLite")
    options = parser.parse_args()
    for count in options.records:
        with tempfile.TemporaryDirectory() as folder:
            _measure(Path(folder), count, options.uri)


def _measure(root: Path, count: int, uri: str | None) -> None:
    for result in records(count):
        storage.write(root, result)
    place = TrackingConfig(name="server" if uri else "local", uri=uri, experiment=f"benchmark-{time.time():.0f}")
    tracking.sync(root, place, lambda cell_ids: ("", {}), cells=[])
    for name in ("all missing", "none missing"):
        wall_s, processor_s = time.perf_counter(), time.process_time()
        found = tracking.sync(root, place, lambda cell_ids: ("", {}))
        wall_s, processor_s = time.perf_counter() - wall_s, time.process_time() - processor_s
        print(f"{count:6} records, {name}: {wall_s:7.1f} s, {processor_s:7.1f} s of processor, {found.logged} logged")


if __name__ == "__main__":
    main()
