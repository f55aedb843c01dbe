"""Assembly of a model: load, features, quantize, calibrate, verify."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from quantlab import models
from quantlab.config.schema import AS_SHIPPED, RunConfig
from quantlab.data import Corpus, Features, features, open_corpus
from quantlab.engines import Engine, compiled, decoding
from quantlab.engines.clocks import Clocks, use_threads
from quantlab.engines.eager import eager
from quantlab.models.companions import write_companions
from quantlab.quantization import embedding, receipt, registry
from quantlab.quantization.backends.as_shipped import shipped_original
from quantlab.quantization.portable import Portable, portable
from quantlab.quantization.recovery import Recovery
from quantlab.quantization.select import select
from quantlab.recogniser.calibrate import CalibrationRuns, calibration_runs, chosen
from quantlab.records.schema import Receipt, Recovered
from quantlab.util import machine

if TYPE_CHECKING:
    from quantlab.quantization.base import Quantizer


class NotQuantizedError(RuntimeError):
    """The library did not quantize all requested modules; the receipt names them."""

    def __init__(self, evidence: Receipt) -> None:
        super().__init__("not quantized as asked: " + "; ".join(evidence.problems))
        self.receipt = evidence


@dataclass(frozen=True)
class Speech:
    """The features of a cell: for scoring and for calibration."""

    measured: Features
    calibration: Features  # of the same corpus or another
    calibration_ids: tuple[str, ...]


@dataclass(frozen=True)
class Assembled:
    """A quantized model that its receipt has verified, and the features to measure it on."""

    decoder: Engine
    tokenizer: Any  # of transformers; None for random weights
    corpus: Corpus
    speech: Speech
    receipt: Receipt
    portable: Portable | None  # the model's tensors for export, unless another engine holds them
    recovered: Recovered | None = None  # if it was trained


@dataclass(frozen=True)
class _Quantized:
    engine: Engine
    receipt: Receipt
    portable: Portable | None = None
    recovered: Recovered | None = None


@contextlib.contextmanager
def prepared(config: RunConfig) -> Iterator[torch.device]:
    """Set seeds, cores and threads of this process within the block.

    Args:
        config: resolved, see `identity.resolve`.
    """
    threads = config.device.threads or 1
    with machine.pinned(threads) if config.device.pin else contextlib.nullcontext():
        use_threads(threads)
        random.seed(config.seed)
        np.random.seed(config.seed)
        torch.manual_seed(config.seed)
        yield torch.device(config.device.name)


def assemble(
    config: RunConfig, device: torch.device, clocks: Clocks, keep: Path | None = None, corpus: Corpus | None = None
) -> Assembled:
    """Load a checkpoint, quantize it and verify the receipt; `clocks` times each stage.

    Args:
        config: resolved, see `identity.resolve`.
        device: target device.
        clocks: clocks of the stages.
        keep: folder for all files of an export except the tensors; None: no export.
        corpus: the listed corpus; None: list it now.

    Raises:
        NotQuantizedError: the model is not quantized as configured.
        Unavailable: the checkpoint or corpus is neither on this machine nor on a reachable hub.
        ConfigError: a name in the configuration does not exist in the model or the corpus.
    """
    with clocks.stage("load"):
        as_shipped = config.quant.library == AS_SHIPPED
        checkpoint = models.load(config.model, config.seed, config.runtime.dtype, quantized_too=as_shipped)
    if keep is not None:
        write_companions(checkpoint, keep, config.dataset.language)
    with clocks.stage("features"):
        corpus = corpus or open_corpus(config.dataset)
        speech = _speech(config, corpus, checkpoint)
    with clocks.stage("quantize"):
        made = _quantize(config, checkpoint, device, speech, clocks, keep)
    if not made.receipt.verified:
        raise NotQuantizedError(made.receipt)
    return Assembled(made.engine, checkpoint.tokenizer, corpus, speech, made.receipt, made.portable, made.recovered)


def extract(config: RunConfig, corpus: Corpus | None = None) -> None:
    """Extract the features of a cell into the cache, ahead of it and without its model.

    Raises: as `assemble`.
    """
    extractor = models.feature_extractor(config.model, config.quant.library == AS_SHIPPED)
    features(corpus or open_corpus(config.dataset), extractor)
    if (others := config.calibration_dataset) is not None:
        features(open_corpus(others), extractor)


def _speech(config: RunConfig, corpus: Corpus, checkpoint: models.Checkpoint) -> Speech:
    """Features of the corpus and of calibration; `disjoint` excludes calibration utterances from every score."""
    everything = features(corpus, checkpoint.feature_extractor)
    calibration, ids = chosen(config, corpus, everything, checkpoint.feature_extractor)
    disjoint = config.calibration.source == "disjoint"
    return Speech(everything.without(ids) if disjoint else everything, calibration, ids)


def _quantize(
    config: RunConfig,
    checkpoint: models.Checkpoint,
    device: torch.device,
    speech: Speech,
    clocks: Clocks,
    keep: Path | None,
) -> _Quantized:
    """Quantize, in place or not, and read the receipt from the result; calibration is timed separately."""
    model: Any = checkpoint.model
    how = decoding(model, config)
    quantizer = registry.get(config.quant.library)
    names, skipped = select(model, config.quant)
    before = receipt.snapshot(model)
    threads = config.device.threads or 1
    if registry.loads(quantizer):
        converted = quantizer.load(shipped_original(config.model).path, model, config.quant, device, how, threads)
        held = receipt.smaller(before, converted)
        return _Quantized(converted.engine, receipt.read_converted(before, converted, held, {}))
    if registry.converts(quantizer):
        converted = quantizer.convert(model, config.quant, names, device, how, threads, keep)
        return _Quantized(converted.engine, receipt.read_converted(before, converted, names, skipped))
    calibration = calibration_runs(config, checkpoint, speech.calibration, device, how, clocks)
    if config.quant.recover is None:
        model, recovered = quantizer.setup(model, config.quant, names, device, calibration), None
    else:
        model, recovered = _quantize_and_recover(config, model, quantizer, names, device, calibration)
    if config.quant.embedding:
        embedding.share(model, quantizer)
    # before compiling, which wraps the modules
    evidence = receipt.read(before, model, names, skipped, quantizer, config.runtime.dtype)
    kept = None if keep is None else portable(model, names, quantizer)
    return _Quantized(torch_engine(model, device, config, speech.measured, clocks), evidence, kept, recovered)


def _quantize_and_recover(
    config: RunConfig,
    model: Any,
    quantizer: Quantizer,
    names: tuple[str, ...],
    device: torch.device,
    calibration: CalibrationRuns,
) -> tuple[Any, Recovered]:
    clocks, steps = calibration.clocks, config.recovery.steps
    passes = list(calibration.passes())
    with clocks.stage("recover"):
        recovery = Recovery(model.to(device), names, config.quant, config.recovery, passes, config.seed)
    model = quantizer.setup(model, config.quant, names, device, calibration)
    with clocks.stage("recover"):
        return model, recovery.run(model, names, quantizer, lambda step: clocks.progress("recover", step, steps))


def torch_engine(model: Any, device: torch.device, config: RunConfig, speech: Features, clocks: Clocks) -> Engine:
    """The engine of a model of transformers for the configured runtime; compilation is timed separately."""
    how = decoding(model, config)
    if config.runtime.name == "eager":
        return eager(model, device, how)
    with clocks.stage("compile"):
        batch = next(batch for split in speech.splits.values() for batch in split.batches(how.batch_size))
        return compiled.build(model, device, how, batch)


def warm_up(decoder: Engine, speech: Features, batches: int, clocks: Clocks) -> None:
    """Decode warm-up batches; only the very first batch is timed, as a figure of its own."""
    with clocks.stage("warm up"):
        if batches:
            with clocks.stage("first inference"):
                run_through(decoder, speech, 1)
            run_through(decoder, speech, batches - 1, skip=1)


def run_through(decoder: Engine, speech: Features, most: int | None = None, skip: int = 0) -> None:
    """Decode without timing: all batches or at most `most`, after skipping `skip`."""
    batches = (batch for split in speech.splits.values() for batch in split.batches(decoder.decoding.batch_size))
    for batch in itertools.islice(batches, skip, None if most is None else skip + most):
        decoder.generate(batch)
