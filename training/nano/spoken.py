"""When each word is said, by the synthesisers' own word: they state it for the speech that `voices` has them make.

flite prints the segments of the very call that writes the speech, and its library says which word each belongs to.
festival's structure of the utterance has the words. espeak-ng's library reports words and phonemes while it speaks;
each sentence gets a process of its own, as the library draws random numbers and the program starts afresh for each.
"""

import ctypes
import multiprocessing
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training.nano import voices
from training.nano.voices import Request

LABEL = "word:"  # of festival's lines
ESPEAK_RATE_HZ = 22_050


class Timed(NamedTuple):
    """A word and when it is said, in seconds from the first sample; None where the synthesiser does not say."""

    word: str
    start_s: float | None
    end_s: float | None


Said = tuple[np.ndarray | None, list[Timed]]  # samples at 16 kHz, None if there are none, and the words


class Spoken(NamedTuple):
    """Speech and all words of its text."""

    samples: np.ndarray  # float32, 16 kHz
    words: tuple[Timed, ...]


def with_words(requests: Sequence[Request], workers: int = 2) -> list[Spoken | None]:
    """Speech for each request, in order, as `voices.synthesize` makes it; None if the synthesiser returned nothing.

    Raises:
        RuntimeError: a synthesiser states words that are not those of the text, or made other speech than for
            `voices.synthesize`, so that its times are not those of that speech.
    """
    found: list[Spoken | None] = []
    # apart, as forks of this process would have its libraries, and its state of C's random numbers
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        again = apart.submit(_again, requests, workers).result()
    for request, samples, spoken in zip(requests, voices.synthesize(requests), again, strict=True):
        if samples is not None and (spoken is None or not np.array_equal(samples, spoken.samples)):
            raise RuntimeError(f"{request}: spoken again, it is other speech")
        found.append(None if samples is None else spoken)
    return found


def _again(requests: Sequence[Request], workers: int) -> list[Spoken | None]:
    said: list[Spoken | None] = [None] * len(requests)
    for engine, times in (("espeak", _espeak), ("flite", _flite), ("festival", _festival)):
        own = [i for i, item in enumerate(requests) if item.voice.engine == engine]
        for i, (samples, words) in zip(own, times([requests[i] for i in own], workers), strict=True):
            said[i] = None if samples is None else Spoken(samples, tuple(words))
    return said


def _checked(request: Request, words: Sequence[Timed]) -> list[Timed]:
    if [item.word for item in words] != request.text.split():
        raise RuntimeError(f"{request}: its words are {[item.word for item in words]}")
    return list(words)


# festival


def _festival(requests: Sequence[Request], workers: int) -> list[Said]:
    found: dict[int, Said] = {}
    for name in {item.voice.name for item in requests}:
        own = [i for i, item in enumerate(requests) if item.voice.name == name]
        found |= zip(own, _festival_voice([requests[i] for i in own]), strict=True)
    return [found[i] for i in range(len(requests))]


def _festival_voice(requests: Sequence[Request]) -> list[Said]:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.wav" for i in range(len(requests))]
        lines = [f"(voice_{requests[0].voice.name})"]
        for number, (request, path) in enumerate(zip(requests, paths, strict=True)):
            lines += [
                f"(Parameter.set 'Duration_Stretch {1 / request.rate:.3f})",
                f'(set! said (utt.synth (Utterance Text "{request.text}")))',
                f'(utt.save.wave said "{path}" \'riff)',
                f'(mapcar (lambda (w) (format t "{LABEL}{number}\\t%s\\t%f\\t%f\\n" '
                '(item.feat w "R:Token.parent.name") (item.feat w "word_start") (item.feat w "word_end"))) '
                "(utt.relation.items said 'Word))",
            ]
        script = Path(folder) / "batch.scm"
        script.write_text("\n".join(lines))
        done = subprocess.run(
            ["festival", "-b", str(script)],
            capture_output=True,
            text=True,
            timeout=voices.FESTIVAL_TIMEOUT_S,
            check=True,
        )
        rows = [line.removeprefix(LABEL).split("\t") for line in done.stdout.splitlines() if line.startswith(LABEL)]
        words: list[list[Timed]] = [[] for _ in requests]
        for place, word, start_s, end_s in rows:
            words[int(place)].append(Timed(word, float(start_s), float(end_s)))
        samples = [voices.read(path) for path in paths]
    return [(audio, _checked(one, said)) for audio, one, said in zip(samples, requests, words, strict=True)]


# flite


def _flite(requests: Sequence[Request], workers: int) -> list[Said]:
    with multiprocessing.get_context("fork").Pool(workers) as pool:  # apart: espeak-ng's library would find its symbols
        return pool.map(_flite_one, requests)


def _flite_one(request: Request) -> Said:
    samples, printed = voices.flite(request, "-psdur")
    ends = [(phone, float(end_s)) for phone, _, end_s in (item.rpartition(":") for item in printed.split())]
    segments = _flite_segments(request)
    if [phone for phone, _ in ends] != [phone for phone, _, _ in segments]:
        raise RuntimeError(f"{request}: the library speaks other segments than the program")
    starts = [0.0, *(end_s for _, end_s in ends)]
    words = []
    for (item, word), own in groupby(range(len(segments)), lambda i: segments[i][1:]):
        places = list(own)
        if item is not None:
            words.append(Timed(word, starts[places[0]], ends[places[-1]][1]))
    return samples, _checked(request, words)


