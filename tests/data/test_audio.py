import io

import numpy as np
import pytest
import soundfile

from quantlab.data.audio import TooLongError, UnreadableAudioError, decode
from quantlab.data.corpus import File

from .conftest import RATE, encoded, tone

WINDOW_S = 6.0


def decode_file(path):
    return decode(File(path), WINDOW_S)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_rate_and_channels(tmp_path, rate, channels):
    soundfile.write(tmp_path / "a.wav", tone(1.0, rate, channels), rate, subtype="FLOAT")
    clip = decode_file(tmp_path / "a.wav")
    assert clip.seconds == 1.0
    assert clip.samples.dtype == np.float32
    assert abs(len(clip.samples) - RATE) <= 1
    middle = slice(1000, 15_000)  # away from the ends, where every resampling filter rings
    expected = tone(1.0)
    tolerance = 1e-6 if rate == RATE else 2e-3
    np.testing.assert_allclose(clip.samples[middle], expected[middle], atol=tolerance)


def test_resampling_against_the_fourier_series():
    """A band-limited sum of sines at 44.1 kHz, evaluated at 16 kHz sample times, is known in closed form."""
    rng = np.random.default_rng(0)
    hertz, phase = rng.uniform(100, 7000, 20), rng.uniform(0, 6.28, 20)
    at = lambda rate: sum(  # noqa: E731
        0.04 * np.sin(2 * np.pi * f * np.arange(2 * rate) / rate + p) for f, p in zip(hertz, phase, strict=True)
    ).astype(np.float32)
    clip = decode(lambda: encoded(at(44_100), 44_100, "WAV"), WINDOW_S)
    np.testing.assert_allclose(clip.samples[2000:30_000], at(RATE)[2000:30_000], atol=1e-4)


def test_nothing_above_8_khz_folds_back():
    clip = decode(lambda: encoded(tone(1.0, 48_000, hertz=11_000.0), 48_000, "WAV"), WINDOW_S)
    assert np.abs(clip.samples[1000:15_000]).max() < 1e-3


def test_channels_are_averaged(tmp_path):
    samples = np.stack([tone(0.5), -tone(0.5)], axis=1)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert np.abs(decode_file(tmp_path / "a.wav").samples).max() < 1e-7


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.flac", {}),
        ("a.ogg", {"format": "OGG", "subtype": "OPUS"}),
        ("a.oga", {"format": "OGG", "subtype": "VORBIS"}),
        ("a.mp3", {"format": "MP3"}),
        ("a.wav", {}),
        ("a.aiff", {}),
    ],
)
def test_formats_and_their_truncation(tmp_path, name, options):
    path = tmp_path / name
    soundfile.write(path, tone(2.0), RATE, **options)
    clip = decode_file(path)
    assert clip.seconds == pytest.approx(2.0, abs=0.01)
    assert np.sqrt(np.mean(clip.samples**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.05)

    content = path.read_bytes()
    path.write_bytes(content[:30])
    with pytest.raises(UnreadableAudioError):
        decode_file(path)
    if name != "a.aiff":  # libsndfile repairs the header of a cut AIFF and tells nobody
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(UnreadableAudioError):
            decode_file(path)


def test_bytes_decode_as_the_file_does(tmp_path):
    soundfile.write(tmp_path / "a.flac", tone(1.0), RATE)
    from_bytes = decode((tmp_path / "a.flac").read_bytes, WINDOW_S)
    np.testing.assert_array_equal(from_bytes.samples, decode_file(tmp_path / "a.flac").samples)


def not_finite(value):
    samples = tone(0.5)
    samples[100] = value
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 44_100, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not recognised"),
        (b"this is a text file\n" * 100, "not recognised"),
        (encoded(tone(0.5))[:100] + bytes(20_000), "lost sync|unimplemented|malformed"),
        (encoded(tone(0.0), format="WAV"), "no samples"),
        (encoded(tone(0.0)), "."),
        (encoded(tone(1 / 44_100, 44_100), 44_100, "WAV"), "no samples at 16000 Hz"),
        (not_finite(np.nan), "NaN"),
        (not_finite(np.inf), "NaN or infinite"),
    ],
)
def test_unreadable(tmp_path, content, reason):
    path = tmp_path / "a.flac"
    path.write_bytes(content)
    with pytest.raises(UnreadableAudioError, match=reason):
        decode_file(path)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "nowhere.flac", tmp_path):
        with pytest.raises(UnreadableAudioError, match="no such file"):
            decode_file(path)


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_window(tmp_path, rate):
    soundfile.write(tmp_path / "fits.wav", tone(WINDOW_S, rate), rate)
    assert decode_file(tmp_path / "fits.wav").seconds == WINDOW_S
    soundfile.write(tmp_path / "long.wav", np.append(tone(WINDOW_S, rate), np.float32(0)), rate)
    with pytest.raises(TooLongError, match="window is 6 s"):
        decode_file(tmp_path / "long.wav")


def test_a_long_clip_is_not_read_to_its_end():
    with pytest.raises(TooLongError, match=r"3600\.00 s"):
        decode(lambda: encoded(np.zeros(3600 * RATE, np.int16), format="FLAC"), WINDOW_S)
