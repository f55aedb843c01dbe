"""Text against reference: normalised, aligned, counted."""
