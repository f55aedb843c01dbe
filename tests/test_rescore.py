import json
import subprocess
import sys

import pytest

from helpers.synthetic import bad_result, result
from quantlab.cli import rescore
from quantlab.cli.verify import verify
from quantlab.records import storage
from quantlab.report.summaries import summaries


def shouting(found):
    """Hypotheses that are right in capitals and with a stop: only `none` counts that as errors."""
    return found.model_copy(
        update={
            "utterances": tuple(
                item.model_copy(update={"hypothesis": item.hypothesis.upper() + "."}) for item in found.utterances
            )
        }
    )


@pytest.fixture
def root(tmp_path):
    for item in (result("none"), shouting(result("bnb_nf4")), bad_result("failed", "why")):
        storage.write(tmp_path / "runs", item)
    return tmp_path / "runs"


def contents(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def wers(root):
    return {item.settings.quant: item.wer and item.wer.value for item in summaries(root)}


def test_every_score_is_computed_again_and_the_source_stays_as_it_is(root, tmp_path, capsys):
    before = contents(root)
    assert rescore.main(["--root", str(root), "--normaliser", "none", "--output", str(tmp_path / "new")]) == 0
    assert "3 records scored by normaliser none" in capsys.readouterr().out
    assert contents(root) == before
    old, new = wers(root), wers(tmp_path / "new")
    assert new["none"] == old["none"]  # nothing to normalise in it
    assert new["bnb_nf4"] == 1.0
    assert new["torch_int8"] is None
    found = {item.settings.quant: item for item in summaries(tmp_path / "new")}
    assert (found["bnb_nf4"].verdict, found["bnb_nf4"].record.normaliser) == ("worse", "none")
    assert found["bnb_nf4"].rate("wer", "clean").ci95 == (1, 1)
    assert found["torch_int8"].record.reason == "why"


def test_what_it_writes_can_be_verified(root, tmp_path):
    rescore.write(root, tmp_path / "new", "basic")
    assert {item.place for item in verify(tmp_path / "new")} == {"cell_id"}  # synthetic ids are no hashes


def test_timings_and_everything_else_stay(root, tmp_path):
    rescore.write(root, tmp_path / "new", "none")
    old, new = (storage.read(place, "cell00") for place in (root, tmp_path / "new"))
    assert (new.stages, new.receipt, new.config, new.created_at) == (
        old.stages,
        old.receipt,
        old.config,
        old.created_at,
    )
    assert new.splits["clean"].rtf == pytest.approx(old.splits["clean"].rtf)
    assert storage.read_batches(root, "cell00") == storage.read_batches(tmp_path / "new", "cell00")


def test_back_to_the_first_normaliser_the_first_figures_return(root, tmp_path):
    rescore.write(root, tmp_path / "none", "none")
    rescore.write(tmp_path / "none", tmp_path / "back", "whisper")
    assert wers(tmp_path / "back") == wers(root)


def test_without_an_output_the_report_is_printed(root, capsys):
    assert rescore.main(["--root", str(root), "--normaliser", "none", "--format", "json"]) == 0
    found = {item["quant"]: item for item in json.loads(capsys.readouterr().out)}
    assert found["bnb_nf4"]["wer"] == 1.0
    assert found["bnb_nf4"]["verdict"] == "worse"
    assert rescore.main(["--root", str(root), "--normaliser", "basic"]) == 0
    assert "bnb_nf4" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["runs", "runs/../runs"])
def test_the_root_itself_is_no_output(root, tmp_path, output, capsys):
    before = contents(root)
    assert rescore.main(["--root", str(root), "--normaliser", "none", "--output", str(tmp_path / output)]) == 2
    assert "must not change" in capsys.readouterr().err
    assert contents(root) == before


def test_a_record_that_cannot_be_read_is_named_and_left_out(root, tmp_path, caplog):
    (root / "cells" / "cell00" / "utterances.jsonl").unlink()
    (root / "cells" / "bad" / "record.json").write_text("{")
    assert rescore.write(root, tmp_path / "new", "none") == 1
    assert "cell00" in caplog.text
    assert "cell bad" in caplog.text


@pytest.mark.parametrize("more", [[], ["--output", "new"]])
def test_without_records_there_is_nothing_to_rescore(tmp_path, more, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert rescore.main(["--root", str(tmp_path / "none"), "--normaliser", "none", *more]) == 1
    assert "no records" in capsys.readouterr().err


def test_a_normaliser_that_does_not_exist_is_a_misuse(root, capsys):
    assert rescore.main(["--root", str(root), "--normaliser", "whispr"]) == 2
    assert "did you mean 'whisper'" in capsys.readouterr().err


def test_no_torch_is_imported(root):
    program = (
        "import sys; from quantlab.rescore import main; main(['--root', sys.argv[1], '--normaliser', 'whisper']);"
        "sys.exit(str({'torch', 'mlflow', 'hydra'} & set(sys.modules) or '') or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(root)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
