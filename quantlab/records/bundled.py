"""Where a record comes from that a bundle measured on a machine without quantlab (`quantlab.bundle`)."""

from __future__ import annotations

from quantlab.records.part import Part


class Bundled(Part):
    """The bundle of a record; the record's `device.name` is the name of the machine."""

    digest: str  # SHA-256 of the bundle's list of files
    source: str  # id of the cell that was exported
    baseline: str | None  # id of the cell of the same bundle and machine that it is compared with, or its own
    unquantized: str | None  # what the baseline's weights are: fp32, f16, bfloat16
