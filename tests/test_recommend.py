import io
import json
import math
import subprocess
import sys
import tarfile
from dataclasses import replace

import pytest
from rich.console import Console

from helpers.compared import careful_grid, changed, compared, of_six_utterances, paper_grid, split_changed, uncompared
from helpers.synthetic import bad_result, grid, result
from quantlab.cli.recommend import main
from quantlab.records import storage
from quantlab.records.schema import Noise
from quantlab.report.recommend import Limits, NotRecordedError, SeveralCorporaError, recommend, show
from quantlab.report.summaries import summary
from quantlab.stats.estimate import Estimate

UNSUPPORTED = summary(bad_result("unsupported", "no CUDA kernels", cell_id="u", model="tiny").record)


def _names(items):
    return [item.name.split("-")[1] for item in items]


def _cells(findings):
    return {finding.cell.name.split("-")[1]: finding for finding in findings}


def test_a_cell_qualifies_only_with_its_whole_interval():
    found = recommend(careful_grid(), Limits(max_wer_increase=0.5))
    # upper ends: torch 0.48, quanto 0.44, the baseline 0; nf4 is 0.86 [0.46, 1.26]
    assert _names(found.qualifying) == ["torch_int8", "none", "quanto_int8"]
    assert set(_cells(found.underpowered)) == {"bnb_nf4"}
    assert set(_cells(found.rejected)) == {"hqq_int4", "hqq_int3", "quanto_int8_static"}
    assert found.undecided == ()
    assert _cells(found.rejected)["hqq_int3"].reasons == ("WER +2.81 points [+2.41, +3.21], allowed +0.5",)


@pytest.mark.parametrize(("limit", "standing"), [(1.27, "qualifies"), (1.2, "underpowered"), (0.45, "falls out")])
def test_the_limit_against_the_ends_of_the_interval(limit, standing):
    found = recommend(careful_grid(), Limits(max_wer_increase=limit))
    lists = {
        "qualifies": _names(found.qualifying),
        "underpowered": _cells(found.underpowered),
        "falls out": _cells(found.rejected),
    }
    assert [name for name, cells in lists.items() if "bnb_nf4" in cells] == [standing]


def test_fastest_is_claimed_only_where_the_intervals_lie_apart():
    found = recommend(careful_grid(), Limits(max_wer_increase=0.5))
    assert (found.best.name, found.claim) == ("nano-torch_int8-cpu", "fastest")
    # nf4 [0.84, 0.88] touches torch int8 [0.83, 0.85]: the smaller one is taken, and that is what is said
    found = recommend(careful_grid(), Limits(max_wer_increase=1.3))
    assert (found.best.name, found.claim) == ("nano-bnb_nf4-cpu", "smallest")
    assert "cannot be told apart in speed: nano-torch_int8-cpu 0.84× [0.83, 0.85], nano-bnb_nf4-cpu" in found.because


def test_what_was_timed_once_is_never_called_fastest():
    found = recommend(paper_grid(), Limits(max_wer_increase=5))
    assert found.claim == "smallest"
    assert found.best.name == "nano-hqq_int3-cpu"
    assert "protocol=careful would show it" in found.because
    assert _names(found.qualifying)[0] == "torch_int8"  # ordered all the same


def test_a_cell_alone_is_not_the_fastest_of_anything():
    found = recommend(careful_grid(), Limits(max_wer_increase=0.5, max_rtf=0.01))
    assert (found.claim, _names(found.qualifying)) == ("only", ["torch_int8"])


def test_the_baseline_itself_qualifies_with_an_increase_of_nothing():
    found = recommend(careful_grid(), Limits(max_wer_increase=0))
    assert found.best.name == "nano-none-cpu"
    assert found.because == "no quantized cell is shown to stay within the limits"


def test_across_models_the_absolute_rtf_decides():
    rows = careful_grid() + [
        compared(quant, ratio=(0.5, 0.5, 0.5), cell_id=f"t{quant}", baseline="tiny-base", model="tiny",
                 protocol__name="careful")
        for quant in ("none", "torch_int8")
    ]  # fmt: skip
    for index, item in enumerate(rows):
        for name, split in item.record.splits.items():
            rtf = split.rtf * (0.1 if item.model == "tiny" else 1.0)
            figures = {"generate_s": rtf * split.audio_s, "rtf": rtf, "rtf_ci95": (rtf * 0.99, rtf * 1.01)}
            rows[index] = split_changed(rows[index], name, **figures)
    found = recommend(rows, Limits())
    assert (found.best.name, found.claim) == ("tiny-torch_int8-cpu", "fastest")
    assert recommend(rows, Limits(model="nano")).best.name == "nano-torch_int8-cpu"


