"""Errors of tracking."""

from __future__ import annotations


class TrackingError(RuntimeError):
    """MLflow could not be reached or written; records are untouched. The message says what to do next."""

    passes = True  # whether trying again may help


class Damaged(TrackingError):  # noqa: N818  as below
    """The database itself is broken: only another one helps."""

    passes = False


class Unreachable(TrackingError):  # noqa: N818  a state of the world, as quantlab.util.errors.Unavailable is
    """Nothing answers at all, or only to say that it is not well: what failed for one record would for the next."""
