"""A bundle with its results, opened as a folder of records."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from quantlab.bundle.layout import BUNDLE, MEASURED, SCRIPT
from quantlab.records import storage
from quantlab.records.archive import unpacked
from quantlab.util.errors import ConfigError


@contextlib.contextmanager
def opened(root: Path) -> Iterator[Path]:
    """Yield a folder with the records of `root`: those of a bundle are made now, others are `unpacked`.

    Raises:
        ConfigError: the bundle or its results have changed, or `unpacked` refuses.
    """
    if root.is_file() and root.suffix == ".json":
        raise ConfigError(
            f"{root} is no folder of records; if measure.py of a bundle wrote it, put it into {MEASURED}/ of the "
            "bundle's folder, and merge that folder"
        )
    if not any((root / name).is_file() for name in (BUNDLE, SCRIPT)):
        with unpacked(root) as folder:
            yield folder
        return
    from quantlab.bundle.complete import complete  # slow import

    with tempfile.TemporaryDirectory(prefix="quantlab-bundle-") as folder:
        for result in complete(root):
            storage.write(folder, result)
        yield Path(folder)
