"""A sweep of equal cells with optimum-benchmark, timed by stage; run by benchmarks/against_peers.py in its environment.

optimum-benchmark has no inputs for speech (0.6.0), so its table of generators is given one that reads ours from a
file. Everything else is its Python API as documented: a spawned process per cell, which imports this file too.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from optimum_benchmark import Benchmark, BenchmarkConfig, InferenceConfig, ProcessConfig, PyTorchConfig
from optimum_benchmark.backends.pytorch.backend import PyTorchBackend
from optimum_benchmark.generators.model_generator import MODEL_TYPE_TO_GENERATORS

STAGES = "PEERS_STAGES"  # environment variable: where a cell's process writes its times
spent = {"load": 0.0, "generate": 0.0}
tokens = []  # new tokens of each call of generate


class Speech:
    """Inputs: the features in a file, (utterances, mel bins, frames)."""

    def __init__(self, shapes, with_labels):
        self.path = os.environ["PEERS_FEATURES"]

    def __call__(self):
        return {"input_features": torch.from_numpy(np.load(self.path))}


def timed(kind, method):
    """`method`, whose wall time is added to `spent[kind]`."""

    def call(*args):
        start = time.monotonic()
        found = method(*args)
        spent[kind] += time.monotonic() - start
        if kind == "generate":
            tokens.append(args[-1]["max_new_tokens"])
        return found

    return call


MODEL_TYPE_TO_GENERATORS["whisper"] = Speech
PyTorchBackend.load = timed("load", PyTorchBackend.load)
PyTorchBackend.generate = timed("generate", PyTorchBackend.generate)
PyTorchBackend.prefill = timed("generate", PyTorchBackend.prefill)
original_run = Benchmark.run


def run(config):
    """`Benchmark.run` in the cell's process; CLOCK_MONOTONIC is the same for all processes."""
    start = time.monotonic()
    report = original_run(config)
    times = {"start": start, "end": time.monotonic(), **spent, "tokens": tokens}
    Path(os.environ[STAGES]).write_text(json.dumps(times))
    return report


def cell(options, folder):
    """Seconds of one cell by stage."""
    os.environ[STAGES] = str(folder / "stages.json")
    start = time.monotonic()
    config = BenchmarkConfig(
        name="cell",
        launcher=ProcessConfig(),
        backend=PyTorchConfig(
            model=options.model, task="automatic-speech-recognition", model_type="whisper", library="transformers",
            device="cpu", no_weights=False,
        ),
        scenario=InferenceConfig(
            iterations=1, duration=0, warmup_runs=1, memory=options.memory, latency=True,
            input_shapes={"batch_size": options.batch},
            generate_kwargs={"max_new_tokens": options.tokens, "min_new_tokens": options.tokens},
        ),
    )  # fmt: skip
    Benchmark.run = staticmethod(run)
    report = Benchmark.launch(config)
    report.save_json(folder / "benchmark_report.json")
    end = time.monotonic()
    inside = json.loads((folder / "stages.json").read_text())
    worked = inside["load"] + inside["generate"]
    return {
        "load": inside["load"],
        "generate": inside["generate"],
        "process and imports": inside["start"] - start,
        "the rest of the cell": inside["end"] - inside["start"] - worked,
        "report": end - inside["end"],
        "whole": end - start,
        "end": end,
        "tokens": inside["tokens"],
    }


def main():
    """Run the cells and print their stages as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--cells", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    print("STAGES " + json.dumps([cell(options, Path.cwd()) for _ in range(options.cells)]), flush=True)


if __name__ == "__main__":
    main()
