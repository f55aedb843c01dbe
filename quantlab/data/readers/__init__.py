"""Readers of corpora on disk or on the hub: one module per format, each listing utterances."""
