"""Records as the grid writes them, without a model: for tests of what reads records."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from quantlab.config.options import names, option
from quantlab.config.schema import Architecture
from quantlab.records import figures, storage
from quantlab.records.schema import Batch, CellResult, ModuleReceipt, Receipt, Record, SplitResult, Stages, Utterance

MB = 1_000_000  # bytes
FP32_BYTES = 13_100_000

# quant → library, bits, format, scheme, size relative to fp32, WER clean, WER other, RTF
QUANTS: dict[str, tuple[str, float | None, str | None, str, float, float, float, float]] = {
    "none": ("none", None, None, "none", 1.0, 0.0312, 0.1244, 0.0121),
    "torch_int8": ("torch", 8, "int8", "dynamic", 0.43, 0.0318, 0.1251, 0.0093),
    "quanto_int8": ("quanto", 8, "int8", "weight-only", 0.43, 0.0315, 0.1249, 0.0164),
    "quanto_int8_static": ("quanto", 8, "int8", "static", 0.43, 0.0402, 0.1430, 0.0171),
    "hqq_int4": ("hqq", 4, "int4", "weight-only", 0.31, 0.0371, 0.1393, 0.0203),
    "hqq_int3": ("hqq", 3, "int3", "weight-only", 0.29, 0.0466, 0.1652, 0.0219),
    "bnb_nf4": ("bnb", 4, "nf4", "weight-only", 0.30, 0.0359, 0.1371, 0.0187),
}
ENVIRONMENT = {
    "versions": {"torch": "2.15.0", "transformers": "5.23.0"},
    "processor": "a processor",
    "threads": 2,
    "commit": "0" * 40,
}


def config(quant: str = "none", model: str = "nano", device: str = "cpu", **changes: Any) -> dict[str, Any]:
    """A resolved configuration; `changes` by dotted key with `__` for the dot."""
    library, bits, format_, scheme, *_ = QUANTS[quant]
    found: dict[str, Any] = {
        "model": {"name": model, "source": "shipped", "weights": "pretrained"},
        "quant": {"name": quant, "library": library, "bits": bits, "format": format_, "scheme": scheme,
                  "group_size": 64 if library == "hqq" else None, "target": "all", "skip": [], "head": False},
        "device": {"name": device, "threads": 2},
        "runtime": {"name": "eager"},
        "dataset": {"name": "demo", "source": "shipped", "limit": None},
        "protocol": {"name": "paper", "batch_size": 16, "num_beams": 1},
        "calibration": {"fraction": 0.1, "source": "eval"},
        "tracking": {"name": "local", "uri": None, "experiment": "quantlab"},
        "seed": 0,
    }  # fmt: skip
    for key, value in changes.items():
        *path, last = key.split("__")
        part = found
        for name in path:
            part = part[name]
        part[last] = value
    return found


def receipt(relative_size: float, modules: int = 73, model: str = "nano") -> Receipt:
    quantized = modules if relative_size < 1 else 0
    size = round(FP32_BYTES * relative_size)
    return Receipt(
        modules=tuple(
            ModuleReceipt(
                name=f"model.decoder.layers.{index}.fc1", class_before="Linear",
                class_after="QLinear" if quantized else "Linear", dtypes={"weight": "int8"},
                bytes_before=262_144, bytes_after=65_536, quantized=bool(quantized),
            )
            for index in range(modules)
        ),
        modules_total=modules, modules_quantized=quantized, bytes_by_dtype={"float32": size}, size_bytes=size,
        baseline_bytes=FP32_BYTES, params=_parameters(model), verified=True,
    )  # fmt: skip


def _parameters(model: str) -> int:
    """Those of a published model, as the report looks at them; else those that FP32_BYTES hold."""
    known = model in names("model") and model != "nano"
    return Architecture(**option("model", model)["architecture"]).parameters if known else FP32_BYTES // 4


def split_result(wer: float | None, rtf: float, utterances: int = 160, audio_s: float = 480.0) -> SplitResult:
    words = utterances * 8
    errors = None if wer is None else round(wer * words)
    counts: dict[str, Any] = {}
    if errors is not None:
        counts = {"wer": errors / words, "cer": errors / words / 2, "substitutions": errors, "deletions": 0,
                  "insertions": 0, "hits": words - errors, "ref_words": words, "char_errors": errors * 2,
                  "ref_chars": words * 4, "empty_share": 0.0, "loop_share": 0.0}  # fmt: skip
    generate_s = rtf * audio_s
    return SplitResult(utterances=utterances, audio_s=audio_s, generate_s=generate_s, tokens=utterances * 12,
                       rtf=rtf, tokens_per_s=utterances * 12 / generate_s, latency_p50_s=generate_s / 10,
                       **counts)  # fmt: skip


def utterances(count: int, seed: int = 0, wer: dict[str, float] | None = None) -> tuple[Utterance, ...]:
    """Utterances of eight words, in turn of the splits other and clean, that add up to what `split_result` says.

    Wrong words of a better recogniser are wrong with a worse one too, and cost two characters each.
    """
    chance = random.Random(seed)
    short, long = "red sea dog cat map sun hat bus key box".split(), "boat lamp ship tree".split()
    spoken = [[chance.choice(long), *chance.sample(short, 7)] for _ in range(count)]
    heard = [list(words) for words in spoken]
    for split, rate in (wer or {}).items():
        places = [(row, word) for row in range(count) if _split_of(row) == split for word in range(8)]
        for row, word in chance.sample(places, len(places))[: round(rate * len(places))]:
            heard[row][word] = heard[row][word][:-2] + "zz"
    return tuple(_utterance(index, *pair) for index, pair in enumerate(zip(spoken, heard, strict=True)))


def _split_of(index: int) -> str:
    return "clean" if index % 2 else "other"


def _utterance(index: int, spoken: list[str], heard: list[str]) -> Utterance:
    wrong = sum(word != said for word, said in zip(heard, spoken, strict=True))
    return Utterance(
        id=f"u{index:04}", split=_split_of(index), speaker=f"s{index % 6}", audio_s=3.0, reference=" ".join(spoken),
        hypothesis=" ".join(heard), tokens=12, substitutions=wrong, deletions=0, insertions=0, hits=8 - wrong,
        char_errors=2 * wrong, ref_chars=len(" ".join(spoken)), loop=False,
    )  # fmt: skip


def result(quant: str = "none", cell_id: str | None = None, minute: int = 0, **changes: Any) -> CellResult:
    """A cell that ended well."""
    *_, relative_size, clean, other, rtf = QUANTS[quant]
    settings = config(quant, **changes)
    record = Record(
        cell_id=cell_id or f"cell{sorted(QUANTS).index(quant):02}", status="ok",
        created_at=f"2026-11-21T{3 + minute // 60:02}:{minute % 60:02}:00+00:00", config=settings,
        fingerprints={"checkpoint": "c" * 64, "corpus": "d" * 64}, environment=ENVIRONMENT,
        receipt=receipt(relative_size, model=settings["model"]["name"]),
        stages=Stages(load_s=0.31, features_s=0.02, quantize_s=0.4, warmup_s=0.8,
        measure_s=480 * rtf * 2.1, total_s=3 + 960 * rtf), peak_memory_bytes=612 * MB,
        splits={"clean": split_result(clean, rtf), "other": split_result(other, rtf * 1.1)},
    )  # fmt: skip
    batches = tuple(
        Batch(split=split, index=index, utterances=16, audio_s=48.0, tokens=192, elapsed_s=48 * rtf * slower)
        for split, slower in (("clean", 1.0), ("other", 1.1)) for index in range(10)
    )  # fmt: skip
    heard = utterances(320, wer={"clean": clean, "other": other})
    return CellResult(record=record, utterances=heard, batches=batches)


def adding_up(found: CellResult) -> CellResult:
    """The result with the figures that follow from its utterances and batches, after a test has changed these."""
    splits = {
        name: figures.split_result(
            [item for item in found.utterances if item.split == name],
            [item for item in found.batches if item.split == name],
        )
        for name in dict.fromkeys(item.split for item in found.utterances)
    }
    return found.model_copy(update={"record": found.record.model_copy(update={"splits": splits})})


def bad_result(status: str, reason: str, quant: str = "torch_int8", cell_id: str = "bad", **changes: Any) -> CellResult:
    """A cell that did not end well: no figures."""
    record = Record(cell_id=cell_id, status=status, reason=reason, created_at="2026-11-21T04:00:00+00:00",
                    config=config(quant, **changes), environment=ENVIRONMENT,
                    traceback=None if status == "unsupported" else "Traceback (most recent call last):\n  …",
    )  # fmt: skip
    return CellResult(record=record)


def grid(root: Path) -> list[str]:
    """Seven good cells and three that are not, written below `root`; their ids in grid order."""
    results = [result(quant, minute=index) for index, quant in enumerate(QUANTS)]
    results += [
        bad_result("unsupported", "torch dynamic int8 has no CUDA kernels; use device=cpu", cell_id="bad0",
                   device="cuda"),
        bad_result("timeout", "stopped after timeout_s=60", "hqq_int3", cell_id="bad1", model="tiny"),
        bad_result("failed", "bitsandbytes left 4 of 73 modules alone: decoder.layers.0.fc1, …", "bnb_nf4",
                   cell_id="bad2", model="tiny"),
    ]  # fmt: skip
    for item in results:
        storage.write(root, item)
    return [item.record.cell_id for item in results]
