"""The shipped model on the shipped corpus, measured once: its verdicts, a second test, and a forged hypothesis."""

import os

import pytest

from quantlab.cli.verify import main
from quantlab.records import storage
from quantlab.report.summaries import summaries

pytestmark = pytest.mark.minutes

CELLS = "none,torch_int8,bnb_nf4,hqq_int1"
# the 1-bit model never stops; the others need 30 tokens at most
SIZE = ("dataset.limit=60", "protocol.max_new_tokens=32", "device.threads=1")


@pytest.fixture(scope="module")
def root(tmp_path_factory, shared_cache, warm):
    folder = tmp_path_factory.mktemp("shipped")
    done = warm.run(
        ["-m", "quantlab", "-m", f"quant={CELLS}", *SIZE, "tracking=off", f"output_dir={folder}"],
        folder,
        os.environ | {"QUANTLAB_CACHE": str(shared_cache)},
    )
    assert done.returncode == 0, done.stderr
    assert "verdict" in done.stdout  # in the grid's own table
    return folder


@pytest.fixture
def found(root):
    return {item.settings.quant: item for item in summaries(root)}


def test_one_bit_is_worse_and_eight_or_four_are_not_shown_to_be(found):
    assert found["none"].verdict == "baseline"
    assert found["hqq_int1"].verdict == "worse"
    assert {found[quant].verdict for quant in ("torch_int8", "bnb_nf4")} <= {"tied", "underpowered"}


@pytest.mark.parametrize("quant", ["torch_int8", "bnb_nf4", "hqq_int1"])
def test_the_verdict_matches_its_interval(found, quant):
    compared, verdict = found[quant].comparison, found[quant].verdict
    low, high = compared.wer_difference.ci95
    assert low <= compared.wer_difference.value <= high
    assert compared.wer_difference.value == pytest.approx(found[quant].wer.value - found["none"].wer.value)
    assert (verdict == "worse") == (low > 0 and compared.p_holm < 0.05)
    assert (verdict == "tied") == (low <= 0 and high < compared.margin)
    assert (compared.unit, compared.units, compared.utterances) == ("speaker", 25, 120)


@pytest.mark.parametrize("quant", ["torch_int8", "bnb_nf4", "hqq_int1"])
def test_both_tests_agree(found, quant):
    compared = found[quant].comparison
    assert (compared.p < 0.05) == (compared.p_mapsswe < 0.05)
    assert compared.z_mapsswe * compared.wer_difference.value >= 0


def test_what_was_measured_is_verified_until_one_hypothesis_changes(root, found, capsys):
    assert main(["--root", str(root)]) == 0
    assert capsys.readouterr().out.startswith("4 records, ")
    cell_id = found["bnb_nf4"].cell_id
    path = storage.cells_dir(root) / cell_id / "utterances.jsonl"
    before = path.read_bytes()
    first, *others = storage.read_utterances(root, cell_id)
    forged = first.model_copy(update={"hypothesis": f"{first.hypothesis} indeed"})
    path.write_text("".join(item.model_dump_json() + "\n" for item in (forged, *others)), encoding="utf-8")
    try:
        assert main(["--root", str(root)]) == 1
        said = capsys.readouterr().out
        assert said.startswith(f"cells/{cell_id}/utterances.jsonl: not as it was written")
        assert f"; utterance {first.split}/{first.id}: insertions: stored 0, recomputed 1" in said
        assert "in 1 of 4 records" in said
    finally:
        path.write_bytes(before)
