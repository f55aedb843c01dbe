"""The folders of a grid: created, or checked without creating them."""

from __future__ import annotations

from pathlib import Path

from quantlab.export import place
from quantlab.grid import claims
from quantlab.records import storage
from quantlab.util.errors import ConfigError
from quantlab.util.files import cache_dir, why_no_folder

_CACHE = "set QUANTLAB_CACHE to a folder that can be written to"


def open_root(root: Path, exported_to: str | None) -> None:
    """Create the folders of a grid, its exports and the cache, and remove leftovers of killed grids.

    Raises:
        ConfigError: a folder cannot be created or written.
    """
    if exported_to is not None:
        place.make(Path(exported_to).expanduser())
    cache = cache_dir()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the cache {cache} cannot be created: {error.strerror}; {_CACHE}") from None
    try:
        storage.cells_dir(root).mkdir(parents=True, exist_ok=True)
        storage.clean_leftovers(root)
        claims.clean(root)
    except OSError as error:
        raise ConfigError(f"output_dir={root} cannot be written: {error.strerror}; name another folder") from None


def check_root(root: Path, exported_to: str | None) -> None:
    """Check that `open_root` can create its folders, without creating any.

    Raises:
        ConfigError: a folder cannot be created or written.
    """
    folders = {f"output_dir={root}": storage.cells_dir(root), f"the cache {cache_dir()}": cache_dir()}
    if exported_to is not None:
        folders[f"export.dir={exported_to}"] = Path(exported_to).expanduser()
    for what, folder in folders.items():
        if why := why_no_folder(folder):
            way_out = _CACHE if what.startswith("the cache") else "name another folder"
            raise ConfigError(f"{what}: {why}; {way_out}")
