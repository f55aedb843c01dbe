"""`quantlab verify`: recompute every figure of a record from its raw data.

Values read from the model or the machine at run time (the receipt's modules, memory, energy, loops) cannot be
recomputed; digests show whether the raw files are unchanged.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from quantlab.analysis.looks import again
from quantlab.analysis.pairs import Scores, read_scores
from quantlab.config.schema import ProtocolConfig
from quantlab.data.order import balanced_order
from quantlab.records import figures, several, storage
from quantlab.records.asked_for import ids_of
from quantlab.records.cell_id import hashed
from quantlab.records.root_option import no_records, roots_option
from quantlab.records.schema import Adaptive, Batch, Receipt, Record, Stream, Utterance
from quantlab.records.several import Stored
from quantlab.records.streams import Update
from quantlab.scoring.keywords import count_keywords
from quantlab.scoring.normalise import NORMALISERS
from quantlab.scoring.score import SCORERS, Scoring, count
from quantlab.scoring.streams import COUNTS, recounted
from quantlab.scoring.words import with_matches
from quantlab.streaming.clock import joined, replay
from quantlab.streaming.figures import config_of, stream_figures
from quantlab.util.command import HELP, example, perform
from quantlab.util.console import NO, tell, to_stdout, warn
from quantlab.util.counted import counted
from quantlab.util.entry import enter

_ROUNDING = 1e-9  # relative; JSON keeps every digit, only the order of a sum could differ
# Figures of a split or an utterance that are null in earlier records.
_SINCE = frozenset(
    {
        "loops", "loop_errors", "loop_insertions", "bursts", "burst_words", "burst_share", "keywords",
        "nonspeech_s", "nonspeech_words", "nonspeech_words_per_min", "word_times",
    }
)  # fmt: skip
_UNREADABLE = ("record.json", "raw files", "batches.jsonl")  # places of differences that are a message on a file
_DIGESTS = "digests."
_DIGEST_OF_NOTHING = hashlib.sha256().hexdigest()


@dataclass(frozen=True)
class Difference:
    """A figure that differs from the one recomputed from raw data."""

    cell_id: str
    place: str  # dotted: splits.clean.wer
    stored: Any
    recomputed: Any

    def __str__(self) -> str:
        return f"{self.cell_id}: {self.place}: stored {self.stored!r}, recomputed {self.recomputed!r}"


@dataclass(frozen=True)
class Checked:
    """The result of checking one record."""

    cell_id: str
    figures: int
    differences: tuple[Difference, ...]

    def fault(self) -> str:
        """One line on a record that differs: the file at fault, and how it differs."""
        unreadable = next((item for item in self.differences if item.place in _UNREADABLE), None)
        if unreadable:
            return f"{self.cell_id}: unreadable: {unreadable.recomputed}"
        changed = [item for item in self.differences if item.place.startswith(_DIGESTS)]
        figures = [item for item in self.differences if not item.place.startswith(_DIGESTS)]
        names = [item.place.removeprefix(_DIGESTS) for item in changed] or ["record.json"]
        emptied = all(item.recomputed == _DIGEST_OF_NOTHING for item in changed)
        what = ["empty" if emptied else "not as it was written (SHA-256)"] if changed else []
        what += [f"{figures[0].place}: stored {figures[0].stored!r}, recomputed {figures[0].recomputed!r}"] * bool(
            figures
        )
        what += [f"{len(figures) - 1} more: quantlab verify {self.cell_id}"] * (len(figures) > 1)
        return f"{', '.join(f'cells/{self.cell_id}/{name}' for name in names)}: {'; '.join(what)}"


@dataclass(frozen=True)
class _Figure:
    place: str
    stored: Any
    recomputed: Any

    @property
    def same(self) -> bool:
        if isinstance(self.stored, float) and isinstance(self.recomputed, (int, float)):
            return math.isclose(self.stored, self.recomputed, rel_tol=_ROUNDING, abs_tol=1e-12)
        return bool(self.stored == self.recomputed)


def verify(root: str | Path, ids: Sequence[str] | None = None) -> list[Difference]:
    """All differences in the records below `root`, or in those of `ids`.

    Raises:
        ConfigError: one of `ids` is no cell, or several.
    """
    return [difference for checked in check(root, ids) for difference in checked.differences]


def check(root: str | Path, ids: Sequence[str] | None = None) -> Iterator[Checked]:
    """Check the records one by one.

    Raises:
        ConfigError: one of `ids` is no cell, or several.
    """
    for cell_id in ids_of(root, ids or ()) or storage.recorded(root):
        found = list(_cell_figures(Path(root), cell_id))
        wrong = tuple(Difference(cell_id, item.place, item.stored, item.recomputed) for item in found if not item.same)
        yield Checked(cell_id, len(found), wrong)


def _cell_figures(root: Path, cell_id: str) -> Iterator[_Figure]:
    try:
        stored = storage.read(root, cell_id)
    except (ValueError, OSError) as error:
        yield _Figure("record.json", "a record", str(error))
        return
    if stored is None:  # removed meanwhile
        yield _Figure("record.json", "a record", "it has no record.json any more")
        return
    yield from _record_figures(stored)
    yield from _digests(root, stored)
    try:
        utterances = storage.read_utterances(root, cell_id)
        batches = storage.read_batches(root, cell_id)
        streams = storage.read_streams(root, cell_id)
    except (ValueError, OSError) as error:
        yield _Figure("raw files", "readable", str(error))
        return
    yield from _counts(stored, utterances)
    yield from _splits(stored, utterances, batches)
    yield from _streams(stored, utterances, streams)
    if stored.adaptive is not None:
        yield from _looks(root, stored, stored.adaptive)
    try:
        yield from _times(stored, batches)
    except figures.IMPOSSIBLE as error:
        yield _Figure("batches.jsonl", "figures", f"none, as the raw files contradict them: {error}")


def _record_figures(stored: Record) -> Iterator[_Figure]:
    """Figures computed from other fields of the record."""
    if versions := stored.environment.get("versions"):
        yield _Figure("cell_id", stored.cell_id, hashed(stored.config, stored.fingerprints, versions))
    if stored.receipt is not None:
        yield from _receipt(stored.receipt)


def _receipt(stored: Receipt) -> Iterator[_Figure]:
    yield _Figure("receipt.modules_total", stored.modules_total, len(stored.modules))
    quantized = sum(item.quantized for item in stored.modules)
    yield _Figure("receipt.modules_quantized", stored.modules_quantized, quantized)
    yield _Figure("receipt.size_bytes", stored.size_bytes, sum(stored.bytes_by_dtype.values()))
    yield _Figure("receipt.verified", stored.verified, not stored.problems)


def _digests(root: Path, stored: Record) -> Iterator[_Figure]:
    try:
        found = storage.digests(storage.cells_dir(root) / stored.cell_id)
    except OSError as error:
        yield _Figure("digests", "of both raw files", f"unreadable: {error}")
    else:
        yield from _compare("digests", stored.digests, found)


def _counts(stored: Record, utterances: Sequence[Utterance]) -> Iterator[_Figure]:
    """Edit counts of every utterance, recomputed from its text."""
    if stored.normaliser not in NORMALISERS:
        yield _Figure("normaliser", stored.normaliser, f"unknown; there are {', '.join(NORMALISERS)}")
        return
    if stored.scorer not in SCORERS:
        yield _Figure("scorer", stored.scorer, f"unknown; there are {', '.join(SCORERS)}")
        return
    scoring = Scoring.of_record(stored)
    for item in utterances:
        if item.hypothesis is not None:
            found = asdict(count(item.reference, item.hypothesis, scoring))
            if stored.keywords is not None:
                counted = count_keywords(item.reference, item.hypothesis, stored.keywords, scoring)
                found["keywords"] = counted
            for name, value in found.items():
                if name == "keywords" or name not in _SINCE or getattr(item, name) is not None:
                    yield _Figure(f"utterance {item.split}/{item.id}: {name}", getattr(item, name), value)
            if item.words is not None:
                matches = with_matches(item, scoring).matches
                yield _Figure(f"utterance {item.split}/{item.id}: matches", item.matches, matches)


def _splits(stored: Record, utterances: Sequence[Utterance], batches: Sequence[Batch]) -> Iterator[_Figure]:
    """Figures of each split, from the stored counts, so that a wrong count is reported only once."""
    for name in sorted({*stored.splits, *(item.split for item in utterances)}):
        try:
            found = figures.split_result(
                [item for item in utterances if item.split == name], [item for item in batches if item.split == name]
            ).model_dump()
        except figures.IMPOSSIBLE as error:
            yield _Figure(f"splits.{name}", "figures", f"none, as the raw files contradict them: {error}")
        else:
            split = stored.splits.get(name)
            if split is None:
                yield _Figure(f"splits.{name}", None, found)
                continue
            del found["streaming"]  # see `_streams`
            fields = {key for key in found if key not in _SINCE or getattr(split, key) is not None}
            yield from _compare(f"splits.{name}", split.model_dump(include=fields), {key: found[key] for key in fields})


def _streams(stored: Record, utterances: Sequence[Utterance], streams: Sequence[Stream]) -> Iterator[_Figure]:
    """Streams played back from their texts and seconds: clock, final texts, their counts, and figures."""
    place = storage.STREAMS
    if not streams:
        yield _Figure("streaming", stored.streaming, None)
        for name, split in stored.splits.items():
            yield _Figure(f"splits.{name}.streaming", split.streaming, None)
        return
    try:
        config, unit = config_of(stored), stored.error_unit
        for item in streams:
            shown = replay(item, config, unit)
            named = f"stream {item.split}/{item.id}"
            yield _Figure(f"{named}: hypothesis", item.hypothesis, joined(shown[-1].screen, unit))
            yield from _compare(named, _clock(item.updates), _clock([update for update, _ in shown]))
        yield from _stream_counts(stored, utterances, streams)
        found = stream_figures(stored, streams, utterances)
    except figures.IMPOSSIBLE as error:
        yield _Figure(place, "figures", f"none, as the raw files contradict them: {error}")
        return
    for split_name, figure in found.items():
        before = stored.streaming if split_name is None else stored.splits[split_name].streaming
        where = "streaming" if split_name is None else f"splits.{split_name}.streaming"
        yield from _compare(where, before and before.model_dump(), figure and figure.model_dump())


def _clock(updates: Sequence[Update]) -> dict[str, Any]:
    """What follows from the clock: which audio each update decoded, and when."""
    names = {"begin_s", "heard_s", "start_s"}
    return {f"update {number}": update.model_dump(include=names) for number, update in enumerate(updates)}


def _stream_counts(stored: Record, utterances: Sequence[Utterance], streams: Sequence[Stream]) -> Iterator[_Figure]:
    for before, after in zip(streams, recounted(streams, utterances, Scoring.of_record(stored)), strict=True):
        for name in COUNTS:
            place = f"stream {before.split}/{before.id}: {name}"
            yield _Figure(place, getattr(before, name), getattr(after, name))


def _looks(root: Path, stored: Record, adaptive: Adaptive) -> Iterator[_Figure]:
    """The looks at a cell that might stop early, from its counts and its baseline's; and the order of utterances."""
    known: dict[str, Scores] = {}
    for cell_id in (stored.cell_id, adaptive.baseline):
        try:
            record = storage.read(root, cell_id)
        except (ValueError, OSError):
            record = None
        known |= {} if record is None else read_scores([Stored(root, record)], lambda why: None)
    cell, baseline = known.get(stored.cell_id), known.get(adaptive.baseline)
    if cell is None or baseline is None:
        yield _Figure("adaptive", "looks", f"none, as its baseline {adaptive.baseline} is not recorded here")
        return
    try:
        found = again(adaptive, cell, baseline)
    except ValueError as error:
        yield _Figure("adaptive", "looks", f"none: {error}")
        return
    yield from _compare("adaptive", adaptive.model_dump(), found.model_dump())
    sample, measured = baseline.sample, cell.sample
    order = balanced_order(stored.setting("seed"), sample.ids, sample.splits, sample.speakers)
    start = 0
    for number, look in enumerate(adaptive.looks):
        planned = {sample.ids[index] for index in order[start : look.utterances]}
        done = set(measured.ids[start : look.utterances])
        yield _Figure(f"adaptive.looks[{number}]: utterances in the seed's order", len(planned), len(planned & done))
        start = look.utterances


