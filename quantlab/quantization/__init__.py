"""Quantization: a file per library, what each must offer, and the receipt that proves it."""
