"""Word error rates: `python -m training.nano.evaluate --model DIR --manifest FILE [--digits DIR]` prints JSON.

Greedy decoding in fp32 through transformers' own `generate`; by split, by voice, by whether training heard the voice,
and by acoustic condition. `wer` is after Whisper's English normaliser, as everywhere in quantlab; `wer_spoken` compares
the words as spoken. They differ for numbers: the normaliser makes one word of a whole string of digits, wrong if
any digit is. Strings of human-spoken digits are therefore scored as spoken.
"""

import argparse
import functools
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import jiwer
import numpy as np
import soundfile
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from quantlab.scoring.normalise import normaliser
from training.nano import digits
from training.nano.voices import SAMPLE_RATE_HZ

Transcriber = Callable[[Sequence[np.ndarray]], list[str]]  # of float32 16 kHz utterances of at most 6 s
BATCH = 24
MAX_NEW_TOKENS = 56


def transcribe(
    model: WhisperForConditionalGeneration, processor: WhisperProcessor, audio: Sequence[np.ndarray]
) -> list[str]:
    """Transcripts of float32 16 kHz utterances of at most 6 s."""
    transcripts = []
    for start in range(0, len(audio), BATCH):
        inputs = processor(list(audio[start : start + BATCH]), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        features = inputs.input_features.to(model.device)
        with torch.inference_mode():
            ids = model.generate(features, language="en", task="transcribe", max_new_tokens=MAX_NEW_TOKENS)
        transcripts += [text.strip() for text in processor.batch_decode(ids, skip_special_tokens=True)]
    return transcripts


def wer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Corpus word error rate in percent, after Whisper's normaliser."""
    normalize = normaliser()
    return wer_spoken([normalize(r) for r in references], [normalize(h) for h in hypotheses])


def wer_spoken(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Corpus word error rate in percent, without normalisation."""
    return 100 * jiwer.wer(list(references), list(hypotheses))


def wer_of(transcriber: Transcriber, pairs: Sequence[tuple[str, np.ndarray]]) -> float:
    """WER of the words as spoken, in percent, over (text, samples) pairs."""
    return wer_spoken([text for text, _ in pairs], transcriber([samples for _, samples in pairs]))


def read_manifest(path: Path) -> list[dict]:
    """Read the rows of a manifest, each with its audio as `samples`, float32 at 16 kHz."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row | {"samples": soundfile.read(path.parent / row["audio"], dtype="float32")[0]} for row in rows]


def dev_sets(folder: Path, limit: int | None) -> dict[str, list[tuple[str, np.ndarray]]]:
    """The first `limit` (text, samples) pairs of each split below `folder`."""
    sets: dict[str, list[tuple[str, np.ndarray]]] = defaultdict(list)
    for row in read_manifest(folder / "manifest.jsonl"):
        sets[row["split"]].append((row["text"], row["samples"]))
    return {name: pairs[:limit] for name, pairs in sets.items()}


def breakdown(rows: Sequence[dict], hypotheses: Sequence[str]) -> dict[str, dict[str, float]]:
    """WER by split, and within each split by voice, seen or unseen voice, noise, SNR, and reverberation."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[row["split"]].append(i)
        for key in ("speaker", "seen_voice", "noise", "snr_db"):
            if row[key] is not None:
                groups[f"{row['split']}/{key}={row[key]}"].append(i)
        groups[f"{row['split']}/room={row['reverb'] is not None}"].append(i)
    return {
        name: _scores([rows[i]["text"] for i in g], [hypotheses[i] for i in g]) for name, g in sorted(groups.items())
    }


def _scores(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, float]:
    return {
        "wer": round(wer(references, hypotheses), 2),
        "wer_spoken": round(wer_spoken(references, hypotheses), 2),
        "utterances": len(references),
    }


def parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """The command line of an evaluation."""
    made = argparse.ArgumentParser(
        prog=f"python -m {program}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--model", type=Path, required=True)
    made.add_argument("--manifest", type=Path, help="a manifest such as the demo's")
    made.add_argument("--digits", type=Path, help="folder of <digit>_<speaker>_<index>.wav; each speaker apart")
    made.add_argument("--errors", action="store_true", help="also print every utterance that was misheard")
    return made


def report(transcriber: Transcriber, args: argparse.Namespace) -> None:
    """Print what the command line asks for."""
    if args.manifest:
        rows = read_manifest(args.manifest)
        hypotheses = transcriber([row["samples"] for row in rows])
        print(json.dumps(breakdown(rows, hypotheses), indent=1))
        for row, hypothesis in zip(rows, hypotheses, strict=True):
            if args.errors and wer([row["text"]], [hypothesis]) > 0:
                print(f"{row['audio']}\t{row['speaker']}\t{row['text']}\t{hypothesis}")
    if args.digits:
        recordings = digits.load(args.digits)
        wers = {
            speaker: round(wer_of(transcriber, digits.held_back_strings(recordings, speaker, 150)), 2)
            for speaker in digits.speakers(recordings)
        }
        print(json.dumps({"digits": wers}))


def main() -> None:
    """Entry point."""
    args = parser("training.nano.evaluate", __doc__).parse_args()
    model = WhisperForConditionalGeneration.from_pretrained(args.model).eval()
    processor = WhisperProcessor.from_pretrained(args.model)
    report(functools.partial(transcribe, model, processor), args)


if __name__ == "__main__":
    main()
