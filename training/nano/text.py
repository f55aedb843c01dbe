"""Sentences: several small grammars over the closed vocabulary of `words.py`.

A template is plain text with slots in braces. A slot is the name of a word list, of another set of templates, or of a
function (numbers, clock times). Lower case, no punctuation, numbers spelled out: what is written is what is spoken.

The split of a sentence follows from the sentence itself (a hash of its words), so that train, dev and the two test
splits can never share one, whatever seeds made them.
"""

import hashlib
import itertools
import random
import re
from collections.abc import Iterator

from training.nano import words
from training.nano.grammar import FAMILIES, PHRASES

SPLITS = ("train", "dev", "clean", "other")
MIN_CHARACTERS, MAX_CHARACTERS = 12, 70  # about 1 s to 5 s of speech
MIN_TEST_CHARACTERS = 22  # shorter ones would often be contained in a training sentence
_SLOT = re.compile(r"{(\w+)}")
_VOWEL_SOUND = re.compile(r"(?!(?:use|uni|euro|one\b))[aeiou]|honest|hour")
_VERB_FORMS = ("base", "past", "ing", "third")


def _lists() -> dict[str, tuple[str, ...]]:
    """Slot name -> its possible strings; verbs appear once per form, as `vt_past`, `vi_ing`, ..."""
    lists = {name.lower(): value for name, value in vars(words).items() if isinstance(value, tuple)}
    verbs = {"vt": words.VERBS_TRANSITIVE, "vi": words.VERBS_INTRANSITIVE, "vp": words.VERBS_PERSON}
    for short, entries in verbs.items():
        for form in _VERB_FORMS:
            lists[f"{short}_{form}"] = tuple(words.inflect(entry)[form] for entry in entries)
    return lists | PHRASES


_LISTS = _lists()


def spell(number: int, joiner: str = " ") -> str:
    """A number below one million in words; `joiner` (" " or " and ") follows "hundred".

    Raises:
        ValueError: outside 0 .. 999999.
    """
    if not 0 <= number < 1_000_000:
        raise ValueError(f"can spell 0 to 999999, got {number}")
    if number < 10:
        return words.DIGITS[number]
    if number < 20:
        return words.TEENS[number - 10]
    if number < 100:
        return words.TENS[number // 10 - 2] + _rest(number % 10, " ", joiner)
    if number < 1000:
        return words.DIGITS[number // 100] + " hundred" + _rest(number % 100, joiner, joiner)
    return spell(number // 1000, joiner) + " thousand" + _rest(number % 1000, " ", joiner)


def _rest(number: int, glue: str, joiner: str) -> str:
    return glue + spell(number, joiner) if number else ""


def _number(rng: random.Random) -> str:
    low, high = rng.choices([(2, 20), (20, 99), (100, 999), (1000, 99999)], weights=[30, 35, 23, 12])[0]
    return spell(rng.randint(low, high), rng.choice([" ", " and "]))


def _digit_string(rng: random.Random) -> str:
    return " ".join(rng.choice(words.DIGITS) for _ in range(rng.randint(3, 8)))


def _clock(rng: random.Random) -> str:
    hour = spell(rng.randint(1, 12))
    exact = f"{hour} in the {rng.choice(['morning', 'afternoon', 'evening'])}"
    minutes = rng.choice(["quarter", "five", "ten", "twenty", "twenty five"])
    return rng.choice([exact, f"half past {hour}", f"{minutes} {rng.choice(['past', 'to', 'before'])} {hour}"])


def _year(rng: random.Random) -> str:
    tail = rng.randint(10, 99)
    return f"{rng.choice(['eighteen', 'nineteen', 'nineteen', 'twenty'])} {spell(tail)}"


_FUNCTIONS = {
    "number": _number,
    "small": lambda rng: spell(rng.randint(2, 12)),
    "two_digits": lambda rng: spell(rng.randint(20, 99)),
    "digit_string": _digit_string,
    "clock": _clock,
    "year": _year,
}


def _expand(template: str, rng: random.Random) -> str:
    def fill(match: re.Match[str]) -> str:
        name = match[1]
        return _FUNCTIONS[name](rng) if name in _FUNCTIONS else _expand(rng.choice(_LISTS[name]), rng)

    return _SLOT.sub(fill, template)


def _fix_articles(sentence: str) -> str:
    spelled = sentence.split()
    for i, (word, following) in enumerate(itertools.pairwise(spelled)):
        if word == "a" and _VOWEL_SOUND.match(following):
            spelled[i] = "an"
    return " ".join(spelled)


def sentence(rng: random.Random) -> str:
    """A random sentence of any split. Draws a family first, then a template, so that small families occur too."""
    names, weights = zip(*((name, weight) for name, (weight, _) in FAMILIES.items()), strict=True)
    family = rng.choices(names, weights=weights)[0]
    return _fix_articles(_expand(rng.choice(FAMILIES[family][1]), rng))


def split_of(text: str) -> str:
    """The split that a sentence belongs to: 3 % each to dev, clean and other, the rest to train."""
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 100
    return "dev" if bucket < 3 else "clean" if bucket < 6 else "other" if bucket < 9 else "train"


def sentences(split: str, count: int, seed: int) -> list[str]:
    """`count` different sentences of one split, the same ones for the same seed.

    Raises:
        ValueError: for a split that does not exist.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    found: dict[str, None] = {}
    shortest = MIN_CHARACTERS if split == "train" else MIN_TEST_CHARACTERS
    for text in _endless(random.Random(f"{split}-{seed}")):
        if split_of(text) == split and shortest <= len(text) <= MAX_CHARACTERS:
            found[text] = None
        if len(found) == count:
            return list(found)
    raise AssertionError("the generator never ends")


def _endless(rng: random.Random) -> Iterator[str]:
    while True:
        yield sentence(rng)


def vocabulary() -> set[str]:
    """Every word that a sentence can contain."""
    templates = [template for _, family in FAMILIES.values() for template in family]
    strings = templates + [entry for entries in _LISTS.values() for entry in entries]
    literal = {word for text in strings for word in _SLOT.sub(" ", text).split() if ":" not in word}
    return literal | {"hundred", "thousand", "an", "half", "quarter"} | set(words.TEENS + words.TENS + words.DIGITS)
