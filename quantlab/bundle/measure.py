"""Measure the models of this folder on this machine: part of a bundle made by quantlab, which is not needed here.

    python measure.py --device pi5

Needs Python 3.10, numpy and the packages in requirements.txt. Every turn of a model (load, warm up, decode all clips)
is a process of its own. The result, measured/<device>.json, goes back into the bundle's folder at home. After an
interruption the same command goes on with the turns that are missing.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
HOME = "home/"  # files that only quantlab needs
DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
TAKEN = ("cpu", "cuda", "mps", "auto")  # names that mean something else to quantlab
SAMPLE_RATE = 16_000  # Hz
POSITIONS_PER_S, POSITIONS_STEP = 50, 8  # of the encoder, as in quantlab's runtime.audio_ctx=dynamic
WARM_UP = 2  # clips decoded before the first timed one
SAMPLE_EVERY_S = 0.25  # reading a core's frequency may disturb it
MODULES = {"pywhispercpp": "_pywhispercpp", "ctranslate2": "ctranslate2", "onnxruntime": "onnxruntime"}
Tokens = list[int]


class BundleError(Exception):
    """Something is missing or changed; the message says what to do."""


# The bundle


def read_bundle(folder: Path) -> dict[str, Any]:
    """The content of bundle.json, whose `own` is the SHA-256 of the rest."""
    path = folder / "bundle.json"
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        rest = {key: value for key, value in found.items() if key != "own"}
        whole = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest() == found["own"]
    except FileNotFoundError:
        raise BundleError(f"{path} is missing: copy the whole folder again") from None
    except (OSError, ValueError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise BundleError(f"{path} is not as it was bundled: copy the whole folder again")
    return found


def check_files(folder: Path, expected: dict[str, str]) -> None:
    """Compare files with their SHA-256."""
    for name, digest in expected.items():
        found = sha256(folder / name)
        if found != digest:
            what = "is missing" if found is None else "is not as it was bundled"
            raise BundleError(f"{folder / name} {what}: copy the whole folder again")


def sha256(path: Path) -> str | None:
    """SHA-256 of a file in hex; None if it cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    except OSError:
        return None
    return found.hexdigest()


# Features


