"""Real small corpora, in the layouts and schemas of the real ones: their audio, lists and tables."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from quantlab.config.schema import DatasetConfig

RATE = 16_000


def tone(seconds, rate=RATE, channels=1, hertz=440.0):
    """A sine, float32, (samples,) or (samples, channels)."""
    samples = 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)
    return samples if channels == 1 else np.tile(samples[:, None], (1, channels))


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def manifest_config(path, **keys):
    return DatasetConfig(name="manifest", source="manifest", path=str(path), **keys)


def encoded(samples, rate=RATE, format="FLAC"):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format)
    return buffer.getvalue()


def write_librispeech_parquet(path, ids, audio=None):
    """The schema of openslr/librispeech_asr, with the metadata that `datasets` puts into it."""
    value = lambda dtype: {"dtype": dtype, "_type": "Value"}  # noqa: E731
    features = {
        "file": value("string"),
        "audio": {"sampling_rate": RATE, "_type": "Audio"},
        "text": value("string"),
        "speaker_id": value("int64"),
        "chapter_id": value("int64"),
        "id": value("string"),
    }
    encoded_audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    kinds = {"string": pa.string(), "int64": pa.int64()}
    schema = pa.schema(
        [(name, kinds.get(item.get("dtype"), encoded_audio)) for name, item in features.items()],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    clips = audio or [encoded(tone(0.4 + 0.1 * number)) for number in range(len(ids))]
    rows = {
        "file": [f"{id}.flac" for id in ids],
        "audio": [{"bytes": clip, "path": f"{id}.flac"} for id, clip in zip(ids, clips, strict=True)],
        "text": ["MISTER QUILTER IS THE APOSTLE"] * len(ids),
        "speaker_id": [int(id.split("-")[0]) for id in ids],
        "chapter_id": [7] * len(ids),
        "id": list(ids),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows, schema=schema), path, row_group_size=2)
