"""A folder is there whole or not at all, it is checked before it gets its name, and no figure depends on it."""

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from helpers.exporting import ROOT, composed, configure, parsed
from helpers.quantizing import OnNoise
from quantlab.config.quant import CALIBRATED
from quantlab.config.schema import QuantConfig
from quantlab.data.speech import split_batches
from quantlab.engines import decoding
from quantlab.engines.clocks import Clocks
from quantlab.export import load
from quantlab.export import manifest as manifests
from quantlab.export.place import folder_of, folders, make, publish, staged
from quantlab.export.read import model_of
from quantlab.export.verified import CHECKED_BATCHES, DecodedBatch, check, evenly_spaced, export_verified
from quantlab.export.write import Made, write
from quantlab.measurement import cell
from quantlab.measurement.cell import run_cell
from quantlab.models import Checkpoint
from quantlab.models.companions import write_companions
from quantlab.quantization import registry
from quantlab.quantization.portable import portable
from quantlab.quantization.select import select
from quantlab.quantization.tensors import bytes_by_dtype
from quantlab.recogniser.assemble import assemble, prepared
from quantlab.recogniser.fingerprints import resolve
from quantlab.records.cell_id import hashed
from quantlab.util.errors import ConfigError, ExportError

CPU = torch.device("cpu")


def test_where_the_model_goes_does_not_change_the_cell():
    without = composed().model_copy(update={"quant": parsed("hqq_int4")})
    ids = {hashed(config.model_dump(mode="json"), {}, {}) for config in (without, configure("hqq_int4", "anywhere"))}
    assert len(ids) == 1


@pytest.mark.parametrize("name", ["../../outside", "/etc", "a\nb", "x" * 4000, "..", ""])
def test_a_hostile_name_leads_nowhere_else(name, tmp_path):
    config = configure("none", tmp_path / "exported")
    hostile = config.model_copy(update={"model": config.model.model_copy(update={"name": name})})
    folder = folder_of(hostile, "0123456789abcdef")
    assert folder.resolve().parent == (tmp_path / "exported").resolve()
    assert folder.name.endswith("-0123456789abcdef")
    folder.mkdir(parents=True)  # any file system takes it
    assert folders(str(tmp_path / "exported"), "0123456789abcdef") == [folder]


def test_nothing_is_left_of_a_block_that_fails(tmp_path):
    with pytest.raises(IsADirectoryError), staged(str(tmp_path / "new")) as folder:
        folder.read_bytes()
    assert list((tmp_path / "new").iterdir()) == []


def test_a_finished_folder_takes_the_place_of_an_older_one(tmp_path):
    final = tmp_path / "nano-none-cpu-1"
    for content in ("old", "new"):
        with staged(str(tmp_path)) as folder:
            (folder / "file").write_text(content)
            publish(folder, final)
        assert (final / "file").read_text() == content
    assert list(tmp_path.iterdir()) == [final]


HOLD = """
import sys, time
from quantlab.export.place import staged
with staged(sys.argv[1]) as folder:
    (folder / "half").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_goes_and_what_another_works_on_stays(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as dead,
        subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as alive,
    ):
        assert (dead.stdout.readline(), alive.stdout.readline()) == (b"ready\n", b"ready\n")
        dead.kill()
        dead.wait()
        with staged(str(tmp_path)):
            pids = {int(path.name.split(".")[-3]) for path in tmp_path.iterdir()}
        alive.kill()
    assert pids == {alive.pid, os.getpid()}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_said_before_anything_is_measured(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be"):
        make(tmp_path / "exported")


def test_a_file_in_the_folders_place_is_said_before_a_grid_and_costs_a_cell_no_figure(tmp_path):
    (tmp_path / "exported").write_text("a file")
    with pytest.raises(ConfigError, match=r"export\.dir=.* cannot be made: it is a file; name a folder"):
        make(tmp_path / "exported")
    result = run_cell(configure("none", tmp_path / "exported"))
    assert result.record.status == "ok"
    assert "cannot be made" in result.exported.problem


def test_a_disk_that_is_full_from_the_start_costs_no_figure(tmp_path, monkeypatch):
    """The limit is so low that not even what goes beside the model can be written, or the file of another engine."""
    config = configure("ggml_q8_0", tmp_path / "exported")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    monkeypatch.setattr("quantlab.measurement.cell._run", lifted(before, cell._run))
    try:
        result = run_cell(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.record.status == "ok"
    assert "too large" in result.exported.problem
    assert list((tmp_path / "exported").iterdir()) == []


def lifted(limits, run):
    """The disk that is full is the export's; the one with temporary files is not."""

    def run_on(*given):
        if given[-1] is None:  # no folder for the model could be made
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        return run(*given)

    return run_on


