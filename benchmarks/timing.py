"""Error rate of the verdict on speed: repeated comparisons of fp32 with fp32, and with a copy that is a tenth slower.

    python benchmarks/timing.py --repetitions 50 --busy 2 --output timing.jsonl

Each repetition is `experiment=aa_test` in a separate process. `--busy` adds processes that only compute.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SLOWED = Path(__file__).resolve().parent / "slowed"
WORKS = ("natural", "encoder", "token")


def main() -> int:
    """Run, append each repetition to the output as a line of JSON, and print a summary of the whole file."""
    options = _parser().parse_args()
    # so that the fork server also finds the slowed quantizer
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SLOWED), os.environ.get("PYTHONPATH")]))
    sys.path.insert(0, str(SLOWED))
    with busy(options.busy), options.output.open("a") as output:
        for number, found in enumerate(repetitions(options), 1):
            output.write(json.dumps(found) + "\n")
            output.flush()
            print(number, found["cell"], found["natural"]["ratio"], found["natural"]["verdict"], file=sys.stderr)
    print(summary([json.loads(line) for line in options.output.read_text().splitlines()]))
    return 0


def repetitions(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Alternate A/A and slowed repetitions, as many as requested."""
    from quantlab.config.compose import compose
    from quantlab.grid.process import Workers
    from quantlab.recogniser.fingerprints import resolve

    changes = [f"dataset.limit={options.limit}", f"protocol.budget_s={options.budget_s}", "tracking=off"]
    cells = {
        "fp32 against fp32": [],
        "a tenth slower": ["quant.library=slowed", "quant.name=slowed"],
    }
    workers = Workers()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.repetitions):
            for name, more in cells.items():
                if more and number >= options.slowed:
                    continue
                [config] = compose(["experiment=aa_test", *changes, *more])
                outcome = workers.run(resolve(config), Path(folder) / "log", lambda *_: None)
                yield {"cell": name, **_figures(outcome)}


def _figures(outcome: Any) -> dict[str, Any]:
    record = outcome.record
    speeds = {"natural": record.speed, "encoder": record.fixed_work.encoder, "token": record.fixed_work.token}
    return {
        **{work: speed.model_dump(mode="json") for work, speed in speeds.items()},
        "other_load_share": record.noise.other_load_share,
        "steal_share": record.noise.steal_share,
    }


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep one core per process busy within the block."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def summary(found: list[dict[str, Any]]) -> str:
    """A Markdown table of the frequency of verdicts, and the deviation from the true ratio."""
    lines = [
        "| cell | work | repetitions | verdicts | converged | interval holds 1 | ratio, median | lowest | highest |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in dict.fromkeys(item["cell"] for item in found):
        these = [item for item in found if item["cell"] == cell]
        for work in WORKS:
            ratios = sorted(item[work]["ratio"] for item in these)
            verdicts = Counter(item[work]["verdict"] for item in these)
            counted = ", ".join(f"{word} {count}" for word, count in verdicts.most_common())
            converged = sum(item[work]["converged"] for item in these)
            held = sum(item[work]["ci95"][0] <= 1 <= item[work]["ci95"][1] for item in these)
            median = statistics.median(ratios)
            lines.append(
                f"| {cell} | {work} | {len(these)} | {counted} | {converged} | {held} | {median:.4f} | {ratios[0]:.4f} "
                f"| {ratios[-1]:.4f} |"
            )
    load = sorted(item["other_load_share"] or 0.0 for item in found)
    median = statistics.median(load)
    lines.append(
        f"\nOther processes took {load[0]:.0%} to {load[-1]:.0%} of the cores, half the time over {median:.0%}."
    )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--slowed", type=int, default=50, help="repetitions of the slowed cell, at most --repetitions")
    parser.add_argument("--limit", type=int, default=30, help="utterances per split")
    parser.add_argument("--budget-s", type=float, default=480)
    parser.add_argument("--busy", type=int, default=0, help="processes that compute beside it")
    parser.add_argument("--output", type=Path, default=Path("timing.jsonl"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
