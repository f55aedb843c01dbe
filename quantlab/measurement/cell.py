"""One cell from start to end: load → quantize → calibrate → verify → warm up → measure → score → record.

A plain function, without Hydra and without MLflow: a notebook calls `run_cell(config)` and gets the result.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import torch

from quantlab import models
from quantlab.config.schema import RunConfig
from quantlab.engines import Engine, KeepsClocks, compiled
from quantlab.engines.clocks import Clocks, Memory
from quantlab.export.place import staged
from quantlab.export.verified import DecodedBatch, export_verified
from quantlab.measurement.alternate import alternate_processes, must_alternate
from quantlab.measurement.environment import describe
from quantlab.measurement.interference import Monitor
from quantlab.measurement.interleave import shuffled_batches, take_turns
from quantlab.measurement.measure import measure
from quantlab.measurement.streaming import streamed
from quantlab.measurement.timing import Side
from quantlab.quantization import registry
from quantlab.quantization.backends.as_shipped import read_off
from quantlab.recogniser.assemble import Assembled, assemble, prepared, torch_engine, warm_up
from quantlab.recogniser.fingerprints import Identity, check_unchanged, identify, keywords_of, resolve
from quantlab.recogniser.true_words import true_words
from quantlab.records.figures import fixed_work, speed, split_result
from quantlab.records.schema import (
    Batch,
    CellResult,
    Compilation,
    Exported,
    Noise,
    Record,
    SplitResult,
    Utterance,
)
from quantlab.scoring.score import Scoring
from quantlab.streaming.figures import with_streams
from quantlab.util.energy import Meter
from quantlab.util.errors import ExportError

Progress = Callable[[str, int, int], None]  # stage, done, total: utterances, or seconds of a budget


def run_cell(
    config: RunConfig, progress: Progress = lambda stage, done, total: None, known: Identity | None = None
) -> CellResult:
    """Quantize a model and measure it on a corpus.

    Args:
        config: the cell; `auto` and null are resolved for this machine first.
        progress: called between batches, never inside the timed region.
        known: the cell's id, fingerprints, listed corpus and, for `protocol.looks`, its baseline's counts, from a grid;
            None: all but the last are computed first. Fingerprints are compared with the files after loading and again
            after measuring, so that a record never combines the hash of one file with the figures of another.

    Returns:
        The record and its raw samples. Nothing is written except the model, if `export.dir` is set.

    Raises:
        NotQuantizedError: the model is not quantized as configured.
        Unavailable: the checkpoint or corpus is neither on this machine nor on a reachable hub.
        ConfigError: a name in the configuration does not exist in the model or the corpus; or checkpoint, corpus or
            libraries have changed meanwhile.
    """
    config = read_off(resolve(config))
    known = known or identify(config)
    with prepared(config) as device:
        try:
            with staged(config.export.dir) as staging:
                return _run(config, known, device, progress, staging)
        except (OSError, ExportError) as error:
            if config.export.dir is None:
                raise
            problem = f"{type(error).__name__}: {error}"
        done = _run(config, known, device, progress, None)  # a failed export does not invalidate the figures
    return done.model_copy(update={"exported": Exported(folder=config.export.dir, problem=problem)})


def _run(
    config: RunConfig, known: Identity, device: torch.device, progress: Progress, staging: Path | None
) -> CellResult:
    clocks, memory = Clocks(device, progress), Memory(device)
    energy, machine = Meter(device), Monitor(device)

    def between_batches(stage: str, done: int, total: int) -> None:
        progress(stage, done, total)
        machine.sample()
        energy.sample()

    made = assemble(config, device, clocks, staging, known.corpus)
    check_unchanged(config, known, made.corpus)
    keywords = keywords_of(config, made.corpus)
    truth = true_words(config, made.corpus)
    warm_up(made.decoder, made.speech.measured, config.protocol.warmup_batches, clocks)
    environment = describe(config, device)
    machine.start()
    memory.reset()
    warm = compiled.tally()
    if isinstance(made.decoder, KeepsClocks):
        made.decoder.reset_stage_times()
    scoring = Scoring.of_language(config.dataset.language)

    @contextmanager
    def region() -> Iterator[None]:
        """Within the block, energy and memory are the cell's."""
        energy.start()
        yield
        energy.stop()
        memory.read()

    measured = measure(config, made, known.opponent, scoring, keywords, truth, region, between_batches)
    decoded, utterances = measured.decoded, measured.utterances
    engine_stages = made.decoder.stage_times() if isinstance(made.decoder, KeepsClocks) else None
    streams = streamed(config, made, measured.speech, utterances, scoring, between_batches)
    late = compiled.tally().frames - warm.frames
    gpu_process_bytes = machine.gpu_process_bytes()  # before the baseline is loaded too
    torch_allocates = device.type != "cuda" or not registry.has_own_engine(registry.get(config.quant.library))

    corpus, speech, evidence, recovered = made.corpus, made.speech, made.receipt, made.recovered
    exported = None
    if staging is not None:
        between_batches("export", 0, 0)
        exported = export_verified(
            config, known.id, made, staging, device, [DecodedBatch(item.speech, item.tokens) for item in decoded]
        )
    batches = [item.batch for item in decoded]
    if config.protocol.interleave and must_alternate(config, evidence.baseline_bytes, device):
        del made  # two models do not fit
        _free(device)
        batches += alternate_processes(config, corpus if corpus.is_pinned else None, len(batches), between_batches)
    elif config.protocol.interleave:
        between_batches("load the baseline", 0, 0)
        baseline = _resident_baseline(config, made, device)
        order = shuffled_batches(speech.measured, made.decoder.decoding.batch_size, config.seed)
        before = compiled.tally()
        sides: dict[Side, Engine] = {"cell": made.decoder, "baseline": baseline}
        batches += take_turns(sides, order, config.protocol, between_batches)
        late += compiled.tally().frames - before.frames
    batches += measured.aligned
    compilation = _compilation(config, warm, late)
    noise = _flagged(machine.read(), compilation)

    check_unchanged(config, known, corpus)
    rel_ci = config.protocol.rel_ci
    word_times_s = sum(item.elapsed_s for item in measured.aligned) or None
    record = Record(
        cell_id=known.id,
        status="ok",
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        config=config.model_dump(mode="json"),
        fingerprints=dict(known.fingerprints),
        original=models.recorded(config.model),
        environment=environment,
        receipt=evidence,
        stages=clocks.stages(sum(item.batch.elapsed_s for item in decoded), word_times_s),
        engine_stages=engine_stages,
        peak_memory_bytes=memory.peak_bytes if torch_allocates else None,
        peak_reserved_bytes=memory.reserved_bytes if torch_allocates else None,
        gpu_process_bytes=gpu_process_bytes,
        speed=speed(batches, "natural", rel_ci),
        fixed_work=fixed_work(batches, rel_ci),
        recovered=recovered,
        adaptive=measured.adaptive,
        compilation=compilation,
        noise=noise,
        normaliser=scoring.normaliser,
        error_unit=scoring.unit,
        keywords=keywords,
        energy_j=energy.energy_j,
        energy_source=energy.source,
        calibration_ids=speech.calibration_ids if config.quant.is_calibrated else (),
        problems=(*measured.speech.problems, *measured.doubts),
        splits={name: _figures(name, utterances, batches) for name in measured.speech.splits},
    )
    record = with_streams(record, streams, utterances)
    return CellResult(record=record, utterances=utterances, batches=tuple(batches), streams=streams, exported=exported)


def _resident_baseline(config: RunConfig, made: Assembled, device: torch.device) -> Engine:
    """Load and warm up the unquantized model in this process."""
    recogniser = models.load(config.of_baseline().model, config.seed, config.runtime.dtype).model.to(device)
    speech, unseen = made.speech.measured, Clocks(device)
    baseline = torch_engine(recogniser, device, config, speech, unseen)
    warm_up(baseline, speech, config.protocol.warmup_batches, unseen)
    return baseline


def _compilation(config: RunConfig, warm: compiled.Tally, late: int) -> Compilation | None:
    if config.runtime.name != "compile":
        return None
    return Compilation(graphs=warm.graphs, graph_breaks=warm.graph_breaks, while_timed=late)


def _flagged(noise: Noise, compilation: Compilation | None) -> Noise:
    return noise if compilation is None else noise.model_copy(update={"flags": noise.flags + compilation.flags})


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _figures(name: str, utterances: Iterable[Utterance], batches: Iterable[Batch]) -> SplitResult:
    return split_result(
        [item for item in utterances if item.split == name], [item for item in batches if item.split == name]
    )
