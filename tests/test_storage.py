import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from helpers.synthetic import bad_result, result, utterances
from quantlab.records import storage
from quantlab.records.schema import CellResult, SplitResult


def test_what_was_written_is_read_again(tmp_path):
    written = result("hqq_int4", "a1")
    folder = storage.write(tmp_path, written)
    assert folder == tmp_path / "cells" / "a1"
    assert storage.read(tmp_path, "a1") == written.record.model_copy(update={"digests": storage.digests(folder)})
    assert storage.read_utterances(tmp_path, "a1") == list(written.utterances)
    assert storage.read_batches(tmp_path, "a1") == list(written.batches)


def test_size_reduction_is_against_fp32():
    assert result("hqq_int4").record.size_reduction == pytest.approx(0.69, abs=1e-6)
    assert bad_result("failed", "no").record.size_reduction is None


def test_settings_by_dotted_key():
    found = result("hqq_int4").record
    assert found.setting("quant.bits") == 4
    assert found.setting("seed") == 0
    assert found.setting("quant.bits.further") is None
    assert found.setting("nothing.here") is None


def test_a_cell_without_a_record_reads_as_none(tmp_path):
    assert storage.read(tmp_path, "a1") is None
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a1").write_text("a file, not a folder")
    assert storage.read(tmp_path, "a1") is None


@pytest.mark.parametrize(
    "text", ["a\u2028b", "a\u2029b", "a\u0085b", "a\x0bb\x0cc", "a\r\nb", "a\\nb", '"', "\ufeffa", "🎧"]
)
def test_line_breaks_of_every_kind_stay_inside_a_hypothesis(tmp_path, text):
    odd = tuple(item.model_copy(update={"hypothesis": text, "reference": text}) for item in utterances(3))
    storage.write(tmp_path, result("none", "a1").model_copy(update={"utterances": odd}))
    assert storage.read_utterances(tmp_path, "a1") == list(odd)


def test_a_file_name_that_is_no_utf8_does_not_lose_the_record(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    odd = tuple(item.model_copy(update={"id": name}) for item in utterances(1))
    storage.write(tmp_path, result("none", "a1").model_copy(update={"utterances": odd}))
    assert storage.read_utterances(tmp_path, "a1")[0].id == "caf?.wav"


def test_not_a_number_is_refused_when_made_and_not_when_read(tmp_path):
    figures = result("none").record.splits["clean"].model_dump()
    with pytest.raises(ValidationError, match="rtf"):
        SplitResult(**figures | {"rtf": float("nan")})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"cell_id": "a1"}'])
def test_a_corrupt_record_is_named_with_what_to_do(tmp_path, content):
    path = storage.write(tmp_path, result("none", "a1")) / "record.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="delete its folder") as caught:
        storage.read(tmp_path, "a1")
    assert str(path) in str(caught.value)


def test_a_record_of_another_version_is_named_with_the_key(tmp_path):
    path = storage.write(tmp_path, result("none", "a1")) / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"invented": 1}))
    with pytest.raises(ValueError, match="invented"):
        storage.read(tmp_path, "a1")


def test_writing_again_replaces_everything_in_the_folder(tmp_path):
    folder = storage.write(tmp_path, result("none", "a1"))
    (folder / "mlflow.json").write_text("{}")
    storage.write(tmp_path, bad_result("failed", "second try", cell_id="a1"))
    assert sorted(path.name for path in folder.iterdir()) == ["batches.jsonl", "record.json", "utterances.jsonl"]
    assert storage.read(tmp_path, "a1").status == "failed"
    assert storage.read_utterances(tmp_path, "a1") == []
    assert _leftovers(tmp_path) == []


def _leftovers(root: Path) -> list[str]:
    return [path.name for path in (root / "cells").iterdir() if path.suffix in (".tmp", ".old")]


def test_a_write_that_fails_leaves_the_old_record(tmp_path, monkeypatch):
    storage.write(tmp_path, result("none", "a1"))
    monkeypatch.setattr(storage, "fsync", _disk_full)
    with pytest.raises(OSError, match="disk full"):
        storage.write(tmp_path, bad_result("failed", "x", cell_id="a1"))
    assert storage.read(tmp_path, "a1").status == "ok"
    assert _leftovers(tmp_path) == []


