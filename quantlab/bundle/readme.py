"""The README of a bundle."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.bundle.layout import BundleFile
from quantlab.util.counted import counted
from quantlab.util.printable import markdown

TEXT = """\
# Measure {models} on this machine

Copy this folder to the machine (without `home/`), and there, with Python 3.10 or later:

```sh
python3 -m venv .venv
.venv/bin/python -m pip install -r requirements.txt
.venv/bin/python measure.py --device NAME
```

NAME is what reports call the machine, e.g. `pi5`. The script decodes {clips} ({seconds:.0f} s) in each turn of a model:
once each, then in two rounds, there and back (`--rounds 0` leaves them out, `--rounds 8` narrows the intervals of the
times). Interrupted, the same command goes on.

It writes `measured/NAME.json`. Copy this file into `measured/` of the folder where the bundle was made, and there:

```sh
quantlab merge BUNDLE --into mlruns
quantlab recommend --device NAME
```

{models_list}
{baselines}
Every file is listed in `bundle.json` with its SHA-256: a changed one is refused here and at home.
"""


def readme(bundle: BundleFile, baselines: Sequence[str]) -> str:
    """README in Markdown, without paths of this machine.

    Args:
        bundle: content of bundle.json.
        baselines: labels of the models that others are compared with.
    """
    named = ", ".join(markdown(label) for label in baselines)
    return TEXT.format(
        models=counted(len(bundle.models), "model"),
        clips=counted(len(bundle.clips), "clip"),
        seconds=sum(clip.audio_s for clip in bundle.clips),
        models_list="\n".join(f"- `{model.folder}`: {markdown(model.label)}" for model in bundle.models),
        baselines=f"\nThe verdicts are against {named}.\n" if named else "",
    )
