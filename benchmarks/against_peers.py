"""Cost of a cell beside the model's work, here and in optimum-benchmark: `python benchmarks/against_peers.py`.

The same model (nano), features, batch and number of new tokens go through both on the CPU, a process per cell, in
turns. Each turn runs a sweep of one cell and a sweep of several. One more cell costs the wall time from the end of a
cell to the end of the next; its processor time is the difference of the two sweeps. What `generate` and loading took
within is the model's work, the rest is the harness's.

optimum-benchmark is installed into an environment of its own, as it does not run with transformers 5.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.metadata
import itertools
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quantlab import models
from quantlab.config.compose import compose
from quantlab.data import features, open_corpus
from quantlab.recogniser.fingerprints import resolve
from quantlab.records import storage

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent / "quantlab" / "assets" / "nano"
PINS = "optimum-benchmark==0.6.0,transformers==4.57.6"
BATCH, TOKENS = 10, 8  # utterances in the only batch, new tokens of each: fewer than any of these utterances has
CELL = [
    "model=nano", "device=cpu", "dataset=demo", "dataset.splits=[clean]", f"dataset.limit={BATCH}",
    f"protocol.batch_size={BATCH}", f"protocol.max_new_tokens={TOKENS}", "protocol.warmup_batches=2",
]  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """What a command took, and the stages of its cells in wall seconds."""

    wall_s: float
    processor_s: float
    cell_s: float  # wall seconds from the end of a cell to the end of the next, median
    cells: list[dict[str, float]]


@dataclass(frozen=True)
class Turn:
    """Seconds of one more cell: wall, processor, by stage, and start-up of a sweep."""

    wall_s: float
    processor_s: float
    start_s: float
    stages: dict[str, float]

    @property
    def beside_s(self) -> float:
        """Wall seconds beside loading and `generate`."""
        return self.wall_s - self.stages["load"] - self.stages["generate"]


def main() -> None:
    """Measure in turns, print each turn, and then the table of medians."""
    options = _options()
    _adopt()
    python = environment(options.environment, [*options.pins.split(","), f"torch=={_torch()}"])
    with tempfile.TemporaryDirectory(prefix="quantlab-peers-") as scratch:
        speech = _features(Path(scratch))
        sweeps: dict[str, Callable[[int], Sweep]] = {
            "quantlab": lambda count: ours(count, []),
            "quantlab, tracking=off": lambda count: ours(count, ["tracking=off"]),
            "optimum-benchmark": lambda count: theirs(count, python, speech, []),
        }
        if options.memory:
            sweeps["optimum-benchmark, memory=true"] = lambda count: theirs(count, python, speech, ["--memory"])
        for sweep in sweeps.values():  # reads every file once
            sweep(1)
        turns: dict[str, list[Turn]] = {name: [] for name in sweeps}
        for number in range(options.turns):
            for name, sweep in sweeps.items():
                turns[name].append(turn(sweep(1), sweep(1 + options.cells), options.cells))
                print(f"turn {number + 1}  {name:32} {turns[name][-1].beside_s:6.2f} s a cell", flush=True)
    print(f"\n{_versions(python)}; {options.turns} turns, {options.cells} cells added\n")
    print(table(turns))


def environment(folder: Path, pins: Sequence[str]) -> Path:
    """The Python of an environment with these packages, made if they are not what it holds."""
    python, stamp = folder.absolute() / "bin" / "python", folder / "pins.txt"
    if not stamp.exists() or stamp.read_text() != "\n".join(pins):
        print(f"installing {', '.join(pins)} into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        uv = shutil.which("uv", path=beside)
        install = [uv, "pip", "install", "-q", "--python"] if uv else [str(python), "-m", "pip", "install", "-q"]
        subprocess.run([*install, *([str(python)] if uv else []), *pins], check=True)
        stamp.write_text("\n".join(pins))
    return python


def ours(count: int, more: Sequence[str]) -> Sweep:
    """A grid of `count` cells that differ by seed, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="quantlab-peers-") as root:
        seeds = ",".join(map(str, range(count)))
        command = [sys.executable, "-m", "quantlab", "-m", *CELL, f"seed={seeds}", f"output_dir={root}", *more]
        wall_s, processor_s, _ = _timed(command, Path(root), {})
        ids = storage.recorded(root)
        ends_s = sorted((storage.cells_dir(root) / cell_id / "record.json").stat().st_mtime for cell_id in ids)
        cells = [_stages(Path(root), cell_id) for cell_id in ids]
    assert len(cells) == count
    return Sweep(wall_s, processor_s, _interval(ends_s), cells)


def _interval(ends_s: Sequence[float]) -> float:
    """Median of the differences; a single cell has none."""
    return statistics.median(b - a for a, b in itertools.pairwise(ends_s)) if len(ends_s) > 1 else math.nan


