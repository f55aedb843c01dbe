"""The commands: each file is `python -m quantlab.NAME`."""