def _disk_full(folder: Path) -> None:
    raise OSError("disk full")


def test_leftovers_of_a_kill_before_the_swap_go(tmp_path):
    storage.write(tmp_path, result("none", "a.1"))
    half = tmp_path / "cells" / ".a.1.0123abcd.tmp"
    half.mkdir()
    (half / "utterances.jsonl").write_text('{"id": "u0')
    storage.clean_leftovers(tmp_path)
    assert _leftovers(tmp_path) == []
    assert [item.cell_id for item in storage.read_all(tmp_path)] == ["a.1"]


def test_an_old_record_returns_after_a_kill_within_the_swap(tmp_path):
    folder = storage.write(tmp_path, result("none", "a.1"))
    folder.rename(folder.with_name(".a.1.0123abcd.old"))
    assert storage.read(tmp_path, "a.1") is None
    assert list(storage.read_all(tmp_path)) == []
    storage.clean_leftovers(tmp_path)
    assert storage.read(tmp_path, "a.1") is not None


def test_an_old_record_goes_if_the_new_one_is_in_place(tmp_path):
    folder = storage.write(tmp_path, bad_result("failed", "old", cell_id="a1"))
    folder.rename(folder.with_name(".a1.0123abcd.old"))
    storage.write(tmp_path, result("none", "a1"))
    storage.clean_leftovers(tmp_path)
    assert storage.read(tmp_path, "a1").status == "ok"
    assert _leftovers(tmp_path) == []


def test_nothing_to_clean_makes_no_folder(tmp_path):
    storage.clean_leftovers(tmp_path / "mlruns")
    assert not (tmp_path / "mlruns").exists()


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from quantlab.records import storage
from helpers.synthetic import bad_result, result
good, bad = result("none", "a1"), bad_result("failed", "x", cell_id="a1")
print("ready", flush=True)
while True:
    storage.write(sys.argv[1], good)
    storage.write(sys.argv[1], bad)
"""


def test_kill_9_in_the_middle_of_writing_leaves_a_whole_record(tmp_path):
    storage.write(tmp_path, result("none", "a1"))
    for delay_s in [0.0013 * step for step in range(8)]:
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(delay_s)
            process.send_signal(signal.SIGKILL)
        storage.clean_leftovers(tmp_path)
        _assert_whole(tmp_path)
        assert _leftovers(tmp_path) == []


def _assert_whole(root: Path) -> None:
    found = storage.read(root, "a1")
    assert found is not None
    assert len(storage.read_utterances(root, "a1")) == (320 if found.status == "ok" else 0)
    assert len(storage.read_batches(root, "a1")) == (20 if found.status == "ok" else 0)


def _write_and_clean(root: Path, good: bool) -> None:
    for _ in range(15):
        storage.write(root, result("none", "a1") if good else bad_result("failed", "x", cell_id="a1"))
        storage.clean_leftovers(root)


def test_processes_that_write_the_same_cell_and_clean_up_do_not_disturb_each_other(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_and_clean, args=(tmp_path, good)) for good in (True, False, True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    _assert_whole(tmp_path)
    assert _leftovers(tmp_path) == []


def test_no_credential_reaches_the_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrst")
    monkeypatch.setenv("SOME_PASSWORD", "correct horse")
    good = result("none", "a1", tracking__uri="http://me:geheim@host:5000/x")
    reason = "401 for hf_abcdefghijklmnopqrst, Bearer abcdefgh12345678, correct horse"
    leaky = good.record.model_copy(update={"reason": reason, "traceback": reason, "status": "failed"})
    folder = storage.write(tmp_path, CellResult(record=leaky))
    text = (folder / "record.json").read_text()
    for secret in ("geheim", "hf_abcdef", "abcdefgh12345678", "correct horse"):
        assert secret not in text
    assert storage.read(tmp_path, "a1").setting("tracking.uri") == "http://***@host:5000/x"
