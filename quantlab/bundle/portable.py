"""What measure.py needs of an export: the files that its engine reads, and how the engine is called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from quantlab.bundle.layout import Model, Rows
from quantlab.export.manifest import Manifest
from quantlab.models.decoding import Decoding
from quantlab.util.errors import ConfigError

Library = Literal["ggml", "ct2", "ort"]


class Engine(NamedTuple):
    """An engine of which there are wheels for small machines."""

    library: Library
    package: str  # on PyPI
    files: tuple[str, ...]  # names, or their ends, of the files that it reads


ENGINES: Mapping[str, Engine] = {
    engine.library: engine
    for engine in (
        Engine("ggml", "pywhispercpp", ("ggml-model.bin",)),
        Engine("ct2", "ctranslate2", ("model.bin", "config.json", "vocabulary.json")),
        Engine("ort", "onnxruntime", (".onnx", ".data")),
    )
}


def engine_of(folder: Path, manifest: Manifest) -> Engine:
    """The engine of an export.

    Raises:
        ConfigError: it has none of its own, or is to be decoded in a way that measure.py does not.
    """
    quant, how = manifest.quant, manifest.decoding
    if (found := ENGINES.get(quant.library)) is None:
        raise ConfigError(
            f"{folder}: {quant.name} needs quantlab and {quant.library}, and a bundle has neither: measure and export "
            "the model with quant=ggml_q8_0, ct2_int8, ort_int8 or another of whisper.cpp, CTranslate2 or ONNX Runtime"
        )
    if how.num_beams != 1 or how.min_new_tokens or how.long_form is not None:
        what = (
            f"protocol.num_beams={how.num_beams}" if how.num_beams != 1
            else "dataset.long=sequential" if how.long_form is not None
            else "model.weights=random"
        )  # fmt: skip
        raise ConfigError(f"{folder}: measured with {what}; a bundle decodes single windows greedily: measure it so")
    return found


def is_of_engine(engine: Engine, name: str) -> bool:
    """Whether the engine reads this file of an export."""
    return name.endswith(engine.files)


def describe(folder: Path, manifest: Manifest, place: str) -> Model:
    """The entry of an export in bundle.json.

    Args:
        folder: the export.
        manifest: its manifest.
        place: folder of its files in the bundle.
    """
    engine, how = engine_of(folder, manifest), manifest.decoding
    plain = Model(
        label=manifest.label, library=engine.library, package=engine.package, folder=place, decoding=how,
    )  # fmt: skip
    if engine.library == "ggml":
        return plain.model_copy(update={"rows": _rows(folder, how)})
    if engine.library == "ct2":
        from quantlab.engines.ctranslate2 import length_limit
        from quantlab.quantization.backends.ct2 import UNQUANTIZED

        most = length_limit(how.max_new_tokens, len(how.prompt))
        return plain.model_copy(update={"compute_type": manifest.quant.format or UNQUANTIZED, "max_length": most})
    return plain


def _rows(folder: Path, how: Decoding) -> Rows:
    from quantlab.engines.whispercpp import OPTIONS
    from quantlab.models.folder import whisper_config
    from quantlab.models.formats.ggml.vocabulary import vocabulary

    found = vocabulary(int(whisper_config(folder)["vocab_size"]), how)
    one_to_one = found.to_file == tuple(range(len(found.words)))
    return Rows(
        to_file=None if one_to_one else found.to_file,
        spare=found.spare,
        end=found.end,
        options=OPTIONS | {"suppress_blank": found.suppresses_blank},
    )