def test_size_memory_and_rtf_are_limits_too():
    found = recommend(careful_grid(), Limits(max_size_mb=4, max_wer_increase=5))
    assert _names(found.qualifying) == ["bnb_nf4", "hqq_int3"]
    assert _cells(found.rejected)["none"].reasons == ("size 13.1 MB, allowed 4",)
    found = recommend(careful_grid(), Limits(max_memory_mb=600))
    assert found.best is None
    assert "peak memory 612.0 MB, allowed 600" in found.because
    assert _names(recommend(careful_grid(), Limits(max_rtf=0.0128)).qualifying) == ["torch_int8", "none"]


def test_an_rtf_limit_within_the_interval_is_not_met():
    rows = careful_grid()
    rows[1] = split_changed(rows[1], rtf_ci95=(0.009, 0.011))
    found = recommend(rows, Limits(max_rtf=0.0105))
    assert _cells(found.underpowered)["torch_int8"].reasons == ("RTF 0.00976 [0.00900, 0.0110], allowed 0.0105",)


def test_an_rtf_limit_on_what_was_timed_once_says_so():
    found = recommend(paper_grid(), Limits(max_wer_increase=5, max_rtf=1))
    [note] = [note for note in found.notes if "RTF" in note]
    assert note.endswith(
        "cells was measured once, so that it is compared with 1 without an interval; protocol=careful gives one"
    )
    assert not any("RTF" in note for note in recommend(paper_grid(), Limits(max_wer_increase=5)).notes)


def test_an_rtf_measured_once_on_a_busy_machine_decides_nothing():
    busy = Noise(flags=("other processes took 83 % of the cores",))
    rows = [replace(row, record=row.record.model_copy(update={"noise": busy})) for row in paper_grid()]
    found = recommend(rows, Limits(max_wer_increase=5, max_rtf=0.001))
    assert found.best is None
    assert not [one for one in found.rejected if "RTF" in one.reasons[0]]
    [first, *_] = found.undecided
    assert first.reasons[0].endswith("but it was measured once, while other processes took 83 % of the cores")
    assert any(note.endswith("other processes took 83 % of the cores") for note in found.notes)


def test_one_split_alone_can_be_asked_for():
    found = recommend(careful_grid(), Limits(max_wer_increase=1.0, split="clean"))
    assert "hqq_int4" in _names(found.qualifying)  # +0.55 [0.15, 0.95] in clean, +1.48 in other
    assert _cells(found.rejected)["hqq_int3"].reasons == ("WER +1.56 points [+1.16, +1.96] in clean, allowed +1",)


def test_how_many_more_utterances_it_would_take():
    """mde ∝ 1/√n: at 320 utterances 0.571 points; nf4 is 0.36 points above 0.5, so n = 320 (0.571 / 0.36)²."""
    [finding] = recommend(careful_grid(), Limits(max_wer_increase=0.5)).underpowered
    more = 320 * ((0.4 * 2.8 / 1.96 / (100 * finding.cell.wer_increase.value - 0.5)) ** 2 - 1)
    assert finding.advice.startswith(f"about {math.ceil(more / 10) * 10} more utterances than the 320")
    by_split = recommend(careful_grid(), Limits(max_wer_increase=0.3, split="clean")).underpowered
    assert {finding.advice[:5] for finding in by_split} == {"about"}


def test_a_skewed_interval_of_few_utterances_promises_no_number_of_them():
    """The interval reaches the limit although the minimum detectable difference would not: formerly "0 more"."""
    rows = careful_grid()
    known = rows[6].comparison
    change = Estimate(0.001, (0.0, 0.02))
    evidence = replace(rows[6].evidence, comparison=replace(known, wer_difference=change, mde=0.003, utterances=12))
    rows[6] = replace(rows[6], evidence=evidence)
    advice = _cells(recommend(rows, Limits()).underpowered)["bnb_nf4"].advice
    assert advice == "more utterances are needed than the 12, but too few are known to say how many"


