"""Training of a quantized model, so that it says again what the original says."""

from quantlab.quantization.recovery.recover import Recovery
from quantlab.quantization.recovery.trainable import Trainable

__all__ = ["Recovery", "Trainable"]
