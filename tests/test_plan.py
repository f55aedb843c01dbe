"""What a grid does before it measures anything stays quick with a thousand cells."""

import time

from quantlab.config.compose import compose
from quantlab.grid import plan as planning
from quantlab.grid.plan import plan
from quantlab.util.errors import Unavailable


def test_a_thousand_cells_are_composed_and_planned_in_seconds():
    start = time.process_time()
    cells = plan(compose(["-m", "quant=none,hqq_int4", "seed=range(0,500)", "device=cpu"]))
    assert time.process_time() - start < 10  # six minutes before; what else runs can only add
    assert len(cells) == 1000
    assert len({cell.fingerprints["corpus"] for cell in cells}) == 1


def test_a_corpus_that_is_not_to_be_had_is_asked_for_once(monkeypatch):
    asked = []

    def unavailable(dataset):
        asked.append(dataset.name)
        raise Unavailable("no hub")  # after seconds of patience

    monkeypatch.setattr(planning, "open_corpus", unavailable)
    cells = plan(compose(["-m", "model=nano,tiny", "quant=none,hqq_int4", "seed=1,2", "device=cpu"]))
    assert [cell.refusal.reason for cell in cells] == ["no hub"] * 8
    assert asked == ["demo"]


def test_random_weights_are_told_apart_by_their_seed():
    cells = plan(compose(["-m", "model=tiny", "model.weights=random", "seed=1,2", "device=cpu"]))
    assert len({cell.fingerprints["checkpoint"] for cell in cells}) == 2
