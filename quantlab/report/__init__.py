"""Reports made from records, for people and programs: `quantlab report`."""
