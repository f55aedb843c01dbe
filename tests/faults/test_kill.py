"""`kill -9` of a grid at random moments: nothing is lost, nothing is half there, nothing is there twice.

Five of them; `make soak` kills a larger grid fifty times.
"""

import random
import signal
import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from quantlab.records import storage

pytestmark = pytest.mark.minutes

SMALL = ("-m", "quant=none,torch_int8", "dataset.limit=1,2", "protocol=quick")
LARGE = ("-m", "quant=none,torch_int8,hqq_int4,bnb_nf4", "dataset.limit=1,2,3", "protocol=quick")
HERE = ("device=cpu", "device.threads=1")
# of grids that run at the same time, one for each core of a small machine
FIVE = (("start", "record"), ("record", "end", "anywhere"))
FIFTY = (("anywhere",) * 7 + ("start", "record", "end") * 6,) * 2
RECORD_FILES = {"record.json", "utterances.jsonl", "batches.jsonl"}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("grid", "cells", "moments"),
    [(SMALL, 4, FIVE), pytest.param(LARGE, 12, FIFTY, marks=pytest.mark.soak)],
    ids=["5", "50"],
)
def test_kill_9_at_random_moments(quantlab, record_property, grid, cells, moments):
    start = time.monotonic()
    assert quantlab(*grid, *HERE, "tracking=off", "output_dir=undisturbed", fresh=True).returncode == 0
    usual_s = time.monotonic() - start
    expected = facts(quantlab.folder / "undisturbed")
    assert len(expected) == cells

    with ThreadPoolExecutor(len(moments)) as pool:
        lanes = [
            pool.submit(Lane(quantlab, number, usual_s, grid, cells).go, list(share))
            for number, share in enumerate(moments)
        ]
        roots = [root for lane in lanes for root in lane.result()]

    phases = Counter(phase for root in roots for phase in root.killed_in)
    record_property("phases", dict(phases))
    print(f"{sum(phases.values())} kills of {len(roots)} grids, by phase: {dict(phases)}")
    assert sum(phases.values()) >= sum(map(len, moments))
    assert {"start-up", "record", "after the last record"} <= set(phases)
    for root in roots:
        assert facts(root.folder) == expected, f"{root.folder} after kills in {root.killed_in}"
        assert leftovers(root.folder) == []
        if root.tracked:
            assert finished_runs(root.folder) == sorted(cell_id for cell_id, *_ in expected)


class Root:
    """One folder of records, and the phases in which the grids that wrote it were killed."""

    def __init__(self, folder, tracked, cells):
        self.folder = folder
        self.tracked = tracked
        self.cells = cells
        self.killed_in = []

    def half_records(self):
        return {path.name for path in self.folder.glob("cells/.*") if path.suffix in (".tmp", ".old")}

    def is_complete(self):
        return len(list(self.folder.glob("cells/[!.]*/record.json"))) == self.cells

    def phase(self, pid, half_before):
        """What the killed grid was at, by what it left and the ones before it had not."""
        if self.half_records() - half_before:
            return "record"
        if self.is_complete():
            return "after the last record"
        claimed = any(f'"{pid}"' in path.read_text() for path in self.folder.glob("claims/*.json"))
        return "cell" if claimed else "start-up"


class Lane:
    """Starts the grid, kills it, starts it again, until it ends in spite of that; then the same in a fresh folder.

    "anywhere" is drawn from the whole length of a grid. What is short would hardly be met by chance, so that other
    moments are drawn around it: the start, the milliseconds after a record begins to be written, and the end.
    """

    def __init__(self, quantlab, number, usual_s, grid, cells):
        self.quantlab = quantlab
        self.grid = grid
        self.cells = cells
        self.number = number
        self.usual_s = usual_s
        self.chance = random.Random(f"lane {number}")
        self.roots = []

    def go(self, moments):
        self.chance.shuffle(moments)
        self.fresh_root()
        while moments:
            phase = self.killed(moments[-1])
            if phase is None:
                self.fresh_root()
            elif phase == "record" or moments[-1] != "record":  # milliseconds, which a kill may miss
                moments.pop()
        self.undisturbed_end(self.roots[-1])
        return self.roots

    def undisturbed_end(self, root):
        done = self.quantlab(*self.grid, *self.options(root))
        assert done.returncode == 0, done.stderr

    def fresh_root(self):
        index = len(self.roots)
        folder = self.quantlab.folder / f"lane{self.number}-{index}"
        self.roots.append(Root(folder, index % 3 == 0, self.cells))

    def options(self, root):
        return (*HERE, f"output_dir={root.folder.name}", f"tracking={'local' if root.tracked else 'off'}")

    def killed(self, moment):
        """What the grid was at when it was killed; None if it had ended. With SIGKILL it has no chance to tidy up."""
        root = self.roots[-1]
        half_before = root.half_records()
        process = self.quantlab.start(*self.grid, *self.options(root))
        self.wait_for(moment, root, process, half_before)
        alive = process.poll() is None
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
        if not alive:
            assert process.returncode == 0, output
            return None
        root.killed_in.append(root.phase(process.pid, half_before))
        return root.killed_in[-1]

    def wait_for(self, moment, root, process, half_before):
        if moment in ("anywhere", "start"):
            share = 1.0 if moment == "anywhere" else 0.1
            wait(process, lambda: False, self.chance.uniform(0, share * self.usual_s))
        elif moment == "record":
            wait(process, lambda: root.half_records() - half_before, self.usual_s * 3, every_s=0.004)
            time.sleep(self.chance.uniform(0, 0.01))
        else:
            wait(process, root.is_complete, self.usual_s * 3)
            time.sleep(self.chance.uniform(0, 3))


def wait(process, is_so, at_most_s, every_s=0.05):
    deadline = time.monotonic() + at_most_s
    while time.monotonic() < deadline and process.poll() is None and not is_so():
        time.sleep(every_s)


def facts(root):
    """What a record says that does not depend on how fast the machine was; raises where one is not whole."""
    found = []
    for cell_id in storage.recorded(root):
        record = storage.read(root, cell_id)
        assert record.digests == storage.digests(storage.cells_dir(root) / cell_id)
        assert storage.read_batches(root, cell_id)
        utterances = storage.read_utterances(root, cell_id)
        counted = {name: (split.utterances, split.wer, split.cer) for name, split in record.splits.items()}
        found.append((cell_id, record.status, record.config["quant"]["name"], record.receipt, utterances, counted))
    return found


def leftovers(root):
    """What a kill may leave and a whole grid does not."""
    found = [path for path in (root / "cells").iterdir() if path.name.startswith(".") and path.name != ".lock"]
    for cell in (root / "cells").glob("[!.]*"):
        found += [path for path in cell.iterdir() if path.name not in RECORD_FILES]
    found += [path for path in (root / "claims").iterdir() if path.suffix != ".lock"]
    found += [path for path in root.iterdir() if path.name.endswith((".new", ".tmp"))]
    return found


def finished_runs(root):
    """The cells that MLflow shows as finished."""
    sql = (
        "SELECT value FROM tags JOIN runs USING (run_uuid) "
        "WHERE key = 'quantlab.cell_id' AND status = 'FINISHED' AND lifecycle_stage = 'active'"
    )
    with sqlite3.connect(root / "mlflow.db") as database:
        return sorted(cell_id for (cell_id,) in database.execute(sql))
