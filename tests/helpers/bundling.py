"""What is put into bundles: one quantizer of each engine."""

QUANTS = ("ggml_q8_0", "ct2_int8", "ort_fp32")
