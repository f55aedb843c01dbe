"""quantlab: which quantization of this speech recogniser should I deploy, on this device?"""

from pathlib import Path

__path__.append(str(Path(__file__).parent / "cli"))  # so that `python -m quantlab.verify` is cli/verify.py
