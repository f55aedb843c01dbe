"""`quantlab fetch`: download everything a grid reads, so that its jobs need no network.

Compute nodes of a cluster often have no network: fetch on the login node, into caches that the nodes share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import click

from quantlab import data, models
from quantlab.cli.keys import CONFIG_DIR, config_dir, grid_arguments
from quantlab.config.compose import compose
from quantlab.config.schema import DatasetConfig, ModelConfig, NoiseConfig, RunConfig
from quantlab.data.readers.hub import parquet_files
from quantlab.data.readers.joined import Joined
from quantlab.data.utterance import Audio, File
from quantlab.records.root_option import root_option
from quantlab.report.wording import megabytes
from quantlab.util import hub
from quantlab.util.command import HELP, perform
from quantlab.util.console import NO, warn
from quantlab.util.counted import counted
from quantlab.util.entry import enter
from quantlab.util.errors import ConfigError, Unavailable

HERE, FETCHED, EXTRACTED, MISSING = "here already", "fetched", "extracted", "not available"
_EXAMPLES = """\b
examples:
  quantlab fetch model=small,base,tiny dataset=librispeech
  quantlab fetch --features experiment=paper_table2
then, where there is no network:
  HF_HUB_OFFLINE=1 quantlab -m model=small,base,tiny quant=none,torch_int8 dataset=librispeech

Checkpoints and corpora go into the hub's cache, HF_HOME (~/.cache/huggingface); features into QUANTLAB_CACHE
(~/.cache/quantlab). Set both to folders that the nodes can read."""


@dataclass(frozen=True)
class Place:
    """Location and size of an item."""

    where: str
    size_bytes: int


@dataclass(frozen=True)
class Thing:
    """An input of a cell: a checkpoint, a corpus, or the features of a corpus for a model."""

    kind: str
    name: str
    obtain: Callable[[], Place]  # from the cache, else from the hub
    got: str = FETCHED  # state shown if it was not here before
    look: Callable[[], bool] | None = None  # whether it is here; None: `obtain` works without the hub


def _obtained(thing: Thing) -> tuple[str, str]:
    """Obtain an item; returns its state, and a line with state, size and location or the reason of failure."""
    try:
        found = _cached(thing)
        place = found or thing.obtain()
    except (ConfigError, Unavailable, OSError) as error:
        return MISSING, f"{MISSING}: {error}"
    state = HERE if found else thing.got
    return state, f"{state:12}  {megabytes(place.size_bytes):>9} MB  {place.where}"


def _cached(thing: Thing) -> Place | None:
    try:
        with hub.cache_only():
            return thing.obtain() if thing.look is None or thing.look() else None
    except Unavailable:
        return None


def _checkpoints(configs: Sequence[RunConfig]) -> Iterator[Thing]:
    """The distinct checkpoints; random weights need no download."""
    pretrained = (item.model for item in configs if item.model.weights == "pretrained")
    for model in _distinct(pretrained, lambda item: item.model_dump_json(exclude={"random_tokens", "architecture"})):
        yield Thing("checkpoint", model.name, partial(_checkpoint, model))


def _checkpoint(model: ModelConfig) -> Place:
    folder = models.locate(model)
    return Place(str(folder), _size(path for pattern in models.HUB_FILES for path in folder.glob(pattern)))


def _corpora(configs: Sequence[RunConfig]) -> Iterator[Thing]:
    """The distinct corpora, regardless of selection and processing."""
    whole = (item.dataset.model_copy(update=_UNCUT) for item in configs)
    for dataset in _distinct(whole, DatasetConfig.model_dump_json):
        yield Thing("corpus", dataset.name, partial(_corpus, dataset))


_UNCUT = {"limit": None, "ids": None, "channel": None, "noise": NoiseConfig(), "long": None, "chunk_overlap_s": None}


def _corpus(dataset: DatasetConfig) -> Place:
    corpus = data.open_corpus(dataset)
    if dataset.source == "hub":
        files = parquet_files(dataset)
        return Place(str(_common(files)), _size(files))
    files = [file for split in corpus.splits.values() for item in split for file in _files(item.audio)]
    return Place(dataset.path or str(_common(files)), _size(files))


def _files(audio: Audio) -> list[Path]:
    if isinstance(audio, Joined):
        return [file for part in audio.parts for file in _files(part.audio)]
    return [audio.path] if isinstance(audio, File) else []  # from a third-party reader


def _features(configs: Sequence[RunConfig]) -> Iterator[Thing]:
    """The distinct features, which depend on the model's feature extractor and on every key of the corpus."""

    def key(config: RunConfig) -> str:
        return config.model_dump_json(include={"model", "dataset"})

    for config in _distinct(configs, key):
        name = f"{config.model.name}, {config.dataset.label}"
        yield Thing("features", name, partial(_extracted, config), EXTRACTED, partial(_is_extracted, config))


def _is_extracted(config: RunConfig) -> bool:
    return all((entry / "index.json").is_file() for entry in _entries(config))


def _entries(config: RunConfig) -> list[Path]:
    return data.entries(data.open_corpus(config.dataset), models.feature_extractor(config.model))


def _extracted(config: RunConfig) -> Place:
    data.features(data.open_corpus(config.dataset), models.feature_extractor(config.model))
    entries = _entries(config)
    return Place(str(_common(entries)), _size(path for entry in entries for path in entry.iterdir()))


Item = TypeVar("Item")


def _distinct(items: Iterable[Item], key: Callable[[Item], str]) -> list[Item]:
    return list({key(item): item for item in items}.values())


def _common(paths: Sequence[Path]) -> Path | str:
    """The innermost common folder."""
    parents = [set(path.parents) for path in paths]
    return max(set.intersection(*parents), key=lambda folder: len(folder.parts)) if parents else "nowhere"


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _conclusion(things: int, missing: int) -> str:
    if missing:
        return f"{missing} of {counted(things, 'item')} missing; cells that need them will fail"
    return f"all of {counted(things, 'item')} here: the jobs need no network (HF_HUB_OFFLINE=1 prevents requests)"


@click.command("fetch", context_settings=HELP, epilog=_EXAMPLES)
@root_option("; nothing is written there")
@click.option(
    "--features",
    is_flag=True,
    help="Extract the log-mel features too, which otherwise the first cell of each corpus does (imports torch).",
)
@click.option("-m", "--multirun", "sweep", is_flag=True, help="Accepted as in quantlab run; has no effect.")
@config_dir
@grid_arguments
def command(root: Path, features: bool, sweep: bool, config_dir: str | None, arguments: tuple[str, ...]) -> int:
    """Download the checkpoints and corpora of a grid to this machine, without measuring.

    The arguments are those of quantlab run; all values of comma lists are fetched.

    Exit code: 0 if everything is here, 1 if something is missing, 2 if the configuration or an option is wrong.
    """
    own = () if config_dir is None else (CONFIG_DIR, config_dir)
    configs = compose([*own, *arguments])
    missing = 0
    things = [*_checkpoints(configs), *_corpora(configs), *(_features(configs) if features else ())]
    for thing in things:
        state, detail = _obtained(thing)
        missing += state == MISSING
        print(f"{thing.kind:10}  {thing.name:22}  {detail}", flush=True)
    warn(_conclusion(len(things), missing))
    return NO if missing else 0


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
