import contextlib
import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.corpora import RATE, encoded, tone
from quantlab.data.audio import TooLongError, UnreadableAudioError, decode
from quantlab.data.utterance import WHOLE, File, Part
from quantlab.data.wav import MOST_CHUNKS, _chunks

WINDOW_S = 6.0


def decode_file(path):
    return decode(File(path), WHOLE, WINDOW_S)


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
    clip = decode(lambda: encoded(at(44_100), 44_100, "WAV"), WHOLE, WINDOW_S)
    np.testing.assert_allclose(clip.samples[2000:30_000], at(RATE)[2000:30_000], atol=1e-4)


def test_nothing_above_8_khz_folds_back():
    clip = decode(lambda: encoded(tone(1.0, 48_000, hertz=11_000.0), 48_000, "WAV"), WHOLE, WINDOW_S)
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
    from_bytes = decode((tmp_path / "a.flac").read_bytes, WHOLE, WINDOW_S)
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


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for path, why in (
        (tmp_path / "nowhere.flac", "no such file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe.wav", "not a regular file"),
        (Path(os.devnull), "not a regular file"),
        (tmp_path / "null\0.wav", "no file system can hold such a path"),
    ):
        with pytest.raises(UnreadableAudioError, match=why):
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
        decode(lambda: encoded(np.zeros(3600 * RATE, np.int16), format="FLAC"), WHOLE, WINDOW_S)


# segments and channels


def noise(seconds, rate=RATE, seed=0, swing_hertz=2.0):
    """Noise that swells and fades as speech does, float32."""
    count = round(seconds * rate)
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * swing_hertz * np.arange(count) / rate + seed)
    return (0.2 * swell * np.random.default_rng(seed).uniform(-1, 1, count)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.wav", {"subtype": "FLOAT"}, 0),
        ("a.flac", {}, 0),
        ("a.ogg", {"format": "OGG", "subtype": "OPUS"}, 1e-3),
        ("a.oga", {"format": "OGG", "subtype": "VORBIS"}, 1e-3),
        ("a.mp3", {"format": "MP3"}, 1e-3),
    ],
)
def test_a_segment_is_that_part_of_the_whole(tmp_path, name, options, tolerance):
    path = tmp_path / name
    soundfile.write(path, noise(5.5), RATE, **options)
    whole = decode_file(path).samples
    for offset_s, duration_s in ((0.0, 1.0), (1.25, 2.5), (4.0, None)):
        clip = decode(File(path), Part(offset_s=offset_s, duration_s=duration_s), WINDOW_S)
        end = None if duration_s is None else round((offset_s + duration_s) * RATE)
        np.testing.assert_allclose(clip.samples, whole[round(offset_s * RATE) : end], atol=tolerance)
        assert clip.seconds == pytest.approx(len(clip.samples) / RATE)


def test_a_segment_of_a_long_recording_fits_the_window(tmp_path):
    soundfile.write(tmp_path / "a.flac", noise(60.0), RATE)
    assert decode(File(tmp_path / "a.flac"), Part(offset_s=54.0), WINDOW_S).seconds == WINDOW_S
    with pytest.raises(TooLongError, match=r"6\.50 s; the model's window is 6 s"):
        decode(File(tmp_path / "a.flac"), Part(offset_s=1.0, duration_s=6.5), WINDOW_S)
    with pytest.raises(TooLongError, match="window is 6 s"):
        decode(File(tmp_path / "a.flac"), Part(offset_s=53.9), WINDOW_S)


def test_a_segment_beyond_its_recording_is_none_but_for_what_is_rounded(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(2.004), RATE)
    assert decode(File(tmp_path / "a.wav"), Part(duration_s=2.01), WINDOW_S).seconds == 2.004
    with pytest.raises(UnreadableAudioError, match=r"it ends at 3\.00 s, the recording at 2\.00 s"):
        decode(File(tmp_path / "a.wav"), Part(offset_s=1.0, duration_s=2.0), WINDOW_S)
    with pytest.raises(UnreadableAudioError, match=r"it starts at 2\.50 s, the recording ends at 2\.00 s"):
        decode(File(tmp_path / "a.wav"), Part(offset_s=2.5), WINDOW_S)


@pytest.mark.parametrize("part", [Part(rate=8000), Part(channels=2), Part(frames=15_999)])
def test_what_its_listing_says_of_a_file_has_to_be_so(tmp_path, part):
    soundfile.write(tmp_path / "a.wav", tone(1.0), RATE)
    decode(File(tmp_path / "a.wav"), Part(rate=16_000, channels=1, frames=16_000), WINDOW_S)
    with pytest.raises(UnreadableAudioError, match="the manifest says that it has"):
        decode(File(tmp_path / "a.wav"), part, WINDOW_S)


