"""Speech: corpora, features, and the utterances that calibrate."""

from quantlab.content import cache_dir
from quantlab.data.calibration import calibration_ids
from quantlab.data.corpus import Corpus, Utterance, added_reader, open_corpus
from quantlab.data.mel import entries, features
from quantlab.data.merge import joined_text
from quantlab.data.speech import Features, Mel, SplitFeatures

__all__ = [
    "Corpus",
    "Features",
    "Mel",
    "SplitFeatures",
    "Utterance",
    "added_reader",
    "cache_dir",
    "calibration_ids",
    "entries",
    "features",
    "joined_text",
    "open_corpus",
]