def read_wav(path: Path) -> np.ndarray:
    """Samples of a 16-bit mono WAV, float32 in [-1, 1)."""
    with wave.open(str(path), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def log_mel(samples: np.ndarray, filters: np.ndarray, how: dict[str, int]) -> np.ndarray:
    """Whisper's log-mel features of one window, float32 (mel bins, frames).

    Args:
        samples: (samples,), padded with zeros to the window.
        filters: mel filter bank, (frequencies, mel bins).
        how: `n_samples` of the window, `n_fft` and `hop_length`.
    """
    size, hop = how["n_fft"], how["hop_length"]
    window = np.zeros(how["n_samples"])
    window[: len(samples)] = samples
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(window, size // 2, mode="reflect"), size)[::hop][:-1]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    power = np.abs(np.fft.rfft(frames * hann, axis=1)) ** 2
    logs = np.log10(np.maximum(filters.T @ power.T, 1e-10))
    return ((np.maximum(logs, logs.max() - 8.0) + 4.0) / 4.0).astype(np.float32)


# Engines: each returns a function that decodes a batch of one, greedily, from features made ready outside the timing


def load_ggml(folder: Path, model: dict[str, Any], threads: int) -> Callable[[np.ndarray, int], Callable[[], Tokens]]:
    """whisper.cpp: without timestamps, context, fallback and temperature, in one segment."""
    import _pywhispercpp as library

    how, rows = model["decoding"], model["rows"]
    library.whisper_log_set(lambda level, text: None)
    atexit.register(library.whisper_log_set, None)  # the binding would free the function too late, and crash
    options = library.whisper_context_default_params()
    options.use_gpu = False
    options.flash_attn = False  # it would attend to padding
    context = library.whisper_init_from_file_with_params(str(folder / "ggml-model.bin"), options)
    if not context:
        raise BundleError(f"whisper.cpp cannot load {folder / 'ggml-model.bin'}")
    options = library.whisper_full_default_params(library.WHISPER_SAMPLING_GREEDY)
    for key, value in rows["options"].items():
        setattr(options, key, value)
    options.language = how["language"] or "en"
    options.max_tokens = max(1, how["max_new_tokens"] - 1)  # it stops one token later
    options.n_threads = threads
    ids = {row: id for id, row in enumerate(rows["to_file"])} if rows["to_file"] else None
    silence = np.zeros(0, np.float32)  # it uses the features set before

    def ready(mel: np.ndarray, positions: int) -> Callable[[], Tokens]:
        bins, frames = mel.shape
        mel = np.ascontiguousarray(mel)

        def decode() -> Tokens:
            options.audio_ctx = positions
            failed = library.whisper_set_mel(context, mel, frames, bins)
            if failed or library.whisper_full(context, options, silence, 0):
                raise BundleError("whisper.cpp cannot decode")
            if not library.whisper_full_n_segments(context):
                return []
            count = min(library.whisper_full_n_tokens(context, 0), how["max_new_tokens"])
            found = [library.whisper_full_get_token_id(context, 0, index) for index in range(count)]
            found = found[:-1] if found and found[-1] == rows["end"] else found
            return found if ids is None else [ids.get(row, rows["spare"]) for row in found]

        return decode

    return ready


def load_ct2(folder: Path, model: dict[str, Any], threads: int) -> Callable[[np.ndarray, int], Callable[[], Tokens]]:
    """CTranslate2, in the compute type of the export."""
    import ctranslate2

    how, asked = model["decoding"], model["compute_type"]
    supported = ctranslate2.get_supported_compute_types("cpu")
    if asked not in supported:
        raise BundleError(f"CTranslate2 has no {asked} on this processor, only {', '.join(sorted(supported))}")
    loaded = ctranslate2.models.Whisper(
        str(folder), device="cpu", compute_type=asked, inter_threads=1, intra_threads=threads
    )
    if loaded.compute_type != asked and not (asked == "int8" and loaded.compute_type.startswith("int8_")):
        raise BundleError(f"CTranslate2 computes in {loaded.compute_type} on this processor, not in {asked}")

    def ready(mel: np.ndarray, positions: int) -> Callable[[], Tokens]:
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(cut(mel, positions)[None]))

        def decode() -> Tokens:
            [found] = loaded.generate(
                view, [how["prompt"]], beam_size=1, max_length=model["max_length"], suppress_tokens=how["suppressed"],
                suppress_blank=bool(how["suppressed_first"]),
            )  # fmt: skip
            return list(found.sequences_ids[0])

        return decode

    return ready


def load_ort(folder: Path, model: dict[str, Any], threads: int) -> Callable[[np.ndarray, int], Callable[[], Tokens]]:
    """ONNX Runtime: the encoder once, then one decoding step for each token."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    encoder, decoder = (
        onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])
        for name in ("encoder", "decoder")
    )
    how = model["decoding"]
    layers = range(len(encoder.get_outputs()) // 2)
    cross, past, present = (
        [f"{name}_{part}.{layer}" for layer in layers for part in ("keys", "values")]
        for name in ("cross", "past", "present")
    )
    _, heads, _, width = next(item.shape for item in decoder.get_inputs() if item.name == past[0])

    def ready(mel: np.ndarray, positions: int) -> Callable[[], Tokens]:
        features = np.ascontiguousarray(cut(mel, positions)[None])

        def decode() -> Tokens:
            held = dict(zip(cross, encoder.run(cross, {"features": features}), strict=True))
            before = [np.zeros((1, heads, 0, width), np.float32)] * len(past)
            tokens, position, found = np.array([how["prompt"]], np.int64), 0, Tokens()
            while len(found) < how["max_new_tokens"]:
                places = np.arange(position, position + tokens.shape[1])
                inputs = {"tokens": tokens, "positions": places, **held, **dict(zip(past, before, strict=True))}
                logits, *before = decoder.run(["logits", *present], inputs)
                never = how["suppressed"] if found else [*how["suppressed"], *how["suppressed_first"]]
                logits[:, never] = -np.inf
                token = int(logits[0].argmax())
                if token == how["end"]:
                    break
                found.append(token)
                position += tokens.shape[1]
                tokens = np.array([[token]], np.int64)
            return found

        return decode

    return ready


LOADERS = {"ggml": load_ggml, "ct2": load_ct2, "ort": load_ort}


def cut(mel: np.ndarray, positions: int) -> np.ndarray:
    """The frames of so many positions of the encoder; 0 means all."""
    return mel[:, : 2 * positions] if positions else mel


def positions_of(model: dict[str, Any], audio_s: float, frames: int) -> int:
    """Positions of the encoder that a clip gets; 0 means the whole window."""
    if model["decoding"]["audio_ctx"] != "dynamic":
        return 0
    return min(frames // 2, math.ceil(audio_s * POSITIONS_PER_S / POSITIONS_STEP) * POSITIONS_STEP)


# One turn


def take_turn(folder: Path, bundle: dict[str, Any], number: int, threads: int) -> dict[str, Any]:
    """Load a model, decode every clip once, and say how long each took."""
    model, how = bundle["models"][number], bundle["features"]
    needed = {name: digest for name, digest in bundle["files"].items() if name in needed_by(bundle, number)}
    check_files(folder, needed)
    clock = Clock()
    ready = LOADERS[model["library"]](folder / model["folder"], model, threads)
    load_s = clock.lap()
    filters = np.load(folder / "filters.npy", allow_pickle=False)
    mels = [log_mel(read_wav(folder / clip["file"]), filters, how) for clip in bundle["clips"]]
    features_s = clock.lap()
    first_s = None
    for mel, clip in list(zip(mels, bundle["clips"], strict=True))[:WARM_UP]:
        ready(mel, positions_of(model, clip["audio_s"], mel.shape[1]))()
        first_s = clock.since if first_s is None else first_s
    warm_up_s = clock.lap()
    forget_peak()
    monitor, calls = Monitor(), []
    for index, (mel, clip) in enumerate(zip(mels, bundle["clips"], strict=True)):
        decode = ready(mel, positions_of(model, clip["audio_s"], mel.shape[1]))
        start = time.perf_counter()
        tokens = decode()
        calls.append({"clip": index, "elapsed_s": time.perf_counter() - start, "tokens": tokens})
        monitor.sample()
    return {
        "model": number, "files": needed, "load_s": load_s, "features_s": features_s, "first_s": first_s,
        "warm_up_s": warm_up_s, "peak_memory_bytes": peak_bytes(), "calls": calls, "noise": monitor.read(),
        "environment": environment(threads, MODULES),
    }  # fmt: skip


def needed_by(bundle: dict[str, Any], number: int) -> set[str]:
    """The files that a turn reads."""
    inside = f"{bundle['models'][number]['folder']}/"
    clips = {clip["file"] for clip in bundle["clips"]}
    return {"filters.npy", *clips, *(name for name in bundle["files"] if name.startswith(inside))}


class Clock:
    """Seconds since the last lap."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def since(self) -> float:
        return time.perf_counter() - self._start

    def lap(self) -> float:
        """Seconds since the last lap, and begin the next."""
        found, self._start = self.since, time.perf_counter()
        return found


# This machine


def read_text(path: str) -> str | None:
    """The text of a file of the system; None without it."""
    try:
        return Path(path).read_text(errors="replace").strip("\0\n ")
    except OSError:
        return None


def affinity() -> list[int]:
    """The cores that this process may use; empty if unknown."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def processor() -> str:
    """The name of the board if it has one (Raspberry Pi 5 Model B), else that of the processor."""
    named = re.search(r"^model name\s*:\s*(.+)$", read_text("/proc/cpuinfo") or "", re.MULTILINE)
    board = read_text("/sys/firmware/devicetree/base/model")
    return board or (named[1] if named else platform.processor() or platform.machine())


def environment(threads: int, modules: dict[str, str]) -> dict[str, Any]:
    """Hardware and versions."""
    cores = affinity()
    governors = {read_text(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor") for core in cores}
    most = [read_text(f"/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq") for core in cores]
    versions = {}
    for name in ("numpy", *modules):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    names = getattr(os, "sysconf_names", {})
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "versions": versions,
        "processor": processor(),
        "usable_cores": len(cores) or os.cpu_count() or 1,
        "affinity": cores,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in names else None,
        "governor": ", ".join(sorted(name for name in governors if name)) or None,
        "max_frequency_mhz": max((int(khz) / 1000 for khz in most if khz and khz.isdigit()), default=None),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else [],
        "temperature_c": temperature_c(),
        "threads": threads,
    }


def temperature_c() -> float | None:
    """The first sensor, usually the processor's."""
    text = read_text("/sys/class/thermal/thermal_zone0/temp")
    return int(text) / 1000 if text and text.lstrip("-").isdigit() else None


def forget_peak() -> None:
    """Set the peak of the resident memory back to what it is now; where the system cannot, it is the process's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int | None:
    """Peak of the resident memory."""
    if (found := re.search(r"VmHWM:\s*(\d+) kB", read_text("/proc/self/status") or "")) is not None:
        return int(found[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


class Monitor:
    """What else the cores did, and their frequencies, from its creation to `read`."""

    def __init__(self) -> None:
        self._cores = affinity()
        self._mhz: list[float] = []
        self._sampled_s = -math.inf
        self.sample()
        self._before, self._own_s, self._start_s = self._times(), time.process_time(), time.perf_counter()

    def sample(self) -> None:
        """Read the frequency of the fastest core, between timed calls."""
        if time.perf_counter() - self._sampled_s < SAMPLE_EVERY_S:
            return
        self._sampled_s = time.perf_counter()
        found = [read_text(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq") for core in self._cores]
        self._mhz += [max(int(khz) / 1000 for khz in found if khz and khz.isdigit())] if any(found) else []

    def read(self) -> dict[str, Any]:
        """Seconds of the cores: available, stolen by a hypervisor, spent on other processes. Lowest and highest MHz."""
        available_s = (time.perf_counter() - self._start_s) * len(self._cores)
        own_s, after = time.process_time() - self._own_s, self._times()
        steal_s = other_s = None
        if self._before is not None and after is not None:
            steal_s = after[1] - self._before[1]
            other_s = max(0.0, after[0] - self._before[0] - own_s)
        return {
            "available_s": available_s,
            "steal_s": steal_s,
            "other_s": other_s,
            "frequency_mhz": [min(self._mhz), max(self._mhz)] if self._mhz else None,
        }

    def _times(self) -> tuple[float, float] | None:
        """Busy and stolen seconds of the cores since boot; None if unknown (proc(5))."""
        rows = re.findall(r"^cpu(\d+) (.+)$", read_text("/proc/stat") or "", re.MULTILINE)
        found = [list(map(int, fields.split()))[:8] for core, fields in rows if int(core) in self._cores]
        if not self._cores or len(found) < len(self._cores):
            return None
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        busy = sum(user + nice + system + irq + soft for user, nice, system, _, _, irq, soft, _ in found)
        return busy * tick_s, sum(row[7] for row in found) * tick_s


# All turns


def measure(folder: Path, device: str, threads: int, rounds: int) -> Path:
    """Take every turn that is missing, each in a process of its own, and write the result."""
    bundle = read_bundle(folder)
    check_files(folder, {name: digest for name, digest in bundle["files"].items() if not name.startswith(HOME)})
    check_packages(bundle)
    result = folder / "measured" / f"{device}.json"
    if result.exists():
        raise BundleError(f"{result} exists: it is measured. Move it away to measure again, or give another --device")
    turns = result.with_suffix(".turns")
    settings = {"bundle": bundle["own"], "threads": threads, "rounds": rounds}
    if read_json(turns / "settings.json") != settings:
        shutil.rmtree(turns, ignore_errors=True)
        turns.mkdir(parents=True)
        write_json(turns / "settings.json", settings)
    done = []
    for number, path in planned(turns, len(bundle["models"]), rounds):
        if (found := read_json(path)) is None:
            say(f"{path.stem}: {bundle['models'][number]['label']}")
            found = in_a_process(number, threads, path)
        done.append(found | {"round": round_of(path)})
    write_json(
        result,
        {"format": "quantlab measured", "version": 1, "bundle": bundle["own"], "device": device, "rounds": rounds,
         "created_at": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()), "turns": done},
    )  # fmt: skip
    shutil.rmtree(turns, ignore_errors=True)
    return result


def planned(turns: Path, models: int, rounds: int) -> Iterator[tuple[int, Path]]:
    """Model and file of each turn: once in order, then in rounds, there and back, so that all share what drifts.

    A round that was interrupted is begun again, as its turns belong together in time.
    """
    yield from ((number, turns / f"first-{number}.json") for number in range(models))
    for round in range(rounds):
        order = [*range(models), *reversed(range(models))]
        files = [turns / f"round{round}-{place}.json" for place in range(len(order))]
        if not all(path.exists() for path in files):
            for path in files:
                path.unlink(missing_ok=True)
        yield from zip(order, files, strict=True)


def round_of(path: Path) -> int | None:
    """The round of a turn's file; None for the first pass."""
    found = re.match(r"round(\d+)-", path.name)
    return int(found[1]) if found else None


def in_a_process(number: int, threads: int, path: Path) -> dict[str, Any]:
    """Take a turn in a process that ends with it, so that its memory is the model's."""
    isolated = ["-I"] if sys.flags.isolated else []
    line = [sys.executable, *isolated, str(Path(__file__).resolve()), "--threads", str(threads), "--turn", str(number)]
    done = subprocess.run([*line, "--to", str(path)], check=False)
    found = read_json(path)
    if done.returncode or found is None:
        why = " (out of memory?)" if done.returncode in (-9, 137) else ""
        raise BundleError(f"turn {path.stem} ended with code {done.returncode}{why}: the same command tries it again")
    return found


def check_packages(bundle: dict[str, Any]) -> None:
    """Check that the libraries of all models are installed, before hours are spent on the first."""
    for model in bundle["models"]:
        if importlib.util.find_spec(MODULES[model["package"]]) is None:
            raise BundleError(f"{model['package']} is not installed: python -m pip install -r requirements.txt")


def read_json(path: Path) -> dict[str, Any] | None:
    """An object of a file that this script wrote; None if it is not there, or cut off."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.tmp")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def say(line: str) -> None:
    """Print a line at once."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Measure the models of this folder on this machine.")
    parser.add_argument("--device", help="name of this machine in reports, e.g. pi5; by default its host name")
    parser.add_argument("--threads", type=int, help="threads of the libraries; by default all cores that it may use")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of timing in turns after the first pass (2)")
    parser.add_argument("--turn", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    threads = len(affinity()) or os.cpu_count() or 1 if given.threads is None else given.threads
    device = given.device or socket.gethostname().split(".")[0]
    try:
        if not DEVICE.fullmatch(device) or device.lower() in TAKEN:
            allowed = f"1 to 40 letters, digits and any of . _ -, none of {', '.join(TAKEN)}"
            raise BundleError(f"{device!r} cannot be the name of a device: give --device NAME, {allowed}")
        if threads < 1 or given.rounds < 0:
            raise BundleError("--threads is at least 1, --rounds at least 0")
        if given.turn is not None:
            write_json(given.to, take_turn(HERE, read_bundle(HERE), given.turn, threads))
        else:
            print(f"measured: {measure(HERE, device, threads, given.rounds)}")
    except (BundleError, OSError, ImportError, MemoryError) as error:
        say(f"measure.py: {error or type(error).__name__}")
        return 1
    except KeyboardInterrupt:
        if given.turn is None:
            say("interrupted: the same command goes on")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
