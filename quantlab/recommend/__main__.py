"""`python -m quantlab.recommend`: the cell to deploy within limits."""

from __future__ import annotations

import argparse
import gc
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from quantlab.config import did_you_mean
from quantlab.recommend import Limits, NotRecordedError, Recommendation, SeveralCorporaError, recommend, show
from quantlab.recommend.judge import DEVICES

NO, MISUSED = 1, 2  # exit codes: nothing can be recommended; the question is wrong
_EXAMPLE = "python -m quantlab.recommend --max-size-mb 100 --max-wer-increase 0.5 --device cpu"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what to deploy.

    Returns:
        The exit code: 0, 1 if nothing qualifies or nothing is recorded, 2 if the records hold several corpora. A
        misuse of an option leaves through `SystemExit(2)`.
    """
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without "–" gets a "?", not a traceback
    try:
        found = recommend(options.root, _limits(options))
    except NotRecordedError as error:
        return _say(f"{error.args[0]} (below {options.root}); measure some: python -m quantlab -m quant=none,…", NO)
    except SeveralCorporaError as error:
        return _say(str(error), MISUSED)
    _print(found, options)
    return 0 if found.best is not None else NO


def _say(message: str, code: int) -> int:
    print(f"quantlab: {message}", file=sys.stderr)
    return code


def _print(found: Recommendation, options: argparse.Namespace) -> None:
    try:
        if options.format == "json":
            print(show.to_json(found))
        else:
            show.show(found, everything=options.all)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has gone; without this the interpreter complains when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _limits(options: argparse.Namespace) -> Limits:
    return Limits(
        max_size_mb=options.max_size_mb,
        max_wer_increase=options.max_wer_increase,
        max_rtf=options.max_rtf,
        max_memory_mb=options.max_memory_mb,
        device=options.device,
        model=options.model,
        dataset=options.dataset,
        split=options.split,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantlab.recommend",
        description="Which measured cell to deploy: the fastest of those within the limits, where the data show one. "
        "A cell is within a limit of WER when the whole 95 % interval of its increase is.",
        epilog=f"example: {_EXAMPLE}",
    )
    parser.add_argument("--max-wer-increase", type=_not_negative, default=0.5, metavar="POINTS",
                        help="percentage points of WER against the fp32 baseline (default: %(default)s)")  # fmt: skip
    parser.add_argument("--max-size-mb", type=_positive, metavar="MB", help="of the model; MB = 10^6 bytes")
    parser.add_argument("--max-memory-mb", type=_positive, metavar="MB", help="peak memory while it recognises")
    parser.add_argument("--max-rtf", type=_positive, metavar="RTF", help="generation time / audio time")
    parser.add_argument("--device", type=_device, metavar="|".join(DEVICES))
    parser.add_argument("--model", metavar="NAME", help="only this model")
    parser.add_argument("--dataset", metavar="NAME", help="needed where several corpora are recorded")
    parser.add_argument("--split", metavar="NAME", help="the WER increase in this split instead of over all")
    parser.add_argument("--root", type=Path, default=Path("mlruns"), metavar="DIR",
                        help="the grid's output_dir (default: %(default)s)")  # fmt: skip
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: %(default)s")
    parser.add_argument("--all", action="store_true", help="list every cell, however many")
    return parser


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _positive(text: str) -> float:
    if not 0 < _number(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: a number above 0")
    return float(text)


def _not_negative(text: str) -> float:
    if not 0 <= _number(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: a number of percentage points, 0 or more")
    return float(text)


def _device(name: str) -> str:
    if name not in DEVICES:
        raise argparse.ArgumentTypeError(f"no device {name!r}{did_you_mean(name, list(DEVICES))}")
    return name


if __name__ == "__main__":
    gc.disable()  # a short life that only builds: looking for garbage takes a fifth of it over many records
    sys.exit(main())
