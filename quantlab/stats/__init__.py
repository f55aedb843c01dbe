"""Statistics of accuracy and speed, as pure functions of numbers."""
