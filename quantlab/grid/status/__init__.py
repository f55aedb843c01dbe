"""Where every cell of a folder is: recorded, being measured, waiting in a queue of SLURM, or lost there."""
