"""Speech data: corpora, features, and calibration utterances."""

from quantlab.data.calibration import calibration_ids, chosen_ids
from quantlab.data.corpus import Corpus, added_reader, open_corpus
from quantlab.data.mel import entries, features
from quantlab.data.merge import joined_text
from quantlab.data.speech import Features, Mel, SplitFeatures
from quantlab.data.utterance import Utterance, file_utterance, with_digests
from quantlab.util.files import cache_dir

__all__ = [
    "Corpus",
    "Features",
    "Mel",
    "SplitFeatures",
    "Utterance",
    "added_reader",
    "cache_dir",
    "calibration_ids",
    "chosen_ids",
    "entries",
    "features",
    "file_utterance",
    "joined_text",
    "open_corpus",
    "with_digests",
]
