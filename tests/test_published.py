"""The published figures themselves, and which of them stand beside a cell."""

from decimal import Decimal

import pytest
import yaml
from pydantic import ValidationError

from helpers.compared import changed, compared
from helpers.synthetic import bad_result
from quantlab.report import published
from quantlab.report.summaries import summary

TORCH = {"model": "small", "dataset__name": "librispeech", "quant__head": True}  # as the option ships
FP32 = {"model": "small", "dataset__name": "librispeech"}


def of(source, where):
    return [item for item in published.load().figures if (item.source, item.where) == (source, where)]


def typed_in(text):
    return [[Decimal(word) if word != "-" else None for word in line.split()] for line in text.strip().splitlines()]


def as_printed(figures):
    return [[*item.wer.values(), *item.cer.values(), item.other["rtf"], item.other.get("size_reduction")]
            for item in figures]  # fmt: skip


def test_tables_2_and_3_typed_in_a_second_time():
    assert as_printed(of("soehler2025", "Table 2")) == typed_in("""
        3.48 11.88 1.02 3.62 0.121 -
        3.72 13.67 1.11 4.21 0.077 57
        3.52 14.09 1.09 4.38 0.155 69
        5.95 15.92 1.83 5.03 0.169 57
        3.48 11.88 1.02 3.62 0.006 -
        3.41 10.65 0.97 3.29 0.008 57
        3.54 13.49 1.05 4.05 0.008 70
        4.11 12.93 1.22 3.77 0.019 71""")
    assert as_printed(of("soehler2025", "Table 3")) == typed_in("""
        5.08 12.87 1.93 6.76 0.0022 -
        5.10 14.72 1.93 7.60 0.0037 36.2
        6.05 18.09 2.31 10.16 0.0036 52.1
        7.60 23.69 2.98 12.84 0.0015 -
        7.64 24.64 2.99 13.24 0.0025 19.3
        11.16 32.19 4.78 20.20 0.0026 37.5""")


def test_the_other_sources_typed_in_a_second_time():
    greedy = {item.model: tuple(map(str, item.wer.values())) for item in of("radford2022", "greedy decoding")}
    assert greedy == {
        "tiny": ("7.6", "16.9"), "tiny_en": ("5.6", "14.6"), "base": ("5.0", "12.4"), "base_en": ("4.2", "10.2"),
        "small": ("3.4", "7.6"),
    }  # fmt: skip
    board = [tuple(map(str, item.wer.values())) for item in published.load().figures if "leader" in item.source]
    assert board == [("5.66", "15.45"), ("4.25", "10.35")]
    cpp = [str(item.wer["test-clean"]) for item in published.load().figures if item.source == "transcribe_cpp"]
    assert cpp == "5.77 5.72 5.80 5.89 5.99 5.10 5.12 5.12 5.19 5.36".split()
    andreyev = {item.quant: item for item in of("andreyev2025", "Table III")}
    assert {name: str(item.wer["excerpts"]) for name, item in andreyev.items()} == {
        "ggml_f16": "0.0199", "ggml_q5_0": "0.0199", "ggml_q4_0": "0.0159", "ggml_q8_0": "0.0199",
    }  # fmt: skip
    low = {
        (item.corpus, item.quant, item.settings["group_size"]): str(item.wer["test"])
        for item in of("sebastian2024", "low-bit table")
    }
    assert len(low) == 46
    assert low["voxpopuli", "hqq_ternary", 32] == "30.42"
    assert low["sebastian2024_long", "hqq_ternary", 64] == "96.66"
    assert low["earnings22", "hqq_int3", 16] == "12.3"


def test_a_figure_keeps_its_digits():
    [nf4] = [item for item in published.load().figures if item.wer.get("test-other") == Decimal("14.72")]
    assert str(nf4.wer["test-clean"]) == "5.10"


def test_every_source_has_a_place_that_can_be_looked_up():
    for source in published.load().sources.values():
        assert source.url.startswith("https://")
        assert source.where


def test_every_quantizer_and_model_named_exists():
    from quantlab.util.resources import shared_dir

    for item in published.load().figures:
        assert item.quant is None or (shared_dir("conf") / "quant" / f"{item.quant}.yaml").exists()
        assert (shared_dir("conf") / "model" / f"{item.model}.yaml").exists()


def beside(quant="torch_int8", **changes):
    found = published.matching(compared(quant, **changes))
    return [(item.of.source, item.of.where, item.of.model, item.metric, item.split) for item in found]


