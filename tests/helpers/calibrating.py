"""What tests of calibrated cells share: four utterances that are scored, and others that calibrate."""

import json

from helpers.exporting import ROOT

DEMO = ROOT / "quantlab" / "assets" / "demo"
SCORED = (
    "device=cpu",
    "device.threads=1",
    "dataset.splits=[other]",
    "dataset.limit=4",
    "protocol=quick",
    "tracking=off",
)


def not_scored(count=6):
    """Rows of a manifest: the first utterances of the demo's other split."""
    found = [json.loads(line) for line in (DEMO / "manifest.jsonl").read_text().splitlines()]
    return [{"audio": str(DEMO / row["audio"]), "text": row["text"], "id": row["audio"]} for row in found[:count]]
