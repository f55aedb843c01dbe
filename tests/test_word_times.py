"""Word times from the corpus's truth to the report: planted errors are found, matches are those of an edit distance."""

import itertools
import json
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import WhisperTokenizer

from helpers.corpora import RATE, manifest_config, tone, write_jsonl
from helpers.synthetic import adding_up, result
from quantlab.cli import rescore
from quantlab.cli.verify import verify
from quantlab.config.compose import compose
from quantlab.data import open_corpus
from quantlab.grid.plan import plan
from quantlab.measurement.cell import run_cell
from quantlab.measurement.words import words
from quantlab.records import storage
from quantlab.records.cell_id import identity
from quantlab.records.schema import Batch, Utterance
from quantlab.records.word_times import compared
from quantlab.report.summaries import summaries
from quantlab.report.table import text as as_table
from quantlab.scoring.score import ENGLISH, Scoring
from quantlab.scoring.words import check_spoken, match, with_matches
from quantlab.util.errors import ConfigError
from quantlab.util.resources import ASSETS

ASKED = ("device=cpu", "runtime.word_times=true")


# matching


@pytest.mark.parametrize(
    ("written", "spoken", "expected"),
    [
        ("a cat sat", "a cat sat", ((0, 0), (1, 1), (2, 2))),
        ("a hat sat", "a cat sat", ((0, 0), (2, 2))),
        ("cat sat", "a cat sat", ((0, 1), (1, 2))),
        ("The COLOUR, 5", "the color five", ((0, 0), (1, 1), (2, 2))),
        ("uh I can't — go", "i can't go", ((1, 0), (2, 1), (4, 2))),  # of uh and the dash nothing is left
        ("25 cats", "twenty five cats", ((1, 2),)),  # a word that others became has no times of its own
        ("", "a cat", ()),
        ("a cat", "", ()),
    ],
)
def test_matches_by_hand(written, spoken, expected):
    assert match(written.split(), spoken.split(), ENGLISH) == expected


@given(st.lists(st.sampled_from("red sea dog".split()), max_size=7), st.lists(st.sampled_from("red sea dog".split())))
def test_matches_are_those_of_the_least_edits(written, spoken):
    """Between matches everything is substituted, deleted or inserted: together the edit distance, counted here."""

    @cache
    def distance(one, two):
        if not one or not two:
            return len(one) + len(two)
        if one[0] == two[0]:
            return distance(one[1:], two[1:])
        return 1 + min(distance(one[1:], two), distance(one, two[1:]), distance(one[1:], two[1:]))

    found = match(written, spoken, ENGLISH)
    assert all(written[mine] == spoken[theirs] for mine, theirs in found)
    gaps = pairwise([(-1, -1), *found, (len(written), len(spoken))])
    edits = sum(max(after[0] - before[0], after[1] - before[1]) - 1 for before, after in gaps)
    assert edits == distance(tuple(written), tuple(spoken))


# figures


def test_figures_by_hand():
    """Starts are 30 ms early, 100 and 300 ms late; one spoken word has no times, and one utterance no truth."""
    first = [("a", 0.07, 0.5), ("b", 0.6, 1.0), ("x", 1.0, 1.0), ("c", 1.3, 2.0), ("d", 2.0, 2.5)]
    written = [first, [("e", 0.0, 0.1)]]
    spoken = [[("a", 0.1, 0.5), ("b", 0.5, 1.0), ("c", 1.0, 2.0), ("d", None, None)], None]
    found = compared(written, spoken, [((0, 0), (1, 1), (3, 2), (4, 3)), None])
    assert (found.written, found.spoken, found.matched) == (6, 3, 3)
    assert (found.start.median_s, found.start.bias_s) == pytest.approx((0.1, 0.1))
    shares = (found.start.within_50ms, found.start.within_100ms, found.start.within_200ms)
    assert shares == pytest.approx((1 / 3, 2 / 3, 2 / 3))
    assert (found.end.median_s, found.end.bias_s, found.end.within_50ms) == (0.0, 0.0, 1.0)
    assert compared(written, [None, None], [None, None]).spoken is None


