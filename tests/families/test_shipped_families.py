"""The shipped models of other families recognise the demo: alone, in batches, and while it is spoken."""

import pytest

from quantlab.cli import verify
from quantlab.config.compose import compose
from quantlab.measurement.cell import run_cell
from quantlab.records import storage
from quantlab.util.resources import ASSETS

FAMILIES = ("nano_ctc",)
LINE = ("device=cpu", "tracking=off", "dataset.splits=[clean]", "dataset.limit=12", "protocol.warmup_batches=1")


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """A root with a cell of each family, one utterance at a time, streamed too."""
    root = tmp_path_factory.mktemp("families")
    for model in FAMILIES:
        [cell] = compose([*LINE, f"model={model}", "runtime=streaming", "protocol.batch_size=1"])
        storage.write(root, run_cell(cell))
    return root


def of(root, model):
    [record] = [item for item in storage.read_all(root) if item.setting("model.name") == model]
    return record


@pytest.mark.parametrize("model", FAMILIES)
def test_it_is_small(model):
    assert (ASSETS / model / "model.safetensors").stat().st_size < 20_000_000


@pytest.mark.parametrize("model", FAMILIES)
def test_it_recognises_the_demo(streamed, model):
    assert of(streamed, model).splits["clean"].wer < 0.3


@pytest.mark.parametrize("model", FAMILIES)
def test_its_last_update_is_the_whole_utterance(streamed, model):
    record = of(streamed, model)
    whole = {item.id: item.hypothesis for item in storage.read_utterances(streamed, record.cell_id)}
    last = {item.id: item.updates[-1] for item in storage.read_streams(streamed, record.cell_id)}
    assert {id: update.text for id, update in last.items()} == whole
    assert all(update.begin_s == 0 for update in last.values())
    assert record.splits["clean"].streaming.first_text_p50_s >= 1.0  # the first chunk


def test_what_is_recorded_follows_from_what_was_heard(streamed):
    assert verify.verify(streamed) == []


@pytest.mark.parametrize("model", FAMILIES)
def test_in_a_batch_it_hears_what_it_hears_alone(streamed, model):
    [cell] = compose([*LINE, f"model={model}", "protocol.batch_size=6"])
    alone = {item.id: item.hypothesis for item in storage.read_utterances(streamed, of(streamed, model).cell_id)}
    assert {item.id: item.hypothesis for item in run_cell(cell).utterances} == alone
