"""Cells of Moonshine and CTC models: every library that replaces Linear modules, exports, and refusals."""

import ast
import re
from pathlib import Path

import pytest
import soundfile
import torch
from torch import nn

from helpers.exporting import ROOT
from quantlab import export
from quantlab.config.compose import compose
from quantlab.grid.families import why_no_family
from quantlab.grid.plan import plan
from quantlab.grid.run import run_grid
from quantlab.measurement.cell import run_cell
from quantlab.models import load
from quantlab.quantization import registry
from quantlab.quantization.select import HEADS

SHORT = ["dataset.splits=[clean]", "dataset.limit=3", "device=cpu", "protocol.batch_size=3",
         "protocol.warmup_batches=1", "tracking=off", "calibration.source=disjoint"]  # fmt: skip
CORPUS = ROOT / "quantlab" / "assets" / "demo"
FAMILIES = ("nano_ctc", "nano_moonshine")
LIBRARIES = ("torch_int8", "quanto_int8", "quanto_int4", "quanto_int8_static", "hqq_int4", "hqq_int3", "bnb_int8",
             "bnb_nf4", "torchao_int8wo", "rtn_int4", "gptq_int3")  # fmt: skip


def config(*overrides):
    [found] = compose([*SHORT, *overrides])
    return found


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("quant", LIBRARIES)
def test_every_linear_is_quantized_by_every_library(model, quant):
    cell = config(f"model={model}", f"quant={quant}")
    record = run_cell(cell).record
    linears = {
        name: module for name, module in load(cell.model, 0).model.named_modules() if isinstance(module, nn.Linear)
    }
    quantized = {item.name for item in record.receipt.modules if item.quantized}
    assert record.status == "ok"
    assert record.receipt.verified
    assert quantized == {name for name in linears if name not in HEADS or cell.quant.head}
    assert (record.splits["clean"].wer is None) == (cell.model.weights == "random")
    assert record.receipt.size_bytes < record.receipt.baseline_bytes


@pytest.mark.parametrize("model", FAMILIES)
def test_the_size_is_that_of_the_tensors(model):
    """quanto's int8 with a scale per output, counted from the shapes alone."""
    cell = config(f"model={model}", "quant=quanto_int8", "quant.head=false")
    found = load(cell.model, 0).model
    linears = {name: m for name, m in found.named_modules() if isinstance(m, nn.Linear) and name not in HEADS}
    rest = sum(leaf.nbytes for leaf in [*found.parameters(), *found.buffers()])
    rest -= sum(module.weight.nbytes for module in linears.values())
    codes = sum(module.weight.numel() + 4 * module.out_features for module in linears.values())
    record = run_cell(cell).record
    scalars = record.receipt.size_bytes - rest - codes  # quanto's scales of activations, which are not used
    assert 0 <= scalars <= 16 * len(linears)


@pytest.mark.parametrize("model", FAMILIES)
def test_an_export_computes_what_was_measured(model, tmp_path):
    cell = config(f"model={model}", "quant=hqq_int4", f"export.dir={tmp_path}", f"output_dir={tmp_path}/mlruns")
    assert run_grid([cell]) == 0
    [folder] = [path for path in tmp_path.iterdir() if path.name != "mlruns"]
    loaded, _ = export.load(folder)
    assert not any(tensor.is_meta for tensor in [*loaded.parameters(), *loaded.buffers()])
    with torch.no_grad():
        encoder = loaded.get_encoder() if model == "nano_moonshine" else loaded
        first, second = (encoder(torch.linspace(-0.1, 0.1, 16_000)[None])[0] for _ in range(2))
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)


@pytest.mark.parametrize("model", ["nano", "nano_ctc"])
def test_an_export_is_used_by_the_lines_of_its_readme(model, tmp_path, capsys):
    cell = config(
        f"model={model}",
        "model.weights=pretrained",
        "quant=hqq_int4",
        "protocol.batch_size=1",
        f"export.dir={tmp_path}",
    )
    result = run_cell(cell)
    readme = Path(result.exported.folder, "README.md").read_text().replace("FOLDER", result.exported.folder)
    lines = "".join(re.findall(r"```python\n(.*?)```", readme, re.DOTALL))
    for item in result.utterances:
        exec(lines, {"audio": soundfile.read(CORPUS / item.id)[0]})
        [said] = ast.literal_eval(capsys.readouterr().out)
        assert said.strip() == item.hypothesis.strip()


@pytest.mark.parametrize(
    ("model", "overrides", "reason"),
    [
        ("nano_ctc", ["quant=ggml_q8_0"], "ggml runs Whisper only, not ctc"),
        ("nano_moonshine", ["quant=ct2_int8"], "ct2 runs Whisper only, not moonshine"),
        ("nano_moonshine", ["quant=ort_int8"], "ort runs Whisper only"),
        ("nano_ctc", ["quant=ov_int4"], "ov runs Whisper only"),
        ("nano_ctc", ["quant=awq_int4"], "folds scales into the blocks of a Whisper"),
        ("nano_moonshine", ["quant=smoothquant_int8"], "folds scales into the blocks of a Whisper"),
        ("nano_ctc", ["quant=gptq_int3", "quant.recover=scales"], "trains a Whisper only, not ctc"),
        ("nano_moonshine", ["quant=hqq_int4", "runtime=compile"], "runtime=compile runs Whisper only"),
        ("nano_moonshine", ["quant=hqq_int4", "runtime.audio_ctx=dynamic"], "moonshine has no window"),
        ("nano_ctc", ["quant=hqq_int4", "dataset.long=sequential"], "needs timestamps, which ctc lacks"),
        ("nano_ctc", ["quant=hqq_int4", "protocol.num_beams=4"], "decoded greedily here: set protocol.num_beams=1"),
        (
            "nano_ctc",
            ["quant=hqq_int4", "protocol.max_new_tokens=9"],
            "an output for each frame of audio",
        ),
        ("nano_ctc", ["quant=hqq_int4", "quant.embedding=true"], "has no token embedding"),
    ],
)
def test_what_a_family_cannot_do_is_a_row_with_its_reason(model, overrides, reason):
    """Beside a baseline, which is measured."""
    baseline = config(f"model={model}", "quant=none")
    [_, cell] = plan([baseline, config(f"model={model}", *overrides)])
    assert cell.refusal.status == "unsupported"
    assert reason in cell.refusal.reason


def test_words_of_other_families_are_not_timed():
    [cell] = compose(["model=nano_ctc", "model.weights=pretrained", "quant=hqq_int4", "runtime.word_times=true"])
    assert "words of ctc are not timed" in why_no_family(cell, registry.get("hqq"))
