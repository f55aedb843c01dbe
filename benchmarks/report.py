"""Run time of report and recommendation for many records: `python benchmarks/report.py`.

Makes synthetic records of the real schema (ten models, each a baseline and 99 quantized cells of 400 utterances with
errors of their own, timed in turns), then runs the commands as a user does, in a process of their own each.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from quantlab.records import storage
from quantlab.records.schema import (
    Batch,
    CellResult,
    ModuleReceipt,
    Receipt,
    Record,
    Speed,
    SplitResult,
    Stages,
    Utterance,
)

MODELS = 10
UTTERANCES = 400
MODULES = 73
QUANTS = ("torch_int8", "quanto_int8", "hqq_int4", "hqq_int3", "bnb_nf4")
COMMANDS = {
    "report, table": ["quantlab.report"],
    "report, markdown": ["quantlab.report", "--format", "markdown"],
    "report, latex": ["quantlab.report", "--format", "latex"],
    "report, csv": ["quantlab.report", "--format", "csv"],
    "report, json": ["quantlab.report", "--format", "json"],
    "recommend, one model": ["quantlab.recommend", "--device", "cpu", "--model", "model3", "--max-size-mb", "100"],
    "recommend, 100 MB": ["quantlab.recommend", "--device", "cpu", "--max-size-mb", "100"],
    "recommend, all": ["quantlab.recommend", "--max-wer-increase", "0.5"],
}


def main() -> None:
    """Make the records, run every command, and print its time in seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each command; the median counts")
    parser.add_argument("--root", type=Path, help="keep the records here (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = options.root or Path(scratch)
        for result in records(options.records):
            storage.write(root, result)
        for name, command in COMMANDS.items():
            seconds = sorted(timed([sys.executable, "-m", *command, "--root", str(root)], options.repeats))
            print(f"{name:24}{seconds[len(seconds) // 2]:6.2f} s   {' '.join(f'{one:.2f}' for one in seconds)}")


def timed(command: list[str], repeats: int) -> Iterator[float]:
    """Wall time of each run in seconds, including the start of the interpreter."""
    for _ in range(repeats):
        begin = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode > 1:
            sys.exit(done.stderr)
        yield time.perf_counter() - begin


def records(count: int) -> Iterator[CellResult]:
    """`count` measured cells, the same at every call."""
    for index in range(count):
        model, variant = index % MODELS, index // MODELS
        yield result(f"{index:04}", model, variant)


def result(cell_id: str, model: int, variant: int, count: int = UTTERANCES) -> CellResult:
    """A measured cell with `count` utterances; variant 0 of a model is its baseline."""
    chance = random.Random(f"{model} {variant}")
    rate = 0.08 + 0.0005 * variant * (variant % 3)
    utterances = tuple(_utterance(index, random.Random(f"{model} {index}"), chance, rate) for index in range(count))
    batches = tuple(
        Batch(split=split, index=index, utterances=25, audio_s=75.0, tokens=300, elapsed_s=1.0 + 0.01 * variant)
        for split in ("clean", "other")
        for index in range(8)
    )
    ratio = 0.7 + 0.01 * variant
    record = Record(
        cell_id=cell_id,
        status="ok",
        created_at="2026-01-01T00:00:00+00:00",
        config=_config(model, variant),
        fingerprints={"checkpoint": f"{model:064}", "corpus": "c" * 64},
        environment={"versions": {"torch": "2.11.0"}, "processor": "a processor", "threads": 2},
        receipt=_receipt(model, variant),
        stages=Stages(load_s=0.3, quantize_s=0.4, first_inference_s=0.2, warmup_s=0.8, measure_s=16.0, total_s=20.0),
        peak_memory_bytes=600_000_000,
        speed=None
        if variant == 0
        else Speed(ratio=ratio, ci95=(ratio - 0.004, ratio + 0.004), converged=True, verdict=_verdict(ratio), blocks=9),
        splits={split: _split(utterances, batches, split) for split in ("clean", "other")},
    )
    return CellResult(record=record, utterances=utterances, batches=batches)


def _verdict(ratio: float) -> str:
    return "faster" if ratio < 0.996 else "slower" if ratio > 1.004 else "no difference"


def _utterance(index: int, own: random.Random, chance: random.Random, rate: float) -> Utterance:
    words = own.randint(4, 14)
    errors = sum(chance.random() < rate * (0.4 if index % 2 else 1.6) for _ in range(words))
    text = " ".join(f"word{own.randint(0, 999)}" for _ in range(words))
    return Utterance(
        id=f"u{index:04}", split="clean" if index % 2 else "other", speaker=f"s{index % 40}", audio_s=3.0,
        reference=text, hypothesis=text, tokens=12, substitutions=errors, deletions=0, insertions=0,
        hits=words - errors, char_errors=4 * errors, ref_chars=len(text), loop=False,
    )  # fmt: skip


def _split(utterances: tuple[Utterance, ...], batches: tuple[Batch, ...], split: str) -> SplitResult:
    own = [item for item in utterances if item.split == split]
    total = {
        name: sum(getattr(item, name) or 0 for item in own)
        for name in ("substitutions", "hits", "char_errors", "ref_chars")
    }
    words = total["substitutions"] + total["hits"]
    generate_s = sum(batch.elapsed_s for batch in batches if batch.split == split)
    return SplitResult(
        utterances=len(own), audio_s=600.0, generate_s=generate_s, tokens=2400, rtf=generate_s / 600,
        rtf_ci95=(generate_s / 606, generate_s / 594), tokens_per_s=2400 / generate_s, latency_p50_s=generate_s / 8,
        deletions=0, insertions=0, ref_words=words, wer=total["substitutions"] / words,
        cer=total["char_errors"] / total["ref_chars"], empty_share=0.0, loop_share=0.0, **total,
    )  # fmt: skip


def _config(model: int, variant: int) -> dict[str, object]:
    quant = "none" if variant == 0 else QUANTS[variant % len(QUANTS)]
    return {
        "model": {"name": f"model{model}", "weights": "pretrained"},
        "quant": {"name": quant, "library": quant.partition("_")[0], "bits": 4, "group_size": variant, "target": "all"},
        "device": {"name": "cpu", "threads": 2},
        "runtime": {"name": "eager"},
        "dataset": {"name": "demo"},
        "protocol": {"name": "careful", "batch_size": 25},
        "calibration": {"fraction": 0.1, "source": "eval"},
        "seed": 0,
    }


def _receipt(model: int, variant: int) -> Receipt:
    baseline_bytes = 60_000_000 * (model + 1)
    size_bytes = baseline_bytes if variant == 0 else round(baseline_bytes * (0.25 + 0.002 * variant))
    modules = tuple(
        ModuleReceipt(
            name=f"model.decoder.layers.{index}.fc1", class_before="Linear", class_after="QLinear",
            dtypes={"weight": "int8"}, bytes_before=262_144, bytes_after=65_536, quantized=variant > 0,
        )
        for index in range(MODULES)
    )  # fmt: skip
    return Receipt(
        modules=modules, modules_total=MODULES, modules_quantized=MODULES if variant else 0,
        bytes_by_dtype={"int8": size_bytes}, size_bytes=size_bytes, baseline_bytes=baseline_bytes,
        params=baseline_bytes // 4, verified=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