def test_a_difference_at_the_limit_cannot_be_settled():
    rows = careful_grid()
    increase = 100 * rows[6].difference().value
    found = recommend(rows, Limits(max_wer_increase=increase))
    assert _cells(found.underpowered)["bnb_nf4"].advice.startswith("too close to the limit")


def test_without_a_baseline_or_text_the_command_that_settles_it_is_given():
    lonely = uncompared("hqq_int4", model="tiny", cell_id="lonely")
    mute = uncompared("hqq_int4", model="small", cell_id="mute", model__weights="random")
    found = recommend([*paper_grid(), lonely, mute], Limits())
    by_model = {finding.cell.name.split("-")[0]: finding for finding in found.undecided}
    assert by_model["tiny"].reasons == ("no baseline (quant=none, all else equal) is recorded",)
    assert by_model["tiny"].command.startswith(
        "quantlab -m model=tiny quant=none,hqq_int4 device=cpu dataset=demo protocol=paper "
    )
    assert by_model["small"].reasons == ("random weights have no WER",)
    assert "model=small" in by_model["small"].command
    assert "weights" not in by_model["small"].command  # pretrained is the default


def test_the_command_names_a_folder_that_stays(tmp_path, capsys):
    one, other, packed = tmp_path / "one", tmp_path / "other", tmp_path / "packed.tar"
    storage.write(one, result("none", "a"))
    storage.write(other, result("hqq_int4", "b", model="tiny"))
    with tarfile.open(packed, "w") as archive:
        archive.add(other / "cells", "cells")
    for roots, told in (([one, other], f"output_dir={one}"), ([packed, one], f"output_dir={one}"), ([packed], "")):
        main([part for root in roots for part in ("--root", str(root))])
        [line] = [line for line in capsys.readouterr().out.splitlines() if "quant=none,hqq_int4" in line]
        assert told in line
        assert "quantlab-records" not in line
        assert ("output_dir" in line) == bool(told)


def test_what_failed_falls_out_with_its_reason():
    found = recommend([*careful_grid(), UNSUPPORTED], Limits())
    assert found.rejected[-1].reasons == ("unsupported: no CUDA kernels",)


def test_a_cell_timed_with_care_stands_for_its_quicker_record():
    old = [changed(item, cell_id=f"old{index}") for index, item in enumerate(paper_grid())]
    found = recommend([*careful_grid(), *old], Limits())
    assert (found.best.name, found.claim) == ("nano-torch_int8-cpu", "fastest")
    assert "7 records" in found.notes[0]


def test_a_cell_that_might_stop_at_several_margins_is_one_cell():
    grid = careful_grid()
    config = grid[2].record.config
    stops = config | {"protocol": config["protocol"] | {"stops": "beyond"}}
    found = recommend([*grid, changed(grid[2], cell_id="second", config=stops)], Limits())
    assert len([*found.qualifying, *found.rejected, *found.underpowered, *found.undecided]) == len(grid)
    assert found.notes[0].startswith("Left out: 1 record of cells also measured with another protocol.looks")


def test_nothing_qualifies_and_the_nearest_miss_is_named():
    found = recommend([item for item in careful_grid() if item.settings.quant.startswith("hqq")], Limits())
    assert (found.best, found.claim) == (None, None)
    assert found.because.startswith("nothing qualifies; nearest is nano-hqq_int4-cpu: WER +1.02")


def test_several_corpora_are_not_mixed():
    rows = [*paper_grid(), compared("none", dataset__name="librispeech")]
    with pytest.raises(SeveralCorporaError, match=r"several corpora \(demo; librispeech\).*--dataset"):
        recommend(rows)
    assert recommend(rows, Limits(dataset="demo")).best is not None


def _limited(limit, fingerprint, **changes):
    """Cells of the shipped corpus, cut to some utterances."""
    rows = [compared(quant, cell_id=f"{quant}{limit}", baseline=f"base{limit}", dataset__limit=limit, **changes)
            for quant in ("none", "torch_int8", "hqq_int4")]  # fmt: skip
    return [changed(item, fingerprints={"checkpoint": "c" * 64, "corpus": fingerprint}) for item in rows]


