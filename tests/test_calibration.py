"""Calibration data of another corpus than the one that is scored: in the figures, the record and the cell's id."""

from functools import partial

import pytest
import torch

from helpers.calibrating import DEMO, SCORED, not_scored
from helpers.corpora import write_jsonl
from quantlab.analysis.pairs import find_baselines
from quantlab.config.compose import compose
from quantlab.data import open_corpus
from quantlab.engines import decoding
from quantlab.engines.clocks import Clocks
from quantlab.engines.pytorch import features_on
from quantlab.measurement.cell import run_cell
from quantlab.models import load
from quantlab.quantization.rounding import by_block, hessians
from quantlab.quantization.select import select
from quantlab.recogniser.calibrate import calibration_runs, chosen
from quantlab.recogniser.fingerprints import identify, resolve
from quantlab.util.errors import ConfigError


@pytest.fixture
def rows():
    """Utterances of the split that is not scored."""
    return not_scored()


@pytest.fixture
def cells(tmp_path, rows):
    """Composes cells of the shipped model that calibrate with these utterances."""
    write_jsonl(tmp_path / "calibration.jsonl", rows)

    def run(*more):
        by = ("calibration.source=manifest", f"calibration.path={tmp_path / 'calibration.jsonl'}")
        return [resolve(config) for config in compose([*SCORED, *by, *more])]

    return run


def test_the_record_names_the_utterances_and_a_baseline_is_the_same_whatever_calibrates(cells, rows):
    none, cell = cells("-m", "quant=none,gptq_int3", "calibration.limit=4")
    found = [run_cell(config).record for config in (none, cell)]
    assert [record.status for record in found] == ["ok", "ok"]
    assert set(found[1].calibration_ids) <= {row["id"] for row in rows}
    assert len(found[1].calibration_ids) == 4
    assert found[0].calibration_ids == ()
    assert found[1].fingerprints.keys() - found[0].fingerprints.keys() == {"calibration"}
    assert found[1].stages.calibrate_s > 0
    [plain] = compose([*SCORED, "quant=none"])
    assert found[0].cell_id == identify(resolve(plain)).id
    assert find_baselines(found)[cell_id := found[1].cell_id] == found[0].cell_id != cell_id


def test_other_data_other_number_and_other_labels_are_other_cells(cells, rows, tmp_path):
    ids = {identify(config).id for more in ([], ["calibration.limit=2"], ["calibration.labels=reference"], ["seed=1"])
           for config in cells("quant=gptq_int3", *more)}  # fmt: skip
    write_jsonl(tmp_path / "calibration.jsonl", rows[1:])
    ids |= {identify(config).id for config in cells("quant=gptq_int3")}
    assert len(ids) == 5


def test_the_decoder_is_given_its_own_output_or_the_reference(cells, rows, tmp_path):
    write_jsonl(tmp_path / "calibration.jsonl", [{**rows[0], "text": "nobody said this"}, *rows[1:]])
    given = {}
    for labels in ("self", "reference"):
        [config] = cells("quant=gptq_int3", f"calibration.labels={labels}")
        checkpoint = load(config.model, 0, "float32")
        speech, ids = chosen(config, open_corpus(config.dataset), None, checkpoint.feature_extractor)
        how = decoding(checkpoint.model, config)
        cpu = torch.device("cpu")
        made = calibration_runs(config, checkpoint, speech, cpu, how, Clocks(cpu))
        given[labels] = [checkpoint.tokenizer.decode(label).strip() for label in made.labels]
        assert len(ids) == len(given[labels]) == 6
    texts = [text for split in speech.splits.values() for text in split.texts]
    assert given["reference"] == texts
    assert given["self"][0] == rows[0]["text"] != texts[0]  # which the model hears as it was said


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: [{**row, "text": ""} for row in rows], "calibration.labels=reference: utterance .* has no text"),
        (lambda rows: [], "calibration"),
        (lambda rows: [{**rows[0], "audio": "nowhere.wav"}], "nowhere.wav"),
        (
            lambda rows: [*rows, {"audio": str(DEMO / "other/other-0000.ogg"), "text": "a copy", "id": "other name"}],
            "1 utterance of it would be scored too, e.g. other name: leave them out",
        ),
    ],
)
def test_data_that_cannot_calibrate_say_why(cells, rows, tmp_path, spoil, message):
    write_jsonl(tmp_path / "calibration.jsonl", spoil(rows))
    [config] = cells("quant=gptq_int3", "calibration.labels=reference")
    with pytest.raises(ConfigError, match=message):
        run_cell(config)


def test_the_encoder_runs_once_per_utterance_after_its_last_block_and_progress_is_told(cells):
    [config] = cells("quant=gptq_int3", "calibration.limit=3")
    checkpoint, cpu, told = load(config.model, 0, "float32"), torch.device("cpu"), []
    speech, _ = chosen(config, open_corpus(config.dataset), None, checkpoint.feature_extractor)
    clocks = Clocks(cpu, lambda stage, done, total: told.append((stage, done, total)))
    model = checkpoint.model
    runs = calibration_runs(config, checkpoint, speech, cpu, decoding(model, config), clocks)
    names, _ = select(model, config.quant)
    heard = []
    model.get_encoder().register_forward_hook(lambda *_: heard.append(block.name))
    for block in by_block(names):
        hessians(model, block, runs.passes(block))
    decoder = [name for name in heard if "decoder" in name]
    assert decoder == ["model.decoder.layers.0"] * 3
    steps = 3 * (model.config.encoder_layers + model.config.decoder_layers)
    assert [step for step in told if step[2]] == [("calibrate", done, steps) for done in range(steps)]


def test_kept_encoder_output_changes_no_statistic(cells):
    [config] = cells("quant=gptq_int3", "calibration.limit=2")
    checkpoint, cpu = load(config.model, 0, "float32"), torch.device("cpu")
    speech, _ = chosen(config, open_corpus(config.dataset), None, checkpoint.feature_extractor)
    model = checkpoint.model
    runs = calibration_runs(config, checkpoint, speech, cpu, decoding(model, config), Clocks(cpu))
    names, _ = select(model, config.quant)
    *_, last = by_block(names)
    found = [hessians(model, last, runs.passes(last)) for _ in range(2)]  # the second time it is kept
    batches = [batch for split in speech.splits.values() for batch in split.batches(1)]

    def whole(batch, label, model):
        tokens = torch.tensor([[*runs.decoding.prompt, *label]])
        model(input_features=features_on(model, cpu, batch.mel), decoder_input_ids=tokens, use_cache=False)

    expected = hessians(model, last, [partial(whole, *item) for item in zip(batches, runs.labels, strict=True)])
    for name in last.layers:
        assert all(torch.equal(item[name], expected[name]) for item in found)
