"""A grid as jobs of SLURM: what is composed at submission lies on disk as a batch, and the jobs run that file."""
