import os

import numpy as np
import pytest
import soundfile
from scipy.signal import welch
from transformers import WhisperFeatureExtractor

from helpers.corpora import RATE, manifest_config, tone
from quantlab.config.schema import NoiseConfig
from quantlab.data import features, open_corpus
from quantlab.data.audio import UnreadableAudioError
from quantlab.data.noise import noise_of
from quantlab.data.utterance import file_utterance
from quantlab.util.errors import ConfigError


@pytest.fixture
def recordings(tmp_path):
    """Two noise recordings: a short one at 16 kHz, a long stereo one at 44.1 kHz."""
    folder = tmp_path / "recordings"
    (folder / "deeper").mkdir(parents=True)
    soundfile.write(folder / "hum.wav", tone(0.2, hertz=1000), RATE)
    soundfile.write(folder / "deeper/hiss.flac", tone(20, 44_100, 2, hertz=1000), 44_100)
    return folder


@pytest.fixture
def split(tmp_path):
    """Eight speakers of one tone each, 400 to 1100 Hz; the first two are one person."""
    found = []
    for number in range(8):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, tone(1.0 + 0.1 * number, hertz=400 + 100 * number), RATE)
        found.append(file_utterance(path, id=str(number), split="x", text="x", speaker=str(max(1, number))))
    return found


def noisy(samples, kind, snr_db, split=(), id="0", seed=0, path=None):
    return noise_of(NoiseConfig(kind=kind, snr_db=snr_db, seed=seed, path=path)).mixed(samples, id, split)


def decibels(signal, noise):
    return 10 * np.log10(np.mean(np.square(signal, dtype=float)) / np.mean(np.square(noise, dtype=float)))


def loudest_hz(samples, count):
    """The frequencies with the most power, 50 Hz wide."""
    hertz, power = welch(samples, RATE, nperseg=1600)
    return {int(50 * round(hertz[i] / 50)) for i in np.argsort(power)[-count:]}


@pytest.mark.parametrize("kind", ["white", "pink", "babble", "recorded"])
@pytest.mark.parametrize("snr_db", [-20.0, 0.0, 7.5, 30.0])
def test_the_ratio_is_as_asked_for(kind, snr_db, split, recordings):
    speech = tone(3.0) * np.linspace(0, 1, 3 * RATE, dtype=np.float32)
    mixture = noisy(speech, kind, snr_db, split, path=str(recordings) if kind == "recorded" else None)
    assert mixture.dtype == np.float32
    assert mixture.shape == speech.shape
    assert decibels(speech, mixture.astype(float) - speech) == pytest.approx(snr_db, abs=0.01)


def test_nothing_is_clipped_or_scaled():
    speech = tone(1.0)
    noise = noisy(speech, "white", -30, id="a").astype(float) - speech
    assert np.abs(noise).max() > 10
    quieter = noisy(speech, "white", 10, id="a").astype(float) - speech
    np.testing.assert_allclose(noise, 100 * quieter, atol=1e-4)  # the same noise at each ratio


@pytest.mark.parametrize(("kind", "slope"), [("white", 0.0), ("pink", -10.0)])
def test_slope_of_the_spectrum(kind, slope):
    speech = tone(60.0)
    hertz, power = welch(noisy(speech, kind, 0).astype(float) - speech, RATE, nperseg=8192)
    heard = (hertz > 50) & (hertz < 7500)
    fitted = np.polyfit(np.log10(hertz[heard]), 10 * np.log10(power[heard]), 1)[0]  # dB per decade
    assert fitted == pytest.approx(slope, abs=0.3)


def test_pink_noise_has_nothing_that_nobody_hears():
    speech = tone(60.0)
    hertz, power = welch(noisy(speech, "pink", 0).astype(float) - speech, RATE, nperseg=32_768, window="blackmanharris")
    assert power[hertz < 15].sum() < 1e-4 * power.sum()


def test_drawn_from_seed_and_utterance_alone(split):
    speech = tone(1.0)
    for kind in ("white", "pink", "babble"):
        first = noisy(speech, kind, 5, split)
        np.testing.assert_array_equal(first, noisy(speech, kind, 5, split))
        assert not np.allclose(first, noisy(speech, kind, 5, split, id="2"))
        assert not np.allclose(first, noisy(speech, kind, 5, split, seed=1))


def test_silence_stays_silent():
    silence = np.zeros(RATE, np.float32)
    np.testing.assert_array_equal(noisy(silence, "white", 0), silence)


def test_babble_is_six_other_speakers(split):
    speech = tone(2.0, hertz=3000)
    noise = noisy(speech, "babble", 0, split, id="0").astype(float) - speech
    assert loudest_hz(noise, 6) == {600, 700, 800, 900, 1000, 1100}  # neither its own voice nor the same person's


