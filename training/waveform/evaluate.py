"""Word error rates: `python -m training.waveform.evaluate --model DIR --manifest FILE [--digits DIR]` prints JSON.

As `training.nano.evaluate`, for nano_ctc and nano_moonshine: greedy decoding in fp32 by transformers' own classes.
"""

import functools

from training.nano.evaluate import parser, report
from training.waveform import recognisers


def main() -> None:
    """Entry point."""
    args = parser("training.waveform.evaluate", __doc__).parse_args()
    report(functools.partial(recognisers.transcribe, recognisers.read(args.model)), args)


if __name__ == "__main__":
    main()
