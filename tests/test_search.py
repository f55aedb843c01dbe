"""`quantlab recommend --measure`: a lower bound of sizes, and a search that leaves out what cannot be chosen."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from quantlab.config.compose import compose
from quantlab.config.model import Architecture
from quantlab.config.schema import RunConfig
from quantlab.grid.least import bound, least_bytes
from quantlab.grid.search import NOT_SMALLER, TOO_LARGE
from quantlab.models.linears import linears
from quantlab.records import several, storage
from quantlab.report.summaries import summaries

RESULTS = Path(__file__).resolve().parent.parent / "docs/results"


def shape_of(model):
    [config] = compose([f"model={model}", "model.weights=random"])
    shape = Architecture.model_validate(config.model.architecture.model_dump())
    sizes = {f"{part}_ffn_dim": shape.ffn_dim for part in ("encoder", "decoder")}
    return shape.parameters, linears(shape.model_dump() | sizes)


@pytest.mark.parametrize("archive", ["whisper", "lowbit", "whisper_h100", "lowbit_h200"])
def test_no_recorded_cell_is_smaller_than_its_bound_and_few_are_much_larger(archive):
    shapes = {name: shape_of(name) for name in ("base", "tiny_en", "nano")}
    with several.below([RESULTS / f"{archive}.tar.xz"]) as root:
        records = [item.record for item in several.stored(root, None, pytest.fail)]
    shares = {}
    for record in records:
        if record.receipt is not None:
            least = bound(RunConfig.model_validate(record.config), *shapes[record.setting("model.name")])
            shares[record.cell_id] = least / record.receipt.size_bytes
    assert len(shares) >= 10
    assert 0.6 < min(shares.values()) <= max(shares.values()) <= 1


def test_of_what_is_quantized_only_where_it_is_chosen():
    def least(*keys):
        [config] = compose(["quant=hqq_int4", *keys])
        return least_bytes(config)

    [none] = compose(["quant=none"])
    assert least("quant.target=encoder") > least() > 0
    assert least("quant.embedding=true") < least()
    assert least("runtime.dtype=float16", "quant=none") * 2 == least_bytes(none)
    assert least("model=tiny") == 0  # its checkpoint is not on this machine


ASKED = ("quant=none,hqq_int8,hqq_int3,hqq_int2,hqq_int4", "dataset.limit=60", "device=cpu", "tracking=off")


def recommend(folder, *arguments, code=0):
    command = [sys.executable, "-m", "quantlab", "recommend", "--measure", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    done = recommend(folder, "--max-wer-increase", "25", "--format", "json", *ASKED)
    return SimpleNamespace(folder=folder, done=done, answer=json.loads(done.stdout))


@pytest.mark.minutes
def test_the_smallest_is_found_and_larger_ones_are_not_measured(found):
    rows = {row.settings.quant: row for row in summaries(found.folder / "mlruns", on_unreadable=pytest.fail)}
    assert rows.keys() == {"none", "hqq_int2", "hqq_int3"}
    lost, chosen = rows["hqq_int2"], rows["hqq_int3"]
    assert found.answer["best"]["cell_id"] == chosen.cell_id
    assert found.answer["claim"] == "smallest"
    assert lost.record.adaptive.stops == "beyond"
    assert lost.stopped_early
    assert lost.comparison.wer_difference.ci95[0] > 0.25
    assert [item["cell"]["cell_id"] for item in found.answer["rejected"]] == [lost.cell_id]
    [note] = [note for note in found.answer["notes"] if note.startswith(f"Not measured, as {NOT_SMALLER}: ")]
    assert "nano-hqq_int4-cpu (" in note
    assert "nano-hqq_int8-cpu (" in note
    assert found.done.stderr.count("importing torch") == 1


@pytest.mark.minutes
def test_records_count_and_another_limit_measures_its_baseline_no_more(found):
    again = recommend(found.folder, "--max-wer-increase", "25", *ASKED)
    assert again.stderr.count("recorded before") == 3
    asked = ("--max-wer-increase", "0.001", "--max-size-mb", "3", *ASKED)
    other = recommend(found.folder, *asked, code=1)
    assert "recorded before" in other.stderr
    assert TOO_LARGE in other.stdout
    assert len(storage.recorded(found.folder / "mlruns")) > 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--measure: which cells? Name them, e.g. quant=none,hqq_int4,hqq_int3"),
        (("--root", "mlruns", "quant=none"), "--root: beside --measure, set the key output_dir instead"),
        (("--device", "cpu", "quant=none"), "--device: beside --measure, set the key device instead"),
        (("quant=none", "protocol=paper"), "protocol=paper: recommend --measure sets this key itself: leave it out"),
        (("quant=none", "stats.margin=1"), "stats.margin=1: recommend --measure sets this key itself"),
        (("--max-wer-increase", "0", "quant=none"), "--max-wer-increase 0: no number of utterances shows"),
        (("quant=hqq_int4",), "nano-hqq_int4-cpu has no baseline among the cells, with which its WER is compared"),
        (("quant=none,hqq_int4", "model.weights=random"), "random weights have no WER"),
        (("quant=none", "jobs=2"), "jobs=2: each cell depends on those before it: set jobs=1"),
        (("quant=none", "hydra/launcher=slurm"), "hydra/launcher: recommend --measure measures on this machine"),
        (("quant=nine",), "quant=nine"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(tmp_path, arguments, said):
    done = recommend(tmp_path, *arguments, code=2)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "mlruns").exists()


def test_if_all_are_too_large_nothing_is_measured(tmp_path):
    done = recommend(tmp_path, "--max-size-mb", "1", "quant=none,hqq_int4", "device=cpu", code=1)
    assert done.stdout.startswith("Nothing qualifies, and nothing was measured")
    assert f"Not measured, as {TOO_LARGE} 1 MB: nano-hqq_int4-cpu (3." in done.stdout
    assert not storage.recorded(tmp_path / "mlruns")


def test_keys_without_the_option_are_refused(tmp_path):
    command = [sys.executable, "-m", "quantlab", "recommend", "quant=none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "quant=none: keys are for --measure" in done.stderr) == (2, True)
