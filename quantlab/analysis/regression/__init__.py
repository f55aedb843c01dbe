"""Is a cell worse than it was when a baseline was packed? Figures of the same cell, measured twice, compared."""
