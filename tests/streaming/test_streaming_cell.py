"""Streaming of real cells: every engine, the record, what is computed from it again, and what is refused."""

import json

import pytest

from quantlab.cli import rescore, verify
from quantlab.config.compose import compose
from quantlab.measurement.cell import run_cell
from quantlab.records import storage
from quantlab.records.cell_id import hashed, identity
from quantlab.records.schema import CellResult
from quantlab.report import document, flat
from quantlab.report.summaries import summaries
from quantlab.streaming.clock import joined, replay
from quantlab.util.errors import ConfigError

LINE = (
    "device=cpu",
    "device.threads=1",
    "tracking=off",
    "dataset.limit=2",
    "protocol.batch_size=1",
    "protocol.warmup_batches=1",
)
STREAMING = (*LINE, "runtime=streaming")
ENGINES = ("none", "quanto_int8", "ggml_q8_0", "ct2_int8")


def config(*arguments):
    [found] = compose(list(arguments))
    return found


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A root with one cell of each engine, and one that slides a window over noise."""
    root = tmp_path_factory.mktemp("streams")
    window = ("runtime.streaming.policy=sliding_window", "runtime.streaming.chunk_s=0.5",
              "runtime.streaming.window_s=2", "dataset.noise.kind=white", "dataset.noise.snr_db=20")  # fmt: skip
    lines = [(*STREAMING, f"quant={quant}") for quant in ENGINES] + [(*STREAMING, *window)]
    for line in lines:
        storage.write(root, run_cell(config(*line)))
    return root


def of(root, quant, policy="local_agreement"):
    [record] = [
        item
        for item in storage.read_all(root)
        if (item.setting("quant.name"), item.setting("runtime.streaming.policy")) == (quant, policy)
    ]
    return record


@pytest.mark.parametrize("quant", ENGINES)
def test_every_engine_streams(measured, quant):
    record = of(measured, quant)
    streams = storage.read_streams(measured, record.cell_id)
    spoken = {(item.split, item.id): item for item in storage.read_utterances(measured, record.cell_id)}
    assert set(spoken) == {(item.split, item.id) for item in streams}
    for item in streams:
        assert item.audio_s == pytest.approx(spoken[item.split, item.id].audio_s, abs=1e-3)
        assert item.updates[-1].heard_s == item.audio_s
        assert all(update.begin_s == 0 and update.extract_s > 0 < update.generate_s for update in item.updates)
        assert item.updates[0].start_s == min(1.0, item.audio_s)
    # the last update hears the whole utterance, as the pass over the corpus does
    last = {(item.split, item.id): item.updates[-1].text.strip() for item in streams}
    assert last == {key: item.hypothesis.strip() for key, item in spoken.items()}
    found = record.streaming
    assert found.utterances == len(streams) == sum(split.streaming.utterances for split in record.splits.values())
    assert 0 < found.extract_s < found.compute_s
    assert found.rtf == found.compute_s / found.audio_s


def test_a_window_slides_over_the_noisy_audio(measured):
    record = of(measured, "none", "sliding_window")
    streams = storage.read_streams(measured, record.cell_id)
    how = config(*STREAMING).runtime.streaming
    how = type(how).model_validate(record.setting("runtime.streaming"))
    for item in streams:
        shown = replay(item, how, "word")
        assert item.hypothesis == joined(shown[-1].screen, "word")
        assert {update.begin_s for update in item.updates} <= {0.0, *(1.5 * line - 0.2 for line in range(1, 9))}
        assert max(update.heard_s - update.begin_s for update in item.updates) <= 1.7 + 1e-9
    assert any(update.begin_s > 0 for item in streams for update in item.updates)


def test_everything_is_verified(measured):
    assert verify.verify(measured) == []


@pytest.fixture
def copied(measured, tmp_path):
    record = of(measured, "none")
    storage.copy(storage.cells_dir(measured) / record.cell_id, tmp_path)
    return storage.cells_dir(tmp_path) / record.cell_id


def edited(folder, change, digest=True):
    """The first stream changed, and its digest forged."""
    path = folder / storage.STREAMS
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(change(json.loads(first))), *rest]) + "\n")
    if digest:
        record = json.loads((folder / "record.json").read_text())
        (folder / "record.json").write_text(json.dumps(record | {"digests": storage.digests(folder)}))


def updates(change):
    return lambda item: item | {"updates": [update | change(update) for update in item["updates"]]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (updates(lambda update: {"generate_s": update["generate_s"] + 0.25}), "streaming.compute_s"),
        (updates(lambda update: {"start_s": update["start_s"] + 0.25}), "update 0.start_s"),
        (updates(lambda update: {"text": "something else"}), ": hypothesis"),
        (lambda item: item | {"hypothesis": ""}, ": hypothesis"),
        (lambda item: item | {"insertions": item["insertions"] + 1}, ": insertions"),
        (lambda item: item | {"updates": item["updates"][:-1]}, "streams.jsonl"),
        (lambda item: item | {"id": "another"}, "streams.jsonl"),
    ],
)
def test_what_is_changed_in_a_stream_is_found(copied, change, says):
    edited(copied, change)
    places = [item.place for item in verify.verify(copied.parents[1])]
    assert any(place.endswith(says) for place in places), places
    edited(copied, lambda item: item, digest=False)


def test_a_missing_file_of_streams_is_found(copied):
    (copied / storage.STREAMS).unlink()
    places = {item.place for item in verify.verify(copied.parents[1])}
    assert {"digests.streams.jsonl", "streaming"} <= places


def test_streams_without_a_policy_are_found(copied):
    record = json.loads((copied / "record.json").read_text())
    record["config"]["runtime"]["streaming"]["policy"] = None
    (copied / "record.json").write_text(json.dumps(record))
    found = {item.place: item.recomputed for item in verify.verify(copied.parents[1])}
    assert "policy is null" in found["streams.jsonl"]


def test_a_rescored_record_has_rescored_streams(measured, tmp_path):
    assert rescore.write(measured, tmp_path, "none") == len(ENGINES) + 1
    assert verify.verify(tmp_path) == []
    before, after = of(measured, "none"), of(tmp_path, "none")
    assert after.normaliser == "none"
    assert after.streaming.updates == before.streaming.updates
    assert (
        storage.read_streams(tmp_path, after.cell_id)[0].updates
        == storage.read_streams(measured, after.cell_id)[0].updates
    )


def test_reports_have_streaming_only_where_there_is_some(measured, tmp_path):
    rows = summaries(measured)
    by_quant = {row.settings.quant: row for row in rows if row.streaming_settings["policy"] == "local_agreement"}
    found = by_quant["ct2_int8"].to_dict()["streaming"]
    assert (found["policy"], found["chunk_s"], found["agreement"], "window_s" in found) == (
        "local_agreement",
        1,
        2,
        False,
    )
    assert set(found["splits"]) == {"clean", "other"}
    assert found["wer_increase"] == by_quant["ct2_int8"].record.streaming.wer_increase
    headings = [section.heading for section in document.sections(rows)]
    assert "Streaming: local_agreement, chunk_s=1, agreement=2" in headings
    assert "Streaming: sliding_window, chunk_s=0.5, window_s=2, keep_s=0.2" in headings
    assert "streaming.splits.clean.final_p50_s" in flat.render(rows).splitlines()[0]

    record = of(measured, "none")
    plain = record.model_copy(
        update={
            "streaming": None,
            "splits": {name: one.model_copy(update={"streaming": None}) for name, one in record.splits.items()},
        }
    )
    storage.write(
        tmp_path,
        CellResult(
            record=plain,
            utterances=tuple(storage.read_utterances(measured, record.cell_id)),
            batches=tuple(storage.read_batches(measured, record.cell_id)),
        ),
    )
    [row] = summaries(tmp_path)
    assert row.to_dict()["streaming"] is None
    assert not any(section.heading.startswith("Streaming") for section in document.sections([row]))


@pytest.mark.timeout(600)  # compiling takes minutes on a busy machine
def test_a_compiled_model_streams_without_compiling_again():
    line = (*LINE, "runtime=compile", "runtime.streaming.policy=local_agreement", "dataset.splits=[clean]")
    record = run_cell(config(*line)).record
    assert record.compilation.while_timed == 0
    assert record.streaming.utterances == 2


def test_the_encoder_gets_only_what_was_heard_if_asked():
    line = (*STREAMING, "runtime.audio_ctx=dynamic", "dataset.splits=[clean]")
    assert run_cell(config(*line)).record.streaming.utterances == 2


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("protocol.batch_size=4", "decodes one utterance at a time: set protocol.batch_size=1, not 4"),
        (
            "dataset.long=chunked",
            "streams utterances that fit the model's window: leave dataset.long=null, not chunked",
        ),
        ("model.weights=random", "needs words, and random weights output none"),
        ("runtime.streaming.policy=sliding_window runtime.streaming.keep_s=2", "keep_s must not be above chunk_s"),
        ("runtime.streaming.policy=sliding_window runtime.streaming.window_s=0.5", "a window holds a chunk at least"),
    ],
)
def test_what_cannot_stream_is_refused_in_a_line(more, says):
    with pytest.raises(ConfigError) as refused:
        compose([*STREAMING, *more.split()])
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_window_longer_than_the_model_s_is_refused():
    line = (*STREAMING, "runtime.streaming.policy=sliding_window", "runtime.streaming.window_s=10")
    with pytest.raises(ConfigError, match="the model's window is 6 s"):
        run_cell(config(*line))


def test_an_engine_without_beams_refuses_them():
    with pytest.raises(ConfigError, match=r"decodes greedily here: set protocol.num_beams=1"):
        run_cell(config(*STREAMING, "quant=ggml_q8_0", "protocol.num_beams=2"))


def test_ids_of_cells_that_do_not_stream_stay():
    """An older record has no `runtime.streaming`; a policy does not count the keys that it does not read."""
    plain = config(*LINE, "runtime=eager").model_dump(mode="json")
    older = json.loads(json.dumps(plain))
    del older["runtime"]["streaming"]
    assert identity(plain) == identity(older)
    assert hashed(plain, {}, {}) == hashed(older, {}, {})
    streaming = config(*STREAMING).model_dump(mode="json")
    assert identity(streaming) != identity(plain)
    other = json.loads(json.dumps(streaming))
    other["runtime"]["streaming"]["window_s"] = 5.0
    assert identity(other) == identity(streaming)
    other["runtime"]["streaming"]["chunk_s"] = 5.0
    assert identity(other) != identity(streaming)
