"""Processor time per utterance that a cell takes outside `generate`: `python benchmarks/per_utterance.py`.

Lists the audio of the demo corpus repeatedly under new ids, up to the 5,559 utterances of LibriSpeech's two test sets,
caches their features, and measures a cell of the shipped model in this process (isolate=false), with one thread. What
its run takes without the timed `generate` calls is planning, opening the features, batching, scoring, writing the
record and the table. A cell of one batch is measured first and subtracted, as it starts, loads and warms up the same.
Processor seconds, with wall time in parentheses, which a busy machine inflates.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

UTTERANCES = 5559  # test-clean 2,620 and test-other 2,939
BATCH = 16
DEMO = Path(__file__).resolve().parent.parent / "quantlab" / "assets" / "demo"


class Seconds(NamedTuple):
    processor: float
    wall: float

    @classmethod
    def now(cls) -> Seconds:
        return cls(time.process_time(), time.perf_counter())

    def minus(self, other: Seconds) -> Seconds:
        return Seconds(self.processor - other.processor, self.wall - other.wall)

    def __str__(self) -> str:
        return f"{self.processor:.2f} ({self.wall:.2f}) s"


def main() -> None:
    """Measure a small and a large cell, and print the difference per utterance."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="quantlab-per-utterance-") as scratch:
        os.environ["QUANTLAB_CACHE"] = str(Path(scratch) / "cache")
        rest = {}
        for count in (BATCH, options.utterances):
            manifest = Path(scratch) / f"{count}.jsonl"
            write_manifest(manifest, count)
            whole, generate = measured(manifest, Path(scratch) / "records")
            rest[count] = whole.minus(generate)
            print(f"{count:5} utterances: {whole}, generate {generate}, the rest {rest[count]}", flush=True)
    more = rest[options.utterances].minus(rest[BATCH])
    print(f"per utterance: {1000 * more.processor / (options.utterances - BATCH):.2f} ms of processor time")


def write_manifest(path: Path, count: int) -> None:
    """List `count` utterances: those of the demo corpus again and again, each time under new ids."""
    rows = [json.loads(line) for line in (DEMO / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            row = rows[index % len(rows)]
            kept = {name: row[name] for name in ("text", "speaker", "split")}
            audio = os.path.relpath(DEMO / row["audio"], path.parent)
            file.write(json.dumps({"id": f"{index:05}", "audio": audio, **kept}) + "\n")


def measured(manifest: Path, root: Path) -> tuple[Seconds, Seconds]:
    """Seconds of a cell's run, and of its `generate` calls; the features are cached before."""
    from quantlab import run
    from quantlab.config.compose import compose
    from quantlab.measurement import measure
    from quantlab.recogniser.assemble import extract
    from quantlab.recogniser.fingerprints import resolve

    settings = ["dataset=manifest", f"dataset.path={manifest}", "device=cpu", "device.threads=1"]
    settings += ["isolate=false", "tracking=off", f"output_dir={root}", f"protocol.batch_size={BATCH}"]
    extract(resolve(*compose(settings)))
    generate = Seconds(0.0, 0.0)
    timed = measure.free_running

    def counted(*arguments: Any) -> Any:
        nonlocal generate
        before = Seconds.now()
        found = timed(*arguments)
        generate = Seconds(*(sum(pair) for pair in zip(generate, Seconds.now().minus(before), strict=True)))
        return found

    measure.free_running = counted
    try:
        before = Seconds.now()
        [cell] = run(settings)
        whole = Seconds.now().minus(before)
    finally:
        measure.free_running = timed
    assert cell.status == "ok", cell.record.reason
    return whole, generate


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=UTTERANCES, help="how many (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
