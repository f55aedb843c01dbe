"""A quantized embedding leaves the cell with the projection that it is one matrix with, and comes back as such."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from helpers.exporting import configure
from quantlab.export import load
from quantlab.export.manifest import WEIGHTS
from quantlab.measurement.cell import run_cell
from quantlab.quantization.embedding import EMBEDDING, SharedEmbedding


@pytest.mark.parametrize("name", ["quanto_int8", "hqq_int4", "torchao_int8wo"])
def test_it_is_loaded_as_one_matrix(name, tmp_path):
    config = configure(name, tmp_path)
    quant = config.quant.model_copy(update={"embedding": True})
    result = run_cell(config.model_copy(update={"quant": quant}))
    assert result.exported.problem is None, result.exported.problem  # it heard again what the cell heard
    folder = Path(result.exported.folder)
    model, _ = load(folder)
    loaded = model.get_submodule(EMBEDDING)
    assert isinstance(loaded, SharedEmbedding)
    assert loaded.head is model.proj_out
    assert loaded(torch.tensor([[1]])).shape == (1, 1, model.config.d_model)
    with safe_open(folder / WEIGHTS, "pt") as file:
        names = set(file.keys())
    assert not [key for key in names if "embed_tokens" in key]
    assert any(key.startswith("proj_out.") for key in names)
