"""CTranslate2: the model converted to its format and run by its engine, as in faster-whisper.

int8 is symmetric, one scale per output channel, and multiplies with activations that are quantized to 8 bit per
row at every call; embeddings and convolutions are int8 too. The library quantizes a model as a whole.
Source: https://opennmt.net/CTranslate2/quantization.html
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from quantlab.models.convert.from_ctranslate2 import MODEL, vocabulary
from quantlab.models.files import read_json
from quantlab.models.formats.ctranslate2 import BLOCK, LINEARS
from quantlab.models.tokens import END, NO_TIMES, START
from quantlab.quantization.base import why_not_among, why_not_installed
from quantlab.quantization.engine_files import folder_for, readable
from quantlab.quantization.select import HEAD
from quantlab.util.errors import CheckpointError, ConfigError, shortened

if TYPE_CHECKING:
    import torch
    from transformers import WhisperForConditionalGeneration

    from quantlab.config.schema import QuantConfig
    from quantlab.engines import Engine
    from quantlab.models.decoding import Decoding
    from quantlab.models.formats.ctranslate2 import Variable
    from quantlab.quantization.base import Converted
    from quantlab.quantization.tensors import Held, Stored

DISTRIBUTIONS = ("ctranslate2",)
NO_EMBEDDING = "CTranslate2 quantizes the embedding of itself"
UNQUANTIZED = "float32"  # the compute type of quant.scheme=none
# other compute types → stored bits per weight; after an int8 stands the type of everything that is not int8
BITS = {
    "float16": 16,
    "bfloat16": 16,
    "int8": 8,
    "int8_float32": 8,
    "int8_float16": 8,
    "int8_bfloat16": 8,
}
CPU_TYPES = ("int8", "int8_float32")  # the library has no 16-bit floats on a CPU, whichever it is
# of a file that holds them all the same → what the library makes of it there, when it is not asked for more
WIDENED = {"float16": "float32", "bfloat16": "float32", "int8_float16": "int8_float32", "int8_bfloat16": "int8_float32"}
HEAD_LAYER = "decoder/projection"


def why_unsupported(quant: QuantConfig, device: str) -> str | None:
    """The compute types of the device, and all of the model or nothing."""
    if device == "cpu" and quant.format in BITS and quant.format not in CPU_TYPES:
        return f"CTranslate2 computes in {quant.format} on CUDA only: set device=cuda, or quant=ct2_int8"
    return why_no_engine(device) or (
        None if quant.scheme == "none" else _why_no_such_type(quant) or why_not_in_part(quant)
    )


def why_no_engine(device: str) -> str | None:
    """Whatever the model is."""
    if device == "mps":
        return "CTranslate2 runs on cpu and cuda, not on mps: set device=cpu"
    return why_not_installed("ctranslate2", "ctranslate2")


def _why_no_such_type(quant: QuantConfig) -> str | None:
    if quant.format is None:
        return f"CTranslate2 needs quant.format, one of {', '.join(BITS)}"
    return why_not_among("format", quant.format, BITS, "CTranslate2") or (
        why_not_among("bits", quant.bits, [BITS[quant.format]], f"CTranslate2's {quant.format}")
        or why_not_among("scheme", quant.scheme, [_scheme(quant.format)], f"CTranslate2's {quant.format}")
        or why_not_among("granularity", quant.granularity, ["per-channel"], "CTranslate2")
        or why_not_among("symmetric", quant.symmetric, [True], "CTranslate2")
    )


def _scheme(format: str) -> str:
    return "dynamic" if format.startswith("int8") else "weight-only"


def why_not_in_part(quant: QuantConfig) -> str | None:
    """It has no way to leave modules alone."""
    if quant.target == "all" and not quant.skip and quant.head:
        return None
    return "CTranslate2 quantizes all of a model: set quant.target=all, quant.skip=[] and quant.head=true"


def described(folder: Path) -> dict[str, object]:
    """What the keys of `quant` are for a folder that is there.

    Raises:
        CheckpointError: its matrices are of several types, or of one that quantlab does not know.
    """
    from quantlab.models.formats.ctranslate2 import variables

    with readable(folder, "CTranslate2"):
        found = variables(folder / MODEL)
    matrices = {item.dtype for item in found if item.name.endswith("/weight") and _linears_in(_layer(item))}
    rest = {item.dtype for item in found if item.name.endswith("/gamma")}  # of the norms, which stay floats
    format = "_".join([*matrices, *(rest if matrices == {"int8"} else ())])
    if format not in (UNQUANTIZED, *BITS):
        types = ", ".join(sorted(matrices | rest)) or "none at all"
        raise CheckpointError(
            f"{folder}: its weights are {types}; known are int8 and one type of floats, or floats alone"
        )
    whole = format.startswith("int8")
    return {
        "format": format,
        "bits": BITS.get(format, 32),
        "scheme": _scheme(format),
        "granularity": "per-channel" if whole else None,
        "symmetric": True if whole else None,
    }


def convert(
    model: WhisperForConditionalGeneration,
    quant: QuantConfig,
    names: tuple[str, ...],
    device: torch.device,
    decoding: Decoding,
    threads: int,
    keep: Path | None = None,
) -> Converted:
    """Convert by the library's own converter, load the file, and read in that file what was loaded.

    Raises:
        ConfigError: the device has not got the compute type, or `decoding` is not what the library can do.
    """
    asked = quant.format or UNQUANTIZED  # see why_unsupported
    _check_prompt(model, decoding)
    with folder_for(keep) as folder:
        _write(model, folder, asked)
        return _look_at(folder, asked, asked, device, decoding, threads)


def load(
    folder: Path,
    model: WhisperForConditionalGeneration,
    quant: QuantConfig,
    device: torch.device,
    decoding: Decoding,
    threads: int,
) -> Converted:
    """See `Loader`. A CPU computes in fp32 what is stored in 16-bit floats, as the library does of itself."""
    stored = str(quant.format)
    _check_prompt(model, decoding)
    _check_tokens(folder, decoding)
    computed = WIDENED.get(stored, stored) if device.type == "cpu" else stored
    return _look_at(folder, stored, computed, device, decoding, threads)


def _look_at(
    folder: Path, stored: str, computed: str, device: torch.device, decoding: Decoding, threads: int
) -> Converted:
    """Load a folder, and read in its file what was loaded."""
    from quantlab.engines.ctranslate2 import CTranslate2
    from quantlab.models.formats.ctranslate2 import variables
    from quantlab.quantization.base import Converted

    loaded = _load(folder, computed, device, threads)
    linears, others = _sorted_out(variables(folder / MODEL))
    told = f" (asked for {computed})" if loaded.compute_type != computed else ""
    told += f" (stored in {stored})" if stored != computed else ""
    return Converted(
        engine=CTranslate2(loaded, device, decoding),
        linears=linears,
        others=others,
        kernel=f"CTranslate2 {loaded.compute_type}{told}",
    )


def _check_tokens(folder: Path, decoding: Decoding) -> None:
    """The engine finds start, end and `<|notimestamps|>` by their text, and what does not come first in config.json.

    Raises:
        CheckpointError: these are others than the tokenizer's.
    """
    with readable(folder, "CTranslate2"):
        words = vocabulary(folder)
    special = {END: decoding.end, START: decoding.prompt[0], NO_TIMES: decoding.prompt[-1]}
    for text, id in special.items():
        if words[id : id + 1] != [text]:
            raise CheckpointError(f"{folder}: {text} is token {id} of its tokenizer, and another of its vocabulary")
    found = read_json(folder / "config.json").get("suppress_ids_begin") or []
    if sorted(found) != sorted(decoding.suppressed_first):
        raise CheckpointError(
            f"{folder / 'config.json'}: suppress_ids_begin={shortened(found)}, by its tokenizer it is "
            f"{sorted(decoding.suppressed_first)}"
        )


def _check_prompt(model: WhisperForConditionalGeneration, decoding: Decoding) -> None:
    """The library writes times unless the prompt ends with the token that forbids it."""
    if decoding.prompt[-1] != getattr(model.generation_config, "no_timestamps_token_id", None):
        raise ConfigError("CTranslate2 needs a model whose generation_config has no_timestamps_token_id")
    if decoding.min_new_tokens not in (0, decoding.max_new_tokens):
        raise ConfigError(
            f"CTranslate2 can decode until the end or {decoding.max_new_tokens} tokens whatever comes, "
            f"not at least {decoding.min_new_tokens}"
        )


def reload(folder: Path, quant: QuantConfig, device: torch.device, decoding: Decoding, threads: int) -> Engine:
    """See `Converter`."""
    from quantlab.engines.ctranslate2 import CTranslate2

    return CTranslate2(_load(folder, quant.format or UNQUANTIZED, device, threads), device, decoding)


def _write(model: WhisperForConditionalGeneration, folder: Path, compute_type: str) -> None:
    """`model.bin`, `config.json` and `vocabulary.json` of a model that need not have files of its own.

    The words are those of the folder's tokenizer, where there is one: faster-whisper and CTranslate2 then take the
    folder as any other.
    """
    from ctranslate2.converters import TransformersConverter

    from quantlab.models.tokens import words

    class FromMemory(TransformersConverter):
        def load_model(self, *_: object, **__: object) -> Any:
            return copy.deepcopy(model)  # the converter scales float32 weights where they lie

        def load_tokenizer(self, *_: object, **__: object) -> Any:
            return SimpleNamespace(get_vocab=lambda: _vocabulary(model, words(folder)))

    with tempfile.TemporaryDirectory() as source, tempfile.TemporaryDirectory(dir=folder) as converted:
        model.config.save_pretrained(source)
        FromMemory(source).convert(converted, quantization=compute_type, force=True)  # empties its folder first
        for path in Path(converted).iterdir():
            path.replace(folder / path.name)


def _vocabulary(model: WhisperForConditionalGeneration, words: Mapping[int, str]) -> dict[str, int]:
    """Text → token id: OpenAI's names for those that the engine looks up; of the others it needs only the ids."""
    tokens: Any = model.generation_config
    named = {
        **words,
        tokens.eos_token_id: "<|endoftext|>",
        tokens.decoder_start_token_id: "<|startoftranscript|>",
        tokens.no_timestamps_token_id: "<|notimestamps|>",
    }
    return {named.get(id, f"<{id}>"): id for id in range(model.config.vocab_size)}


