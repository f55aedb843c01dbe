"""State of every cell of a folder: recorded, running, queued in SLURM, or lost."""
