"""Bundles: folders that measure exported models on a machine without quantlab, and the records that come of it."""
