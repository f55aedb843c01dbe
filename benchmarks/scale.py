"""Cost of bookkeeping by number of cells: `python benchmarks/scale.py`.

Makes a grid of ten models × ten quantizations × seeds, and a synthetic record for each cell (real schema, 20
utterances). Then times the steps of a grid before it measures anything (composing, planning, reading records), the
commands that read records, and the whole resumed grid. Times are processor seconds, as machines are shared, with wall
time in parentheses. A command that this version lacks is left out, with a note.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantlab.config.compose import compose
from quantlab.grid.plan import Cell, plan
from quantlab.recogniser.fingerprints import library_versions
from quantlab.records import storage
from quantlab.records.schema import CellResult
from report import result

MODELS = "nano,tiny,base,small,medium,large_v2,large_v3,large_v3_turbo,distil_large_v3,base_en"
QUANTS = "none,torch_int8,quanto_int8,quanto_int4,hqq_int8,hqq_int4,hqq_int3,hqq_int2,bnb_nf4,bnb_fp4"
UTTERANCES = 20  # per record
TENS = 100  # cells per seed
COMMANDS = {
    "report": ["quantlab.report"],
    "report, json": ["quantlab.report", "--format", "json"],
    "status": ["quantlab.status"],
    "sync, SQLite": ["quantlab.sync"],
}
TOO_LONG = {"sync, SQLite": 1000}  # maximum number of cells


@dataclass(frozen=True)
class Cost:
    processor_s: float
    wall_s: float

    def __str__(self) -> str:
        return f"{self.processor_s:.2f} ({self.wall_s:.2f})"


def main() -> None:
    """Measure every operation at every size, print each result, and then the curves."""
    options = _options()
    curves: dict[str, dict[int, Cost]] = {}
    for cells in options.cells:
        with tempfile.TemporaryDirectory(prefix="quantlab-scale-") as scratch:
            for name, cost in measured(cells, Path(scratch)):
                curves.setdefault(name, {})[cells] = cost
                print(f"{cells:6} cells  {name:22} {cost} s", flush=True)
            print(f"{cells:6} cells  {_storage(Path(scratch))}", flush=True)
    print()
    print(table(curves, options.cells))


def measured(count: int, root: Path) -> Iterator[tuple[str, Cost]]:
    """Every operation at one size, with its cost."""
    arguments = grid(count, root)
    cost, configs = _timed(lambda: compose(arguments))
    yield "compose", cost
    cost, cells = _timed(lambda: plan(configs))
    yield "plan", cost
    results = list(records(cells))
    cost, _ = _timed(lambda: [storage.write(root, item) for item in results])
    yield "write records", cost
    cost, read = _timed(lambda: storage.readable(root, [cell.id for cell in cells], print))
    assert len(read) == count
    yield "read records", cost
    for name, (module, *more) in COMMANDS.items():
        if importlib.util.find_spec(module) is None:
            print(f"{count:6} cells  {name:22} left out: this version has no {module}")
        elif count <= TOO_LONG.get(name, count):
            yield name, _command([module, *more, "--root", str(root)])
    yield "resume, whole command", _command(["quantlab", *arguments])


def grid(count: int, root: Path) -> list[str]:
    """The command line of a grid of `count` cells, all recorded already."""
    assert count % TENS == 0, f"{count} cells: a multiple of {TENS}"
    seeds = ",".join(map(str, range(count // TENS)))
    axes = [f"model={MODELS}", f"quant={QUANTS}", f"seed={seeds}"]
    return ["-m", *axes, "device=cpu", "tracking=off", f"output_dir={root}"]


def records(cells: Sequence[Cell]) -> Iterator[CellResult]:
    """A record with status ok for each cell.

    Each model and quantization has errors of its own. Seeds share them, as none of these quantizers is calibrated.
    """
    models, quants = MODELS.split(","), QUANTS.split(",")
    for cell in cells:
        variant = models.index(cell.config.model.name) * len(quants) + quants.index(cell.config.quant.name)
        made = result(cell.id, model=0, variant=variant, count=UTTERANCES)
        facts = {
            "config": cell.config.model_dump(mode="json"),
            "fingerprints": cell.fingerprints,
            "environment": {"versions": library_versions(cell.config)},
        }
        yield made.model_copy(update={"record": made.record.model_copy(update=facts)})


def table(curves: dict[str, dict[int, Cost]], sizes: Sequence[int]) -> str:
    """Table of seconds by operation and size, with the exponent of growth."""
    lines = ["| processor s (wall s) | " + " | ".join(f"{size:,}" for size in sizes) + " | exponent |"]
    lines.append("|---" * (len(sizes) + 2) + "|")
    for name, costs in curves.items():
        cells = [str(costs[size]) if size in costs else "–" for size in sizes]
        lines.append(f"| {name} | {' | '.join(cells)} | {exponent(costs)} |")
    return "\n".join(lines)


def exponent(costs: dict[int, Cost]) -> str:
    """Slope of log seconds over log cells; 1 is linear. From 1,000 cells on, where start-up time no longer matters."""
    points = [(math.log(size), math.log(cost.processor_s)) for size, cost in costs.items() if size >= 1000]
    if len(points) < 2:
        return "–"
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return f"{sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points):.2f}"


def _timed(action: Callable[[], object]) -> tuple[Cost, object]:
    wall, processor = time.perf_counter(), time.process_time()
    found = action()
    return Cost(time.process_time() - processor, time.perf_counter() - wall), found


def _command(command: Sequence[str]) -> Cost:
    """Cost of a command as a user runs it, including the start of the interpreter."""
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    if done.returncode > 1:  # 1 is a valid answer
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(processor, time.perf_counter() - wall)


def _storage(root: Path) -> str:
    """Number of bytes and file system entries below a folder."""
    files = list(root.rglob("*"))
    sizes = [path.stat() for path in files if path.is_file()]
    content, blocks = sum(item.st_size for item in sizes), sum(512 * item.st_blocks for item in sizes)
    return f"{len(files):,} entries, {content / 1e6:.1f} MB of content, {blocks / 1e6:.1f} MB on disk"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cells",
        type=lambda text: [int(size) for size in text.split(",")],
        default=[100, 300, 1000, 3000, 10000],
        metavar="N,N,…",
        help="sizes, multiples of 100 (default: 100,300,1000,3000,10000)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
