"""Whisper as ONNX graphs: an encoder, and a decoding step with its keys and values as inputs and outputs."""
