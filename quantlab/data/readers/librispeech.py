"""LibriSpeech in its official folder layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from quantlab.config.schema import DatasetConfig
from quantlab.data.readers.tables import not_utf8, text_of
from quantlab.data.utterance import Listing, Utterance, file_utterance, with_digests
from quantlab.util.errors import ConfigError

SUBSETS = {
    "clean": "test-clean",
    "other": "test-other",
}  # our names → folders; other folders keep their names


def read_librispeech(dataset: DatasetConfig) -> Listing:
    """Utterances in order of speaker, chapter and number; by default of `clean` and `other`, if present.

    Raises:
        ConfigError: no such folder or subset (the message lists those found), or a broken transcript (`file:line`).
    """
    root = _root(Path(dataset.path or "").expanduser())
    there = {folder.name: folder for folder in sorted(root.iterdir()) if folder.is_dir()}
    known = {name: there[folder] for name, folder in SUBSETS.items() if folder in there}
    wanted = known if dataset.splits is None else {name: there.get(name) for name in dataset.splits} | known
    if not known and (inner := _why_too_deep(root)):
        raise ConfigError(f"dataset.path={dataset.path} {inner}")
    if not known and dataset.splits is None:
        raise ConfigError(f"{root} has neither test-clean/ nor test-other/; found {_names(root)}")
    listing = {}
    for name in dataset.splits or wanted:
        folder = wanted[name]
        if folder is None:
            expected = SUBSETS.get(name, name)
            raise ConfigError(
                f"dataset.splits: no folder {expected}/ for split {name!r} in {root}; found {_names(root)}"
            )
        listing[name] = list(_utterances(name, folder))
        if not listing[name]:
            raise ConfigError(f"no *.trans.txt and no *.flac in {folder}; found {_names(folder)}")
    return with_digests(listing, dataset)


def _root(path: Path) -> Path:
    """The folder of the subsets, which is `LibriSpeech/` in the official archives."""
    if not path.is_dir():
        raise ConfigError(f"dataset.path={path} is not a folder; expected one that holds test-clean/ and test-other/")
    return path / "LibriSpeech" if (path / "LibriSpeech").is_dir() else path


def _why_too_deep(root: Path) -> str | None:
    """What a folder within the folder of the subsets is, and what to give instead; None for another folder."""
    for above, kind in enumerate(("one subset", "a speaker", "a chapter")):  # folders between it and its subset
        if next(root.glob("*/" * (2 - above) + "*.trans.txt"), None) is not None:
            subset = [root.resolve(), *root.resolve().parents][above]
            name = next((name for name, folder in SUBSETS.items() if folder == subset.name), subset.name)
            return f"is {kind} of LibriSpeech: set dataset.path={subset.parent} dataset.splits=[{name}]"
    return None


def _names(folder: Path) -> str:
    names = sorted(item.name for item in folder.iterdir())
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "") if names else "nothing"


def _utterances(split: str, folder: Path) -> Iterator[Utterance]:
    for chapter in sorted({file.parent for file in folder.glob("*/*/*") if file.suffix in (".txt", ".flac")}):
        texts = {id: text for file in sorted(chapter.glob("*.trans.txt")) for id, text in _transcript(file)}
        # audio without a transcript is listed, and reported as an utterance without a reference
        ids = sorted({*texts, *(file.stem for file in chapter.glob("*.flac"))})
        for id in ids:
            path, speaker = chapter / f"{id}.flac", chapter.parent.name
            yield file_utterance(path, id=id, split=split, text=texts.get(id, ""), speaker=speaker)


def _transcript(path: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = text_of(path).split("\n")
    except OSError as error:
        raise ConfigError(f"{path}: no readable transcript ({error})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}{not_utf8(error)}") from None
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        id, _, text = line.strip().partition(" ")
        if id in seen or "/" in id:
            raise ConfigError(f"{path}:{number}: {id!r} is {'there twice' if id in seen else 'not an utterance id'}")
        seen.add(id)
        yield id, text.strip()
