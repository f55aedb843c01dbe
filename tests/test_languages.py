"""Scoring of languages whose words or letters are not those of English, and of text that looks the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.synthetic import result
from quantlab.cli import rescore, verify
from quantlab.records import storage
from quantlab.records.schema import Record
from quantlab.scoring.normalise import NORMALISERS, default, is_wordless, normaliser, plain
from quantlab.scoring.score import Scoring, count
from quantlab.util.languages import error_unit


def errors(reference, hypothesis, language, **keys):
    """Errors and the units of the reference."""
    scoring = Scoring.of_language(language)
    found = count(reference, hypothesis, Scoring(language, keys.get("normaliser", scoring.normaliser), scoring.unit))
    return found.substitutions + found.deletions + found.insertions, found.substitutions + found.deletions + found.hits


# the error unit


@pytest.mark.parametrize(
    ("language", "reference", "hypothesis", "expected"),
    [
        ("zh", "今天天气很好", "今天天汽很好", (1, 6)),
        ("zh", "今天，天气很好。", "今天天气 很好", (0, 6)),  # neither punctuation nor space is a character
        ("yue", "佢哋去咗公園", "佢哋去公園", (1, 6)),
        ("ja", "今日は天気がいい", "今日は天気がいいね", (1, 8)),
        ("ja", "ｶﾞｽ", "ガス", (0, 2)),  # half width
        ("lo", "ສະບາຍດີ", "ສະບາຍດີ", (0, 7)),
        ("my", "မြန်မာ", "မြန်မာ", (0, 6)),
        ("km", "សួស្តី", "សួស្តា", (1, 6)),
        ("bo", "བོད་སྐད།", "བོད་སྐད", (0, 6)),  # the mark between syllables is punctuation
        ("ko", "안녕하세요 여러분", "안녕하세요 여러부", (1, 2)),
        ("vi", "xin chào các bạn", "xin chao các bạn", (1, 4)),
        ("jw", "sugeng enjang", "sugeng enjing", (1, 2)),
    ],
)
def test_units_counted_by_hand(language, reference, hypothesis, expected):
    assert errors(reference, hypothesis, language) == expected


def test_by_character_both_rates_are_one():
    found = count("今天 天气", "今天天汽好", Scoring.of_language("zh"))
    assert (found.char_errors, found.ref_chars) == (2, 4)
    assert (found.substitutions, found.insertions, found.hits) == (1, 1, 3)


def test_which_languages():
    spaceless = {"zh", "yue", "ja", "th", "lo", "my", "km", "bo"}
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    assert {code for code in LANGUAGES if error_unit(code) == "character"} == spaceless


# marks


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("hi", "मैं घर जाता हूँ", 4),
        ("hi", "नमस्ते, दुनिया!", 2),
        ("ta", "வணக்கம் உலகம்", 2),
        ("ar", "مُحَمَّدٌ رَسُولٌ", 2),
        ("he", "שָׁלוֹם עוֹלָם", 2),
        ("yo", "ẹ́ni tó ń bọ̀", 4),
        ("ru", "за́мок на горе́", 3),
        ("de", "schöne Grüße", 2),
    ],
)
def test_marks_do_not_end_a_word(language, text, words):
    assert default(language) == "whisper_marks"
    assert errors(text, text, language) == (0, words)
    kept = normaliser("whisper_marks", language)(text)
    assert sum(map(plain(text).count, kept)) >= sum(letter.isalnum() for letter in kept)


def test_a_wrong_vowel_sign_is_an_error_and_whispers_own_normaliser_still_takes_it_for_a_space():
    assert errors("किताब", "कताब", "hi") == (1, 1)
    assert errors("की", "का", "hi") == (1, 1)
    assert errors("की", "का", "hi", normaliser="whisper") == (0, 1)
    assert normaliser("whisper", "hi")("नमस्ते दुनिया").split() == ["नमस", "त", "द", "न", "य"]


@pytest.mark.parametrize("text", ["Grüße aus Köln, 3 Bücher!", "L'été, ça va?", "Привет, мир"])
def test_without_marks_both_agree(text):
    assert normaliser("whisper", "de")(text) == normaliser("whisper_marks", "de")(text)
    assert normaliser("whisper")(text) == normaliser("whisper_marks")(text)


# text that looks the same

GLUE = ["\t", "\u00a0", "\u2003", "\u3000", "\n", "\u2028", "  ", "\u202f", "\x1f", "\x85"]
NOTHING = ["\u200b", "\u200c", "\u200d", "\ufeff", "\u00ad", "\u200e", "\u202b", "\u2069", "\u2060", "\ufe0f", "\x00"]


@pytest.mark.parametrize("name", NORMALISERS)
@settings(max_examples=100, deadline=None)
@given(
    words=st.lists(st.sampled_from(["red", "daniel's", "blue", "stone", 'the "sea"']), min_size=1, max_size=6),
    spaces=st.lists(st.sampled_from(GLUE), min_size=6, max_size=6),
    hidden=st.lists(st.sampled_from(NOTHING), min_size=6, max_size=6),
)
def test_what_looks_the_same_is_the_same_by_every_normaliser(name, words, spaces, hidden):
    strange = "".join(
        space + word[:1] + nothing + word[1:].replace("'", "’").replace('"', "”")
        for word, space, nothing in zip(words, spaces, hidden, strict=False)
    )
    found = count(strange, " ".join(words), Scoring("en", name))
    assert found.substitutions + found.deletions + found.insertions + found.char_errors == 0
    assert found.hits >= len(words)


def test_none_leaves_the_rest_alone():
    assert plain("The Colour, “Mr.”  Smith\t") == 'The Colour, "Mr." Smith'
    assert plain("cafe\u0301") == "café"
    assert count("The", "the", Scoring("en", "none")).substitutions == 1


# references without a word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True), (" \u200b\t", True), ("...", True), ("[silence]", True), ("<noise> [music].", True),
        ("(laughs)", True), ("【音楽】", True), ("♪", True),
        ("hello [noise]", False), ("hmm", False), ("好", False), ("3", False), ("silence", False),
    ],
)  # fmt: skip
def test_references_that_say_that_nothing_was_spoken(text, expected):
    assert is_wordless(text) is expected


# records


def test_records_of_before_are_words_by_whispers_normaliser():
    old = result("none").record.model_dump(mode="json")
    for key in ("normaliser", "error_unit", "scorer"):
        del old[key]
    read = Record.model_validate(old)
    assert (read.normaliser, read.error_unit, read.scorer) == ("whisper", "word", "jiwer")
    old["config"]["dataset"]["language"] = "zh"
    assert Scoring.of_record(Record.model_validate(old)) == Scoring("zh", "whisper", "word")


def chinese(found):
    """The same cell on two sentences in either split, scored by words as it once was."""
    said = {"今天天气很好": "今天天汽很好", "请把窗户打开": "请把窗户打开"}
    record = found.record.model_copy(
        update={"config": found.record.config | {"dataset": found.record.config["dataset"] | {"language": "zh"}}}
    )
    utterances = tuple(
        item.model_copy(update={"reference": text, "hypothesis": heard})
        for first, (text, heard) in zip((0, 2), said.items(), strict=True)
        for item in found.utterances[first : first + 2]  # one of each split
    )
    return found.model_copy(update={"record": record, "utterances": utterances})


def test_rescored_a_record_of_before_counts_characters_and_can_be_verified(tmp_path):
    storage.write(tmp_path / "old", chinese(result("none")))
    rescore.write(tmp_path / "old", tmp_path / "new", "whisper_marks")
    record = storage.read(tmp_path / "new", "cell03")
    assert (record.error_unit, record.normaliser) == ("character", "whisper_marks")
    assert (record.splits["clean"].wer, record.splits["clean"].ref_words) == (1 / 12, 12)
    places = {item.place for item in verify.verify(tmp_path / "new")}
    assert not any("utterance" in place or "wer" in place for place in places)
