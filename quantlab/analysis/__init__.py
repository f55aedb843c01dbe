"""Comparison of records: intervals, and a verdict for each cell against its baseline."""
