"""A grid of cells: planned, run one process each, here or as jobs of SLURM."""
