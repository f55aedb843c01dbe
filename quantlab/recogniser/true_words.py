"""The true times of a corpus's words, for cells that ask for word times."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from quantlab.config.schema import RunConfig
from quantlab.data import Corpus
from quantlab.records.schema import to_json
from quantlab.records.word_times import SpokenWord
from quantlab.scoring.score import Scoring
from quantlab.scoring.words import check_spoken
from quantlab.util.errors import ConfigError, shortened

Truth = Mapping[str, tuple[SpokenWord, ...]]  # id → words with times


def true_words(config: RunConfig, corpus: Corpus) -> Truth:
    """The words of each utterance whose true times are known; empty for a cell that does not ask for word times.

    Raises:
        ConfigError: words are not those of the reference.
    """
    if not config.runtime.word_times or config.model.weights == "random":
        return {}
    scoring, found = Scoring.of_language(config.dataset.language), {}
    for item in (one for split in corpus.splits.values() for one in split):
        if item.words is not None:
            found[item.id] = item.words
            if other := check_spoken([word for word, *_ in item.words], item.text, scoring):
                raise ConfigError(
                    f"the words of {shortened(item.id)} are not those of its reference: {shortened(other, 200)}; "
                    "correct its words, or ignore all with dataset.ignored_columns=[words]"
                )
    return found


def fingerprint(truth: Truth) -> str:
    """A hash of the words and times."""
    return hashlib.sha256(to_json(dict(truth)).encode("utf-8", "replace")).hexdigest()
