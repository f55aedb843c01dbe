"""Assignment of voices to splits.

A voice of `UNSEEN` is never used in training. The natural voices and some formant voices of training also speak
in the test splits, so that seen and unseen voices can be compared on the same sentences.
"""

import random

from training.nano.voices import Voice


def _espeak(accent: str, variant: str) -> Voice:
    return Voice("espeak", f"{accent}+{variant}")


ACCENTS = ("en-us",) * 4 + ("en-gb",) * 3 + (
    "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc",
)  # fmt: skip
TRAIN_VARIANTS = tuple(
    """Alex Alicia Andrea Andy Annie Denis Diogo Gene Hugo Jacky Lee Marco Michael Mike adam anika aunty belinda
    benjamin boris caleb david ed edward f1 f2 f3 gustave iven iven2 john klatt klatt2 linda m1 m2 m3 m4 m5 max michel
    norbert pablo paul quincy rob robert sandro steph travis AnxiousAndy Henrique Nguyen RicishayMax RicishayMax2
    announcer zac steph3 klatt5 iven4 anikaRobot kaukovalta robosoft robosoft5 robosoft6""".split()
)
NATURAL = (
    Voice("flite", "awb"), Voice("flite", "rms"), Voice("flite", "slt"), Voice("flite", "kal16"),
    Voice("festival", "kal_diphone"), Voice("festival", "ked_diphone"), Voice("festival", "cmu_us_slt_arctic_hts"),
)  # fmt: skip
# Shares in training.
NATURAL_WEIGHTS = (6, 6, 6, 6, 7, 7, 6)
ESPEAK_WEIGHT = 56

UNSEEN = {
    "dev": (
        _espeak("en-us", "klatt4"), _espeak("en-gb", "m8"), _espeak("en-us", "miguel"), _espeak("en-gb-x-rp", "shelby"),
        _espeak("en-029", "m8"), _espeak("en-us", "grandma"),
    ),
    "clean": (
        _espeak("en-us", "f4"), _espeak("en-gb", "m6"), _espeak("en-us", "Mario"), _espeak("en-gb", "antonio"),
        _espeak("en-gb-scotland", "steph2"),
    ),
    "other": (
        _espeak("en-us", "f5"), _espeak("en-gb", "m7"), _espeak("en-us", "edward2"), _espeak("en-gb", "iven3"),
        _espeak("en-us", "klatt3"), _espeak("en-us", "marcelo"), _espeak("en-gb-x-rp", "pedro"),
        _espeak("en-gb", "victor"), _espeak("en-029", "Gene2"), _espeak("en-us", "grandpa"),
    ),
}  # fmt: skip
SEEN_ESPEAK = {
    "dev": (_espeak("en-us", "f2"), _espeak("en-gb", "m3")),
    "clean": (_espeak("en-us", "m1"), _espeak("en-gb", "f3"), _espeak("en-us", "Alicia")),
    "other": (),
}
SEEN_NATURAL = {"dev": NATURAL, "clean": NATURAL, "other": (NATURAL[0], NATURAL[2], NATURAL[3], NATURAL[5])}


def training_voice(rng: random.Random) -> Voice:
    """A voice for one training utterance."""
    choice = rng.choices((None, *NATURAL), weights=(ESPEAK_WEIGHT, *NATURAL_WEIGHTS))[0]
    return choice or _espeak(rng.choice(ACCENTS), rng.choice(TRAIN_VARIANTS))


def split_voices(split: str) -> tuple[Voice, ...]:
    """The speakers of a test split, seen ones first."""
    return SEEN_NATURAL[split] + SEEN_ESPEAK[split] + UNSEEN[split]


def is_seen(voice: Voice) -> bool:
    """Whether the voice is in the training data."""
    return all(voice not in voices for voices in UNSEEN.values())
