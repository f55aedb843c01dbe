"""What can go wrong between records and MLflow."""

from __future__ import annotations


class TrackingError(RuntimeError):
    """MLflow could not be reached or written; records are untouched. The message says what to do next."""


class Unreachable(TrackingError):  # noqa: N818  a state of the world, as quantlab.errors.Unavailable is
    """Nothing answers at all, or only to say that it is not well: what failed for one record would for the next."""
