"""Quantization: one module per library, their interface, and the receipt that verifies the result."""
