"""Statistics of accuracy and of speed: numbers in, numbers out."""
