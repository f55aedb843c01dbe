"""Results on disk: a record per cell, its raw data, its id, and how cells are named."""
