"""A recogniser as a configuration asks for, built, and what identifies it."""