def test_corpora_of_one_name_are_not_mixed_either():
    rows = [*_limited(2, "2" * 64), *_limited(3, "3" * 64)]
    with pytest.raises(SeveralCorporaError, match=r"\(demo, limit=2, 222222; demo, limit=3, 333333\)"):
        recommend(rows)
    for chosen in ("333333", "demo, limit=3", "3" * 64):
        found = recommend(rows, Limits(dataset=chosen))
        cells = [*found.qualifying, *(one.cell for one in (*found.rejected, *found.underpowered, *found.undecided))]
        assert {cell.cell_id for cell in cells} == {"base3", "torch_int83", "hqq_int43"}


@pytest.mark.parametrize("limit", [6, None])
def test_of_six_utterances_the_true_reason_is_told_and_the_nearest_meets_the_other_limits(limit):
    small = {"quant__bits": 4.0, "quant__format": "uint4", "dataset__limit": limit}
    rows = [
        of_six_utterances("none", dataset__limit=limit),
        of_six_utterances("torch_int8", dataset__limit=limit),
        of_six_utterances("hqq_int4", **small),
    ]
    found = recommend(rows, Limits(max_size_mb=5))
    reason = "an interval needs 10 utterances, there are 6"
    assert found.because == f"nothing qualifies; nearest is nano-hqq_int4-cpu: {reason}"
    [finding] = found.undecided
    assert finding.reasons == (reason,)
    assert (finding.command is None) == (limit is None)
    assert "limit" not in (finding.command or "")  # with it there are six again
    assert (finding.advice is None) == (limit is not None)


def test_a_cell_that_failed_is_never_the_nearest():
    big = [item for item in careful_grid() if item.settings.quant == "none"]
    failed = summary(bad_result("failed", "no memory", cell_id="f").record)
    found = recommend([*big, failed], Limits(max_size_mb=5, max_memory_mb=5))
    assert "size 13.1 MB" in found.because


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"device": "cuda"}, "no cell with device 'cuda' is recorded; recorded: cpu"),
        ({"model": "nona"}, "recorded: nano"),
        ({"dataset": "librispeech"}, "recorded: demo"),
        ({"split": "othr"}, "recorded: clean; other"),
    ],
)
def test_what_is_not_recorded_is_said(asked, message):
    with pytest.raises(NotRecordedError, match=message):
        recommend(paper_grid(), Limits(**asked))


@pytest.mark.parametrize("name", ["max_size_mb", "max_rtf", "max_memory_mb", "max_wer_increase"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_limits_are_checked(name, value):
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})


# The command


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    grid(folder)
    return folder


def _main(*arguments, root):
    return main(["--root", str(root), *arguments])


def test_the_command_names_a_cell(root, capsys):
    assert _main("--max-wer-increase", "5", "--device", "cpu", root=root) == 0
    said = capsys.readouterr().out
    assert said.startswith("nano-")
    assert "Qualify" in said
    assert "\x1b" not in said


def test_json_is_one_object(root, capsys):
    assert _main("--max-wer-increase", "5", "--format", "json", root=root) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["best"]["cell_id"] in {cell["cell_id"] for cell in found["qualifying"]}
    assert {finding["standing"] for finding in found["rejected"]} == {"falls out"}
    assert set(found) >= {"best", "because", "qualifying", "rejected", "underpowered", "undecided", "limits"}


def test_nothing_qualifies_is_a_no(root, capsys):
    assert _main("--max-size-mb", "0.001", root=root) == 1
    assert "Nothing qualifies; nearest is" in capsys.readouterr().out


