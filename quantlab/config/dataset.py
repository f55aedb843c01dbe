"""Configuration of the corpus, and of the noise that is mixed into it."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from quantlab.config.part import Part, reset
from quantlab.config.types import Count, FilePath, Language, Name, Names, Seed, SomeNames
from quantlab.util.errors import shortened

_LOUDEST_DB = 100  # beyond it, speech or noise falls below the 16-bit resolution of a recording


class HubSplit(Part):
    """Location of one split in a hub dataset."""

    config: str | None = None
    split: str


class NoiseConfig(Part):
    """Noise mixed into a corpus; `snr_db=inf` is the unchanged corpus, so that a sweep can start with it."""

    kind: Literal["white", "pink", "babble", "recorded"] | None = Field(
        default=None,
        description="noise mixed into every utterance; babble: other utterances of the corpus; needs snr_db",
    )
    snr_db: float | None = Field(
        default=None,
        description="power of the whole utterance / power of the noise, -100 to 100 dB; inf: no noise",
    )
    path: FilePath | None = Field(default=None, description="folder of noise recordings, kind=recorded")
    seed: Seed = Field(default=0, description="seed of the noise")

    @model_validator(mode="after")
    def _none_at_infinity(self) -> NoiseConfig:
        """Reset all keys where there is no noise, so that every spelling of it is one cell."""
        if self.snr_db == math.inf:
            reset(self, type(self).model_fields)
        return self

    @model_validator(mode="after")
    def _is_complete(self) -> NoiseConfig:
        if (self.kind is None) != (self.snr_db is None):
            raise ValueError(
                f"dataset.noise: kind={self.kind}, snr_db={self.snr_db}: set both, e.g. dataset.noise.kind=white "
                "dataset.noise.snr_db=10, or neither; snr_db=inf is the corpus without noise"
            )
        if self.snr_db is not None and not abs(self.snr_db) <= _LOUDEST_DB:
            raise ValueError(
                f"dataset.noise.snr_db={self.snr_db}: a number of dB from -{_LOUDEST_DB} to {_LOUDEST_DB}, "
                "or inf for the corpus without noise"
            )
        if (self.kind == "recorded") != (self.path is not None):
            raise ValueError(
                f"dataset.noise: kind={self.kind}, path={shortened(self.path)}: kind=recorded and "
                "path=<a folder of noise recordings> go together"
            )
        return self


class DatasetConfig(Part):
    name: Name = Field(description="display name of the corpus")
    source: str = Field(
        description="shipped, joined, hub, librispeech_dir, manifest, or an entry point of group quantlab.datasets"
    )
    path: FilePath | None = Field(
        default=None, description="manifest file, corpus folder, or local clone of the hub repository"
    )
    repo: str | None = Field(default=None, description="repository on the hub")
    revision: str | None = Field(default=None, description="pinned commit of dataset.repo")
    hub_splits: dict[str, HubSplit] = Field(
        default_factory=dict,
        description="location of each split in a hub dataset: {clean: {config: clean, split: test}}",
    )
    audio_column: str = Field(default="audio", description="hub dataset: column of the audio")
    text_column: str = Field(default="text", description="hub dataset: column of the references")
    speaker_column: str | None = Field(default=None, description="hub dataset: column of the speaker, if any")
    id_column: str | None = Field(default=None, description="hub dataset: column of the id; null: numbered")
    splits: SomeNames | None = Field(default=None, description="null: every split of the corpus")
    ignored_columns: Names = Field(
        default=(), description="manifest: keys known not to affect audio or references, as globs"
    )
    channel: int | None = Field(
        default=None, ge=0, description="audio channel to decode, from 0; null: the average of all"
    )
    limit: Count | None = Field(default=None, description="utterances per split, the first ones in corpus order")
    ids: SomeNames | None = Field(
        default=None, description="only these utterances, e.g. '[a,b]', in corpus order; null: all"
    )
    language: Language = Field(default="en", description="Whisper's language code")
    licence: str | None = Field(default=None, description="licence of audio and references, as stated by the owner")
    nonspeech: bool = Field(
        default=False, description="decode utterances whose reference has no words, and count the words of the output"
    )
    unscored: Names = Field(
        default=(), description='references to skip, compared after normalisation; "" matches a reference without words'
    )
    keywords: FilePath | None = Field(
        default=None, description="text file with a word or phrase in each line, whose recall and precision are counted"
    )
    noise: NoiseConfig = NoiseConfig()
    long: Literal["chunked", "consecutive", "sequential"] | None = Field(
        default=None, description="how to decode audio longer than the model's window; null: skip it"
    )
    chunk_overlap_s: float | None = Field(
        default=None, gt=0, le=3600, description="chunked: seconds that windows overlap; null: a third of the window"
    )

    @property
    def label(self) -> str:
        """Display name of the corpus, including noise."""
        return corpus_label(self.name, self.noise.kind, self.noise.snr_db)

    @model_validator(mode="after")
    def _has_location(self) -> DatasetConfig:
        if self.source == "shipped" and self.path is not None:
            raise ValueError(
                f"dataset.path={shortened(self.path)}: {self.name} ships with quantlab and has no path; "
                "dataset=manifest takes one"
            )
        if self.source in ("librispeech_dir", "manifest") and not self.path:
            what = "manifest" if self.source == "manifest" else "folder that holds test-clean/ and test-other/"
            raise ValueError(f"dataset {self.name!r} needs dataset.path=<the {what}>")
        return self


def corpus_label(name: str, noise: str | None, snr_db: float | None) -> str:
    """Display name of a corpus, including noise: `demo`, or `demo+white10dB`."""
    return name if noise is None else f"{name}+{noise}{snr_db:g}dB"
