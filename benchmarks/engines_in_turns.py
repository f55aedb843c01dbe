"""One utterance from samples to text: rows of quantlab beside faster-whisper, sherpa-onnx and onnx-asr, in turns.

    python benchmarks/engines_in_turns.py whisper-base speech.flac --sherpa-script export-onnx.py

All recognise with the same weights, a folder in the layout of transformers, in int8 (quantlab also in fp32), greedily
and without timestamps, in processes of their own on the same cores. One is at work at a time; in a round each has two
turns, in random order and then in the reverse. A time is from samples in memory to text, features included.

The others are installed into an environment of their own, and convert the weights once. sherpa-onnx's script for that
is scripts/whisper/export-onnx.py of github.com/k2-fsa/sherpa-onnx; without it, there is no such row.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from against_peers import environment

from quantlab.stats.ratios import typical_ratio

HERE = Path(__file__).resolve().parent / "peers"
PINS = [
    "faster-whisper==1.2.1", "sherpa-onnx==2.0.1", "onnx-asr==0.12.0", "onnxruntime==1.32.0", "ctranslate2==4.8.5",
    "optimum-onnx==0.1.0", "transformers==4.57.6", "openai-whisper==20250625", "onnx==1.23.2", "torch==2.15.0",
]  # fmt: skip
PEERS = ("faster-whisper", "sherpa-onnx", "onnx-asr")
INT8 = ("ct2_int8", "ort_int8", "ov_int8", "ggml_q8_0")
ROWS = (*INT8, "ct2_float32", "ort_fp32", "ov_fp32", "none")
Seconds = npt.NDArray[np.float64]
WARM_UP = 2  # calls
REST_S = 0.25  # between calls: OpenMP's threads spin for 0.2 s after their work (KMP_BLOCKTIME)


@dataclass
class Contestant:
    """A process that recognises once for each line that it reads, and its calls: rounds of two."""

    name: str
    process: subprocess.Popen[str]
    log: Path  # what its libraries print
    calls: list[dict[str, float]] = field(default_factory=list)
    text: str = ""

    def call(self) -> None:
        """One turn; what it took is kept."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"{self.name} ended: {self.log.read_text()[-2000:]}")
        found = json.loads(answer)
        self.text = found.pop("text")
        self.calls.append(found)

    def __str__(self) -> str:
        return f"{self.name} {self.seconds()[-1].min():.2f} s"

    def seconds(self, what: str = "seconds") -> Seconds:
        """Seconds, (rounds, calls)."""
        return np.reshape([call[what] for call in self.calls], (-1, 2))


def main() -> None:
    """Convert, start all, measure in turns, and print a table and the texts."""
    options = _options()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])  # inherited by all
    python = environment(options.environment, PINS)
    peers = _converted(python, options)
    with tempfile.TemporaryDirectory(prefix="quantlab-turns-") as folder:
        samples = _samples(options.audio, Path(folder))
        commands = {name: _row(name, samples, options) for name in options.rows}
        commands |= {name: _peer(name, python, at, samples, options.threads) for name, at in peers.items()}
        with _started(commands, Path(folder)) as contestants:
            for contestant in contestants:
                for _ in range(WARM_UP):
                    contestant.call()
                contestant.calls.clear()
            if options.ask:
                input("all are loaded; Enter starts the rounds ")
            for number in rounds(contestants, options.rounds, options.budget_s, random.Random(0)):
                print(f"round {number}:", ", ".join(map(str, contestants)), flush=True)
    print(table(contestants, list(peers)))
    print(texts(contestants))


def rounds(contestants: Sequence[Contestant], most: int, budget_s: float, order: random.Random) -> Iterator[int]:
    """Two turns each in every round, in a random order and in the reverse, until the budget is spent; their numbers."""
    start_s = time.monotonic()
    for number in range(1, most + 1):
        shuffled = order.sample(contestants, len(contestants))
        for contestant in [*shuffled, *reversed(shuffled)]:
            time.sleep(REST_S)
            contestant.call()
        yield number
        if time.monotonic() - start_s > budget_s:
            return


