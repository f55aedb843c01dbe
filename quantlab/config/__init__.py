"""What a run is asked to do: from a command line to one validated configuration per cell."""
