"""What a grid says where there is no terminal: which cell it begins, and once a minute how far it is."""

import io

import pytest

from helpers import synthetic
from quantlab.grid import progress
from quantlab.grid.progress import HEARTBEAT_S, Display
from quantlab.util.console import console


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""

    class Clock:
        now_s = 1000.0

        def monotonic(self):
            return self.now_s

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_off_a_terminal_a_cell_is_announced_and_heard_of_once_a_minute(clock):
    out = io.StringIO()
    with Display(3, console(file=out, width=200)) as display:
        for label in ("one", "two"):
            display.begin(label)
            for second in range(1, 130):
                clock.now_s += 1
                display.update(label, "clean", second * 2, 400)
            display.end(label, synthetic.result("none", label).record)
    lines = out.getvalue().splitlines()
    assert [line for line in lines if "started" in line] == ["1/3   one started", "2/3   two started"]
    beats = [line for line in lines if " · clean" in line and "/3   " in line]
    assert len(beats) == 2 * int(129 // HEARTBEAT_S)
    assert beats[0] == "1/3   one · clean 120 of 400, about 138 s left".replace("138 s", "2 min")
    assert beats[-1].endswith("about 79 s left, 2 min more for the other cells")


def test_a_terminal_has_its_bar_instead(clock):
    out = io.StringIO()
    with Display(1, console(file=out, force_terminal=True, width=80)) as display:
        display.begin("one")
        clock.now_s += 2 * HEARTBEAT_S
        display.update("one", "clean", 1, 4)
    assert "started" not in out.getvalue()
