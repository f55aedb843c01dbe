"""Grids as SLURM jobs: the composed batch lies on disk, and the jobs run that file."""
