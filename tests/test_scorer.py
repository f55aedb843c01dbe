"""Two scorers: jiwer's plain edit distance, and the Open ASR Leaderboard's, which merges compounds."""

import kaldialign
import pytest

from helpers.synthetic import adding_up, result
from quantlab.cli import rescore
from quantlab.cli.verify import verify
from quantlab.records import storage
from quantlab.report import document, html, latex, markdown, table
from quantlab.report.columns import columns
from quantlab.report.recommend import Limits, SeveralCorporaError, recommend
from quantlab.report.summaries import summaries
from quantlab.scoring.score import Counts, Scoring, count
from quantlab.tracking import describe

THEIRS = Scoring(scorer="kaldialign_compounds")
PAIRS = [
    ("a white paper on every one", "a whitepaper on everyone"),
    ("the whitepaper", "the white paper"),
    ("some thing else", "something other else"),
    ("one", ""),
    ("hmm", "so there"),
    ("over head cost ten dollars", "overhead costs $10"),
]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "theirs", "ours"),
    [  # substitutions, deletions, insertions, hits, char errors, ref chars
        ("a white paper", "a whitepaper", (0, 0, 0, 3, 1, 13), (1, 1, 0, 1, 1, 13)),
        ("a whitepaper", "a white paper", (0, 0, 0, 2, 1, 12), (1, 0, 1, 1, 1, 12)),
        ("white paper", "white papers", (1, 0, 0, 1, 1, 11), (1, 0, 0, 1, 1, 11)),
        ("red sea", "", (0, 2, 0, 0, 7, 7), (0, 2, 0, 0, 7, 7)),
        ("uh", "red sea", (0, 0, 2, 0, 7, 0), (0, 0, 2, 0, 7, 0)),  # no word is left of the reference
    ],
)
def test_by_hand(reference, hypothesis, theirs, ours):
    assert count(reference, hypothesis, THEIRS) == Counts(*theirs, burst_words=0)
    assert count(reference, hypothesis) == Counts(*ours, burst_words=0)


def test_a_corpus_is_scored_as_their_library_does():
    found = [count(reference, hypothesis, THEIRS) for reference, hypothesis in PAIRS]
    texts = [(THEIRS.units(reference), THEIRS.units(hypothesis)) for reference, hypothesis in PAIRS]
    told = kaldialign.batch_error_rate(*zip(*texts, strict=True), merge_compounds=True)
    assert sum(item.substitutions for item in found) == told["sub"]
    assert sum(item.deletions for item in found) == told["del"]
    assert sum(item.insertions for item in found) == told["ins"]
    assert sum(item.substitutions + item.deletions + item.hits for item in found) == told["ref_len"]
    assert told["total"] < sum(
        item.substitutions + item.deletions + item.insertions for item in (count(*pair) for pair in PAIRS)
    )


def test_a_scorer_that_does_not_exist():
    with pytest.raises(ValueError, match="did you mean 'jiwer'"):
        count("red", "red", Scoring(scorer="jiwerr"))


def joining(quant, cell_id, minute=0):
    """A cell whose every hypothesis writes its first two words as one: two errors, and none to the Leaderboard."""
    found = result(quant, cell_id=cell_id, minute=minute)
    heard = []
    for item in found.utterances:
        hypothesis = item.reference.replace(" ", "", 1)
        counts = vars(count(item.reference, hypothesis))
        heard.append(item.model_copy(update={"hypothesis": hypothesis} | counts))
    return adding_up(found.model_copy(update={"utterances": tuple(heard)}))


@pytest.fixture
def root(tmp_path):
    """A baseline and a cell, each by both scorers."""
    ours = tmp_path / "ours"
    storage.write(ours, result("none", cell_id="none"))
    storage.write(ours, joining("bnb_nf4", "nf4"))
    assert rescore.main(["--root", str(ours), "--scorer", "kaldialign_compounds", "--output", str(tmp_path)]) == 0
    for item in [storage.read(ours, "none"), storage.read(ours, "nf4")]:
        utterances, batches = storage.read_utterances(ours, item.cell_id), storage.read_batches(ours, item.cell_id)
        moved = item.model_copy(update={"cell_id": f"{item.cell_id}_jiwer"})
        found = result().model_copy(update={"record": moved, "utterances": utterances, "batches": batches})
        storage.write(tmp_path, found)
    return tmp_path


