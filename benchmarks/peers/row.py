"""A row of quantlab that waits for its turn; run by benchmarks/engines_in_turns.py.

    python row.py SAMPLES OVERRIDE...

As `recognise.py`; the line has `generate_s` too, the seconds of `generate` on the features, which a cell records.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from recognise import own_stdout

if TYPE_CHECKING:
    from quantlab.config.schema import RunConfig
    from quantlab.engines import Engine


def main() -> None:
    """Assemble the cell, and recognise once for each line of standard input."""
    from quantlab.grid.process import SPIN_COUNT

    os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))  # as in every cell; read once, when torch is imported
    from quantlab.engines.clocks import Clocks
    from quantlab.recogniser.assemble import assemble, prepared

    samples, answers = np.load(sys.argv[1]), own_stdout()
    with tempfile.TemporaryDirectory() as folder:
        config = _config(sys.argv[2:], samples, Path(folder))
        with prepared(config) as device:
            made = assemble(config, device, Clocks(device))
            _serve(made.decoder, made.tokenizer, _extractor(config), samples, answers)


def _config(overrides: list[str], samples: np.ndarray, folder: Path) -> RunConfig:
    """The cell, whose corpus is this utterance."""
    import soundfile

    from quantlab.config.compose import compose
    from quantlab.data.audio import SAMPLE_RATE
    from quantlab.recogniser.fingerprints import resolve

    soundfile.write(folder / "speech.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    (folder / "speech.jsonl").write_text(json.dumps({"audio": "speech.wav", "text": "not scored"}))
    corpus = ["dataset=manifest", f"dataset.path={folder / 'speech.jsonl'}", "protocol.batch_size=1", "tracking=off"]
    [config] = compose([*overrides, *corpus])
    return resolve(config)


def _extractor(config: RunConfig) -> Any:
    from quantlab import models

    return models.feature_extractor(config.model)


def _serve(engine: Engine, tokenizer: Any, extractor: Any, samples: np.ndarray, answers: TextIO) -> None:
    from quantlab.data.audio import SAMPLE_RATE
    from quantlab.data.speech import SplitFeatures

    audio_s = len(samples) / SAMPLE_RATE
    for _ in sys.stdin:
        start = time.perf_counter()
        mel = extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="np").input_features
        speech = SplitFeatures(("speech",), ("",), (None,), (audio_s,), (audio_s,), mel, (0,))
        [tokens], generate_s = engine.generate(speech)
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        found = {"seconds": time.perf_counter() - start, "generate_s": generate_s, "text": text}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
