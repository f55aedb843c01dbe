"""Utilities shared by all packages: errors, files, the machine, the terminal. Imports nothing else of quantlab."""
