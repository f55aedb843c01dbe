"""Word times by whisper.cpp's own dynamic time warping (`dtw_token_timestamps`).

The library does it within `whisper_full`, after decoding. A context of its own does it, so that the timed one does not:
it is loaded for the first alignment, which decodes once more.
Source: whisper.cpp 1.8, include/whisper.h, src/whisper.cpp (whisper_exp_compute_token_level_timestamps_dtw).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from quantlab.models.decoding import Alignment

CENTISECONDS = 100  # per second: the unit of t_dtw
UNKNOWN = -1  # t_dtw of a token that was not aligned

# The library knows the alignment heads of OpenAI's models by name: first head and number of heads → name.
PRESETS = {
    ((1, 0), 8): "TINY_EN",
    ((2, 2), 6): "TINY",
    ((3, 3), 5): "BASE_EN",
    ((3, 1), 8): "BASE",
    ((6, 6), 19): "SMALL_EN",
    ((5, 3), 10): "SMALL",
    ((11, 4), 18): "MEDIUM_EN",
    ((13, 15), 6): "MEDIUM",
    ((9, 19), 9): "LARGE_V1",
    ((10, 12), 23): "LARGE_V2",
    ((7, 0), 10): "LARGE_V3",
    ((2, 4), 6): "LARGE_V3_TURBO",
}


class Kept:
    """A file that outlives its folder, for a context that is loaded later."""

    def __init__(self, path: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="quantlab-")
        self.path = Path(self._folder.name) / path.name
        try:
            os.link(path, self.path)
        except OSError:  # on another file system
            shutil.copyfile(path, self.path)


def with_times(options: Any, alignment: Alignment, layers: int, heads: int) -> Any:
    """Context parameters that align tokens by the heads of `alignment`.

    The binding can choose a preset, or all heads of the last layers; other heads are all heads of the upper half.

    Args:
        options: whisper_context_params, changed in place and returned.
        alignment: the checkpoint's heads.
        layers: of the decoder.
        heads: of a layer.
    """
    import _pywhispercpp as library

    name = PRESETS.get((alignment.heads[0], len(alignment.heads)))
    upper = {(layer, head) for layer in range(layers // 2, layers) for head in range(heads)}
    options.dtw_token_timestamps = True
    if name is None or set(alignment.heads) == upper:
        options.dtw_aheads_preset = library.WHISPER_AHEADS_N_TOP_MOST
        options.dtw_n_top = layers - layers // 2
    else:
        options.dtw_aheads_preset = getattr(library, f"WHISPER_AHEADS_{name}")
    return options


def starts(context: Any, tokens: int) -> list[float]:
    """Times of the tokens that `whisper_full` has found, see `TimesWords.align`.

    A token begins where the one before ends: t_dtw is where the path leaves the token.
    """
    import _pywhispercpp as library

    ends = [library.whisper_full_get_token_data(context, 0, index).t_dtw for index in range(tokens)]
    known = ends[: ends.index(UNKNOWN)] if UNKNOWN in ends else ends
    return [0.0, *(end / CENTISECONDS for end in known)]
