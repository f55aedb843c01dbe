"""Records compared: intervals, and a verdict for each cell against its baseline."""