def test_one_channel_is_heard_alone(tmp_path):
    channels = np.stack([tone(0.5), tone(0.5, hertz=300.0), noise(0.5)], axis=1)
    soundfile.write(tmp_path / "a.wav", channels, RATE, subtype="FLOAT")
    for channel in range(3):
        clip = decode(File(tmp_path / "a.wav"), Part(channel=channel), WINDOW_S)
        np.testing.assert_array_equal(clip.samples, channels[:, channel])
        assert clip.doubts == ()
    with pytest.raises(UnreadableAudioError, match="channel 3 of 3: the first is channel 0"):
        decode(File(tmp_path / "a.wav"), Part(channel=3), WINDOW_S)


def test_a_thousand_channels_are_averaged_a_block_at_a_time(tmp_path):
    samples = np.repeat(noise(0.5)[:, None], 1000, axis=1)
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    np.testing.assert_allclose(decode_file(tmp_path / "a.wav").samples, noise(0.5), atol=1e-4)


# what is wrong with audio that can be heard


def doubts(tmp_path, samples, subtype="FLOAT", part=WHOLE, rate=RATE):
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype=subtype)
    return [(doubt.kind, doubt.detail) for doubt in decode(File(tmp_path / "a.wav"), part, WINDOW_S).doubts]


@pytest.mark.parametrize("rate", [8_000, 44_100])
@pytest.mark.parametrize("seconds", [0.01, 0.4, 3.3])
def test_ordinary_audio_has_no_doubt(tmp_path, rate, seconds):
    voice = noise(seconds, rate)
    hum = 0.005 * tone(seconds, rate)
    later = np.roll(voice, 20)  # the same voice at another microphone
    for channels in ([voice], [voice, voice], [voice, 0.3 * voice], [voice, later], [voice, hum], [voice, 0 * voice]):
        assert doubts(tmp_path, np.stack(channels, axis=1), rate=rate) == []
    eight = np.zeros((len(voice), 8), np.float32)
    eight[:, 5] = voice
    assert doubts(tmp_path, eight, rate=rate) == []


@pytest.mark.parametrize(("gain", "left"), [(-1.0, "nothing"), (-0.95, "-32 dB"), (-0.8, "-19 dB")])
def test_channels_that_cancel_out_are_named(tmp_path, gain, left):
    samples = np.stack([noise(2.0), gain * noise(2.0)], axis=1)
    [(kind, detail)] = doubts(tmp_path, samples)
    assert kind == "channels cancel out"
    assert detail == f"averaging its 2 channels leaves {left} of them; dataset.channel=0 takes the first"
    assert doubts(tmp_path, samples, part=Part(channel=1)) == []


def test_channels_with_different_voices_are_named(tmp_path):
    samples = np.stack([noise(2.0, seed=0), noise(2.0, seed=2)], axis=1)
    [(kind, detail)] = doubts(tmp_path, samples)
    assert kind == "channels differ"
    assert "its 2 channels are averaged, but they hold different signals" in detail
    assert doubts(tmp_path, samples, part=Part(channel=1)) == []


@pytest.mark.parametrize(
    ("samples", "detail"),
    [
        (np.zeros(RATE), "all samples are equal"),
        (np.full(RATE, 0.25), "all samples are equal"),
        (np.zeros((RATE, 2)), "all samples are equal"),
        (5e-5 * tone(1.0), "nothing above -96 dB of full scale"),
    ],
)
def test_silence_is_named(tmp_path, samples, detail):
    assert doubts(tmp_path, samples) == [("silence", detail)]


def test_silence_of_a_segment_is_named(tmp_path):
    samples = np.append(noise(1.0), np.zeros(RATE, np.float32))
    assert doubts(tmp_path, samples) == []
    [(kind, _)] = doubts(tmp_path, samples, part=Part(offset_s=1.2))
    assert kind == "silence"


@pytest.mark.parametrize(("gain", "named"), [(1.0, False), (3.0, False), (5.0, True), (32_768.0, True)])
def test_peaks_over_full_scale_are_named(tmp_path, gain, named):
    found = doubts(tmp_path, gain * tone(1.0))  # whose peak is 0.3
    assert [kind for kind, _ in found] == ["over full scale"] * named
    if named:
        assert found[0][1] == f"its peak is {0.3 * gain:,.1f} where full scale is 1"


def test_what_is_loud_in_integers_or_lossy_is_ordinary(tmp_path):
    assert doubts(tmp_path, np.sign(tone(1.0)), subtype="PCM_16") == []
    soundfile.write(tmp_path / "a.mp3", 0.999 * np.sign(tone(1.0)), RATE, format="MP3")
    clip = decode_file(tmp_path / "a.mp3")
    assert np.abs(clip.samples).max() > 1.12
    assert clip.doubts == ()


# lengths that headers do not know, or do not know right