def _stages(root: Path, cell_id: str) -> dict[str, float]:
    record, batches = storage.read(root, cell_id), storage.read_batches(root, cell_id)
    assert record is not None
    assert record.status == "ok"
    assert [batch.tokens for batch in batches] == [BATCH * TOKENS], "not the tokens of the other harness"
    found = record.stages
    load_s, features_s, quantize_s = found.load_s or 0.0, found.features_s or 0.0, found.quantize_s or 0.0
    generate_s = (found.warmup_s or 0.0) + (found.measure_s or 0.0)
    within = load_s + features_s + quantize_s + generate_s
    return {
        "load": load_s,
        "generate": generate_s,
        "features and receipt": features_s + quantize_s,
        "process, checks, scoring": (found.total_s or 0.0) - within,
        "whole": found.total_s or 0.0,
    }


def theirs(count: int, python: Path, speech: Path, more: Sequence[str]) -> Sweep:
    """A sweep of optimum-benchmark, in a folder of its own."""
    script = HERE / "peers" / "optimum_sweep.py"
    size = ["--cells", str(count), "--batch", str(BATCH), "--tokens", str(TOKENS)]
    with tempfile.TemporaryDirectory(prefix="quantlab-peers-") as folder:
        command = [str(python), str(script), "--model", str(MODEL), *size, *more]
        variables = {"PEERS_FEATURES": str(speech), "HF_HUB_OFFLINE": "1"}
        wall_s, processor_s, printed = _timed(command, Path(folder), variables)
    line = next(line for line in printed.splitlines() if line.startswith("STAGES "))
    found = json.loads(line.removeprefix("STAGES "))
    return Sweep(
        wall_s, processor_s, _interval([cell["end"] for cell in found]), [_stages_only(cell) for cell in found]
    )


def _stages_only(cell: dict[str, float | list[int]]) -> dict[str, float]:
    return {name: value for name, value in cell.items() if isinstance(value, float) and name != "end"}


def turn(one: Sweep, several: Sweep, added: int) -> Turn:
    """What one more cell costs: wall time within the longer sweep, processor time by the difference of the two."""
    names = several.cells[0].keys()
    stages = {name: statistics.median(cell[name] for cell in several.cells) for name in names}
    stages["between cells: records, MLflow"] = several.cell_s - stages.pop("whole")
    start_s = several.wall_s - len(several.cells) * several.cell_s
    return Turn(several.cell_s, (several.processor_s - one.processor_s) / added, start_s, stages)


def table(turns: dict[str, list[Turn]]) -> str:
    """Medians in seconds, in Markdown; a stage that a harness lacks is a dash."""
    stages = dict.fromkeys(name for found in turns.values() for name in found[0].stages)
    rows: dict[str, Callable[[Turn], float | None]] = {"one more cell": lambda one: one.wall_s}
    rows |= {f"… {name}": (lambda one, name=name: one.stages.get(name)) for name in stages}
    rows["**beside loading and `generate`**"] = lambda one: one.beside_s
    rows["processor time of one more cell"] = lambda one: one.processor_s
    rows["start of a sweep, once"] = lambda one: one.start_s
    lines = ["| seconds, median of turns | " + " | ".join(turns) + " |", "|---" + "|---:" * len(turns) + "|"]
    for name, value in rows.items():
        lines.append(
            f"| {name} | " + " | ".join(_median([value(one) for one in found]) for found in turns.values()) + " |"
        )
    return "\n".join(lines)


def _median(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.median(known):.2f} [{min(known):.2f}, {max(known):.2f}]" if known else "–"


def _timed(command: Sequence[str], folder: Path, variables: dict[str, str]) -> tuple[float, float, str]:
    """Wall and processor seconds of a command and its children, and what it printed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    wall_s = time.perf_counter() - start
    _reap()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def _adopt() -> None:
    """Become the parent of orphans: quantlab's fork server outlives it, and its time would count nowhere.

    Linux only, see PR_SET_CHILD_SUBREAPER in prctl(2).
    """
    if ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0):
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")


def _reap() -> None:
    """Wait for all orphans, so that their processor time is that of this process's children."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _features(folder: Path) -> Path:
    """The features of the batch that quantlab decodes, as a file."""
    config = resolve(compose(CELL)[0])
    checkpoint = models.load(config.model, config.seed, config.runtime.dtype)
    [speech] = features(open_corpus(config.dataset), checkpoint.feature_extractor).splits.values()
    path = folder / "features.npy"
    np.save(path, np.asarray(speech.mel))
    return path


def _torch() -> str:
    return importlib.metadata.version("torch").partition("+")[0]


def _versions(python: Path) -> str:
    names = ("optimum-benchmark", "transformers", "torch")
    code = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
    they = subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True, check=True).stdout.strip()
    we = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("quantlab", "transformers", "torch"))
    return f"{we}; {they}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="of all harnesses (default: %(default)s)")
    parser.add_argument("--cells", type=int, default=4, help="cells added to a sweep of one (default: %(default)s)")
    parser.add_argument("--pins", default=PINS, help="packages beside torch (default: %(default)s)")
    parser.add_argument("--environment", type=Path, default=HERE.parent / "build" / "peers", help="where they go")
    parser.add_argument("--memory", action="store_true", help="also with memory tracking, which takes minutes a cell")
    return parser.parse_args()


if __name__ == "__main__":
    main()
