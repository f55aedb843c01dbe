"""Tokens per second and end-to-end time of a Whisper model: eager, compiled, and compiled with a 4-bit decoder.

    python benchmarks/gpu/decode.py model=large_v2 device=cuda runtime.dtype=bfloat16 --tokens 32 128 --out decode.json
    python benchmarks/gpu/decode.py model=nano device=cpu --tokens 8 --variants eager compile --budget-s 5

The experiment of Sebastian, Zolkepli, Badri, Shaji, "Faster and Smaller Whisper" (May 2024): random weights, batches of
one, a forced number of tokens. All variants are resident in this process and take turns, so that drift cancels; each
ratio is relative to `eager`, with its 95 % interval. Memory is what torch allocated for one variant's call, without the
weights of the others.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantlab.quantization.select import select

DECODER = "quant.target=decoder"
VARIANTS: dict[str, tuple[str, ...]] = {  # what each adds to the command line
    "eager": ("runtime=eager",),
    "compile": ("runtime=compile",),
    "compile+hqq_int4": ("runtime=compile", "quant=hqq_int4", "quant.backend=torchao_int4", DECODER),
    "compile+torchao_int4wo": ("runtime=compile", "quant=torchao_int4wo", "quant.group_size=64", DECODER),
    "eager+hqq_int4": ("runtime=eager", "quant=hqq_int4", "quant.backend=torchao_int4", DECODER),
}
MIB = 2**20  # bytes


@dataclass
class Variant:
    """A resident decoder, and the memory it took."""

    engine: Any
    own_bytes: int  # weights, caches and graphs
    quantized: int  # modules, by the receipt
    build_s: float
    peak_bytes: int = 0


def main() -> int:
    """Print one line per figure, and write all of them with raw times to --out."""
    options = _parser().parse_args()
    found: list[dict[str, Any]] = []
    for tokens in options.tokens:
        found += measure(options, tokens)
        if options.out:
            options.out.write_text(json.dumps({"machine": _machine(options), "figures": found}, indent=1))
    return 0


def measure(options: argparse.Namespace, tokens: int) -> list[dict[str, Any]]:
    """Measure all variants at one number of tokens."""
    import torch

    from quantlab import models
    from quantlab.config.compose import compose
    from quantlab.data import features, open_corpus
    from quantlab.recogniser.assemble import prepared
    from quantlab.recogniser.fingerprints import resolve

    fixed = (
        "model.weights=random", f"model.random_tokens={tokens}", f"protocol.forced_tokens={tokens}",
        "protocol.batch_size=1", "dataset.limit=1", "dataset.splits=[clean]", "tracking=off",
    )  # fmt: skip
    configs = {name: resolve(compose([*fixed, *options.overrides, *VARIANTS[name]])[0]) for name in options.variants}
    first = next(iter(configs.values()))
    with prepared(first) as device:
        checkpoint = models.load(first.model, first.seed, first.runtime.dtype)
        corpus = features(open_corpus(first.dataset), checkpoint.feature_extractor).splits
        speech = next(iter(corpus.values()))
        speech = next(speech.batches(1))
        variants = {}
        for name, config in configs.items():
            try:
                variants[name] = _build(checkpoint.model, config, device, speech)
            except Exception as error:  # the others are still measured
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
                continue
            built = variants[name]
            print(f"{name}: built in {built.build_s:.0f} s, {built.quantized} modules quantized", flush=True)
        times = _turns(variants, speech, options.budget_s)
        for variant in variants.values():
            _reset_peak(device)
            resident = _allocated(device)
            variant.engine.generate(speech)
            variant.peak_bytes = _peak(device) - resident + variant.own_bytes
        found = [_figures(name, variant, times, tokens) for name, variant in variants.items()]
        del variants
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    for item in found:
        print(_line(item), flush=True)
    return found


def _build(original: Any, config: Any, device: Any, speech: Any) -> Variant:
    from quantlab.data import Features
    from quantlab.engines.clocks import Clocks
    from quantlab.quantization import receipt, registry
    from quantlab.recogniser.assemble import torch_engine

    before, start = _allocated(device), time.perf_counter()
    model = copy.deepcopy(original)
    quantizer = registry.get(config.quant.library)
    refusal = quantizer.why_unsupported(config.quant, device.type)
    if refusal:
        raise ValueError(refusal)
    names, skipped = select(model, config.quant)
    snapshot = receipt.snapshot(model)
    model = quantizer.setup(model, config.quant, names, device, lambda model: None)
    evidence = receipt.read(snapshot, model, names, skipped, quantizer, config.runtime.dtype)
    if not evidence.verified:
        raise ValueError("; ".join(evidence.problems))
    engine = torch_engine(model, device, config, Features({"clean": speech}, ()), Clocks(device))
    for _ in range(2):
        engine.generate(speech)
        engine.decode(speech)
    gc.collect()
    return Variant(engine, _allocated(device) - before, evidence.modules_quantized, time.perf_counter() - start)


def _turns(variants: dict[str, Variant], speech: Any, budget_s: float) -> dict[tuple[str, str], list[list[float]]]:
    """(variant, work) → seconds (blocks, two calls); forward and backward order, so that a steady drift cancels."""
    works: dict[str, Callable[[Any], float]] = {
        "natural": lambda engine: engine.generate(speech)[1],
        "encoder": lambda engine: engine.encode(speech),
        "decoder": lambda engine: engine.decode(speech),
    }
    times: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    start = time.monotonic()
    blocks = 0
    while blocks < 4 or (time.monotonic() - start < budget_s and blocks < 40):
        for work, call in works.items():
            block: dict[str, list[float]] = defaultdict(list)
            order = [*variants, *reversed(variants)]
            for name in order if blocks % 2 == 0 else [*order[len(variants) :], *order[: len(variants)]]:
                block[name].append(call(variants[name].engine))
            for name, seconds in block.items():
                times[name, work].append(seconds)
        blocks += 1
    return times


def _figures(
    name: str, variant: Variant, times: dict[tuple[str, str], list[list[float]]], tokens: int
) -> dict[str, Any]:
    from quantlab.stats.ratios import typical_ratio

    typical_s = {
        work: statistics.median(min(block) for block in times[name, work]) for work in ("natural", "encoder", "decoder")
    }
    item: dict[str, Any] = {
        "variant": name,
        "tokens": tokens,
        "blocks": len(times[name, "natural"]),
        "tokens_per_s": tokens / typical_s["decoder"],
        "encoder_s": typical_s["encoder"],
        "end_to_end_s": typical_s["natural"],
        "own_mib": variant.own_bytes / MIB,
        "peak_mib": variant.peak_bytes / MIB,
        "quantized": variant.quantized,
        "build_s": variant.build_s,
        "raw_s": {work: times[name, work] for work in ("natural", "encoder", "decoder")},
    }
    if ("eager", "natural") in times:
        for work, key in (("natural", "end_to_end_speedup"), ("decoder", "decoder_speedup")):
            ratio = typical_ratio(times["eager", work], times[name, work])
            item[key] = [ratio.value, ratio.low, ratio.high]
    return item


def _line(item: dict[str, Any]) -> str:
    speedups = ""
    if "end_to_end_speedup" in item:
        end, decoder = item["end_to_end_speedup"], item["decoder_speedup"]
        speedups = (
            f"end to end {end[0]:.2f}x [{end[1]:.2f}, {end[2]:.2f}], "
            f"decoder {decoder[0]:.2f}x [{decoder[1]:.2f}, {decoder[2]:.2f}], "
        )
    return (
        f"{item['tokens']} tokens  {item['variant']:24} {item['tokens_per_s']:8.1f} tokens/s  {speedups}"
        f"encoder {1000 * item['encoder_s']:.1f} ms, all {1000 * item['end_to_end_s']:.0f} ms, "
        f"weights {item['own_mib']:.0f} MiB, peak {item['peak_mib']:.0f} MiB, {item['blocks']} blocks"
    )


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from quantlab.util import machine, nvml

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "card": card,
        "driver": nvml.driver_version(),
        "processor": machine.processor(),
        "versions": machine.versions(["torch", "transformers", "torchao", "hqq", "triton"]),
        "overrides": options.overrides,
    }


def _allocated(device: Any) -> int:
    import torch

    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _peak(device: Any) -> int:
    import torch

    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def _reset_peak(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="as for python -m quantlab: model, device, dtype")
    parser.add_argument("--tokens", type=int, nargs="+", default=[32], help="forced for each utterance")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS)[:4])
    parser.add_argument("--budget-s", type=float, default=40, help="seconds for the timing, at each number of tokens")
    parser.add_argument("--out", type=Path, help="figures and raw times as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
