"""The grid on a CUDA device; and what keeps it possible, wherever the tests run."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

from quantlab import models
from quantlab.config.compose import compose
from quantlab.data import features, open_corpus
from quantlab.engines import compiled, decoding
from quantlab.engines.pytorch import Eager

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
# Stands in for a machine with a driver: whoever asks CUDA anything is counted.
PRELOAD = """
import ctypes, torch
from quantlab.util import machine
asked = []
machine._cuda_driver = lambda: ctypes.CDLL(None)
for name in ("is_available", "device_count", "_lazy_init"):
    setattr(torch.cuda, name, lambda *_: asked.append(1) or 0)
import quantlab.grid.preload
print(len(asked))
"""


def test_the_fork_server_does_not_ask_cuda():
    """Its children could not use it: "Cannot re-initialize CUDA in forked subprocess"."""
    done = subprocess.run([sys.executable, "-c", PRELOAD], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0"]


@pytest.mark.gpu
@needs_gpu
def test_a_grid_on_cuda(quantlab):
    done = quantlab("-m", "quant=none,hqq_int4,bnb_nf4", "device=cuda", "dataset.limit=4", "tracking=off")
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(file.read_text()) for file in quantlab.folder.glob("mlruns/cells/*/record.json")]
    assert [record["status"] for record in records] == ["ok"] * 3
    for record in records:
        assert record["receipt"]["verified"]
        assert record["gpu_process_bytes"] > record["peak_reserved_bytes"] >= record["peak_memory_bytes"] > 0
        assert record["noise"]["gpu_clock_mhz"][0] > 0


@pytest.mark.gpu
@needs_gpu
def test_compiled_decoding_on_cuda_is_two_graphs_and_gives_the_same_tokens():
    device = torch.device("cuda")
    [config] = compose(["dataset.limit=3", "device=cuda", "tracking=off", "protocol.forced_tokens=8"])
    checkpoint = models.load(config.model, 0)
    speech = features(open_corpus(config.dataset), checkpoint.feature_extractor).splits["clean"]
    model = checkpoint.model.to(device)
    how = dataclasses.replace(decoding(model, config), batch_size=2)
    built = compiled.build(model, device, how, next(speech.batches(2)))
    assert built.decoder.graphs == 2
    eager = Eager(model, device, how)
    for batch in [*speech.batches(2), *speech.batches(2)]:
        assert built.generate(batch)[0] == eager.generate(batch)[0]
        assert built.encode(batch) > 0 < built.decode(batch)
