"""Records → what people and programs read: `quantlab report`."""