def _flite_segments(request: Request) -> list[tuple[str, int | None, str]]:
    """Segments of a sentence: phone, address of its word (None: a pause), the word as written."""
    library, voice = _flite_voice(request.voice.name)
    utterance = library.flite_synth_text(request.text.encode(), voice)
    found = []
    segment = library.relation_head(library.utt_relation(utterance, b"Segment"))
    while segment:
        word = library.path_to_item(segment, b"R:SylStructure.parent.parent")
        written = library.ffeature_string(segment, b"R:SylStructure.parent.parent.R:Token.parent.name").decode()
        found.append((library.ffeature_string(segment, b"name").decode(), word, written))
        segment = library.item_next(segment)
    library.delete_utterance(utterance)
    return found


def _flite_voice(name: str) -> tuple[ctypes.CDLL, int]:
    """The library of flite, and a voice of it."""
    library = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
    for part in ("usenglish", "cmulex"):
        ctypes.CDLL(f"libflite_{part}.so.1", mode=ctypes.RTLD_GLOBAL)
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for function, result, arguments in (
        ("flite_synth_text", pointer, [text, pointer]),
        ("utt_relation", pointer, [pointer, text]),
        ("relation_head", pointer, [pointer]),
        ("item_next", pointer, [pointer]),
        ("path_to_item", pointer, [pointer, text]),
        ("ffeature_string", text, [pointer, text]),
        ("delete_utterance", None, [pointer]),
    ):
        getattr(library, function).restype, getattr(library, function).argtypes = result, arguments
    library.flite_init()
    register = getattr(ctypes.CDLL(f"libflite_cmu_us_{name}.so.1"), f"register_cmu_us_{name}")
    register.restype, register.argtypes = pointer, [text]
    return library, register(None)


# espeak-ng: speak_lib.h


class _Event(ctypes.Structure):
    """espeak_EVENT; its last field is a union, of which only the name of a phoneme is read."""

    _fields_ = (
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position_ms", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("phoneme", ctypes.c_char * 8),
    )  # fmt: skip


class _Heard(NamedTuple):
    """A word or phoneme as espeak-ng reports it."""

    is_word: bool
    position: int  # letter of the text at which its word begins
    sample: int  # at which it begins
    is_pause: bool


_SYNCHRONOUS, _PHONEME_EVENTS = 2, 1  # espeak_AUDIO_OUTPUT, option of espeak_Initialize
_RATE, _PITCH = 1, 3  # espeak_PARAMETER
_POS_CHARACTER = 1
_SYNTH_FLAGS = 0x100 | 0x1000  # espeakPHONEMES and espeakENDPAUSE, as the program has them
_WORD, _PHONEME = 1, 7  # espeak_EVENT_TYPE; 0 ends a list


def _espeak(requests: Sequence[Request], workers: int) -> list[Said]:
    with multiprocessing.get_context("fork").Pool(workers, maxtasksperchild=1) as pool:
        return pool.map(_espeak_one, requests, chunksize=1)


def _espeak_one(request: Request) -> Said:
    pcm, heard = _espeak_events(request)
    samples = voices.to_16khz(pcm.astype(np.float32) / 32768, ESPEAK_RATE_HZ)
    return samples, _checked(request, list(_espeak_words(request.text, heard, len(pcm))))


def _espeak_events(request: Request) -> tuple[np.ndarray, list[_Heard]]:
    library = ctypes.CDLL("libespeak-ng.so.1")
    assert library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS) == ESPEAK_RATE_HZ
    chunks, heard = list[np.ndarray](), list[_Heard]()

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
    def hear(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while (event := events[index]).type:
            if event.type in (_WORD, _PHONEME):
                pause = event.type == _PHONEME and event.phoneme.startswith(b"_")
                heard.append(_Heard(event.type == _WORD, event.text_position - 1, event.sample, pause))
            index += 1
        return 0

    library.espeak_SetSynthCallback(hear)
    library.espeak_SetVoiceByName(request.voice.name.encode())
    wpm, pitch = voices.espeak_settings(request)
    library.espeak_SetParameter(_RATE, wpm, 0)
    library.espeak_SetParameter(_PITCH, pitch, 0)
    text = request.text.encode() + b"\0"
    flags, size = ctypes.c_uint(_SYNTH_FLAGS), ctypes.c_size_t(len(text))
    library.espeak_Synth(text, size, ctypes.c_uint(0), _POS_CHARACTER, ctypes.c_uint(0), flags, None, None)
    library.espeak_Synchronize()
    return np.concatenate(chunks), heard


def _espeak_words(text: str, heard: Sequence[_Heard], end: int) -> Iterator[Timed]:
    """The words of a text; one ends where the next one or a pause begins.

    Words that espeak-ng says as one ("of the") are reported as the first of them: they have no times.
    """
    starts = {item.position: place for place, item in enumerate(heard) if item.is_word}
    offsets = [0, *(place + 1 for place, letter in enumerate(text) if letter == " ")]
    for word, offset, following in zip(text.split(), offsets, [*offsets[1:], len(text)], strict=True):
        own, after = starts.get(offset), len(heard) if following == len(text) else starts.get(following)
        if own is None or after is None:
            yield Timed(word, None, None)
            continue
        until = end if after == len(heard) else heard[after].sample
        until = next((item.sample for item in heard[own + 1 : after] if item.is_pause), until)
        yield Timed(word, heard[own].sample / ESPEAK_RATE_HZ, until / ESPEAK_RATE_HZ)
