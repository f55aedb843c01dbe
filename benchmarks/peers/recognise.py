"""A recogniser that waits for its turn; run by benchmarks/engines_in_turns.py in its environment.

    python recognise.py RECOGNISER FOLDER SAMPLES THREADS

For each line of standard input it recognises the samples once (float32, 16 kHz) and prints a line of JSON: seconds on
the clock from samples to text, and the text.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

RATE = 16_000


def main():
    name, folder, samples, threads = sys.argv[1:]
    answers = own_stdout()
    recognise = RECOGNISERS[name](Path(folder), np.load(samples), int(threads))
    for _ in sys.stdin:
        start = time.perf_counter()
        text = recognise()
        print(json.dumps({"seconds": time.perf_counter() - start, "text": text}), file=answers, flush=True)


def own_stdout():
    """Standard output, which from now on gets nothing that a library prints."""
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return kept


def faster_whisper(folder, samples, threads):
    from faster_whisper import WhisperModel

    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads)
    greedy = {"beam_size": 1, "temperature": 0.0, "vad_filter": False, "condition_on_previous_text": False}

    def recognise():
        segments, _ = model.transcribe(samples, language="en", without_timestamps=True, **greedy)
        return "".join(segment.text for segment in segments)  # decoded as they are asked for

    return recognise


def sherpa_onnx(folder, samples, threads):
    from sherpa_onnx import OfflineRecognizer

    encoder, decoder, tokens = (str(next(folder.glob(f"*-{end}"))) for end in FILES_OF_SHERPA)
    model = OfflineRecognizer.from_whisper(encoder, decoder, tokens, language="en", num_threads=threads)

    def recognise():
        stream = model.create_stream()
        stream.accept_waveform(RATE, samples)
        model.decode_stream(stream)
        return stream.result.text

    return recognise


def onnx_asr(folder, samples, threads):
    import onnxruntime
    from onnx_asr import load_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    model = load_model("whisper", folder, quantization="int8", sess_options=options, providers=providers)
    return lambda: model.recognize(samples, sample_rate=RATE, language="en")


FILES_OF_SHERPA = ("encoder.int8.onnx", "decoder.int8.onnx", "tokens.txt")
RECOGNISERS = {"faster-whisper": faster_whisper, "sherpa-onnx": sherpa_onnx, "onnx-asr": onnx_asr}

if __name__ == "__main__":
    main()
