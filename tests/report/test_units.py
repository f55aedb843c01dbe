"""What an error is counted in, loops, non-speech and batches, in every format a person or a program reads."""

import json

import pytest

from helpers.synthetic import result
from quantlab.records import storage
from quantlab.report import document, flat, html, latex, markdown, table
from quantlab.report.columns import columns
from quantlab.report.html import summary
from quantlab.report.recommend import recommend, show
from quantlab.report.summaries import summaries
from quantlab.stats.estimate import Estimate
from quantlab.tracking import describe


def spoken_in(found, language, unit, cell_id):
    """The same cell on a corpus in another language."""
    config = found.record.config
    dataset = config["dataset"] | {"language": language}
    update = {"config": config | {"dataset": dataset}, "error_unit": unit, "cell_id": cell_id}
    update |= {"normaliser": "whisper" if language == "en" else "whisper_marks"}
    update |= {"fingerprints": found.record.fingerprints | {"corpus": language * 32}}
    return found.model_copy(update={"record": found.record.model_copy(update=update)})


def stored(root, *found):
    for item in found:
        storage.write(root, item)
    return summaries(root)


def chinese(*quants):
    return [spoken_in(result(quant), "zh", "character", f"zh{index}") for index, quant in enumerate(quants)]


def test_by_character_the_rate_is_called_cer_and_is_there_once(tmp_path):
    found = stored(tmp_path, *chinese("none", "bnb_nf4"))
    assert [row.record.error_unit for row in found] == ["character"] * 2
    for text in (table.text(found), markdown.render(found), latex.render(found)):
        assert "CER" in text
        assert "WER" not in text.replace("WER and CER in percent", "").replace("no WER", "")
    [header] = {tuple(column.title) for column in columns(found) if column.title == ("CER %", "clean")}
    assert header
    assert summary.state(found)["rate"] == "CER"
    page = html.page(found)
    assert "<legend>CER of</legend>" in page
    assert "Lowest CER" in page
    assert "zh" in next(line for line in document.sections(found)[0].bullets if "characters" in line)


def test_two_languages_are_not_confused(tmp_path):
    english = [spoken_in(result(quant), "en", "word", f"en{quant}") for quant in ("none", "bnb_nf4")]
    found = stored(tmp_path, *english, *chinese("none", "bnb_nf4"))
    text = table.text(found)
    assert "WER or CER %" in text
    units = [line.split() for line in text.splitlines() if line.startswith("nano")]
    assert [("character" in line, "word" in line) for line in units].count((True, False)) == 2
    tables = [part.table.header for part in document.sections(found) if part.table and part.level == 2]
    assert sorted("CER % clean" in header and "WER % clean" not in header for header in tables) == [False, True]
    baselines = {row.cell_id: row.baseline for row in found}
    assert baselines == {"ennone": "ennone", "enbnb_nf4": "ennone", "zh0": "zh0", "zh1": "zh0"}


def test_english_is_as_it_was(tmp_path):
    found = stored(tmp_path, result("none"), result("bnb_nf4"))
    assert "CER" in table.text(found)
    assert "characters" not in markdown.render(found)


def test_programs_are_told_the_unit(tmp_path):
    found = stored(tmp_path, *chinese("none"))
    told = json.loads(found.to_json())[0]
    assert (told["error_unit"], told["normaliser"], told["scorer"]) == ("character", "whisper_marks", "jiwer")
    assert told["nonspeech_words_per_min"] is None
    header, line = flat.render(found).splitlines()
    assert dict(zip(header.split(","), line.split(","), strict=False))["error_unit"] == "character"
    tags = describe.tags(storage.read(tmp_path, "zh0"))
    assert (tags["error_unit"], tags["normaliser"]) == ("character", "whisper_marks")


def test_a_recommendation_speaks_of_the_unit(tmp_path):
    stored(tmp_path, *chinese("none", "bnb_nf4", "torch_int8"))
    found = recommend(tmp_path)
    assert "CER" in show.text(found)
    assert "WER" not in show.text(found)


# loops, non-speech, batches


def with_splits(found, **figures):
    splits = {name: split.model_copy(update=figures) for name, split in found.record.splits.items()}
    return found.model_copy(update={"record": found.record.model_copy(update={"splits": splits})})


@pytest.fixture
def looping(tmp_path):
    stored(tmp_path, result("none"), with_splits(result("bnb_nf4"), loops=1, loop_errors=20))
    return tmp_path


def test_loops_are_named_with_their_share_of_the_errors(looping):
    found = summaries(looping)
    errors = sum(split.substitutions for split in found[1].record.splits.values())
    what = f"2 of 320 utterances loop: 40 of {errors} errors"
    assert f"loops: nano-bnb_nf4-cpu: {what}" in table.text(found)
    assert f"bnb\\_nf4: {what}" in markdown.render(found).replace("bnb_nf4", "bnb\\_nf4")
    assert ("loops", what) in list(summary.facts(found[1]))
    assert any(what in note for note in recommend(looping).notes)


def test_non_speech_has_a_column_where_there_is_some(tmp_path):
    figures = {"nonspeech_s": 30.0, "nonspeech_words": 6, "nonspeech_words_per_min": 12.0}
    found = stored(tmp_path, with_splits(result("none"), **figures))
    assert found[0].nonspeech_words_per_min == Estimate(12.0)
    assert "words/min" in table.text(found)
    assert "12.0" in table.text(found)
    assert "non-speech words/min" in markdown.render(found)
    assert "words/min" not in table.text(stored(tmp_path / "other", result("none")))


def test_what_depends_on_its_batch_is_said(tmp_path):
    found = stored(tmp_path, result("none"), result("torch_int8"), result("bnb_nf4"))
    assert "batch: nano-torch_int8-cpu: one scale for the activations of a batch of 16" in table.text(found)
    assert "neighbours in the batch" in markdown.render(found)
    smooth = stored(
        tmp_path / "smooth", result("torch_int8", quant__name="smoothquant_int8", quant__library="smoothquant")
    )
    assert "batch: nano-smoothquant_int8-cpu: one scale for the activations of a batch" in table.text(smooth)
    alone = stored(tmp_path / "alone", result("torch_int8", protocol__batch_size=1))
    assert "neighbours" not in table.text(alone)


def test_too_little_calibration_data_are_said_where_they_choose_the_weights(tmp_path):
    def calibrated(count, quant="gptq_int3", **changes):
        found = result("hqq_int3", quant__name=quant, quant__library=quant.partition("_")[0], **changes)
        ids = tuple(f"clean/{number}" for number in range(count))
        return found.model_copy(update={"record": found.record.model_copy(update={"calibration_ids": ids})})

    def said(name, *cells):
        found = stored(tmp_path / name, result("none"), *cells)
        return ["calibrate: 16 or more" in text for text in (table.text(found), markdown.render(found))]

    assert said("few", calibrated(2)) == [True, True]
    assert "calibration: nano-gptq_int3-cpu: 2 utterances calibrate: 16 or more give" in table.text(
        summaries(tmp_path / "few")
    )
    assert said("enough", calibrated(16)) == [False, False]
    assert said("trained", calibrated(15, "hqq_int3", quant__recover="scales")) == [True, True]
    assert said("recipe", calibrated(15, "recipe", quant__method="gptq")) == [True, True]
    assert said("static", calibrated(2, "quanto_int8_static")) == [False, False]
