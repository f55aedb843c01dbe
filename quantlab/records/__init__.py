"""Results on disk: record and raw data of each cell, cell ids, display names."""
