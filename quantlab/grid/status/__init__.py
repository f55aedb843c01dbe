"""State of every cell of a folder: recorded, running, queued by SLURM, or lost."""