def table(contestants: Sequence[Contestant], peers: Sequence[str]) -> str:
    """Milliseconds, medians with the least and the most, and ratios to the peers with 95 % intervals, in Markdown."""
    found = {contestant.name: contestant for contestant in contestants}
    lines = [
        "| | from samples to text, ms | of this `generate` | " + " | ".join(f"× {name}" for name in peers) + " |",
        "|---" + "|---:" * (2 + len(peers)) + "|",
    ]
    for name, contestant in sorted(found.items(), key=lambda item: np.median(item[1].seconds())):
        shown = [f"`{name}`" if name not in peers else f"**{name}**", _milliseconds(contestant.seconds())]
        shown.append("–" if name in peers else _milliseconds(contestant.seconds("generate_s")))
        shown += ["" if name in peers else _ratio(contestant, found[peer]) for peer in peers]
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


def _milliseconds(seconds: Seconds) -> str:
    median, least, most = (f"{1000 * value:.0f}" for value in (np.median(seconds), seconds.min(), seconds.max()))
    return f"{median} [{least}, {most}]"


def _ratio(above: Contestant, below: Contestant) -> str:
    ratio = typical_ratio(above.seconds(), below.seconds())
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def texts(contestants: Sequence[Contestant]) -> str:
    """Each text, and who has it."""
    by_text: dict[str, list[str]] = {}
    for contestant in contestants:
        by_text.setdefault(contestant.text.strip(), []).append(contestant.name)
    return "\n".join(f"\n{', '.join(names)}:\n    {text}" for text, names in by_text.items())


def _samples(audio: Path, folder: Path) -> Path:
    """The samples as a file, float32, at 16 kHz."""
    import soundfile

    samples, rate = soundfile.read(audio, dtype="float32")
    if samples.ndim != 1 or rate != 16_000:
        sys.exit(f"{audio} has {samples.ndim} dimensions at {rate} Hz; give it as mono at 16000 Hz")
    np.save(folder / "samples.npy", samples)
    return folder / "samples.npy"


def _converted(python: Path, options: argparse.Namespace) -> dict[str, Path]:
    """The folder of each peer, made once."""
    out = options.environment / "models" / options.model.resolve().name
    if not out.exists():
        script = [str(options.sherpa_script)] if options.sherpa_script else []
        command = [str(python), str(HERE / "export.py"), str(options.model), f"{out}.tmp", *script]
        subprocess.run(command, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        Path(f"{out}.tmp").rename(out)
    return {name: out / name for name in PEERS if (out / name).exists()}


def _row(name: str, samples: Path, options: argparse.Namespace) -> list[str]:
    cell = [f"quant={name}", f"model={options.architecture}", f"model.path={options.model.resolve()}"]
    threads = ["device=cpu", f"device.threads={options.threads}"]
    return [sys.executable, str(HERE / "row.py"), str(samples), *cell, *threads]


def _peer(name: str, python: Path, folder: Path, samples: Path, threads: int) -> list[str]:
    return [str(python), str(HERE / "recognise.py"), name, str(folder.resolve()), str(samples), str(threads)]


@contextlib.contextmanager
def _started(commands: dict[str, list[str]], folder: Path) -> Iterator[list[Contestant]]:
    """Start all at once: each loads while the others do; they end with their input."""
    started = [_start(name, command, folder) for name, command in commands.items()]
    try:
        yield started
    finally:
        for contestant in started:
            contestant.process.communicate()


def _start(name: str, command: list[str], folder: Path) -> Contestant:
    log = folder / f"{name}.log"
    with log.open("w") as errors:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        return Contestant(name, subprocess.Popen(command, cwd=folder, text=True, **pipes), log)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder in the layout of transformers")
    parser.add_argument("audio", type=Path, help="one utterance, mono, 16 kHz, under 20 s")
    parser.add_argument("--architecture", default="base", help="its option of model= (default: %(default)s)")
    parser.add_argument("--rows", nargs="+", default=ROWS, help="of quantlab (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=12, help="at most, of two turns each (default: %(default)s)")
    parser.add_argument("--budget-s", type=float, default=600, help="of the rounds (default: %(default)s)")
    parser.add_argument("--ask", action="store_true", help="wait for Enter once all are loaded, to quieten the machine")
    parser.add_argument("--threads", type=int, default=2, help="and cores (default: %(default)s)")
    parser.add_argument("--sherpa-script", type=Path, help="sherpa-onnx's export-onnx.py")
    default = HERE.parent.parent / "build" / "engines"
    parser.add_argument("--environment", type=Path, default=default, help="where the others and their models go")
    return parser.parse_args()


if __name__ == "__main__":
    main()
