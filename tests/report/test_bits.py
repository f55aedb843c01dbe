"""Bits by layer: arranged by hand, and on the page of a cell with several."""

from helpers.synthetic import result
from quantlab.report.bits import by_layer
from quantlab.report.html.details import cell_details
from quantlab.report.summaries import summary

MIXED = {
    "model.encoder.layers.0.self_attn.k_proj": 4.0,
    "model.encoder.layers.0.self_attn.q_proj": 1.58,
    "model.encoder.layers.0.fc1": None,
    "model.decoder.layers.0.encoder_attn.k_proj": 2.0,
    "model.decoder.layers.0.fc1": 8.0,
    "proj_out": 4.0,
}
GRID = {
    "heads": ("layer", "q", "k", "×k", "fc1"),
    "rows": (("encoder 0", "1.58", "4", "", "none"), ("decoder 0", "", "", "2", "8")),
}


def test_layers_are_rows_and_modules_columns_in_the_order_in_which_they_run():
    assert vars(by_layer(MIXED)) == GRID


def details(bits):
    record = result("hqq_int4").record
    first = record.receipt.modules[0]
    modules = tuple(first.model_copy(update={"name": name, "bits": value}) for name, value in bits.items())
    receipt = record.receipt.model_copy(update={"modules": modules})
    return cell_details(summary(record.model_copy(update={"receipt": receipt})))["receipt"]["bits"]


def test_the_page_has_them_where_they_differ():
    assert details(MIXED) == GRID
    assert details(dict.fromkeys(MIXED, 4.0)) is None
    assert details(dict.fromkeys(MIXED)) is None