def test_a_full_disk_costs_the_model_and_not_the_figures(tmp_path):
    """The limit on a file's size stands for a disk that fills up while the tensors are written."""
    config = configure("torch_int8", tmp_path / "exported")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, before[1]))
    try:
        result = run_cell(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.record.status == "ok"
    assert result.record.splits["other"].utterances == 2
    assert "too large" in result.exported.problem
    assert list((tmp_path / "exported").iterdir()) == []


@pytest.fixture(scope="module")
def assembled(tmp_path_factory):
    """A model that is proven, what it hears, and the folder that it was written to."""
    folder = tmp_path_factory.mktemp("staging")
    config = resolve(configure("quanto_int8_static", tmp_path_factory.mktemp("exported")))
    with prepared(config) as device:
        made = assemble(config, device, Clocks(device), folder)
        heard = [
            DecodedBatch(piece.speech, made.decoder.generate(piece.speech)[0])
            for piece in split_batches(made.speech.measured, made.decoder.decoding.batch_size)
        ]
        write(folder, Made("0123456789abcdef", config, made.decoder.decoding, made.portable))
    return config, made, heard, folder


def test_what_calibration_decided_comes_back(assembled):
    """quanto's modules quantize what they put out until calibration finds it of no use; no tensor tells of it."""
    _, made, _, folder = assembled
    found = manifests.read(folder)
    again = model_of(folder, found)
    was, now = (
        [len(model.get_submodule(name)._forward_hooks) for name in made.portable.modules]
        for model in (made.decoder.model, again)
    )
    assert was == now
    assert 0 in now
    assert [found.traits[name]["quantizes_output"] for name in found.modules] == [bool(count) for count in now]
    assert bytes_by_dtype(again) == made.receipt.bytes_by_dtype
    with pytest.raises(ExportError, match="quantizes_output"):
        model_of(folder, found.model_copy(update={"traits": {}}))


def test_a_model_that_hears_something_else_is_not_exported(assembled, tmp_path):
    config, made, heard, folder = assembled
    check(config, made, folder, CPU, heard)
    other = [replace(heard[0], tokens=[[1, 2, 3], *heard[0].tokens[1:]]), *heard[1:]]
    with pytest.raises(ExportError, match=f"other texts than before for {heard[0].speech.ids[0]}"):
        check(config, made, folder, CPU, other)
    with staged(str(tmp_path)) as staging:
        for path in folder.iterdir():
            (staging / path.name).write_bytes(path.read_bytes())
        done = export_verified(config, "0123456789abcdef", made, staging, CPU, other)
    assert "other texts than before" in done.problem
    assert list(tmp_path.iterdir()) == []


def test_a_scale_that_got_lost_is_heard(assembled):
    """The check finds a tensor that is not what it was: the reloaded model is the folder's, not the cell's."""
    from safetensors.torch import load_file, save_file

    config, made, heard, folder = assembled
    good = (folder / manifests.WEIGHTS).read_bytes()
    tensors = load_file(folder / manifests.WEIGHTS)
    scales = [name for name in tensors if name.endswith("weight._scale")]
    save_file(tensors | {name: tensors[name] * 2 for name in scales}, folder / manifests.WEIGHTS)
    said = manifests.Manifest.model_validate_json((folder / manifests.NAME).read_bytes())
    (folder / manifests.NAME).write_text(said.model_copy(update={"files": manifests.digests(folder)}).model_dump_json())
    try:
        with pytest.raises(ExportError, match="other texts than before"):
            check(config, made, folder, CPU, heard)
    finally:
        (folder / manifests.WEIGHTS).write_bytes(good)
        (folder / manifests.NAME).write_text(said.model_dump_json())


@pytest.mark.parametrize("count", [1, 2, 4, 5, 50])
def test_the_batches_that_are_checked_reach_from_the_first_to_the_last(count):
    chosen = evenly_spaced(range(count))
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, CHECKED_BATCHES)
    assert (chosen[0], chosen[-1]) == (0, count - 1)


