"""How long a user waits: for a resumed grid, for a page, and for servers that are away."""

import contextlib
import functools
import socket

import huggingface_hub.constants
import huggingface_hub.hf_api
import pytest

from helpers import pages
from helpers.browsers import chromium
from helpers.durations import seconds
from helpers.servers import Wire
from helpers.synthetic import result
from quantlab import tracking
from quantlab.config.compose import compose
from quantlab.config.schema import TrackingConfig
from quantlab.data import open_corpus
from quantlab.records import storage
from quantlab.report import html
from quantlab.report.summaries import summaries
from quantlab.tracking.background import PER_CELL_S
from quantlab.util.errors import Unavailable
from quantlab.util.hub import PATIENCE_S

pytestmark = pytest.mark.bench


def test_a_grid_that_is_recorded(quantlab, figure):
    command = ("-m", "quant=none,torch_int8", "device=cpu", "dataset.limit=2", "tracking=off")
    measured_s = seconds(functools.partial(quantlab, *command, fresh=True))
    figure("two cells that are recorded", seconds(lambda: quantlab(*command, fresh=True)), "measured", measured_s, 0.5)


def test_a_page(browser, tmp_path, figure):
    """Until the first chart is drawn."""

    def load_s(cells):
        root = tmp_path / str(cells)
        pages.large_grid(root, cells)
        path = root / "report.html"
        path.write_text(html.page(summaries(root)), encoding="utf-8")
        return min(_first_chart_s(browser, path) for _ in range(4))

    figure("the page of 30 cells, until its first chart", load_s(30), "page of 3 cells", load_s(3), 3)


@pytest.fixture
def browser():
    with chromium() as started:
        yield started


def _first_chart_s(browser, path):
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn]", state="attached")
    found = page.evaluate("performance.getEntriesByName('first-chart')[0].startTime / 1000")
    page.close()
    return found


def longest_s(root, uri, meanwhile=contextlib.nullcontext):
    """The longest wait of a grid of three cells for MLflow: before the first one, after each, and at the end."""
    cell_ids = [f"cell{index}" for index in range(3)]
    for index, cell_id in enumerate(cell_ids):
        storage.write(root, result("none", cell_id, minute=index))
    config = TrackingConfig(name="server", uri=uri, experiment=root.name)
    logger = tracking.BackgroundLogger(root, config, lambda line: None)
    logger.begin("sweep", cell_ids)
    waits = [seconds(logger.prepare)]
    with meanwhile():
        waits += [seconds(functools.partial(logger.log, cell_id)) for cell_id in cell_ids]
    records = [storage.read(root, cell_id) for cell_id in cell_ids]
    return max([*waits, seconds(lambda: logger.finish(records, lambda cell_ids: ("table", {}))) / len(cell_ids)])


LIMIT = "limit per cell", PER_CELL_S, 1


def test_mlflow_that_refuses(tmp_path, figure):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        figure("a cell's wait for an MLflow server that refuses", longest_s(tmp_path, uri), *LIMIT)


def test_mlflow_that_never_answers(tmp_path, figure):
    with contextlib.closing(Wire(0)) as wire:
        wire.silent = True
        figure("… that never answers", longest_s(tmp_path, wire.uri), *LIMIT)


def test_mlflow_that_is_slow(server, credentials, tmp_path, figure):
    with contextlib.closing(Wire(server.port)) as wire:
        wire.delay_s = 1.0
        figure("… that takes a second for each answer", longest_s(tmp_path, wire.uri), *LIMIT)


def test_mlflow_whose_database_stops(server, postgres, credentials, tmp_path, figure):
    @contextlib.contextmanager
    def stopped():
        postgres.stop()
        yield
        postgres.start()

    figure("… whose database stops", longest_s(tmp_path, server.uri, stopped), *LIMIT)


def test_mlflow_that_is_killed(server, credentials, tmp_path, figure):
    @contextlib.contextmanager
    def killed():
        server.kill()
        yield
        server.start()

    figure("… that is killed", longest_s(tmp_path, server.uri, killed), *LIMIT)


@pytest.mark.parametrize("trouble", ["refuses", "never answers"])
def test_a_hub(trouble, monkeypatch, tmp_path, figure):
    [config] = compose(["dataset=librispeech"])
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        if trouble == "never answers":
            port.listen()
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", f"http://127.0.0.1:{port.getsockname()[1]}")
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{port.getsockname()[1]}")

        def ask():
            with pytest.raises(Unavailable):
                open_corpus(config.dataset)

        figure(f"a corpus at a hub that {trouble}", seconds(ask), "timeout of its answer", PATIENCE_S, 1.5)
