"""`quantlab bundle`: a folder that measures exported models on a machine without quantlab."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import click

from quantlab.config.schema import RunConfig
from quantlab.records.root_option import root_option
from quantlab.util.command import HELP, PATH, example, perform
from quantlab.util.console import libraries_silent, tell
from quantlab.util.counted import counted
from quantlab.util.entry import enter
from quantlab.util.errors import ConfigError

KEY = re.compile(r"[+~]*dataset[.=]")  # beginning of a key that chooses the corpus


@click.command(
    "bundle",
    context_settings=HELP,
    epilog=example("quantlab bundle exported/nano-ggml_* --corpus dataset=demo dataset.limit=20 --out bundle"),
)
@click.argument("arguments", nargs=-1, required=True, metavar="EXPORT... [KEYS]")
@click.option(
    "--corpus",
    "corpus",
    multiple=True,
    metavar="KEY",
    help="A key that chooses the corpus, as in a grid: dataset=demo. Keys may also follow without --corpus. Default: "
    "the corpus of the first EXPORT's cell.",
)
@root_option("; it has the records of the exported cells")
@click.option("--out", type=PATH, default=Path("bundle"), show_default=True, metavar="DIR", help="Folder to write.")
def command(arguments: tuple[str, ...], corpus: tuple[str, ...], root: Path, out: Path) -> int:
    """Make a folder that measures exported models on a Raspberry Pi or another machine without quantlab.

    EXPORT is a folder written by quantlab export, or by a grid with export.dir, of whisper.cpp (ggml_*), CTranslate2
    (ct2_*) or ONNX Runtime (ort_*). The folder holds the models, clips as WAV files, and measure.py, which needs numpy
    and the engine's package, but neither quantlab nor torch. What it measures comes home with quantlab merge.

    Several models are measured in turns, and compared with the first in fp32 among them, else the first in 16 bits.

    Exit code: 0, 2 if the exports or the corpus cannot be in a bundle, the folder cannot be written or an option is
    wrong.
    """
    keys = [*corpus, *(item for item in arguments if KEY.match(item))]
    folders = [Path(item) for item in arguments if not KEY.match(item)]
    if strange := [key for key in corpus if not KEY.match(key)]:
        raise click.BadParameter(f"{strange[0]}: expected dataset=NAME or a key below dataset", param_hint="--corpus")
    if not folders:
        raise click.UsageError("which EXPORT? Give a folder that quantlab export wrote")
    with libraries_silent():
        from quantlab.bundle.clips import said
        from quantlab.bundle.make import make, read_export
        from quantlab.config.compose import compose

        dataset = _one(compose(keys)).dataset if keys else None
        made = make([read_export(folder.expanduser(), root) for folder in folders], dataset, out.expanduser())
    tell(f"{out}: {counted(len(folders), 'model')}, {said(made.clips, made.corpus)}; what to do there: {out}/README.md")
    tell(_against(made.baselines, made.clips.rounded > 0))
    return 0


def _one(configs: list[RunConfig]) -> RunConfig:
    if len(configs) > 1:
        raise ConfigError(f"the keys give {len(configs)} corpora: a bundle has one, without commas")
    return configs[0]


def _against(baselines: tuple[str, ...], rounded: bool) -> str:
    """What the verdicts will be against."""
    if baselines:
        return f"verdicts: against {' and '.join(baselines)} on the same machine"
    if rounded:
        return (
            "verdicts: none, as the clips are rounded and no model is unquantized: add an export of ggml_f16, "
            "ct2_float32 or ort_fp32"
        )
    return "verdicts: on WER only, against quant=none of the same clips in the records that they are merged into"


main = partial(perform, command)

if __name__ == "__main__":
    enter(main)