def tiny(dtype):
    config = WhisperConfig(
        d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=128, decoder_ffn_dim=128, vocab_size=96, num_mel_bins=8, max_source_positions=50,
        max_target_positions=16, pad_token_id=0, bos_token_id=1, eos_token_id=1, decoder_start_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return WhisperForConditionalGeneration(config).eval().to(dtype)


LIBRARIES = {
    "none": {"scheme": "none"},
    "quanto": {"bits": 8, "format": "int8"},
    "hqq": {"bits": 4, "group_size": 32},
    "bnb": {"format": "nf4"},
    "torchao": {"format": "int8", "scheme": "weight-only"},
    "gptq": {"bits": 3, "group_size": 32, "act_order": True, "damping": 0.01},
    "awq": {"bits": 3, "group_size": 32},
    "smoothquant": {"bits": 8, "format": "int8", "scheme": "dynamic", "granularity": "per-channel", "smoothing": 0.5},
}


def test_all_that_choose_weights_by_calibration_data_are_among_them():
    assert set(CALIBRATED) <= LIBRARIES.keys()


@pytest.mark.parametrize(
    ("library", "dtype"),
    [(name, getattr(torch, dtype)) for name in LIBRARIES for dtype in registry.dtypes(registry.get(name))],
)
def test_every_tensor_keeps_its_type_and_its_bits(library, dtype, tmp_path):
    model = tiny(dtype)
    quant = QuantConfig(name=library, library=library, **LIBRARIES[library])
    quantizer = registry.get(library)
    names, _ = select(model, quant)
    extractor = WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    write_companions(Checkpoint(model, extractor, None), tmp_path, "en")
    model = quantizer.setup(model, quant, names, CPU, OnNoise())
    held = portable(model, names, quantizer)
    config = resolve(composed("calibration.source=disjoint").model_copy(update={"quant": quant}))
    write(tmp_path, Made("0123456789abcdef", config, decoding(model, config), held))
    again, processor = load(tmp_path)
    assert isinstance(processor, WhisperFeatureExtractor)
    assert again.dtype is dtype
    assert bytes_by_dtype(again) == bytes_by_dtype(model)
    assert (again.proj_out.weight is again.model.decoder.embed_tokens.weight) == (not quant.head)
    mel = torch.randn(1, 8, 100, generator=torch.manual_seed(1)).to(dtype)
    ids = torch.tensor([[2, 5, 7]])
    with torch.no_grad():
        was, now = (item(mel, decoder_input_ids=ids).logits for item in (model, again))
    assert torch.equal(was, now)


def test_tensors_are_those_from_before_a_library_repacks_them():
    """bitsandbytes does so at the first call, on a CPU with AVX512-BF16; here by hand, as this CPU may have none."""
    from quantlab.quantization.backends import bnb

    model = tiny(torch.float32)
    quant = QuantConfig(name="bnb", library="bnb", format="nf4", double_quant=True)
    model = bnb.setup(model, quant, ("model.encoder.layers.0.fc1",), CPU, print)
    held = portable(model, ("model.encoder.layers.0.fc1",), bnb)
    before = {name: tensor.clone() for name, tensor in held.tensors().items()}
    weight = model.get_submodule("model.encoder.layers.0.fc1").weight
    repack = bnb._bitsandbytes().nn.modules._convert_weight_packed_for_cpu
    weight.data, weight.quant_state = repack(weight.data, weight.quant_state)
    after = held.tensors()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_random_weights_are_exported_without_a_tokenizer(tmp_path):
    nano = ROOT / "quantlab" / "assets" / "nano"
    more = ("model.weights=random", f"model.path={nano}", "model.random_tokens=4", "dataset.limit=1")
    result = run_cell(configure("hqq_int4", tmp_path, *more))
    assert result.exported.problem is None
    assert not (Path(result.exported.folder) / "tokenizer.json").exists()
    model, processor = load(result.exported.folder)
    assert isinstance(processor, WhisperFeatureExtractor)
    features = processor([0.0] * 16000, sampling_rate=16000, return_tensors="pt").input_features
    assert model.generate(features, max_new_tokens=3).shape[0] == 1