@pytest.mark.parametrize("seconds", [0.3, 1.0, 5.9])
def test_a_flac_that_was_piped_is_read_to_its_end(seconds):
    content = bytearray(encoded(noise(seconds)))
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    content[22:26] = bytes(4)
    expected = decode(lambda: encoded(noise(seconds)), WHOLE, WINDOW_S).samples
    np.testing.assert_array_equal(decode(lambda: bytes(content), WHOLE, WINDOW_S).samples, expected)
    np.testing.assert_array_equal(decode(lambda: bytes(content), Part(duration_s=0.2), 6.0).samples, expected[:3200])
    np.testing.assert_array_equal(decode(lambda: bytes(content), Part(offset_s=0.1), 6.0).samples, expected[1600:])
    np.testing.assert_array_equal(decode(lambda: bytes(content), WHOLE, None).samples, expected)
    whole = Part(duration_s=seconds)
    np.testing.assert_array_equal(decode(lambda: bytes(content), whole, WINDOW_S).samples, expected)
    with pytest.raises(TooLongError, match=r"more than 0\.25 s"):
        decode(lambda: bytes(content), WHOLE, 0.25)


def with_size(content, size):
    place = content.index(b"data") + 4
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]


SIZES = [
    0,
    0x7FFFF000,
    0x7FFFFFFF,
    0x7FFFFFDB,
    0x80000000,
    0xFFFFFFFF,
    0xFFFFF000,
    32_000 + 16,
    32_000 + 44,
    32_000 + 1,
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stored", ["file", "bytes"])
def test_a_wav_whose_header_does_not_know_its_size_is_read_to_the_end(tmp_path, size, stored):
    content = encoded(tone(1.0), format="WAV")
    assert len(content) == 44 + 32_000
    expected = decode(lambda: content, WHOLE, WINDOW_S).samples
    (tmp_path / "a.wav").write_bytes(with_size(content, size))
    audio = File(tmp_path / "a.wav") if stored == "file" else (tmp_path / "a.wav").read_bytes
    np.testing.assert_array_equal(decode(audio, WHOLE, WINDOW_S).samples, expected)
    end = decode(audio, Part(offset_s=0.5), WINDOW_S).samples
    np.testing.assert_array_equal(end, expected[8000:])


@pytest.mark.parametrize("missing", [400, 10_000, 1_000_000])
def test_a_wav_that_lacks_what_can_be_heard_is_truncated(tmp_path, missing):
    (tmp_path / "a.wav").write_bytes(with_size(encoded(tone(1.0), format="WAV"), 32_000 + missing))
    with pytest.raises(UnreadableAudioError, match="truncated"):
        decode_file(tmp_path / "a.wav")


def test_a_wav_whose_samples_go_on_behind_their_end_is_not_cut_in_silence(tmp_path):
    (tmp_path / "a.wav").write_bytes(with_size(encoded(tone(1.0), format="WAV"), 1000))
    with pytest.raises(UnreadableAudioError, match="its header states 1,000 bytes of samples, and 31,000 more follow"):
        decode_file(tmp_path / "a.wav")
    content = encoded(tone(1.0), format="WAV")
    (tmp_path / "a.wav").write_bytes(content + content)
    with pytest.raises(UnreadableAudioError, match="more follow"):
        decode_file(tmp_path / "a.wav")


@pytest.mark.parametrize("behind", [b"LIST" + struct.pack("<I", 6) + b"INFO\0\0", b"TAG" + bytes(125), b"\0"])
def test_what_belongs_behind_the_samples_is_left_there(tmp_path, behind):
    content = encoded(tone(1.0), format="WAV")
    (tmp_path / "a.wav").write_bytes(content + behind)
    assert decode_file(tmp_path / "a.wav").seconds == 1.0
    empty = encoded(tone(0.0), format="WAV") + b"LIST" + struct.pack("<I", 6) + b"INFO\0\0"
    with pytest.raises(UnreadableAudioError, match="no samples"):
        decode(lambda: empty, WHOLE, WINDOW_S)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from([b"fmt ", b"data", b"LIST", b"RIFF", b"\0\0\0\0"]), st.integers(0, 2**32 - 1))),
    st.binary(max_size=40),
)
def test_any_chunks_are_read_or_named(chunks, end):
    content = encoded(tone(0.05), format="WAV")
    head = b"".join(struct.pack("<4sI", *chunk) for chunk in chunks)
    for damaged in (content[:36] + head + content[36:] + end, content + head + end, content[:12] + head + end):
        with contextlib.suppress(UnreadableAudioError):
            assert len(decode(lambda content=damaged: content, WHOLE, WINDOW_S).samples) > 0


def test_many_empty_chunks_are_not_walked_through():
    count = 10 * MOST_CHUNKS
    assert len(list(_chunks(io.BytesIO(bytes(8 * count)), 0, 8 * count))) == MOST_CHUNKS
