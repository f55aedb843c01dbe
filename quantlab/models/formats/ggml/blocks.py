"""Block quantization of ggml, by the library that whisper.cpp uses itself.

The binding pywhispercpp has no function for it, but the ggml library in its wheel does. A ctypes handle of the binding
finds it there, since symbols are looked up in all linked libraries.
Source: ggml 0.13, include/ggml.h (`ggml_type`, `ggml_quantize_chunk`, `ggml_row_size`).
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

TYPES = {  # ggml_type
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "q2_k": 10,
    "q3_k": 11,
    "q4_k": 12,
    "q5_k": 13,
    "q6_k": 14,
}
BLOCK, SUPER_BLOCK = 32, 256  # weights; rows consist of whole blocks


def block(type: str) -> int:
    """Number of weights per block."""
    if type in ("f32", "f16"):
        return 1
    return SUPER_BLOCK if type.endswith("_k") else BLOCK


def quantize(values: np.ndarray, type: str) -> np.ndarray:
    """Quantize like whisper.cpp's `quantize`, without an importance matrix.

    Args:
        values: fp32, (…, a multiple of `block(type)`).
        type: a key of TYPES.

    Returns:
        uint8, (rows, bytes per row).

    Raises:
        RuntimeError: this build of pywhispercpp hides ggml's functions.
    """
    import numpy as np

    ggml = _ggml()
    rows = np.ascontiguousarray(values, np.float32).reshape(-1, values.shape[-1])
    assert rows.shape[1] % block(type) == 0  # otherwise ggml would abort the process
    found = np.empty((len(rows), ggml.ggml_row_size(TYPES[type], rows.shape[1])), np.uint8)
    written = ggml.ggml_quantize_chunk(TYPES[type], rows.ctypes.data, found.ctypes.data, 0, *rows.shape, None)
    assert written == found.nbytes
    return found


@functools.cache
def _ggml() -> Any:
    import _pywhispercpp

    library = ctypes.CDLL(_pywhispercpp.__file__)
    size, count, address = ctypes.c_size_t, ctypes.c_int64, ctypes.c_void_p
    try:
        library.ggml_row_size.argtypes = (ctypes.c_int, count)
        library.ggml_quantize_chunk.argtypes = (ctypes.c_int, address, address, count, count, count, address)
    except AttributeError as error:
        raise RuntimeError(
            f"{_pywhispercpp.__file__} gives no access to ggml's quantization ({error}): install a wheel of "
            "pywhispercpp from PyPI (pip install --only-binary :all: --force-reinstall pywhispercpp), on Linux or macOS"
        ) from None
    library.ggml_row_size.restype = library.ggml_quantize_chunk.restype = size
    return library