def timed(found, shift_s=0.0, truth=True):
    """The cell with words of half a second, found `shift_s` late, and their truth."""

    def with_times(item: Utterance) -> Utterance:
        def said(text, late_s):
            times = ((place / 2 + late_s, place / 2 + 0.4 + late_s) for place in itertools.count())
            return tuple((word, *pair) for word, pair in zip(text.split(), times, strict=False))

        update = {"words": said(item.hypothesis, shift_s), "spoken_words": said(item.reference, 0.0) if truth else None}
        return with_matches(item.model_copy(update=update), ENGLISH)

    calls = tuple(
        Batch(split=split, index=0, utterances=160, audio_s=480.0, tokens=9, elapsed_s=1.5, work="align")
        for split in ("clean", "other")
    )
    update = {"utterances": tuple(map(with_times, found.utterances)), "batches": (*found.batches, *calls)}
    stages = found.record.stages.model_copy(
        update={"word_times_s": 3.0, "measure_s": sum(item.elapsed_s for item in found.batches)}
    )
    record = found.record.model_copy(update={"stages": stages})
    return adding_up(found.model_copy(update=update | {"record": record}))


def test_a_planted_shift_is_the_median_error(tmp_path):
    storage.write(tmp_path / "runs", timed(result("hqq_int3"), 0.08))
    [cell] = summaries(tmp_path / "runs")
    found = cell.to_dict()["splits"]["clean"]["word_times"]
    for edge in ("start", "end"):
        assert found[edge]["median_s"] == found[edge]["bias_s"] == pytest.approx(0.08)
        assert (found[edge]["within_50ms"], found[edge]["within_100ms"]) == (0.0, 1.0)
    wrong = sum(item.substitutions for item in timed(result("hqq_int3")).utterances if item.split == "clean")
    assert (found["written"], found["spoken"], found["matched"]) == (1280, 1280, 1280 - wrong)
    assert cell.to_dict()["word_times_s"] == 3.0
    shown = as_table([cell])
    assert "start ms" in shown
    assert "to truth" in shown
    assert {item.place for item in verify(tmp_path / "runs")} == {"cell_id"}  # a synthetic id is no hash


def test_without_truth_the_baseline_is_compared_with(tmp_path):
    for quant, shift_s in (("none", 0.0), ("hqq_int3", 0.06)):
        storage.write(tmp_path / "runs", timed(result(quant), shift_s, truth=False))
    base, cell = summaries(tmp_path / "runs")
    assert base.to_dict()["splits"]["clean"]["word_times_against_baseline"] is None
    found = cell.to_dict()["splits"]["clean"]
    assert found["word_times"]["spoken"] is None
    against = found["word_times_against_baseline"]
    assert against["start"]["median_s"] == pytest.approx(0.06)
    assert against["matched"] < against["spoken"] == 1280  # both hear some words differently
    assert "to baseline" in as_table([base, cell])


def test_records_without_word_times_have_no_columns(tmp_path):
    storage.write(tmp_path / "runs", result())
    [cell] = summaries(tmp_path / "runs")
    assert cell.to_dict()["splits"]["clean"]["word_times"] is None
    assert cell.to_dict()["word_times_s"] is None
    assert "start ms" not in as_table([cell])


@pytest.mark.parametrize("change", ["time", "match", "figure"])
def test_verify_finds_changed_times(tmp_path, change):
    found = timed(result(), 0.08)
    if change == "figure":
        split = found.record.splits["clean"]
        start = split.word_times.start.model_copy(update={"median_s": 0.01})
        times = split.word_times.model_copy(update={"start": start})
        splits = found.record.splits | {"clean": split.model_copy(update={"word_times": times})}
        found = found.model_copy(update={"record": found.record.model_copy(update={"splits": splits})})
    else:
        first = found.utterances[0]
        words = tuple((word, start_s, end_s + 5) for word, start_s, end_s in first.words)
        update = {"words": words} if change == "time" else {"matches": first.matches[:-1]}
        changed = (first.model_copy(update=update), *found.utterances[1:])
        found = found.model_copy(update={"utterances": changed})
    storage.write(tmp_path / "runs", found)
    places = {item.place for item in verify(tmp_path / "runs")} - {"cell_id"}
    assert any("word_times" in place or "matches" in place for place in places), places


