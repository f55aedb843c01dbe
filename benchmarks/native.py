"""Overhead of the harness: a cell's `generate` against the library's own loop.

    python benchmarks/native.py quant=ct2_int8 device=cpu dataset.limit=40
    python benchmarks/native.py quant=ct2_int8 device=cpu dataset.limit=40 --native faster-whisper
    python benchmarks/native.py quant=ggml_q8_0 device=cpu dataset.limit=40 --native whispercpp

Both sides use the same features, threads, batches, prompt and limit, and take turns (A B B A). With other overrides the
script compares any cell with faster-whisper's int8, e.g. on whisper-small's architecture with a fixed length of 32
tokens:

    python benchmarks/native.py quant=torch_int8 device=cpu model=small model.weights=random protocol.batch_size=1 \\
        dataset.limit=4 --native faster-whisper --compute-type int8

The loops share no code with quantlab's engines, and load their own model. CTranslate2's is saved in the layout of
transformers and converted by the library's own converter; only the names of its tokens are invented. whisper.cpp's is
the same file as the engine's, from quantlab's writer, as whisper.cpp's converter does not support a small vocabulary.

On Linux the process keeps freed memory (`mallopt`). By default, glibc returns it after each call and faults it in again
at the next. That takes a third of the time of a small model, and differs between two copies of the same model, as each
has its own thread and thus its own arena. `--malloc default` keeps that behaviour.
"""

from __future__ import annotations

import argparse
import atexit
import ctypes
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

    from quantlab.data import SplitFeatures
    from quantlab.engines import Engine
    from quantlab.models.decoding import Decoding
    from quantlab.stats.ratios import Ratio

Loop = Callable[["SplitFeatures"], list[list[int]]]  # a batch → token ids of each utterance
WARM_UP = 2  # rounds over all batches, untimed
REL_CI = 0.01  # relative width of the ratio's interval at which to stop
# mallopt(3): one arena, no memory returned, and the largest allowed mmap threshold (32 MiB)
KEEP_MEMORY = {"M_ARENA_MAX": (-8, 1), "M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_MMAP_THRESHOLD": (-3, 2**25)}


def main() -> int:
    """Measure one cell against a library's loop and print a line; exit code 1 if slower by more than `--within`."""
    options = _parser().parse_args()
    from quantlab.grid.process import SPIN_COUNT

    if options.malloc == "keep" and sys.platform == "linux":
        keep_memory()
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))  # as in every cell; read once, when torch is imported
    from quantlab.config.compose import compose
    from quantlab.engines.clocks import Clocks
    from quantlab.models import load
    from quantlab.recogniser.assemble import assemble, prepared
    from quantlab.recogniser.fingerprints import resolve

    [config] = map(resolve, compose([*options.overrides, "tracking=off"]))
    compute_type = options.compute_type or config.quant.format or "float32"
    with prepared(config) as device, tempfile.TemporaryDirectory() as folder:
        made = assemble(config, device, Clocks(device))
        decoding, threads = made.decoder.decoding, config.device.threads or 1
        model = load(config.model, config.seed).model
        loop = LOOPS[options.native](model, Path(folder), compute_type, threads, decoding)
        speech = made.speech.measured.splits.values()
        batches = [batch for split in speech for batch in split.batches(decoding.batch_size)]
        found = compare(made.decoder, loop, batches, options.budget_s)
    print(f"{config.label} / {options.native} {compute_type}, threads {threads}: {found}")
    return 0 if found.ratio.value <= 1 + options.within else 1


def keep_memory() -> None:
    """Make glibc keep freed memory; other C libraries lack mallopt, or ignore it."""
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):
        for option, value in KEEP_MEMORY.values():
            set_option(option, value)


@dataclass(frozen=True)
class Compared:
    """Comparison of the engine's and the loop's time on the same batches."""

    ratio: Ratio
    blocks: int
    rtf: tuple[float, float]  # of the engine and the loop, from the faster call of each block
    same: int  # number of utterances with equal tokens
    utterances: int

    def __str__(self) -> str:
        return (
            f"ratio {self.ratio.value:.4f} [{self.ratio.low:.4f}, {self.ratio.high:.4f}] from {self.blocks} blocks, "
            f"RTF {self.rtf[0]:.5f} and {self.rtf[1]:.5f}, same tokens in {self.same} of {self.utterances} utterances"
        )


