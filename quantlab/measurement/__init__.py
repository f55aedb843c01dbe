"""Measurement of one cell: decoding, timing, scoring, and interference by other load."""
