"""Scoring: normalisation, alignment and error counts."""
