"""How many utterances of a cell have the text, and the number of tokens, of PyTorch's fp32.

    python benchmarks/same_texts.py docs/results/engines.tar.xz

A cell is compared with that of `quant=none` which has its model, corpus and batch size.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from quantlab.records import storage
from quantlab.records.archive import unpacked
from quantlab.records.schema import Record

Texts = Mapping[tuple[str, str], tuple[str, int]]  # split and utterance → hypothesis, tokens


def main() -> None:
    """Print a table in Markdown."""
    print("| model | batch | quant | same text | of |\n|---|---:|---|---:|---:|")
    for archive in sys.argv[1:]:
        with unpacked(Path(archive)) as root:
            for line in _rows(root):
                print(line)


def _rows(root: Path) -> list[str]:
    found = {cell_id: storage.read(root, cell_id) for cell_id in storage.recorded(root)}
    measured = {cell_id: record for cell_id, record in found.items() if record is not None and record.status == "ok"}
    baselines = {_group(record): _texts(root, id) for id, record in measured.items() if _quant(record) == "none"}
    rows = []
    for cell_id, record in measured.items():
        if _quant(record) != "none" and (fp32 := baselines.get(_group(record))):
            texts, (model, _, batch) = _texts(root, cell_id), _group(record)
            same = sum(texts.get(utterance) == text for utterance, text in fp32.items())
            rows.append(f"| {model} | {batch} | `{_quant(record)}` | {same} | {len(fp32)} |")
    return sorted(rows)


def _group(record: Record) -> tuple[str, str, int]:
    config = record.config
    return config["model"]["name"], record.fingerprints["corpus"], config["protocol"]["batch_size"]


def _quant(record: Record) -> str:
    return str(record.config["quant"]["name"])


def _texts(root: Path, cell_id: str) -> Texts:
    return {(item.split, item.id): (item.hypothesis, item.tokens) for item in storage.read_utterances(root, cell_id)}


if __name__ == "__main__":
    main()
