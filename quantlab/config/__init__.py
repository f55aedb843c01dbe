"""Configuration: from a command line to one validated configuration per cell."""
