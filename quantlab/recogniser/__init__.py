"""Assembly of a model from a configuration, and fingerprints of its inputs."""