def compare(engine: Engine, loop: Loop, batches: list[SplitFeatures], budget_s: float) -> Compared:
    """Time the two in turns, one batch per block, in whole rounds, until the ratio is precise or the budget spent."""
    from quantlab.stats.ratios import converged, typical_ratio

    for batch in batches * WARM_UP:
        engine.generate(batch)
        loop(batch)
    pairs = [pair for batch in batches for pair in zip(engine.generate(batch)[0], loop(batch), strict=True)]
    calls: list[tuple[list[float], list[float]]] = []
    audio_s = 0.0
    start_s = time.monotonic()
    for block, batch in zip(itertools.count(), itertools.cycle(batches)):
        calls.append(_in_turns(engine, loop, batch, block))
        audio_s += sum(batch.audio_s)
        ratio = typical_ratio(*zip(*calls, strict=True))
        whole_round = (block + 1) % len(batches) == 0
        if whole_round and (converged(ratio, block + 1, REL_CI) or time.monotonic() - start_s > budget_s):
            break
    rtf = tuple(sum(min(sides[side]) for sides in calls) / audio_s for side in (0, 1))
    return Compared(ratio, len(calls), (rtf[0], rtf[1]), sum(one == other for one, other in pairs), len(pairs))


def _in_turns(engine: Engine, loop: Loop, batch: SplitFeatures, block: int) -> tuple[list[float], list[float]]:
    """A B B A, then B A A B: seconds of the engine, measured by itself, and of the loop, by the wall clock."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for side in (0, 1, 1, 0) if block % 2 == 0 else (1, 0, 0, 1):
        if side == 0:
            seconds[0].append(engine.generate(batch)[1])
        else:
            start = time.perf_counter()
            loop(batch)
            seconds[1].append(time.perf_counter() - start)
    return seconds


def save(model: WhisperForConditionalGeneration, folder: Path, compute_type: str) -> None:
    """Save a checkpoint in CTranslate2's format with a `tokenizer.json`, as its users convert a folder."""
    from ctranslate2.converters import TransformersConverter
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    names = dict(_names(model))
    vocabulary = {names.get(id, f"<{id}>"): id for id in range(model.config.vocab_size)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=names[model.generation_config.eos_token_id]))
    with tempfile.TemporaryDirectory() as source:
        model.save_pretrained(source)
        PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(source)
        converter = TransformersConverter(source, copy_files=["tokenizer.json"])
        converter.convert(str(folder), quantization=compute_type, force=True)


def _names(model: Any) -> Iterator[tuple[int, str]]:
    """The special tokens under OpenAI's names, which the libraries look for."""
    tokens = model.generation_config
    yield tokens.eos_token_id, "<|endoftext|>"
    yield tokens.decoder_start_token_id, "<|startoftranscript|>"
    yield tokens.no_timestamps_token_id, "<|notimestamps|>"
    yield from ((id, name) for name, id in tokens.lang_to_id.items())
    yield from ((id, f"<|{name}|>") for name, id in tokens.task_to_id.items())


def ctranslate2_loop(
    model: WhisperForConditionalGeneration, folder: Path, compute_type: str, threads: int, decoding: Decoding
) -> Loop:
    """`Whisper.generate` on a batch of features, with the default options of faster-whisper."""
    import ctranslate2
    import numpy as np

    save(model, folder, compute_type)
    loaded = ctranslate2.models.Whisper(str(folder), device="cpu", compute_type=compute_type, intra_threads=threads)

    def loop(speech: SplitFeatures) -> list[list[int]]:
        features = ctranslate2.StorageView.from_array(np.array(speech.mel))
        results = loaded.generate(
            features,
            [list(decoding.prompt)] * len(speech.ids),
            beam_size=decoding.num_beams,
            max_length=_max_length(decoding),
            suppress_tokens=_suppressed(decoding),
        )
        return [result.sequences_ids[0] for result in results]

    return loop


