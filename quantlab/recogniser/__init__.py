"""A recogniser as a configuration asks for, assembled, and the fingerprints of what it reads."""
