"""Grids as SLURM jobs, which run a batch of composed cells that is stored on disk."""
