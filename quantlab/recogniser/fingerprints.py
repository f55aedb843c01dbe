"""Resolved configuration, content fingerprints and id of a cell."""

from __future__ import annotations

from collections.abc import Mapping

from quantlab import models
from quantlab.config.schema import AS_SHIPPED, RunConfig
from quantlab.data import Corpus, added_reader
from quantlab.quantization import registry
from quantlab.records.cell_id import LIBRARIES, hashed
from quantlab.util import source_hash
from quantlab.util.errors import ConfigError
from quantlab.util.machine import Site, here, versions


def resolve(config: RunConfig, site: Site | None = None) -> RunConfig:
    """The configuration with the site's device and thread count in place of `auto` and null; None is this machine."""
    name, site = config.device.name, site or here()
    update = {
        "name": site.device if name == "auto" else name,
        "threads": config.device.threads or site.threads,
    }
    device = config.device.model_copy(update=update)
    return config.model_copy(update={"device": device})


def fingerprints(config: RunConfig, corpus: Corpus) -> dict[str, str]:
    """Content hashes of the checkpoint, the corpus, and, where another checkpoint is the baseline, of that.

    Raises:
        ConfigError: `model.path` or `baseline.path` is no checkpoint.
    """
    found = {
        "checkpoint": models.fingerprint(config.model, config.seed, quantized_too=config.quant.library == AS_SHIPPED),
        "corpus": corpus.fingerprint,
    }
    if config.baseline.path is not None:
        found["baseline"] = _of_baseline(config)
    return found


def _of_baseline(config: RunConfig) -> str:
    try:
        return models.fingerprint(config.of_baseline().model, config.seed)
    except ConfigError as error:
        raise type(error)(str(error).replace("model.path=", "baseline.path=")) from None


def cell_id(config: RunConfig, marks: Mapping[str, str]) -> str:
    """The id under which a cell's record is kept.

    Args:
        config: resolved, see `resolve`.
        marks: see `fingerprints`.
    """
    return hashed(config.model_dump(mode="json"), marks, library_versions(config))


def library_versions(config: RunConfig) -> dict[str, str]:
    """Versions of everything that touches the figures of this cell; of what may change without one, its source too.

    quantlab's own version is what counts of it, also where it is worked on: a change to the report changes no figure,
    and the record names the commit.
    """
    names = [*LIBRARIES, *registry.distributions(config.quant.library)]
    points = (registry.added(config.quant.library), added_reader(config.dataset.source))
    found = versions(names) | source_hash.of_editable(name for name in names if name != "quantlab")
    for point in points:
        found |= {} if point is None else source_hash.of_entry_point(point)
    return found
