import pytest
from compared import compared, uncompared
from pydantic import ValidationError
from synthetic import bad_result

from quantlab.report import published
from quantlab.report.rows import row

LIBRISPEECH = {"model": "small", "dataset__name": "librispeech"}


def test_the_reference_table_of_the_study():
    """The figures that DESIGN quotes, typed in here a second time."""
    found = {(item.quant, item.device): item for item in published.load().figures if item.source == "soehler2025"}
    wer = {key: (item.wer.get("clean"), item.wer.get("other")) for key, item in found.items()}
    assert wer == {
        ("none", "cpu"): (3.48, 11.88),
        ("torch_int8", "cpu"): (3.72, 13.67),
        ("hqq_int4", "cpu"): (3.52, 14.09),
        ("quanto_int8_static", "cpu"): (5.95, 15.92),
        ("none", "cuda"): (None, None),
        ("quanto_int8", "cuda"): (3.41, 10.65),
        ("bnb_nf4", "cuda"): (3.54, 13.49),
        ("hqq_int3", "cuda"): (4.11, 12.93),
    }
    assert [item.rtf for item in found.values()] == [0.121, 0.077, 0.155, 0.169, 0.006, 0.008, 0.008, 0.019]
    assert {key[0]: item.size_reduction for key, item in found.items() if item.size_reduction} == {
        "torch_int8": 57, "quanto_int8": 57, "hqq_int4": 69, "hqq_int3": 71, "bnb_nf4": 70,
    }  # fmt: skip


def test_every_source_has_a_place_that_can_be_looked_up():
    for source in published.load().sources.values():
        assert source.url.startswith("https://")
        assert source.where


def test_every_quantizer_and_model_named_exists():
    from quantlab.shared import shared_dir

    for item in published.load().figures:
        assert (shared_dir("conf") / "quant" / f"{item.quant}.yaml").exists()
        assert (shared_dir("conf") / "model" / f"{item.model}.yaml").exists()


@pytest.mark.parametrize("dataset", ["librispeech", "librispeech_dir"])
def test_the_same_cell_on_the_same_corpus_matches(dataset):
    [match] = published.matches([compared("torch_int8", model="small", dataset__name=dataset)])
    assert match.figures.wer == {"clean": 3.72, "other": 13.67}
    assert match.source.where == "arXiv 2511.08093, Table 2"


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "nano"},
        {"dataset__name": "demo"},
        {"device": "cuda"},  # the study reports torch int8 on the CPU alone
        {"quant__target": "encoder"},
        {"runtime__name": "compile"},
    ],
)
def test_whatever_differs_is_no_match(changes):
    assert published.matches([compared("torch_int8", **(LIBRISPEECH | changes))]) == []


def test_what_did_not_end_well_has_nothing_to_compare():
    assert published.matches([row(bad_result("failed", "no", **LIBRISPEECH).record)]) == []


def test_what_is_not_alike_is_said():
    [match] = published.matches([compared("torch_int8", **LIBRISPEECH)])
    assert match.notes == (
        "clean: measured on 160 of 2,620 utterances",
        "other: measured on 160 of 2,939 utterances",
        "not known of the source: batch size, processor; so RTF is no like-for-like comparison",
    )
    [match] = published.matches([uncompared("torch_int8", model__weights="random", **LIBRISPEECH)])
    assert match.notes[0] == "measured with random weights: only the size compares"


def test_hardware_batch_size_and_type_of_the_source_are_said():
    changes = {"model": "large_v2", "dataset__name": "tedlium", "device": "cuda"}
    [match] = published.matches([compared("none", **changes)])
    assert match.figures.real_time_factor == pytest.approx(1 / 11.6)
    size, hardware = "batch size 16 here, 1 there", "hardware there: RTX 4090; here: a processor"
    assert match.notes == (size, "what is not quantized is float32 here, float16 there", hardware)
    [match] = published.matches([compared("none", **changes, runtime={"name": "eager", "dtype": "float16"})])
    assert match.notes == (size, hardware)
    [match] = published.matches([compared("hqq_int4", quant__target="decoder", runtime__name="compile", **changes)])
    assert match.figures.wer == {"test": 4.0}


def test_what_is_targeted_is_no_part_of_an_unquantized_cell():
    changes = {"model": "large_v2", "dataset__name": "ami", "device": "cuda", "quant__target": "decoder"}
    [match] = published.matches([compared("none", runtime__name="compile", **changes)])
    assert (match.figures.wer, match.figures.rtfx) == ({"test": 16.71}, 20.8)
    assert published.matches([compared("hqq_int4", **changes)]) == []  # the post compiles it


BAD = {
    "no figure": {},
    "not both": {"rtf": 0.1, "rtfx": 10},
    "no source": {"source": "nobody", "rtf": 0.1},
    "no corpus": {"corpus": "nothing", "rtf": 0.1},
    "Extra inputs": {"wre": 0.1},
    "greater than 0": {"wer": {"clean": 0}},
}


@pytest.mark.parametrize("message", BAD)
def test_a_data_file_that_is_wrong_is_refused(message, tmp_path):
    import yaml

    item = {"source": "a", "model": "small", "quant": "none", "device": "cpu", "corpus": "c"} | BAD[message]
    source = {"authors": "A", "title": "T", "where": "Table 1", "url": "https://example.org"}
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump({"sources": {"a": source}, "corpora": {"c": {"names": ["c"]}}, "figures": [item]}))
    with pytest.raises(ValidationError, match=message):
        published.load(path)