def _load(folder: Path, asked: str, device: torch.device, threads: int) -> Any:
    import ctranslate2
    from ctranslate2.models import Whisper

    index = device.index or 0
    supported = ctranslate2.get_supported_compute_types(device.type, index)
    if asked not in supported:
        raise ConfigError(f"CTranslate2 has no quant.format={asked} on this {device}: {', '.join(sorted(supported))}")
    loaded = Whisper(
        str(folder), device=device.type, device_index=index, compute_type=asked, inter_threads=1, intra_threads=threads
    )
    # `int8` is short for int8 with whatever else the model has
    if loaded.compute_type != asked and not (asked == "int8" and loaded.compute_type.startswith("int8_")):
        raise ConfigError(f"CTranslate2 computes in {loaded.compute_type} on this {device}, not in {asked} as asked")
    return loaded


def _sorted_out(found: list[Variable]) -> tuple[dict[str, Held], tuple[Stored, ...]]:
    """The Linear modules by their names in transformers, and every other tensor."""
    from quantlab.quantization.tensors import Held

    layers: dict[str, list[Variable]] = {}
    for variable in found:
        layers.setdefault(_layer(variable), []).append(variable)
    linears: dict[str, Held] = {}
    others: list[Stored] = []
    for layer, held in layers.items():
        names = _linears_in(layer)
        for part, name in enumerate(names):
            linears[name] = Held(layer, tuple(_rows(variable, part, len(names)) for variable in held))
        if not names:
            others += [_rows(variable, 0, 1) for variable in held]
    return linears, tuple(others)


def _layer(variable: Variable) -> str:
    return variable.name.rpartition("/")[0]


def _linears_in(layer: str) -> tuple[str, ...]:
    """Names in transformers of the modules whose rows lie one upon the other in a layer of the file; none elsewhere."""
    if layer == HEAD_LAYER:
        return (HEAD,)
    if (block := BLOCK.fullmatch(layer)) is None:
        return ()
    part, index, below = block.groups()
    return tuple(f"model.{part}.layers.{index}.{name}" for name in LINEARS.get(below, ()))


def _rows(variable: Variable, part: int, parts: int) -> Stored:
    """One of the equal parts of a tensor; weight, scale and bias all have a row for each output."""
    from quantlab.quantization.tensors import Stored

    name = variable.name.rpartition("/")[2]
    return Stored(name, variable.dtype, variable.bytes // parts, (variable.stored_as, part))
