"""Speech synthesisers as subprocesses: espeak-ng (formant), flite and festival (recorded human voices).

Debian packages: espeak-ng, flite, festival, festvox-kallpc16k, festvox-kdlpc16k, festvox-us-slt-hts.
"""

import io
import random
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

SAMPLE_RATE_HZ = 16_000
FLITE_PITCH_HZ = {"kal16": 105, "rms": 100, "awb": 130, "slt": 170}  # each voice's own mean
ESPEAK_RATE_WPM = 170
ESPEAK_TIMEOUT_S = 60
FESTIVAL_TIMEOUT_S = 600


@dataclass(frozen=True)
class Voice:
    """`engine` is espeak, flite or festival; `name` is the engine's name of the voice (espeak: accent+variant)."""

    engine: str
    name: str

    @property
    def speaker(self) -> str:
        """Speaker id in manifests; the same person or formant set has one id in all splits."""
        return f"{self.engine}-{self.name.replace('+', '-').lower()}"


@dataclass(frozen=True)
class Request:
    """One sentence in one voice; `rate` and `pitch` are relative to the voice's own."""

    text: str
    voice: Voice
    rate: float = 1.0
    pitch: float = 1.0


def random_request(text: str, voice: Voice, rng: random.Random) -> Request:
    """Request with random rate and pitch in a natural range; festival's diphone voices take no pitch."""
    return Request(text, voice, rate=rng.uniform(0.82, 1.22), pitch=rng.uniform(0.75, 1.3))


def missing_programs(engines: Sequence[str] = ("espeak", "flite", "festival")) -> list[str]:
    """The synthesisers among `engines` that are not installed."""
    programs = {"espeak": "espeak-ng", "flite": "flite", "festival": "festival"}
    return [programs[engine] for engine in engines if shutil.which(programs[engine]) is None]


def synthesize(requests: Sequence[Request]) -> list[np.ndarray | None]:
    """Speech for each request, in order.

    Returns:
        float32 samples at 16 kHz, shape (samples,), or None if the synthesiser returned nothing.

    Raises:
        RuntimeError: if a synthesiser is not installed.
    """
    if missing := missing_programs(sorted({request.voice.engine for request in requests})):
        raise RuntimeError(f"not installed: {', '.join(missing)}; the Debian packages are listed in {__name__}")
    spoken: list[np.ndarray | None] = [None] * len(requests)
    for voice in {request.voice for request in requests}:
        indices = [i for i, request in enumerate(requests) if request.voice == voice]
        for i, samples in zip(indices, _speak([requests[i] for i in indices]), strict=True):
            spoken[i] = samples
    return spoken


def _speak(requests: list[Request]) -> list[np.ndarray | None]:
    """Synthesise requests of one voice."""
    engine = requests[0].voice.engine
    if engine == "festival":
        return _festival(requests)
    speak_one = {"espeak": _espeak, "flite": lambda request: flite(request)[0]}[engine]
    return [speak_one(request) for request in requests]


def _espeak(request: Request) -> np.ndarray | None:
    wpm, pitch = espeak_settings(request)
    command = ["espeak-ng", "-v", request.voice.name, "-s", f"{wpm}", "-p", f"{pitch}", "--stdout", request.text]
    output = subprocess.run(command, capture_output=True, timeout=ESPEAK_TIMEOUT_S, check=False).stdout
    if len(output) < 46:
        return None
    # A streamed header has no length, so the samples are everything after its 44 bytes.
    rate_hz = int.from_bytes(output[24:28], "little")
    even = len(output) // 2 * 2
    return to_16khz(np.frombuffer(output[44:even], np.int16).astype(np.float32) / 32768, rate_hz)


def espeak_settings(request: Request) -> tuple[int, int]:
    """Words per minute, and pitch from 0 to 99."""
    return round(ESPEAK_RATE_WPM * request.rate), round(50 * request.pitch)


def flite(request: Request, *options: str) -> tuple[np.ndarray | None, str]:
    """Speech, and what flite prints with these options."""
    pitch_hz = FLITE_PITCH_HZ[request.voice.name] * request.pitch
    settings = {
        "duration_stretch": 1 / request.rate,
        "int_f0_target_mean": pitch_hz,  # read by the diphone voice
        "f0_shift": request.pitch,  # read by the statistical voices
    }
    flags = [part for key, value in settings.items() for part in ("--setf", f"{key}={value:.3f}")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.wav"
        command = ["flite", "-voice", request.voice.name, *flags, *options, "-t", request.text, "-o", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=ESPEAK_TIMEOUT_S, check=False)
        return read(path), done.stdout


def _festival(requests: list[Request]) -> list[np.ndarray | None]:
    """Synthesise all requests in one process, since festival takes a second to load a voice."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.wav" for i in range(len(requests))]
        lines = [f"(voice_{requests[0].voice.name})"]
        for request, path in zip(requests, paths, strict=True):
            lines.append(f"(Parameter.set 'Duration_Stretch {1 / request.rate:.3f})")
            lines.append(f'(utt.save.wave (utt.synth (Utterance Text "{request.text}")) "{path}" \'riff)')
        script = Path(folder) / "batch.scm"
        script.write_text("\n".join(lines))
        subprocess.run(["festival", "-b", str(script)], capture_output=True, timeout=FESTIVAL_TIMEOUT_S, check=False)
        return [read(path) for path in paths]


def read(path: Path) -> np.ndarray | None:
    """A synthesiser's file at 16 kHz; None if it wrote none."""
    if not path.exists():
        return None
    samples, rate_hz = soundfile.read(io.BytesIO(path.read_bytes()), dtype="float32")
    return to_16khz(samples, rate_hz)


def to_16khz(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """Resample (samples,) float32 to 16 kHz."""
    return samples if rate_hz == SAMPLE_RATE_HZ else soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ)
