"""quantlab: which quantization of this speech recogniser should I deploy, on this device?

The public names below are all that a notebook or a script needs; each is imported when it is first used. Warnings, such
as one of a record that cannot be read, go to the logger `quantlab` of Python's logging.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantlab.config.compose import compose as compose
    from quantlab.config.schema import RunConfig as RunConfig
    from quantlab.export import load as load_model
    from quantlab.grid.run import run as run
    from quantlab.measurement.cell import run_cell as run_cell
    from quantlab.records.schema import Record as Record
    from quantlab.records.several import load_records as load_records
    from quantlab.report.cell_summary import CellSummary as CellSummary
    from quantlab.report.summaries import summaries as summaries

    __version__: str

__all__ = [
    "CellSummary",
    "Record",
    "RunConfig",
    "__version__",
    "compose",
    "load_model",
    "load_records",
    "run",
    "run_cell",
    "summaries",
]

_PLACES = {  # name → module, and its name there
    "CellSummary": ("report.cell_summary", "CellSummary"),
    "Record": ("records.schema", "Record"),
    "RunConfig": ("config.schema", "RunConfig"),
    "compose": ("config.compose", "compose"),
    "load_model": ("export", "load"),
    "load_records": ("records.several", "load_records"),
    "run": ("grid.run", "run"),
    "run_cell": ("measurement.cell", "run_cell"),
    "summaries": ("report.summaries", "summaries"),
}

__path__.append(str(Path(__file__).parent / "cli"))  # so that `python -m quantlab.verify` is cli/verify.py


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("quantlab")
    if name not in _PLACES:
        raise AttributeError(f"module 'quantlab' has no attribute {name!r}")
    module, there = _PLACES[name]
    return getattr(import_module(f"quantlab.{module}"), there)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
