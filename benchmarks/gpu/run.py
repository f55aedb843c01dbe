"""All measurements that need a CUDA device, in order of importance, as one command for a machine available for minutes.

    python benchmarks/gpu/run.py --out gpu
    python benchmarks/gpu/run.py --out gpu --only decode tables
    python benchmarks/gpu/run.py --out gpu --device cpu

A successful step is not run again; an interrupted one continues, as records are kept. Each step has its own time limit
and log, `<out>/<step>.log`; `summary.json` summarises all records.
Needs no network and no MLflow. On the CPU the same steps run on the shipped model with few utterances, so this file
can be tested on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DECODE = Path(__file__).with_name("decode.py")
GPU_TESTS = ("tests/test_cuda.py", "tests/test_noise.py", "tests/quantizers")
QUANTS = (
    "none,quanto_int8,quanto_int4,quanto_int2,quanto_fp8,quanto_int8_static,quanto_int8_fp8_static,hqq_int8,hqq_int4,"
    "hqq_int3,hqq_int2,hqq_ternary,hqq_int1,bnb_int8,bnb_nf4,bnb_nf4_dq,bnb_fp4,torchao_int8wo,torchao_int8dq,"
    "torchao_int4wo,torchao_fp8wo,torchao_fp8dq,torchao_intx,ct2_float32,ct2_int8,ggml_q8_0"
)


@dataclass(frozen=True)
class Step:
    """A command with its time limit."""

    name: str
    command: list[str]
    limit_s: float


def steps(options: argparse.Namespace) -> Iterator[Step]:
    """Steps in order of importance, so that running out of time cuts off the least important."""
    on_gpu = options.device == "cuda"
    device, records = f"device={options.device}", f"output_dir={options.out / 'records'}"
    grid = [sys.executable, "-m", "quantlab", "tracking=off", device, records]
    shipped = ["-m", f"quant={QUANTS if on_gpu else 'none,hqq_int4'}", f"dataset.limit={options.limit}"]
    yield Step("nano", [*grid, *shipped], 420)

    decode = [sys.executable, str(DECODE), device, f"--out={options.out / 'decode.json'}"]
    if on_gpu:
        decode += ["model=large_v2", "runtime.dtype=bfloat16", "--tokens", "32", "128"]
    else:
        decode += ["--variants", "eager", "compile", "--tokens", "8", "--budget-s", "2"]
    yield Step("decode", decode, 540)

    if on_gpu:
        tests = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *GPU_TESTS]
        yield Step("tests", tests, 300)
    random = ["model.weights=random", "dataset=demo"]
    shape = [] if on_gpu else ["model=nano", "quant=none,quanto_int8"]
    for table in ("paper_table3", "paper_table2"):
        few = ["dataset.limit=8" if on_gpu else "dataset.limit=1"]
        yield Step(table, [*grid, f"experiment={table}", *random, *few, *shape], 240)
    careful = ["-m", "quant=none,bnb_nf4" if on_gpu else "quant=hqq_int8", "protocol=careful", "protocol.budget_s=15"]
    yield Step("careful", [*grid, *careful, f"dataset.limit={options.limit}"], 180)


def main() -> int:
    """Run all steps; exit code 1 if one failed or ran out of time."""
    options = _parser().parse_args()
    options.out = options.out.resolve()
    options.limit = options.limit or (40 if options.device == "cuda" else 2)
    options.out.mkdir(parents=True, exist_ok=True)
    done_file = options.out / "steps.json"
    done: dict[str, Any] = json.loads(done_file.read_text()) if done_file.exists() else {}
    for step in steps(options):
        if (options.only and step.name not in options.only) or done.get(step.name, {}).get("status") == 0:
            continue
        print(f"{step.name}: {' '.join(step.command)}", flush=True)
        start = time.monotonic()
        status = _run(step, options.out / f"{step.name}.log")
        done[step.name] = {"status": status, "seconds": round(time.monotonic() - start), "command": step.command}
        done_file.write_text(json.dumps(done, indent=1))
        print(f"{step.name}: {'ok' if status == 0 else status} after {done[step.name]['seconds']} s", flush=True)
        print(_end_of(options.out / f"{step.name}.log", options.lines), flush=True)
    _write_summary(options.out)
    return 0 if all(item["status"] == 0 for item in done.values()) else 1


def _run(step: Step, log: Path) -> int | str:
    """The exit status, or `time` if the time limit ended the step."""
    environment = os.environ | {"COLUMNS": "160", "PYTHONPATH": os.pathsep.join([*_path(), str(ROOT)])}
    with log.open("w") as output:
        try:
            done = subprocess.run(
                step.command, cwd=ROOT, env=environment, stdout=output, stderr=output, timeout=step.limit_s
            )
        except subprocess.TimeoutExpired:
            return "time"
    return done.returncode


def _path() -> list[str]:
    return [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []


def _end_of(log: Path, lines: int) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _write_summary(out: Path) -> None:
    """Write the figures of all records in short form."""
    cells = []
    for file in sorted((out / "records" / "cells").glob("*/record.json")):
        record = json.loads(file.read_text())
        receipt, config = record.get("receipt") or {}, record["config"]
        cells.append(
            {
                "model": config["model"]["name"],
                "quant": config["quant"]["name"],
                "device": config["device"]["name"],
                "weights": config["model"]["weights"],
                "status": record["status"],
                "reason": record.get("reason"),
                "wer": {name: split.get("wer") for name, split in record["splits"].items()},
                "rtf": _rtf(record["splits"]),
                "size_bytes": receipt.get("size_bytes"),
                "baseline_bytes": receipt.get("baseline_bytes"),
                "quantized": receipt.get("modules_quantized"),
                "verified": receipt.get("verified"),
                "peak_memory_bytes": record.get("peak_memory_bytes"),
                "gpu_process_bytes": record.get("gpu_process_bytes"),
                "energy_j": record.get("energy_j"),
                "gpu_clock_mhz": (record.get("noise") or {}).get("gpu_clock_mhz"),
                "flags": (record.get("noise") or {}).get("flags"),
                "speed": record.get("speed"),
                "stages": record.get("stages"),
            }
        )
    (out / "summary.json").write_text(json.dumps(cells, indent=1))


def _rtf(splits: dict[str, Any]) -> float | None:
    seconds = sum(split["generate_s"] for split in splits.values())
    return seconds / sum(split["audio_s"] for split in splits.values()) if splits else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for records, logs and summary")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--limit", type=int, help="utterances per split of the shipped corpus; default: 40, CPU 2")
    parser.add_argument("--only", nargs="+", help="names of steps")
    parser.add_argument("--lines", type=int, default=45, help="lines of each log's end that are printed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
