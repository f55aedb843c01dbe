"""What is damaged, changed or mixed up is named in one line, there and at home."""

import json
import shutil

import pytest

from quantlab.bundle.__main__ import main as bundle
from quantlab.bundle.layout import digest_of
from quantlab.bundle.measure import main as on_device
from quantlab.cli.merge import main as merge


@pytest.fixture(scope="module")
def measured(home, measure, tmp_path_factory):
    """A bundle and its result, measured once."""
    root, exports = home
    folder = tmp_path_factory.mktemp("measured") / "bundle"
    assert bundle([str(exports["ct2_int8"]), "--root", str(root), "--out", str(folder)]) == 0
    done = measure(folder, "--rounds", "0")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(measured, tmp_path):
    return shutil.copytree(measured, tmp_path / "copy")


def refused(folder, tmp_path, capsys):
    assert merge([str(folder), "--into", str(tmp_path / "into")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert not list((tmp_path / "into").glob("cells/*"))
    return line


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["clips/00003.wav", "models/0/model.bin", "filters.npy", "measure.py", "bundle.json"])
def test_a_changed_file_is_refused_there_and_at_home(name, copy, measure, tmp_path, capsys):
    content = bytearray((copy / name).read_bytes())
    content[-3] ^= 1
    (copy / name).write_bytes(content)
    assert f"{copy / name}" in (line := refused(copy, tmp_path, capsys))
    assert "restore it, or make the bundle again" in line or "is not the list of a bundle" in line
    if name != "measure.py":  # a changed script is its own witness only as long as it can be read
        done = measure(copy, device="other")
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert line == f"measure.py: {copy / name} is not as it was bundled: copy the whole folder again"


def test_a_missing_file(copy, measure, tmp_path, capsys):
    (copy / "clips" / "00000.wav").unlink()
    assert "00000.wav is missing" in refused(copy, tmp_path, capsys)
    assert "00000.wav is missing: copy the whole folder again" in measure(copy, device="other").stderr


def test_what_is_only_for_home_may_stay_there(copy, measure):
    shutil.rmtree(copy / "home")
    done = measure(copy, "--rounds", "0", device="other")
    assert done.returncode == 0, done.stderr


def test_a_result_of_another_bundle(copy, tmp_path, capsys):
    edit(copy / "measured" / "board.json", lambda content: content.update(bundle="0" * 64))
    assert "was measured with bundle '00000000', this one is" in refused(copy, tmp_path, capsys)


def test_a_clip_that_was_another_when_it_was_measured(copy, tmp_path, capsys):
    edit(
        copy / "measured" / "board.json", lambda content: content["turns"][0]["files"].update({"clips/00001.wav": "0"})
    )
    assert "clips/00001.wav was not as it was bundled when it was measured" in refused(copy, tmp_path, capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["turns"][0]["calls"].pop(), "lacks clips"),
        (lambda content: content["turns"].pop(), "its turns are not those of 0 rounds"),
        (lambda content: content["turns"][0].update(model=7), "a turn of model 7"),
        (lambda content: content.update(device="../pi"), "'../pi' cannot be the name of a device"),
        (lambda content: content.update(device="cpu"), "'cpu' cannot be the name of a device"),
        (lambda content: content.update(created_at="yesterday"), "is not a time in ISO 8601"),
        (lambda content: content["turns"][0]["calls"][0].update(tokens=[10**9]), "token 1000000000 is not one of"),
        (lambda content: content["turns"][0]["calls"][0].update(elapsed_s=-1), "elapsed_s"),
        (lambda content: content.pop("turns"), "turns"),
    ],
)
def test_a_damaged_result(change, message, copy, tmp_path, capsys):
    edit(copy / "measured" / "board.json", change)
    line = refused(copy, tmp_path, capsys)
    assert message in line
    assert "board.json" in line


def test_a_bundle_without_results_and_a_result_without_its_bundle(copy, tmp_path, capsys):
    lone = shutil.move(copy / "measured" / "board.json", tmp_path / "board.json")
    assert "is a bundle without results" in refused(copy, tmp_path, capsys)
    assert "put it into measured/ of the bundle's folder" in refused(lone, tmp_path, capsys)


def test_a_list_that_was_written_anew_does_not_hide_a_change(copy, tmp_path, capsys):
    """Whoever rewrites file and list changes the bundle, so that the result is of another."""
    edit(copy / "bundle.json", lambda content: content["files"].update({"clips/00000.wav": "0" * 64}))
    edit(copy / "bundle.json", lambda content: content.update(own=digest_of(content)))
    assert "clips/00000.wav is not as it was bundled" in refused(copy, tmp_path, capsys)


@pytest.mark.parametrize("name", ["pi 5", "pi/5", "", "cuda", "π5", "-x", "a" * 41])
def test_a_name_that_no_device_can_have(name, capsys):
    assert on_device([f"--device={name}"]) == 1 or name == ""
    said = capsys.readouterr().err
    assert "cannot be the name of a device" in said or name == ""


def test_a_package_that_is_not_installed(copy, python, measure):
    site = next(python.parents[1].glob("lib/*/site-packages"))
    (site / "ctranslate2").rename(site / "away")
    try:
        done = measure(copy, device="other")
    finally:
        (site / "away").rename(site / "ctranslate2")
    assert done.returncode == 1
    assert "ctranslate2 is not installed: python -m pip install -r requirements.txt" in done.stderr


def test_exports_that_cannot_be_bundled(home, tmp_path, capsys):
    root, exports = home

    def line(*arguments, where=root):
        assert bundle([*map(str, arguments), "--root", str(where), "--out", str(tmp_path / "out")]) == 2
        [found] = capsys.readouterr().err.splitlines()
        assert not (tmp_path / "out").exists()
        return found

    assert "none needs quantlab and none, and a bundle has neither: measure and export" in line(exports["none"])
    assert "has no quantlab.json" in line(tmp_path)
    assert "which is not measured in" in line(exports["ct2_int8"], where=tmp_path)
    assert "exported twice" in line(exports["ct2_int8"], exports["ct2_int8"])
    assert "which EXPORT?" in line("dataset=demo")
    assert "the keys give 2 corpora" in line(exports["ct2_int8"], "dataset.limit=1,2")
    assert "expected dataset=NAME" in line(exports["ct2_int8"], "--corpus", "quant=none")
    assert "clips of a bundle are single windows" in line(exports["ct2_int8"], "dataset=demo", "dataset.long=chunked")
    damaged = shutil.copytree(exports["ct2_int8"], tmp_path / "damaged")
    (damaged / "model.bin").write_bytes(b"")
    assert "has changed files: model.bin" in line(damaged)
    (tmp_path / "out").mkdir()
    assert bundle([str(exports["ct2_int8"]), "--root", str(root), "--out", str(tmp_path / "out")]) == 2
    assert "exists: name another folder" in capsys.readouterr().err


def test_clips_that_are_rounded_are_another_corpus(bundled):
    folder = bundled("ct2_int8", keys=("dataset=demo", "dataset.limit=20"))
    home = json.loads((folder / "home" / "home.json").read_text())
    assert "rounded to 16 bits" in bundled.said
    assert "add an export of ggml_f16, ct2_float32 or ort_fp32" in bundled.said
    assert home["corpus"] != home["models"][0]["fingerprints"]["corpus"]
    assert len(home["clips"]) == 40
