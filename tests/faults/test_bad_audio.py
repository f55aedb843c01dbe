"""Audio that is broken is named and counted, the rest is measured; audio that is odd is measured like any other."""

import json
import os
import shutil

import numpy as np
import pytest
import soundfile
import soxr

from quantlab.data.readers.manifest import ASSETS
from quantlab.records import storage

DEMO = ASSETS / "demo"
RATE = 16_000  # Hz
SAID = "our drawer seemed very ordinary"
MEASURED = ("plain.flac", "eight_channels.wav", "192_khz.wav", "one_loud_channel.wav")


@pytest.fixture
def manifest(tmp_path):
    """One sentence of the demo corpus, again and again: as it is, oddly stored, and broken in every way."""
    folder = tmp_path / "speech"
    folder.mkdir()
    samples, rate = soundfile.read(DEMO / "clean" / "clean-0001.ogg", dtype="float32")
    assert rate == RATE
    write(folder, samples)
    names = [*MEASURED, *DOUBTFUL, *BROKEN]
    lines = [{"audio": name, "text": SAID} for name in names]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "manifest.jsonl"


def write(folder, samples):
    soundfile.write(folder / "plain.flac", samples, RATE)
    soundfile.write(folder / "eight_channels.wav", np.tile(samples[:, None], (1, 8)), RATE, subtype="FLOAT")
    soundfile.write(folder / "192_khz.wav", soxr.resample(samples, RATE, 192_000), 192_000, subtype="FLOAT")
    loud = np.zeros((len(samples), 8), np.float32)
    loud[:, 5] = 8 * samples  # the average of the channels is the sentence
    soundfile.write(folder / "one_loud_channel.wav", loud, RATE, subtype="FLOAT")

    soundfile.write(folder / "silent.wav", 0 * samples, RATE)
    soundfile.write(folder / "hot.wav", 2**15 * samples, RATE, subtype="FLOAT")
    soundfile.write(folder / "antiphase.wav", np.stack([samples, -samples], axis=1), RATE)

    flac = (folder / "plain.flac").read_bytes()
    middle = len(flac) // 2
    (folder / "corrupt.flac").write_bytes(flac[:middle] + bytes(middle) + flac[middle + middle :])
    (folder / "truncated.flac").write_bytes(flac[:middle])
    (folder / "zero_length.wav").write_bytes(b"")
    soundfile.write(folder / "zero_samples.wav", samples[:0], RATE)
    holed = samples.copy()
    holed[5000] = np.nan
    soundfile.write(folder / "nan.wav", holed, RATE, subtype="FLOAT")
    (folder / "text.flac").write_text(f"{SAID}\n" * 100)
    (folder / "folder.flac").mkdir()
    os.mkfifo(folder / "pipe.wav")
    soundfile.write(folder / "too_long.flac", np.tile(samples, 5), RATE)


DOUBTFUL = {"silent.wav": "silence", "hot.wav": "over full scale", "antiphase.wav": "channels cancel out"}
BROKEN = {  # what the record says of each
    "corrupt.flac": "",
    "truncated.flac": "",
    "zero_length.wav": "format not recognised",
    "zero_samples.wav": "no samples",
    "nan.wav": "NaN or infinite samples",
    "text.flac": "format not recognised",
    "folder.flac": "not a regular file",
    "pipe.wav": "not a regular file",
    "missing.flac": "no such file",
    "too_long.flac": "the model's window is 6 s",
}


def test_what_is_broken_is_named_and_the_rest_is_measured(quantlab, manifest):
    done = quantlab("dataset=manifest", f"dataset.path={manifest}", "device=cpu", "protocol=quick", "tracking=off")
    assert done.returncode == 0, done.stderr
    [cell_id] = storage.recorded(quantlab.folder / "mlruns")
    record = storage.read(quantlab.folder / "mlruns", cell_id)
    assert record.status == "ok"
    left_out = [problem for problem in record.problems if not problem.measured]
    assert {problem.utterance for problem in left_out} == set(BROKEN)
    assert {problem.utterance: problem.kind for problem in record.problems if problem.measured} == DOUBTFUL
    for problem in left_out:
        assert BROKEN[problem.utterance].lower() in problem.detail.lower()
        assert problem.detail
        assert problem.kind == ("too long" if problem.utterance == "too_long.flac" else "unreadable")

    counted = f"{len(BROKEN)} utterances ({len(BROKEN) - 1} unreadable, 1 too long)"
    assert f"not measured: manifest: {counted}, named in cells/{cell_id}/record.json" in done.stdout
    assert f"not measured: {len(BROKEN)}, e.g. 'corrupt.flac': " in done.stderr
    doubtful = "doubtful: manifest: 3 utterances (1 silence, 1 over full scale, 1 channels cancel out)"
    assert f"{doubtful}, named in cells/{cell_id}/record.json" in done.stdout
    assert record.splits["test"].utterances == len(MEASURED) + len(DOUBTFUL)
    heard = {item.id: item.hypothesis for item in storage.read_utterances(quantlab.folder / "mlruns", cell_id)}
    assert set(heard) == {*MEASURED, *DOUBTFUL}
    assert {heard[name] for name in MEASURED} == {heard["plain.flac"]}, "channels are averaged, rates are converted"
    assert heard["plain.flac"].strip() == SAID


def test_nothing_but_broken_audio_is_a_failed_cell_that_names_it(quantlab, manifest):
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines if line["audio"] in BROKEN))
    done = quantlab("dataset=manifest", f"dataset.path={manifest}", "device=cpu", "protocol=quick", "tracking=off")
    assert done.returncode == 1
    reason = f"no utterance of manifest can be measured ({len(BROKEN)} problems: corrupt.flac: "
    assert f"failed: nano-none-cpu: {reason}" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_no_file_at_all_is_a_wrong_path_and_nothing_runs(quantlab, manifest):
    for path in manifest.parent.iterdir():
        if path != manifest:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = quantlab("dataset=manifest", f"dataset.path={manifest}", "device=cpu", "protocol=quick")
    assert done.returncode == 2
    assert "none of its 17 audio files exists, e.g. " in done.stderr
    assert not (quantlab.folder / "mlruns").exists()