def test_nothing_recorded_is_a_no_and_says_how_to_measure(root, tmp_path, capsys):
    assert _main(root=tmp_path) == 1
    assert "measure some: quantlab -m" in capsys.readouterr().err
    assert _main("--device", "mps", root=root) == 1
    assert "no cell with device 'mps'" in capsys.readouterr().err
    assert _main("--device", "cpuu", root=root) == 1
    assert "no cell with device 'cpuu' is recorded; recorded: cpu" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-size-mb", "-1"], "a number above 0"),
        (["--max-size-mb", "nan"], "a number above 0"),
        (["--max-wer-increase", "-0.5"], "0 or more"),
        (["--max-rtf", "fast"], "'fast' is not a number"),
        (["--nonsense"], "no such option"),
    ],
)
def test_a_misuse_is_told_apart_from_a_no(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_several_corpora_are_a_misuse(tmp_path, capsys):
    storage.write(tmp_path, result("none", "a"))
    storage.write(tmp_path, result("none", "b", dataset__name="librispeech"))
    assert _main(root=tmp_path) == 2
    assert "--dataset" in capsys.readouterr().err


def test_a_broken_record_is_told_once_and_left_out(tmp_path, capsys):
    grid(tmp_path)
    (storage.write(tmp_path, result("none", "b2")) / "record.json").write_text("{")
    assert _main("--max-wer-increase", "5", root=tmp_path) == 0
    assert capsys.readouterr().err.count("b2") == 1


def test_help_has_an_example(capsys):
    assert main(["--help"]) == 0
    assert "quantlab recommend --max-size-mb 100 --max-wer-increase 0.5 --device cpu" in " ".join(
        capsys.readouterr().out.split()
    )


def test_the_console_script_knows_it(root):
    arguments = ("recommend", "--root", str(root), "--max-wer-increase", "5")
    command = [sys.executable, "-m", "quantlab", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("nano-")


def test_neither_torch_nor_mlflow_is_imported(root):
    program = (
        "import sys; from quantlab.cli.recommend import main; main(['--root', sys.argv[1]]);"
        "heavy = {'torch', 'transformers', 'mlflow', 'pandas', 'hydra', 'matplotlib'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    command = [sys.executable, "-c", program, str(root)]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr == ""


# How it reads


@pytest.mark.parametrize("width", [60, 80, 140])
def test_it_fits_and_a_command_to_copy_is_whole(width):
    found = recommend([*careful_grid(), uncompared("hqq_int4", model="tiny", cell_id="lonely")], Limits())
    lines = show.text(found, width).splitlines()
    command = found.undecided[0].command
    assert [line.strip() for line in lines if "quantlab -m" in line] == [command]
    assert all(len(line) <= width for line in lines if "quantlab -m" not in line)
    assert "0.84 ±0.01" in show.text(found, width)


def test_colour_in_a_terminal_and_brackets_are_no_markup():
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard")
    show.show(recommend([*careful_grid(), changed(UNSUPPORTED, reason="[red] [/x]")], Limits()), console)
    assert "\x1b[" in console.file.getvalue()
    assert "[red] [/x]" in console.file.getvalue()


def test_long_lists_are_counted_unless_all_is_asked_for():
    rows = careful_grid() + [
        compared("hqq_int3", "worse", cell_id=f"c{seed}", seed=seed, protocol__name="careful") for seed in range(30)
    ]
    found = recommend(rows, Limits())
    assert "… and" in show.text(found)
    assert show.text(found, everything=True).count("nano-hqq_int3-cpu") == 31


def test_random_weights_alone_are_no_recommendation():
    mute = [uncompared(quant, cell_id=quant, model__weights="random") for quant in ("none", "torch_int8")]
    found = recommend(mute)
    assert found.best is None
    assert len(found.undecided) == 2


def test_an_upper_end_a_hair_above_the_limit_is_not_rounded_onto_it():
    rows = careful_grid()
    change = rows[1].difference()
    comparison = replace(rows[1].comparison, wer_difference=replace(change, ci95=(change.ci95[0], 0.00502)))
    rows[1] = replace(rows[1], evidence=replace(rows[1].evidence, comparison=comparison))
    [finding] = [one for one in recommend(rows, Limits()).underpowered if "torch" in one.cell.name]
    assert "+0.502], allowed +0.5" in finding.reasons[0]


def test_a_time_that_did_not_settle_is_marked():
    plain = show.text(recommend(careful_grid(), Limits(max_wer_increase=5)))
    [line] = [line for line in plain.splitlines() if "nano-hqq_int3-cpu" in line]
    assert "1.70 ±0.20 ?" in line


@pytest.mark.parametrize("width", [24, 30, 40, 50, 60])
def test_where_it_is_narrow_whole_columns_go_and_no_figure_is_cut(width):
    found = recommend(careful_grid(), Limits(max_wer_increase=5))
    plain = show.text(found, width)
    table = plain[plain.index("───") : plain.index("Left out, ")].splitlines()[1:]
    whole = set(show.text(found, 200).split())
    figures = {word for line in table for word in line.split() if any(sign in word for sign in (".", "±"))}
    assert figures <= whole
    assert "…" not in plain
