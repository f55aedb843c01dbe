"""`quantlab` and `python -m quantlab`. Slow imports come after the signal handlers are set."""

from __future__ import annotations

from typing import NoReturn

from quantlab.util.entry import enter


def main() -> NoReturn:
    """Run the command named on the command line and exit with its code."""
    enter("quantlab.cli.main")


if __name__ == "__main__":
    main()
