"""Records → what people and programs read: `python -m quantlab.report`."""
