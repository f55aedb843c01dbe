"""Sensitivity of layers to quantization: leave one kind of layer at a time in fp32, and compare the error rates.

    python examples/skip_layers.py [KEY=VALUE …]

Keys are those of quantlab's command line: `quant=bnb_nf4 dataset.limit=100`. No record is written.
"""

import sys

from quantlab import compose, run_cell
from quantlab.records.schema import CellResult

DEFAULTS = ["quant=hqq_int3", "dataset.limit=20", "device=cpu"]
KINDS = {
    "nothing": [],
    "attention": ["*_proj"],
    "feed-forward": ["*.fc1", "*.fc2"],
    "the encoder": ["*encoder*"],
    "the decoder": ["*decoder*"],
}


def measure(overrides: list[str], skip: list[str]) -> CellResult:
    """Measure one cell in this process."""
    globs = ",".join(f'"{glob}"' for glob in skip)
    [config] = compose([*DEFAULTS, *overrides, f"quant.skip=[{globs}]"])
    return run_cell(config)


def main(overrides: list[str]) -> None:
    """Print one line per kind of layer."""
    print(f"{'left alone':14}{'MB':>8}{'quantized':>12}{'errors':>10}{'words':>8}")
    for kind, skip in KINDS.items():
        record = measure(overrides, skip).record
        errors = sum(split.substitutions + split.deletions + split.insertions for split in record.splits.values())
        words = sum(split.ref_words for split in record.splits.values())
        receipt = record.receipt
        share = f"{receipt.modules_quantized}/{receipt.modules_total}"
        print(f"{kind:14}{receipt.size_bytes / 1e6:8.1f}{share:>12}{errors:10}{words:8}")


if __name__ == "__main__":
    main(sys.argv[1:])
