"""One of something is not called several."""

import pytest

from helpers.synthetic import result
from quantlab.cli import merge, rescore
from quantlab.records import storage
from quantlab.util.counted import counted


@pytest.mark.parametrize(("number", "text"), [(0, "0 cells"), (1, "1 cell"), (2, "2 cells"), (1000, "1,000 cells")])
def test_a_number_with_its_noun(number, text):
    assert counted(number, "cell") == text


def test_commands_on_one_record(tmp_path, capsys):
    storage.write(tmp_path / "one", result("none"))
    assert merge.main([str(tmp_path / "one"), "--into", str(tmp_path / "all")]) == 0
    output = str(tmp_path / "rescored")
    assert rescore.main(["--root", str(tmp_path / "one"), "--normaliser", "basic", "--output", output]) == 0
    said = capsys.readouterr().out
    assert "1 record copied into" in said
    assert "1 record scored by" in said
