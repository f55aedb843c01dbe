"""A quantizer that only takes time: fp32 with each `generate` a tenth slower, to test quantlab's timing.

A separate package, found through the entry point group `quantlab.quantizers`: with this folder on PYTHONPATH,
`quant=none quant.library=slowed quant.name=slowed` is a cell.
"""

import time

SLOWER_BY = 0.10  # share of each call's time
DISTRIBUTIONS = ("quantlab-slowed",)


def why_unsupported(quant, device):
    """None: supported everywhere."""
    return None


def setup(model, quant, names, device, calibrate):
    """The model itself, with useless work after each call."""
    model = model.to(device)
    model.generate = _slowed(model.generate)
    return model


def _slowed(generate):
    def slowed(*arguments, **options):
        start = time.perf_counter()
        result = generate(*arguments, **options)
        end = start + (1 + SLOWER_BY) * (time.perf_counter() - start)
        while time.perf_counter() < end:
            pass
        return result

    return slowed


def is_quantized(module):
    """Always false."""
    return False


def kernel(module):
    """Plain torch."""
    return None