@pytest.mark.parametrize("dataset", ["librispeech", "librispeech_dir", "librispeech_mine"])
def test_the_same_cell_on_the_same_corpus(dataset):
    found = beside(**TORCH | {"dataset__name": dataset})
    assert [item[3:] for item in found] == [
        ("wer", "test-clean"), ("wer", "test-other"), ("cer", "test-clean"), ("cer", "test-other"),
        ("rtf", None), ("size_reduction", None),
    ]  # fmt: skip
    assert {item[:3] for item in found} == {("soehler2025", "Table 2", "small")}


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "nano"},
        {"model": "base"},
        {"dataset__name": "demo"},
        {"dataset__name": "my_librispeech"},
        {"dataset__noise": {"kind": "white", "snr_db": 10.0}},
        {"quant__target": "encoder"},
        {"quant__head": False},
        {"quant__skip": ["*.k_proj"]},
        {"quant__bits": 4},
        {"runtime__name": "compile"},
    ],
)
def test_whatever_makes_another_cell_has_nothing_beside_it(changes):
    assert beside(**TORCH | changes) == []


def test_kernels_are_no_part_of_what_is_published():
    assert beside(**TORCH | {"quant__backend": "aten"}) == beside(**TORCH)


def test_splits_of_other_names_have_nothing_beside_them():
    found = compared("torch_int8", **TORCH)
    for names, metrics in ({"test-clean": "clean"}, {"wer", "cer", "rtf", "size_reduction"}), ({"dev": "clean"}, set()):
        other = changed(found, splits={here: found.record.splits[there] for here, there in names.items()})
        told = published.matching(other)
        assert {item.metric for item in told} == metrics
        assert {item.split for item in told} <= {"test-clean", None}


def test_a_validation_set_under_the_name_of_the_test_set_has_no_error_rate_beside_it():
    hub = {"clean": {"config": "clean", "split": "validation"}, "other": {"config": "other", "split": "test"}}
    assert {item[4] for item in beside(**TORCH, dataset__hub_splits=hub)} == {"test-other", None}


def test_the_nearest_of_several_models_and_devices_stands():
    tiny_en = beside("none", **FP32 | {"model": "tiny_en"})
    assert {item[0]: item[2] for item in tiny_en} == {
        "soehler2025": "tiny", "radford2022": "tiny_en", "open_asr_leaderboard": "tiny_en", "transcribe_cpp": "tiny_en",
    }  # fmt: skip
    times = {
        device: [str(item.value) for item in published.matching(compared("none", **FP32, device=device))
                 if item.metric == "rtf"]
        for device in ("cpu", "cuda", "mps")
    }  # fmt: skip
    assert (times["cpu"], times["cuda"], len(times["mps"])) == (["0.121"], ["0.006"], 1)


def test_group_size_and_target_are_those_of_the_source():
    changes = {"model": "large_v2", "dataset__name": "tedlium", "device": "cuda", "runtime__name": "compile"}
    shipped = {"quant__target": "decoder", "quant__format": "uint4"}
    item = compared("hqq_int4", **changes, **shipped)
    renamed = changed(item, splits={"test": item.record.splits["clean"]})
    shown = {(one.of.where, one.metric): str(one.value) for one in published.matching(renamed)}
    assert shown == {
        ("short-form table", "wer"): "4.0", ("short-form table", "rtfx"): "37.3",
        ("low-bit table", "wer"): "4.06", ("low-bit table", "rtfx"): "37.3",
    }  # fmt: skip
    for other in ({"quant__group_size": 32}, {"quant__target": "all"}, {"runtime__name": "eager"}):
        item = compared("hqq_int4", **changes | shipped | other)
        assert published.matching(changed(item, splits={"test": item.record.splits["clean"]})) == []


def test_what_is_targeted_is_no_part_of_an_unquantized_cell():
    changes = {"model": "large_v2", "dataset__name": "ami", "device": "cuda", "quant__target": "decoder"}
    item = compared("none", runtime__name="compile", **changes)
    [wer, rtfx] = published.matching(changed(item, splits={"test": item.record.splits["clean"]}))
    assert (str(wer.value), str(rtfx.value)) == ("16.71", "20.8")


def test_what_did_not_end_well_has_nothing_to_compare():
    assert summary(bad_result("failed", "no", **FP32).record).published == ()


BAD = {
    "no figure": {},
    "not both": {"other": {"rtf": 0.1, "rtfx": 10}},
    "no source": {"source": "nobody", "other": {"rtf": 0.1}},
    "no corpus": {"corpus": "nothing", "other": {"rtf": 0.1}},
    "no split": {"wer": {"nothing": 1.5}},
    "Extra inputs": {"wre": 0.1},
    "greater than 0": {"wer": {"clean": 0}},
}


@pytest.mark.parametrize("message", BAD)
def test_a_data_file_that_is_wrong_is_refused(message, tmp_path):
    item = {"source": "a", "where": "Table 1", "model": "small", "quant": "none", "corpus": "c"} | BAD[message]
    source = {"authors": "A", "title": "T", "where": "a page", "url": "https://example.org"}
    corpora = {"c": {"names": ["c"], "splits": {"clean": {"names": ["clean"]}}}}
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump({"sources": {"a": source}, "corpora": corpora, "figures": [item]}))
    with pytest.raises(ValidationError, match=message):
        published.load(path)
