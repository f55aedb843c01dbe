"""Grids of cells: planned, then run in one process per cell, here or as SLURM jobs."""
