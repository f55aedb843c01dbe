"""`python -m quantlab.recommend`: the cell to deploy within limits."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence

from quantlab.records.root_option import PACKED, add_root, records_below
from quantlab.report.recommend import Limits, NotRecordedError, SeveralCorporaError, recommend, show
from quantlab.report.recommend.judge import DEVICES
from quantlab.util.console import MISUSED, NO, Parser, not_negative, one_of, positive, to_stdout, warn
from quantlab.util.entry import enter

_EXAMPLE = "python -m quantlab.recommend --max-size-mb 100 --max-wer-increase 0.5 --device cpu"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what to deploy.

    Returns:
        The exit code: 0, 1 if nothing qualifies or nothing is recorded, 2 if the records hold several corpora. A
        misuse of an option leaves through `SystemExit(2)`.
    """
    options = _parser().parse_args(arguments)
    try:
        with records_below(options.root) as root:
            found = recommend(root, _limits(options))
    except NotRecordedError as error:
        warn(f"{error.args[0]} (below {options.root}); measure some: python -m quantlab -m quant=none,…")
        return NO
    except SeveralCorporaError as error:
        warn(str(error))
        return MISUSED
    with to_stdout():
        if options.format == "json":
            print(show.to_json(found))
        else:
            show.show(found, everything=options.all)
    return 0 if found.best is not None else NO


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


def _parser() -> Parser:
    parser = Parser(
        prog="python -m quantlab.recommend",
        description="Which measured cell to deploy: the fastest of those within the limits, where the data show one. "
        "A cell is within a limit of WER when the whole 95 % interval of its increase is.",
        epilog=f"example: {_EXAMPLE}",
    )
    parser.add_argument("--max-wer-increase", type=not_negative, default=0.5, metavar="POINTS",
                        help="percentage points of WER against the fp32 baseline (default: %(default)s)")  # fmt: skip
    parser.add_argument("--max-size-mb", type=positive, metavar="MB", help="of the model; MB = 10^6 bytes")
    parser.add_argument("--max-memory-mb", type=positive, metavar="MB", help="peak memory while it recognises")
    parser.add_argument("--max-rtf", type=positive, metavar="RTF", help="generation time / audio time")
    parser.add_argument("--device", type=one_of("device", DEVICES), metavar="|".join(DEVICES))
    parser.add_argument("--model", metavar="NAME", help="only this model, by name or fingerprint")
    parser.add_argument(
        "--dataset",
        metavar="NAME",
        help="needed where several corpora are recorded: name, file of a manifest, or fingerprint",
    )
    parser.add_argument("--split", metavar="NAME", help="the WER increase in this split instead of over all")
    add_root(parser, PACKED)
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: %(default)s")
    parser.add_argument("--all", action="store_true", help="list every cell, however many")
    return parser


if __name__ == "__main__":
    gc.disable()  # a short life that only builds: looking for garbage takes a fifth of it over many records
    enter(main)