def test_babble_leaves_out_what_cannot_be_read(split, tmp_path):
    (tmp_path / "7.wav").write_text("no audio")
    speech = tone(2.0, hertz=3000)
    noise = noisy(speech, "babble", 0, split, id="0").astype(float) - speech
    assert loudest_hz(noise, 5) == {600, 700, 800, 900, 1000}
    with pytest.raises(UnreadableAudioError, match="no other speaker in its split for babble noise"):
        noisy(speech, "babble", 0, split[:2], id="0")


def test_recorded_noise_is_resampled_and_repeated(recordings):
    speech = tone(3.0, hertz=3000)
    for id in "abcd":  # either recording
        noise = noisy(speech, "recorded", 0, id=id, path=str(recordings)).astype(float) - speech
        assert loudest_hz(noise, 1) == {1000}
        assert decibels(noise[:RATE], noise[-RATE:]) == pytest.approx(0, abs=0.5)  # to the end


def test_wrong_folders_and_recordings(tmp_path):
    with pytest.raises(ConfigError, match="no recording in it; expected a folder with "):
        noisy(tone(1.0), "recorded", 0, path=str(tmp_path))
    (tmp_path / "broken.wav").write_text("no audio")
    with pytest.raises(UnreadableAudioError, match=r"its noise broken\.wav: Format not recognised"):
        noisy(tone(1.0), "recorded", 0, path=str(tmp_path))
    soundfile.write(tmp_path / "broken.wav", np.zeros(RATE), RATE)
    with pytest.raises(UnreadableAudioError, match="silent"):
        noisy(tone(1.0), "recorded", 0, path=str(tmp_path))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"kind": "white"}, "set both"),
        ({"snr_db": 3.0}, "set both"),
        ({"kind": "white", "snr_db": float("nan")}, "a number of dB from -100 to 100, or inf"),
        ({"kind": "white", "snr_db": 3.0, "path": "x"}, "go together"),
        ({"kind": "recorded", "snr_db": 3.0}, "go together"),
    ],
)
def test_half_a_noise_is_a_mistake(keys, says):
    with pytest.raises(ValueError, match=says):
        NoiseConfig(**keys)


# corpora


def with_noise(speech, **keys):
    return open_corpus(manifest_config(speech, noise=NoiseConfig(**keys)))


def test_no_noise_at_an_infinite_ratio(speech):
    endless = with_noise(speech, kind="white", snr_db=float("inf"), seed=3)
    assert endless == open_corpus(manifest_config(speech))
    assert endless.dataset.label == "manifest"
    assert with_noise(speech, kind="pink", snr_db=2.5).dataset.label == "manifest+pink2.5dB"


def test_a_noisy_corpus_is_another_corpus(speech, recordings, tmp_path):
    marks = [
        with_noise(speech, **keys).fingerprint
        for keys in (
            {},
            {"kind": "white", "snr_db": 10.0},
            {"kind": "white", "snr_db": 5.0},
            {"kind": "white", "snr_db": 5.0, "seed": 1},
            {"kind": "recorded", "snr_db": 5.0, "path": str(recordings)},
        )
    ]
    assert len(set(marks)) == 5
    moved = recordings.rename(tmp_path / "moved")
    recorded = {"kind": "recorded", "snr_db": 5.0, "path": str(moved)}
    assert with_noise(speech, **recorded).fingerprint == marks[-1]
    soundfile.write(moved / "hum.wav", tone(0.3), RATE)
    assert with_noise(speech, **recorded).fingerprint != marks[-1]


def test_every_byte_of_the_noise_counts_and_only_files_are_read(speech, recordings):
    recorded = {"kind": "recorded", "snr_db": 5.0, "path": str(recordings)}
    before = with_noise(speech, **recorded).fingerprint
    path = recordings / "deeper/hiss.flac"
    state, content = path.stat(), path.read_bytes()
    place = len(content) // 3
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert with_noise(speech, **recorded).fingerprint != before
    os.mkfifo(recordings / "pipe.wav")
    with pytest.raises(ConfigError, match=r"pipe\.wav cannot be read: not a regular file"):
        with_noise(speech, **recorded)


def test_the_cache_keeps_noisy_features_apart(speech, tmp_path):
    extractor = WhisperFeatureExtractor(chunk_length=6)
    loudness = {}
    for snr_db in (float("inf"), 20.0, 0.0):
        for _ in range(2):  # extracted, and from the cache
            found = features(with_noise(speech, kind="white", snr_db=snr_db), extractor, tmp_path)
            loudness.setdefault(snr_db, []).append(float(found.splits["two"].mel[0].mean()))
    assert all(first == second for first, second in loudness.values())
    assert loudness[float("inf")][0] < loudness[20.0][0] < loudness[0.0][0]  # noise fills the gaps of a tone's spectrum
    assert len(list((tmp_path / "features").iterdir())) == 6
    assert found.splits["two"].ids == ("c.ogg", "d.oga", "e.mp3")
    assert found.problems == ()
