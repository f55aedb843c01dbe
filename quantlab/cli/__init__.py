"""Commands: each module is also `python -m quantlab.NAME`."""
