"""What a cell of a bundle is compared with: its own baseline, or fp32 that heard the same; never anything else."""

import pytest

from helpers.synthetic import result
from quantlab.analysis.pairs import find_baselines
from quantlab.records.schema import Bundled


def cell(quant, cell_id, own=None, **changes):
    """A record of a bundle on another machine, with other threads, batches and numpy."""
    record = result(
        quant, cell_id, device__name="pi5", device__threads=4, protocol__name="bundle", protocol__batch_size=1
    ).record
    versions = record.environment["versions"] | {"numpy": "1.26"}
    bundle = Bundled(digest="0" * 64, source="home", baseline=own, unquantized=own and "f16")
    update = {"bundle": bundle, "environment": record.environment | {"versions": versions}}
    return record.model_copy(update=update | changes)


def home(quant="none", cell_id="home", minute=0, **changes):
    return result(quant, cell_id, minute, **changes).record


def test_its_own_machines_first():
    found = find_baselines([home(), cell("hqq_int4", "q4", own="f16"), cell("torch_int8", "f16", own="f16")])
    assert found == {"home": "home", "q4": "f16", "f16": "f16"}


def test_one_that_is_not_there_is_not_replaced():
    """Times were taken in turns with it; a verdict against another would not be the one that was announced."""
    assert find_baselines([home(), cell("hqq_int4", "q4", own="f16")]) == {"home": "home"}


def test_else_the_latest_fp32_cell_that_heard_the_same():
    records = [home(), home(cell_id="later", minute=5), home("hqq_int4", "other"), cell("hqq_int4", "q4")]
    assert find_baselines(records)["q4"] == "later"


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprints": {"checkpoint": "a", "corpus": "rounded"}},
        {"fingerprints": {"checkpoint": "another", "corpus": "b"}},
        {"normaliser": "basic"},
        {"scorer": "kaldialign_compounds"},
        {"status": "failed"},
    ],
)
def test_a_cell_that_differs_in_what_was_heard_or_counted_is_no_baseline(changes):
    same = {"fingerprints": {"checkpoint": "a", "corpus": "b"}}
    at_home, there = home().model_copy(update=same), cell("hqq_int4", "q4", **same)
    assert find_baselines([at_home, there])["q4"] == "home"
    assert "q4" not in find_baselines([at_home.model_copy(update=changes), there])


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime__dtype": "bfloat16"},
        {"runtime__audio_ctx": "dynamic"},
        {"protocol__num_beams": 5},
        {"protocol__looks": 10},
        {"dataset__limit": 20},
        {"calibration__source": "disjoint"},
    ],
)
def test_nor_one_of_other_settings(changes):
    assert "q4" not in find_baselines([home(**changes), cell("hqq_int4", "q4")])
