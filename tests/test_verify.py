import json
import re
import subprocess
import sys

import pytest

from helpers.synthetic import QUANTS, bad_result, result
from quantlab.cli import verify
from quantlab.records import storage
from quantlab.records.cell_id import hashed


def identified(found):
    """With the id that follows from what it holds, as the grid gives it."""
    versions = found.record.environment["versions"]
    cell_id = hashed(found.record.config, found.record.fingerprints, versions)
    return found.model_copy(update={"record": found.record.model_copy(update={"cell_id": cell_id})})


@pytest.fixture
def root(tmp_path):
    for quant in QUANTS:
        storage.write(tmp_path, identified(result(quant)))
    storage.write(tmp_path, identified(bad_result("failed", "why", "hqq_int3", model="tiny")))
    return tmp_path


@pytest.fixture
def cell(root):
    return storage.cells_dir(root) / identified(result("bnb_nf4")).record.cell_id


def edit(path, change):
    """Change the JSON of a file, or of its first line."""
    first, *rest = path.read_text().split("\n") if path.suffix == ".jsonl" else [path.read_text()]
    path.write_text("\n".join([json.dumps(change(json.loads(first))), *rest]))


def with_digests(cell):
    """As a forger would leave it."""
    edit(cell / "record.json", lambda stored: stored | {"digests": storage.digests(cell)})


def places(root):
    return {item.place for item in verify.verify(root)}


def test_what_the_grid_wrote_is_verified_in_every_figure(root, capsys):
    assert verify.verify(root) == []
    assert verify.main(["--root", str(root)]) == 0
    # 7 × (id, 4 of the receipt, 2 digests, 320 × 6 counts, 2 × 22 of a split, measure_s, speed, fixed work, streaming),
    # 1 × 4
    assert capsys.readouterr().out == f"8 records, {7 * (1 + 4 + 2 + 1920 + 44 + 4) + 4:,} figures verified\n"


def test_a_changed_hypothesis_is_named(root, cell, capsys):
    edit(cell / "utterances.jsonl", lambda item: item | {"hypothesis": item["hypothesis"] + " word"})
    assert verify.main(["--root", str(root)]) == 1
    line, total = capsys.readouterr().out.splitlines()
    assert line == (
        f"cells/{cell.name}/utterances.jsonl: not as it was written (SHA-256); utterance other/u0000: insertions: "
        f"stored 0, recomputed 1; 1 more: quantlab verify {cell.name}"
    )
    assert re.search(r"^3 of [\d,]+ figures differ, in 1 of 8 records$", total)
    assert verify.main(["--root", str(root), cell.name]) == 1
    said = capsys.readouterr().out
    assert f"{cell.name}: utterance other/u0000: insertions: stored 0, recomputed 1" in said
    assert f"{cell.name}: digests.utterances.jsonl" in said
    assert re.search(r"^3 of [\d,]+ figures differ, in 1 of 1 record$", said, re.MULTILINE)


