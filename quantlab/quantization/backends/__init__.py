"""Quantizers: one module per library, named as in `quant.library`."""
