"""Records of several folders, read as one or copied into one: no record hides another of its id."""

import os
import tarfile
from pathlib import Path

import pytest

from helpers.synthetic import result
from quantlab.records import several, storage
from quantlab.report.summaries import summaries
from quantlab.util.errors import ConfigError


@pytest.fixture
def roots(tmp_path):
    """Two folders; both have the cell c1, the same byte for byte."""
    one, other = tmp_path / "one", tmp_path / "other"
    for root, ids in ((one, ["a1", "c1"]), (other, ["b1", "c1"])):
        for cell_id in ids:
            storage.write(root, result("none", cell_id))
    return [one, other]


def everything(root):
    return {path.relative_to(root): path.read_bytes() for path in Path(root).glob("cells/[!.]*/*")}


def differ(root, cell_id="c1"):
    """Measured again, with another figure."""
    record = result("none", cell_id)
    storage.write(root, record.model_copy(update={"record": record.record.model_copy(update={"created_at": "later"})}))


def test_several_are_read_as_one(roots):
    with several.below(roots) as folder:
        assert storage.recorded(folder) == ["a1", "b1", "c1"]
        assert [record.cell_id for record in storage.read_all(folder)] == ["a1", "b1", "c1"]
        assert storage.read_utterances(folder, "b1") == storage.read_utterances(roots[1], "b1")
    assert not folder.exists()
    assert storage.recorded(roots[0]) == ["a1", "c1"], "what is read stays"


def test_one_is_itself(roots):
    for given in ([roots[0]], [roots[0], roots[0]]):
        with several.below(given) as folder:
            assert folder == roots[0]


def test_a_packed_one_is_like_a_folder(roots, tmp_path):
    with tarfile.open(tmp_path / "r.tar", "w") as packed:
        packed.add(roots[1] / "cells", "cells")
    with several.below([roots[0], tmp_path / "r.tar"]) as folder:
        assert storage.recorded(folder) == ["a1", "b1", "c1"]


@pytest.mark.parametrize("name", ["record.json", "utterances.jsonl", "batches.jsonl"])
def test_records_of_one_id_that_differ_are_named(name, roots):
    with (roots[1] / "cells" / "c1" / name).open("a") as file:
        file.write("\n")
    with (
        pytest.raises(several.ClashError, match=r"cell c1: its records in .*one and .*other differ"),
        several.below(roots),
    ):
        pass


def test_what_cannot_be_read_is_the_same_as_nothing(roots):
    raw = roots[1] / "cells" / "c1" / "batches.jsonl"
    raw.unlink()
    os.mkfifo(raw)
    with pytest.raises(several.ClashError, match="c1"), several.below(roots):
        pass


def test_one_of_several_without_records_is_named(roots, tmp_path):
    given = [*roots, tmp_path / "nowhere"]
    with pytest.raises(ConfigError, match=r"no records in .*nowhere, which does not exist"), several.below(given):
        pass
    with pytest.raises(ConfigError, match=r"no records in .*nowhere"):
        several.merge(given, roots[0])


def test_a_broken_record_is_named_by_its_own_place(roots):
    broken = roots[1] / "cells" / "b1" / "record.json"
    broken.write_text("{")
    said = []
    with several.below(roots) as folder:
        storage.readable(folder, storage.recorded(folder), said.append)
    assert [str(broken) in line for line in said] == [True]


def test_a_broken_raw_file_is_named_by_its_own_place(roots):
    broken = roots[1] / "cells" / "b1" / "utterances.jsonl"
    broken.write_text("{")
    said = []
    with several.below(roots) as folder:
        summaries(folder, on_unreadable=said.append)
        with pytest.raises(ValueError, match=f"{broken}:1"):
            storage.read_utterances(folder, "b1")
    assert [str(broken) in line for line in said] == [True]


def test_merging_copies_each_record_once(roots, tmp_path):
    into = tmp_path / "all"
    assert several.merge(roots, into) == several.Merged(3, 0, ())
    assert everything(into) == everything(roots[0]) | everything(roots[1])
    assert several.merge(roots, into) == several.Merged(0, 3, ())


def test_merging_into_one_of_them(roots):
    assert several.merge(roots, roots[0]) == several.Merged(1, 2, ())
    assert storage.recorded(roots[0]) == ["a1", "b1", "c1"]


def test_neither_of_two_that_differ_is_copied(roots, tmp_path):
    differ(roots[1])
    into = tmp_path / "all"
    assert several.merge(roots, into) == several.Merged(2, 0, (several.Clash("c1", tuple(roots)),))
    assert storage.recorded(into) == ["a1", "b1"]


def test_what_is_there_stays(roots, tmp_path):
    into = tmp_path / "all"
    differ(into)
    before = everything(into)
    assert several.merge(roots, into) == several.Merged(2, 0, (several.Clash("c1", (roots[0], into)),))
    assert everything(into).items() >= before.items()


def test_a_copy_that_fails_leaves_no_half_of_a_record(roots, tmp_path):
    raw = roots[0] / "cells" / "a1" / "batches.jsonl"
    raw.unlink()
    raw.symlink_to(roots[0] / "cells" / "c1" / "batches.jsonl")
    with pytest.raises(OSError, match="expected a regular file"):
        several.merge(roots, tmp_path / "all")
    assert list((tmp_path / "all" / "cells").glob("[!.]*")) == []
    assert list((tmp_path / "all" / "cells").glob("*.tmp")) == []
