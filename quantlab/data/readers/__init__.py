"""Corpora as they lie on disk or on the hub: one file per format, each listing utterances."""