def test_rescoring_matches_words_by_the_other_normaliser(tmp_path):
    found = timed(result())
    changed = tuple(
        with_matches(
            item.model_copy(update={"words": (("Grey", 0.0, 0.4),), "spoken_words": (("gray", 0.1, 0.4),)}), ENGLISH
        )
        for item in found.utterances
    )
    storage.write(tmp_path / "runs", adding_up(found.model_copy(update={"utterances": changed})))
    [other] = rescore.rescore(tmp_path / "runs", normaliser="none")
    assert adding_up(found.model_copy(update={"utterances": changed})).record.splits["clean"].word_times.matched == 160
    assert other.record.splits["clean"].word_times.matched == 0


# words of tokens


def test_tokens_become_words():
    tokenizer = WhisperTokenizer.from_pretrained(ASSETS / "nano")
    tokens = tokenizer.encode(" ruth's cat", add_special_tokens=False)
    starts = [0.1 * place for place in range(len(tokens) + 1)]
    assert [tokenizer.decode([token]) for token in tokens][:5] == [" r", "u", "th", "'", "s"]
    last = ("cat", 0.5, pytest.approx(0.1 * len(tokens)))
    assert list(words(tokens, starts, tokenizer, "en")) == [("ruth's", 0.0, 0.5), last]
    assert list(words(tokens, starts[:-1], tokenizer, "en")) == [("ruth's", 0.0, 0.5)]  # the rest has no times


class Characters:
    """A tokenizer of bytes, which cut characters of other alphabets."""

    def decode(self, tokens, **_):
        return bytes(tokens).decode("utf-8", errors="replace")


def of_bytes(text, language="en"):
    """The words of a text of which each byte lasts a second."""
    tokens = list(text.encode())
    return list(words(tokens, [float(place) for place in range(len(tokens) + 1)], Characters(), language))


def test_characters_of_several_tokens_stay_whole_and_are_words_where_there_are_no_spaces():
    assert of_bytes("我 é") == [("我", 0.0, 3.0), ("é", 4.0, 6.0)]
    assert of_bytes("我在。", "zh") == [("我", 0.0, 3.0), ("在", 3.0, 6.0)]


def test_punctuation_takes_no_time_and_is_no_word():
    assert of_bytes('"ab," c - 5%') == [('"ab,"', 1.0, 3.0), ("c", 6.0, 7.0), ("5%", 10.0, 11.0)]
    assert of_bytes("") == of_bytes(" ...") == []


# truth


