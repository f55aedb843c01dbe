import json
import os
import re
import subprocess
import sys

import pytest

from helpers.synthetic import grid, result
from quantlab.records import storage
from quantlab.records.several import load_records
from quantlab.report import __main__ as report
from quantlab.util.errors import ConfigError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    grid(folder)
    return folder


def test_table_is_the_default(root, capsys):
    assert report.main(["--root", str(root)]) == 0
    assert "hqq_int4" in capsys.readouterr().out


def test_json_is_one_list(root, capsys):
    assert report.main(["--root", str(root), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 10
    assert {item["status"] for item in found} == {"ok", "unsupported", "timeout", "failed"}


@pytest.mark.parametrize(
    ("name", "start"), [("markdown", "# Quantized"), ("latex", "% needs"), ("csv", "cell_id,status")]
)
def test_every_other_format_is_printed(name, start, root, capsys):
    assert report.main(["--root", str(root), "--format", name]) == 0
    assert capsys.readouterr().out.lower().startswith(start.lower())


@pytest.mark.parametrize("name", [*report.FORMATS])
def test_a_file_holds_what_would_be_printed(name, root, tmp_path, capsys):
    out = tmp_path / "report"
    assert report.main(["--root", str(root), "--format", name]) == 0
    printed = capsys.readouterr().out
    assert report.main(["--root", str(root), "--format", name, "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"quantlab: wrote {out}\n")
    if name != "html":  # which is printed into a file alone
        assert out.read_text() == printed


def test_a_page_is_poured_into_a_file_and_nothing_else(root, tmp_path, monkeypatch, capfd):
    """No terminal, no notebook, no log of a job."""
    page, arguments = root / "report.html", ["--root", str(root), "--format", "html"]
    read, write = os.pipe()
    with os.fdopen(read), os.fdopen(write, "w") as pipe, (tmp_path / "page.html").open("w") as file:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert report.main(arguments) == 0
        assert f"wrote {page}" in capfd.readouterr().err
        assert page.read_text().lower().startswith("<!doctype html>")
        page.unlink()
        monkeypatch.setattr(sys, "stdout", file)
        assert report.main(arguments) == 0
    assert (tmp_path / "page.html").read_text().lower().startswith("<!doctype html>")
    assert not page.exists()


def test_a_file_that_cannot_be_written_is_a_misuse(root, tmp_path, capsys):
    assert report.main(["--root", str(root), "--out", str(tmp_path / "no" / "such" / "folder")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("margin", ["0", "-1", "nan", "much"])
def test_a_margin_is_a_number_of_points(margin, capsys):
    assert report.main(["--margin", margin]) == 2
    assert "--margin" in capsys.readouterr().err


def test_the_margin_reaches_the_comparison(root, capsys):
    assert report.main(["--root", str(root), "--format", "json", "--margin", "2.5"]) == 0
    margins = {item["comparison"]["margin"] for item in json.loads(capsys.readouterr().out) if item["comparison"]}
    assert margins == {0.025}


def test_no_records_is_a_no_and_says_how_to_make_some(tmp_path, capsys):
    assert report.main(["--root", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "make some: quantlab -m" in said.err
    assert report.main(["--root", str(tmp_path / "nowhere"), "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize("wrong", ["mlruns/cells", "mlruns/cells/a1", "."])
def test_a_folder_near_the_records_is_told_which_to_give(tmp_path, capsys, monkeypatch, wrong):
    monkeypatch.chdir(tmp_path)
    storage.write("mlruns", result("none", "a1"))
    for given in (wrong, str(tmp_path / wrong)):
        assert report.main(["--root", given]) == 1
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        assert re.search(r"they are in (\S*/)?mlruns: give that folder", said)
        with pytest.raises(ConfigError, match="mlruns: give that folder"):
            load_records(given)


def test_an_unknown_format_is_a_misuse_with_a_suggestion(capsys):
    assert report.main(["--format", "jsno"]) == 2
    assert "did you mean 'json'?" in capsys.readouterr().err


def test_a_broken_record_is_told_on_stderr_only(tmp_path, capsys):
    storage.write(tmp_path, result("none", "a1"))
    (storage.write(tmp_path, result("none", "b2")) / "record.json").write_text("{")
    assert report.main(["--root", str(tmp_path), "--format", "json"]) == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 1
    assert "b2" in said.err


def test_help_has_an_example(capsys):
    assert report.main(["--help"]) == 0
    assert "example: quantlab report" in capsys.readouterr().out


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_a_reader_that_goes_away_is_no_error(root):
    program = f"{sys.executable} -m quantlab.report --root {root} --format json | head -c 10"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == '[\n {\n  "ce'


def test_neither_torch_nor_mlflow_is_imported(root):
    program = (
        "import sys; from quantlab.report.__main__ import main; main(['--root', sys.argv[1]]);"
        "heavy = {'torch', 'transformers', 'mlflow', 'pandas', 'hydra'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert _run("-c", program, str(root)).stderr == ""
