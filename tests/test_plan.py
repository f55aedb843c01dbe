"""What a grid does before it measures anything."""

import errno

import pytest

from quantlab.config.compose import compose
from quantlab.grid import plan as planning
from quantlab.grid.plan import plan
from quantlab.util.errors import ConfigError, Unavailable


def test_a_thousand_cells_are_composed_and_planned():
    cells = plan(compose(["-m", "quant=none,hqq_int4", "seed=range(0,500)", "device=cpu"]))
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


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "nano-none-cpu: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "nano-none-cpu: '/a/b': Permission denied"),
        (OSError("a library's own words"), "nano-none-cpu: a library's own words"),
    ],
)
def test_what_the_system_refuses_is_one_line(monkeypatch, error, told):
    def refused(dataset):
        raise error

    monkeypatch.setattr(planning, "open_corpus", refused)
    with pytest.raises(ConfigError, match=f"^{told}$"):
        plan(compose(["quant=none", "device=cpu"]))


def test_random_weights_are_told_apart_by_their_seed():
    cells = plan(compose(["-m", "model=tiny", "model.weights=random", "seed=1,2", "device=cpu"]))
    assert len({cell.fingerprints["checkpoint"] for cell in cells}) == 2