@pytest.fixture
def clip(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", tone(1.0), RATE)
    return tmp_path


def test_a_manifest_says_when_words_are_said(clip):
    rows = [{"audio": "a.wav", "text": "one two", "words": [["one", 0, 0.5], ["two", None, None]]}]
    [(_, [item])] = open_corpus(manifest_config(write_jsonl(clip / "m.jsonl", rows))).splits.items()
    assert item.words == (("one", 0.0, 0.5), ("two", None, None))
    plain = open_corpus(manifest_config(write_jsonl(clip / "n.jsonl", [{"audio": "a.wav", "text": "one two"}])))
    assert plain.fingerprint == open_corpus(manifest_config(clip / "m.jsonl")).fingerprint  # no text depends on it


@pytest.mark.parametrize(
    "wrong",
    ["one", [["one", 0]], [["one", 0.5, 0.2]], [["one", -1, 0]], [["one", None, 1]], [["one", 0, "x"]], [[1, 0, 1]],
     [["one", 0, True]], [["one", 0.5, 1], ["two", 0.2, 1]], [["one", 0, float("inf")]], {"one": 0}],
)  # fmt: skip
def test_times_that_are_none_are_one_line(clip, wrong):
    rows = [{"audio": "a.wav", "text": "one two", "words": wrong}]
    with pytest.raises(ConfigError, match="words") as refused:
        open_corpus(manifest_config(write_jsonl(clip / "m.jsonl", rows)))
    assert "\n" not in str(refused.value)
    open_corpus(manifest_config(clip / "m.jsonl", ignored_columns=["words"]))


def test_other_words_than_the_reference_are_refused_where_they_matter(clip):
    rows = [{"audio": "a.wav", "text": "one two", "words": [["one", 0, 0.5]]}]
    place = f"dataset.path={write_jsonl(clip / 'm.jsonl', rows)}"
    assert plan(compose(["dataset=manifest", place, "device=cpu"]))
    with pytest.raises(ConfigError, match="are not those of its reference") as refused:
        plan(compose(["dataset=manifest", place, *ASKED]))
    assert "\n" not in str(refused.value)
    assert check_spoken(["It's", "two"], "it is 2", Scoring()) is None


# settings


def test_only_a_cell_that_asks_has_another_id():
    [plain], [asked] = plan(compose(["device=cpu"])), plan(compose(ASKED))
    assert plain.id != asked.id
    assert "word_times" not in identity(plain.config.model_dump(mode="json"))["runtime"]
    assert "words" not in plain.fingerprints
    assert plain.fingerprints["corpus"] == asked.fingerprints["corpus"]
    assert len(asked.fingerprints["words"]) == 64


def test_what_cannot_be_timed_is_refused():
    for line, says in (
        ("dataset=demo_long", "set dataset.long=null"),
        ("model.weights=random", "no effect without a trained model"),
    ):
        with pytest.raises(ConfigError, match=says) as refused:
            plan(compose([*ASKED, *line.split()]))
        assert "\n" not in str(refused.value)
    for line, says in (
        ("quant=ort_int8", "no output for its attention"),
        ("quant=ov_int8", "no output for its attention"),
    ):
        cells = plan(compose([*ASKED, *line.replace("quant=", "quant=none,").split()]))
        refusal = cells[-1].refusal
        assert refusal.status == "unsupported"
        assert says in refusal.reason or "not installed" in refusal.reason


def test_a_cell_finds_the_truth_moved_by_80_ms(tmp_path):
    """The whole way, on two manifests of the same audio: the later the truth, the earlier are the words found."""
    rows = [json.loads(line) for line in (ASSETS / "demo" / "manifest.jsonl").read_text().splitlines()[:5]]
    found = []
    for late_s in (0.0, 0.08):
        moved = [
            {"audio": str(ASSETS / "demo" / row["audio"]), "text": row["text"], "id": row["audio"],
             "words": [[word, start_s + late_s, end_s + late_s] for word, start_s, end_s in row["words"]]}
            for row in rows if all(start_s is not None for _, start_s, _ in row["words"])
        ]  # fmt: skip
        path = write_jsonl(tmp_path / f"{late_s}.jsonl", moved)
        quick = ("tracking=off", "device.threads=1", "protocol.warmup_batches=0", "protocol.num_beams=2")
        [config] = compose([*ASKED, "dataset=manifest", f"dataset.path={path}", *quick])
        cell = run_cell(config)
        found.append(cell.record.splits["test"].word_times)
        assert cell.record.stages.word_times_s > 0
        assert all(len(item.words) == len(item.hypothesis.split()) for item in cell.utterances)
    before, after = found
    assert before.matched == after.matched > 20
    assert after.start.bias_s - before.start.bias_s == pytest.approx(-0.08)
    assert after.end.bias_s - before.end.bias_s == pytest.approx(-0.08)
    assert before.start.median_s < 0.1
