"""File formats of other engines."""
