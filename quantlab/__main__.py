"""`quantlab` and `python -m quantlab`; whatever takes time to import comes after the signals are taken care of."""

from __future__ import annotations

from typing import NoReturn

from quantlab.util.entry import enter


def main() -> NoReturn:
    """Run the command that the command line names, and leave with its exit code."""
    enter("quantlab.cli.main")


if __name__ == "__main__":
    main()