def test_every_score_names_its_scorer_and_each_is_compared_with_its_own(root):
    found = {row.cell_id: row for row in summaries(root)}
    assert {name: row.record.scorer for name, row in found.items()} == {
        "none": "kaldialign_compounds", "nf4": "kaldialign_compounds", "none_jiwer": "jiwer", "nf4_jiwer": "jiwer",
    }  # fmt: skip
    assert (found["nf4"].wer.value, found["nf4_jiwer"].wer.value) == (0, 0.25)
    assert found["nf4"].cer.value == found["nf4_jiwer"].cer.value > 0  # characters are jiwer's
    assert {name: row.baseline for name, row in found.items()} == {
        "none": "none", "nf4": "none", "none_jiwer": "none_jiwer", "nf4_jiwer": "none_jiwer",
    }  # fmt: skip
    assert (found["nf4"].verdict, found["nf4_jiwer"].verdict) == ("better", "worse")


def test_a_baseline_by_another_scorer_is_none(root, tmp_path):
    storage.write(tmp_path / "two", result("none", cell_id="none"))
    theirs = storage.read(root, "nf4")
    heard, batches = storage.read_utterances(root, "nf4"), storage.read_batches(root, "nf4")
    mixed = result().model_copy(update={"record": theirs, "utterances": heard, "batches": batches})
    storage.write(tmp_path / "two", mixed)
    [_, row] = sorted(summaries(tmp_path / "two"), key=lambda row: row.settings.quant != "none")
    assert (row.baseline, row.verdict) == (None, None)


def test_two_scorers_never_share_a_column(root):
    found = summaries(root)
    titles = [" ".join(column.title) for column in columns(found)]
    ours, theirs = "WER % clean jiwer", "WER % clean kaldialign_compounds"
    assert sorted(title for title in titles if title.startswith("WER % clean")) == [ours, theirs]
    assert titles.count("CER % clean") == 1
    text = table.text(found)
    assert "Scored by normaliser whisper, scorer jiwer\n" in text
    assert "Scored by normaliser whisper, scorer kaldialign_compounds (CER: jiwer)\n" in text
    tables = [part for part in document.sections(found) if part.table and "protocol" in part.heading]
    assert sorted("jiwer" in part.heading for part in tables) == [False, True]
    assert all(sum("Scored by" in note for note in part.notes) == 1 for part in tables)
    page = html.page(found)
    assert ">WER, jiwer <" in page
    assert ">WER, kaldialign_compounds <" in page
    for written in (markdown.render(found), latex.render(found)):
        assert "scorer jiwer" in written
        assert "compounds (CER: jiwer)" in written


def test_one_scorer_needs_no_second_column(root, tmp_path):
    titles = [column.title for column in columns(summaries(tmp_path / "ours"))]
    assert ("WER %", "clean") in titles


def test_no_recommendation_over_two_scorers(root):
    with pytest.raises(SeveralCorporaError, match=r"scorer=jiwer.*scorer=kaldialign_compounds"):
        recommend(root)
    assert recommend(root, Limits(dataset="demo, scorer=jiwer")).best


def test_runs_of_mlflow_are_told_apart(root):
    assert describe.tags(storage.read(root, "nf4"))["scorer"] == "kaldialign_compounds"
    assert describe.tags(storage.read(root, "nf4_jiwer"))["scorer"] == "jiwer"


def test_verify_counts_as_the_record_was_scored(root, tmp_path):
    assert {item.place for item in verify(root)} == {"cell_id"}  # synthetic ids are no hashes
    path = storage.cells_dir(root) / "nf4" / "record.json"
    for before, after in (("kaldialign_compounds", "jiwer"), ("jiwer", "another")):
        path.write_text(path.read_text().replace(f'"scorer": "{before}"', f'"scorer": "{after}"'))
        wrong = [item for item in verify(root, ["nf4"]) if item.place != "cell_id"]
        assert wrong
    assert str(wrong[0]).endswith("recomputed 'unknown; there are jiwer, kaldialign_compounds'")


def test_back_to_jiwer_the_first_figures_return(root, tmp_path):
    rescore.write(root, tmp_path / "back", scorer="jiwer")
    back, ours = ({row.settings.quant: row.wer for row in summaries(tmp_path / name)} for name in ("back", "ours"))
    assert back == ours


def test_what_is_not_asked_for_stays(root, tmp_path):
    rescore.write(root, tmp_path / "plain", normaliser="none")
    assert storage.read(tmp_path / "plain", "nf4").scorer == "kaldialign_compounds"
    rescore.write(tmp_path / "plain", tmp_path / "again", scorer="jiwer")
    assert storage.read(tmp_path / "again", "nf4").normaliser == "none"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "give --normaliser, --scorer, --keywords, or --output alone"),
        (["--scorer", "kaldialign_compound"], "did you mean 'kaldialign_compounds'"),
    ],
)
def test_misuse_is_one_line(given, said, tmp_path, capsys):
    assert rescore.main(["--root", str(tmp_path), *given]) == 2
    assert said in capsys.readouterr().err