def _times(stored: Record, batches: Sequence[Batch]) -> Iterator[_Figure]:
    """Timing figures that are computed from all batches of a record."""
    if stored.status != "ok":
        return
    rel_ci = stored.setting("protocol.rel_ci") or ProtocolConfig.model_fields["rel_ci"].default
    first_pass = [item for item in batches if item.of == "cell" and item.work == "natural" and item.block is None]
    yield from _compare("stages.measure_s", stored.stages.measure_s, sum(item.elapsed_s for item in first_pass))
    aligned_s = sum(item.elapsed_s for item in batches if item.work == "align") or None
    if aligned_s is not None or stored.stages.word_times_s is not None:
        yield _Figure("stages.word_times_s", stored.stages.word_times_s, aligned_s)
    speed, fixed_work = figures.speed(batches, "natural", rel_ci), figures.fixed_work(batches, rel_ci)
    for name, before, after in (("speed", stored.speed, speed), ("fixed_work", stored.fixed_work, fixed_work)):
        yield from _compare(name, before and before.model_dump(), after and after.model_dump())


def _compare(place: str, stored: Any, recomputed: Any) -> Iterator[_Figure]:
    """Compare recursively."""
    if isinstance(stored, dict) and isinstance(recomputed, dict):
        for key in dict.fromkeys([*stored, *recomputed]):
            yield from _compare(f"{place}.{key}", stored.get(key), recomputed.get(key))
    elif isinstance(stored, tuple) and isinstance(recomputed, tuple):
        for key, (before, after) in enumerate(zip(stored, recomputed, strict=True)):
            yield from _compare(f"{place}[{key}]", before, after)
    else:
        yield _Figure(place, stored, recomputed)