def faster_whisper_loop(
    model: WhisperForConditionalGeneration, folder: Path, compute_type: str, threads: int, decoding: Decoding
) -> Loop:
    """faster-whisper's batched pipeline on the features of a batch of segments."""
    import numpy as np
    from faster_whisper import BatchedInferencePipeline, WhisperModel
    from faster_whisper.tokenizer import Tokenizer
    from faster_whisper.transcribe import TranscriptionOptions

    save(model, folder, compute_type)
    loaded = WhisperModel(str(folder), device="cpu", compute_type=compute_type, cpu_threads=threads)
    loaded.max_length = _max_length(decoding)
    pipeline = BatchedInferencePipeline(loaded)
    tokenizer = Tokenizer(loaded.hf_tokenizer, True, "transcribe", decoding.language)
    used = {
        "beam_size": decoding.num_beams, "patience": 1, "length_penalty": 1, "temperatures": [0.0],
        "repetition_penalty": 1, "no_repeat_ngram_size": 0, "multilingual": False, "without_timestamps": True,
        "suppress_blank": True, "suppress_tokens": _suppressed(decoding),
    }  # fmt: skip
    options = TranscriptionOptions(**{**dict.fromkeys(TranscriptionOptions.__dataclass_fields__), **used})

    def loop(speech: SplitFeatures) -> list[list[int]]:
        _, results = pipeline.generate_segment_batched(np.array(speech.mel), tokenizer, options)
        return [result["tokens"] for result in results]

    return loop


def whispercpp_loop(
    model: WhisperForConditionalGeneration, folder: Path, format: str, threads: int, decoding: Decoding
) -> Loop:
    """`whisper_full` on one utterance at a time, with context and options created once."""
    import _pywhispercpp as library
    import numpy as np

    from quantlab.models.formats.ggml.vocabulary import vocabulary
    from quantlab.models.formats.ggml.write import write

    laid_out = vocabulary(int(model.config.vocab_size), decoding)
    write(folder / "model.bin", model, format, laid_out, decoding.max_new_tokens)
    context = _whispercpp_context(folder / "model.bin")
    options = _whispercpp_options(threads, decoding)
    no_sound, ids, end = np.zeros(0, np.float32), laid_out.ids(), laid_out.end

    def loop(speech: SplitFeatures) -> list[list[int]]:
        found = []
        for mel in np.asarray(speech.mel):
            library.whisper_set_mel(context, mel, mel.shape[1], mel.shape[0])
            library.whisper_full(context, options, no_sound, 0)
            tokens = range(min(library.whisper_full_n_tokens(context, 0), decoding.max_new_tokens))
            rows = [library.whisper_full_get_token_id(context, 0, token) for token in tokens]
            found.append([ids[row] for row in rows if row != end])
        return found

    return loop


def _whispercpp_context(path: Path) -> Any:
    """A context on the CPU, without flash attention and log output, as in a cell; never freed."""
    import _pywhispercpp as library

    library.whisper_log_set(lambda level, text: None)
    atexit.register(library.whisper_log_set, None)  # the binding crashes if it frees the function after Python ended
    options = library.whisper_context_default_params()
    options.use_gpu = options.flash_attn = False
    return library.whisper_init_from_file_with_params(str(path), options)


def _whispercpp_options(threads: int, decoding: Decoding) -> Any:
    """Greedy, one segment without timestamps, no fallback; for the reasons see quantlab/engines/whispercpp.py."""
    import _pywhispercpp as library

    options = library.whisper_full_default_params(library.WHISPER_SAMPLING_GREEDY)
    options.n_threads = threads
    options.language = decoding.language or "en"
    options.max_tokens = max(1, decoding.max_new_tokens - 1)
    options.greedy = {"best_of": 1}
    options.no_timestamps = options.single_segment = options.no_context = options.suppress_nst = True
    options.suppress_blank = bool(decoding.suppressed_first)
    options.temperature_inc, options.no_speech_thold, options.entropy_thold = 0.0, 2.0, -1.0
    options.print_progress = options.print_timestamps = False
    return options


def _suppressed(decoding: Decoding) -> list[int]:
    return [*decoding.suppressed, *([decoding.end] if decoding.min_new_tokens else [])]


def _max_length(decoding: Decoding) -> int:
    """Maximum length; half of it is reserved for previous text, see quantlab/engines/ctranslate2.py."""
    return 2 * decoding.max_new_tokens


LOOPS = {"ctranslate2": ctranslate2_loop, "faster-whisper": faster_whisper_loop, "whispercpp": whispercpp_loop}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="the cell, as for python -m quantlab")
    parser.add_argument("--native", choices=LOOPS, default="ctranslate2", help="whose loop")
    parser.add_argument("--compute-type", help="of the loop; default: the cell's quant.format, else float32")
    parser.add_argument("--budget-s", type=float, default=60, help="seconds for the timing")
    parser.add_argument("--malloc", choices=("keep", "default"), default="keep", help="what becomes of freed memory")
    parser.add_argument("--within", type=float, default=0.03, help="how much longer the cell may take")
    return parser


if __name__ == "__main__":
    sys.exit(main())
