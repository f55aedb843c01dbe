"""The sentence generator: deterministic, disjoint by split, rich enough, and English in its small rules."""

import json
import random
from collections import Counter

import pytest

from quantlab.util.resources import ASSETS
from training.nano import corpus, text
from training.nano.words import inflect

DEMO = ASSETS / "demo"


@pytest.fixture(scope="module")
def training_text():
    return text.sentences("train", corpus.TRAINING_UTTERANCES, corpus.TRAINING_SEED)


def test_same_seed_same_sentences_and_another_seed_others():
    assert text.sentences("train", 50, 3) == text.sentences("train", 50, 3)
    assert not set(text.sentences("train", 50, 3)) & set(text.sentences("train", 50, 4))


@pytest.mark.parametrize("split", text.SPLITS)
def test_a_sentence_names_its_own_split(split):
    assert {text.split_of(sentence) for sentence in text.sentences(split, 100, 0)} == {split}


def test_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="train, dev, clean, other"):
        text.sentences("tset", 1, 0)


def test_no_demo_sentence_is_part_of_a_training_sentence(training_text):
    everything = "\n".join(training_text)
    rows = [json.loads(line) for line in (DEMO / "manifest.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows if row["text"] in everything] == []


def test_vocabulary_is_rich_and_every_word_is_trained_on(training_text):
    counts = Counter(word for sentence in training_text for word in sentence.split())
    vocabulary = text.vocabulary()
    assert len(vocabulary) >= 1500
    assert set(counts) <= vocabulary
    assert min(counts[word] for word in vocabulary) >= 5


def test_only_lower_case_letters_and_single_spaces(training_text):
    assert all(set(sentence) <= set("abcdefghijklmnopqrstuvwxyz ") for sentence in training_text)
    assert not any("  " in sentence for sentence in training_text)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (20, "twenty"),
        (99, "ninety nine"),
        (100, "one hundred"),
        (718, "seven hundred eighteen"),
        (1000, "one thousand"),
        (40_002, "forty thousand two"),
        (999_999, "nine hundred ninety nine thousand nine hundred ninety nine"),
    ],
)
def test_numbers_in_words(number, words):
    assert text.spell(number) == words


def test_numbers_with_and():
    assert text.spell(305, " and ") == "three hundred and five"


def test_a_number_too_large_is_refused():
    with pytest.raises(ValueError, match="999999"):
        text.spell(1_000_000)


@pytest.mark.parametrize(
    ("raw", "fixed"),
    [
        ("a owl saw a dog", "an owl saw a dog"),
        ("a honest man", "an honest man"),
        ("a useless uniform", "a useless uniform"),
        ("a university", "a university"),
        ("a one", "a one"),
        ("a onion", "an onion"),
        ("in a hour", "in an hour"),
    ],
)
def test_articles(raw, fixed):
    assert text._fix_articles(raw) == fixed


@pytest.mark.parametrize(
    ("entry", "past", "ing", "third"),
    [
        ("walk", "walked", "walking", "walks"),
        ("love", "loved", "loving", "loves"),
        ("carry", "carried", "carrying", "carries"),
        ("play", "played", "playing", "plays"),
        ("wash", "washed", "washing", "washes"),
        ("stop:stopped", "stopped", "stopping", "stops"),
        ("forget:forgot", "forgot", "forgetting", "forgets"),
        ("take:took", "took", "taking", "takes"),
        ("prefer:preferred", "preferred", "preferring", "prefers"),
    ],
)
def test_verb_forms(entry, past, ing, third):
    assert inflect(entry) == {"base": entry.split(":")[0], "past": past, "ing": ing, "third": third}


def test_every_slot_of_the_grammar_exists():
    rng = random.Random(0)
    for _, templates in text.FAMILIES.values():
        for template in templates:
            assert "{" not in text._expand(template, rng)
