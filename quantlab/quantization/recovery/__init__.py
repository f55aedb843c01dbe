"""Training of what a quantized model still has in floating point, so that it says again what the original says."""

from quantlab.quantization.recovery.recover import Recovery
from quantlab.quantization.recovery.trainable import Trainable, Unpacks

__all__ = ["Recovery", "Trainable", "Unpacks"]