def first_half(path):
    path.write_text(path.read_text()[: path.stat().st_size // 2])


def emptied(path):
    path.write_text("")


def other_number(path):
    def change(stored):
        key = {"utterances.jsonl": "substitutions", "batches.jsonl": "elapsed_s"}[path.name]
        return stored | {key: stored[key] + 1}

    edit(path, change)


@pytest.mark.parametrize("name", ["record.json", "utterances.jsonl", "batches.jsonl"])
@pytest.mark.parametrize("damage", [first_half, emptied, other_number])
def test_damage_is_one_line_that_names_the_file_and_the_others_are_verified(root, cell, capsys, name, damage):
    if (name, damage) == ("record.json", other_number):  # of a figure with raw data; the peak has none
        edit(cell / name, lambda stored: stored | {"stages": stored["stages"] | {"measure_s": 3.0}})
    else:
        damage(cell / name)
    assert verify.main(["--root", str(root)]) == 1
    line, total = capsys.readouterr().out.splitlines()
    assert f"cells/{cell.name}/{name}" in line
    assert (f"{name}: empty; " in line) == (damage is emptied and name != "record.json")
    assert total.endswith("in 1 of 8 records")


def test_a_hypothesis_that_only_looks_different_is_caught_too(root, cell):
    edit(cell / "utterances.jsonl", lambda item: item | {"hypothesis": item["hypothesis"].upper() + "!"})
    assert places(root) == {"digests.utterances.jsonl"}


def test_so_is_one_whose_digest_was_forged(root, cell):
    edit(cell / "utterances.jsonl", lambda item: item | {"hypothesis": ""})
    with_digests(cell)
    assert {"utterance other/u0000: deletions", "utterance other/u0000: hits", "splits.other.empty_share"} <= places(
        root
    )


def test_counts_that_were_forged_with_it_show_in_the_split(root, cell):
    edit(cell / "utterances.jsonl", lambda item: item | {"substitutions": 8, "hits": 0, "char_errors": 16})
    with_digests(cell)
    assert {"splits.other.wer", "splits.other.cer", "splits.other.substitutions"} <= places(root)
    assert "splits.clean.wer" not in places(root)


def test_a_changed_time_shows_in_every_figure_that_rests_on_it(root, cell):
    edit(cell / "batches.jsonl", lambda item: item | {"elapsed_s": 0.001})
    names = ("generate_s", "rtf", "tokens_per_s")
    expected = {"digests.batches.jsonl", "stages.measure_s", *(f"splits.clean.{name}" for name in names)}
    assert expected <= places(root)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("cell_id", "0" * 16),
        ("config.quant.bits", 2),
        ("fingerprints.corpus", "e" * 64),
        ("receipt.modules_total", 3),
        ("receipt.modules_quantized", 3),
        ("receipt.size_bytes", 3),
        ("receipt.verified", False),
        ("stages.measure_s", 3.0),
        ("splits.clean.wer", 0.03),
        ("splits.clean.latency_p50_s", 0.03),
        ("splits.other.loop_share", 0.5),
        ("splits.other.utterances", 3),
        ("digests", {}),
        ("normaliser", "whispr"),
        ("speed", {"ratio": 1, "ci95": [1, 1], "converged": True, "verdict": "no difference", "blocks": 9}),
    ],
)
def test_a_changed_figure_of_the_record_is_found(root, cell, where, value):
    def change(stored):
        *path, last = where.split(".")
        part = stored
        for name in path:
            part = part[name]
        assert part[last] != value
        part[last] = value
        return stored

    edit(cell / "record.json", change)
    found = places(root)
    expected = {where, "cell_id", "record.json"}  # a record that says it is another cell's is none
    assert expected & found or any(place.startswith(f"{where}.") for place in found)


def test_a_split_that_is_missing_is_found(root, cell):
    edit(cell / "record.json", lambda stored: stored | {"splits": {"clean": stored["splits"]["clean"]}})
    assert places(root) == {"splits.other"}


@pytest.mark.parametrize("name", ["record.json", "utterances.jsonl", "batches.jsonl"])
@pytest.mark.parametrize("content", [None, "{", '{"id": 1}', "[]"])
def test_a_file_that_cannot_be_read_is_a_difference(root, cell, name, content):
    (cell / name).unlink() if content is None else (cell / name).write_text(content)
    found = verify.verify(root)
    if (name, content) == ("record.json", None):
        assert found == []  # no record at all
    else:
        assert {item.cell_id for item in found} == {cell.name}


def test_only_the_cells_asked_for(root, cell, capsys):
    (cell / "utterances.jsonl").unlink()
    other = identified(result("none")).record.cell_id
    assert verify.verify(root, [other]) == []
    assert verify.main(["--root", str(root), other]) == 0
    assert capsys.readouterr().out.startswith("1 record, ")


def test_an_id_without_a_record_is_a_misuse_and_the_nearest_is_named(root, cell, capsys):
    assert verify.main(["--root", str(root), cell.name[:-1] + "x"]) == 2
    assert f"did you mean '{cell.name}'" in capsys.readouterr().err


def test_without_records_there_is_nothing_to_verify(tmp_path, capsys):
    assert verify.main(["--root", str(tmp_path)]) == 1
    assert "no records" in capsys.readouterr().err


def test_help_has_an_example(capsys):
    assert verify.main(["--help"]) == 0
    assert "example: quantlab verify" in capsys.readouterr().out


def test_no_torch_is_imported(root):
    program = (
        "import sys; from quantlab.verify import main; main(['--root', sys.argv[1]]);"
        "sys.exit(str({'torch', 'mlflow', 'hydra'} & set(sys.modules) or '') or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(root)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