@click.command("verify", context_settings=HELP, epilog=example("quantlab verify --root mlruns"))
@click.argument("ids", nargs=-1, metavar="[CELL]...")
@roots_option()
def command(ids: tuple[str, ...], roots: tuple[Path, ...]) -> int:
    """Recompute every figure of the records from their raw data, and print differences.

    Cells are given by id or by label, as quantlab status shows them, and each difference is printed; without any, all
    are checked, and of each record that differs the file at fault and the first difference are printed.

    Exit code: 0, 1 if a figure differs or nothing is recorded, 2 for an id that has no record or a wrong option.
    """
    code = NO  # if the reader of the output leaves early, which is after a difference
    with several.below(roots) as root, to_stdout():
        checked = list(_shown(check(root, ids or None), in_full=bool(ids)))
        code = _conclude(checked, roots)
    return code


def _conclude(checked: Sequence[Checked], roots: Sequence[Path]) -> int:
    if not checked:
        warn(no_records(*roots))
        return NO
    total, wrong = sum(item.figures for item in checked), sum(len(item.differences) for item in checked)
    if wrong:
        records = sum(bool(item.differences) for item in checked)
        print(f"{wrong} of {counted(total, 'figure')} differ, in {records} of {counted(len(checked), 'record')}")
        return NO
    print(f"{counted(len(checked), 'record')}, {counted(total, 'figure')} verified")
    return 0


def _shown(found: Iterator[Checked], in_full: bool) -> Iterator[Checked]:
    for item in found:
        if in_full:
            for difference in item.differences:
                tell(difference)
        elif item.differences:
            tell(item.fault())
        yield item


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
