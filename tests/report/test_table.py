import io
import re
from dataclasses import replace

import pytest
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from helpers.compared import careful_grid, changed, paper_grid
from helpers.synthetic import bad_result, result
from quantlab.records.schema import Noise, Problem
from quantlab.report.columns import Column, columns
from quantlab.report.summaries import summary
from quantlab.report.table import _Filled, _table, show, text
from quantlab.report.wording import percent

ROWS = [summary(result(quant).record) for quant in ("none", "torch_int8", "quanto_int8_static", "hqq_int3")] + [
    summary(bad_result("unsupported", "torch dynamic int8 has no CUDA kernels; use device=cpu", device="cuda").record),
    summary(bad_result("failed", "left 4 of 73 modules alone", "bnb_nf4", cell_id="bad2").record),
]


def _terminal(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard")


def test_every_figure_in_its_unit():
    lines = text(ROWS).splitlines()
    assert lines[0].split() == "WER % WER % CER % CER % size smaller".split()
    assert lines[1].split() == "model quant device clean other clean other RTF MB by % status".split()
    # WER 60/1280 and 211/1280; CER half of each; RTF (0.0219 + 0.02409) / 2; 13.1 MB × 0.29
    assert "nano hqq_int3 cpu 4.69 16.48 2.34 8.24 0.0230 3.8 71.0 ok".split() == lines[6].split()
    assert lines[7].split() == "nano torch_int8 cuda – – – – – – – unsupported".split()


def test_what_did_not_end_well_is_explained_below():
    lines = text(ROWS).splitlines()
    assert "unsupported: nano-torch_int8-cuda: torch dynamic int8 has no CUDA kernels; use device=cpu" in lines
    assert "failed: nano-bnb_nf4-cpu: left 4 of 73 modules alone" in lines


def test_rows_keep_their_order():
    quants = [line.split()[1] for line in text(ROWS[::-1]).splitlines()[3:9]]
    assert quants == ["bnb_nf4", "torch_int8", "hqq_int3", "quanto_int8_static", "torch_int8", "none"]


@pytest.mark.parametrize("width", [66, 80, 100, 120, 200])
def test_it_fits_the_terminal_and_no_figure_is_cut(width):
    console = _terminal(width)
    show(ROWS, console)
    plain = text(ROWS, width)
    assert all(len(line) <= width for line in plain.splitlines())
    for figure in ("4.69", "16.48", "0.0230", "3.8", "unsupported"):
        assert figure in plain
        assert figure in console.file.getvalue()
    assert ("2.34" in plain) == (width >= 100)
    assert ("too narrow: CER % clean, CER % other" in plain) == (width < 100)


@pytest.mark.parametrize("width", [4, 8, 9, 30])
def test_lines_are_those_of_richs_own_table(width):
    """With letters two columns wide, titles of one and two lines, and a name that is shortened to `width`."""
    names = _Filled(
        Column(("model",), str, words=True), [Text("nano"), Text("日本語のモデル"), Text("a name: é", style="dim")]
    )
    figures = _Filled(
        Column(("WER %", "clean"), str), [Text("4.69"), Text("–", style="dim"), Text("116.48", style="bold")]
    )
    status = _Filled(Column(("status",), str, words=True), [Text("ok", style="green"), Text("failed"), Text("ok")])
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style="")
    for one, wide, justify in ((names, width, "left"), (figures, 6, "right"), (status, 6, "left")):
        table.add_column("\n".join(one.title), justify=justify, no_wrap=True, width=wide)
    for row in zip(names.cells, figures.cells, status.cells, strict=True):
        table.add_row(*row)

    def printed(shown):
        console = Console(file=io.StringIO(), width=200)
        console.print(shown, no_wrap=True)
        return [line.rstrip() for line in console.file.getvalue().splitlines()]

    assert printed(_table([names, figures, status], {names: width})) == printed(table)


def test_a_verdict_that_tells_nothing_is_explained_at_the_table():
    """Once, wherever it stands, and nowhere else."""
    plain = text(CAREFUL)
    told = [line for line in plain.splitlines() if line.startswith("underpowered: ")]
    meant = (
        "too few utterances to show either a difference from the baseline (Holm-corrected over all comparisons) or an "
        "increase of WER below 0.5 points"
    )
    assert told == [f"underpowered: {meant}"]
    decided = [row for row in CAREFUL if row.verdict != "underpowered"]
    assert "underpowered" not in text(decided)


@pytest.mark.parametrize(("width", "gone"), [(80, "smaller by %"), (79, "smaller by %, device (cpu)")])
def test_in_a_usual_terminal_the_status_and_the_verdict_stay_and_what_goes_is_told(width, gone):
    rows = paper_grid()
    table, _, rest = text(rows, width).partition("Left out, the terminal is too narrow: ")
    titles = table.splitlines()[1].split()
    assert [word for word in titles if word in ("model", "quant", "verdict", "status")] == titles[:2] + titles[-2:]
    said = " ".join(rest.split())
    assert said.startswith(f"CER % clean, CER % other, {gone}. All columns: a terminal ")
    wide = int(said.partition("a terminal ")[2].split()[0])
    assert "Left out" not in text(rows, wide)
    assert "Left out" in text(rows, wide - 1)
    assert "or the command | less -S" in said


def test_a_pipe_gets_everything_however_wide_and_no_colours():
    stream = io.StringIO()
    show(ROWS, Console(file=stream, width=40))
    assert stream.getvalue() == text(ROWS)
    assert "\x1b" not in stream.getvalue()
    assert "2.34" in stream.getvalue()


def test_the_best_of_a_column_is_bold_if_it_is_known_exactly_or_with_an_interval():
    console = _terminal(120)
    show(ROWS, console)
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith("nano")]
    bold = {line.split()[1]: "\x1b[1m" in line for line in lines[:4]}
    assert bold == {"none": False, "torch_int8": False, "quanto_int8_static": False, "hqq_int3": True}
    assert "\x1b[1m3.8" in lines[3]


def test_nothing_is_bold_where_the_intervals_leave_another_level_with_it():
    console = _terminal(200)
    show(careful_grid(), console)
    lines = {line.split()[1]: line for line in console.file.getvalue().splitlines() if line.startswith("nano")}
    bold = {quant: re.findall(r"\x1b\[1m *([\d.]+)", line) for quant, line in lines.items()}
    # WER: torch and quanto overlap with none; time: bnb overlaps with torch; CER: half of the WER, the same intervals
    assert bold == {quant: [] for quant in lines} | {"hqq_int3": ["3.8", "71.0"]}


def test_a_single_row_is_no_competition():
    console = _terminal(120)
    show(ROWS[:1], console)
    assert "\x1b[1m" not in console.file.getvalue()


def test_no_colour_without_colours(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    show(ROWS, console)
    assert "\x1b[3" not in console.file.getvalue()


def test_what_tells_cells_apart_becomes_a_column():
    same = [summary(result("hqq_int4").record), summary(result("hqq_int4", "b", quant__group_size=16).record)]
    titles = [" ".join(column.title) for column in columns(same)]
    assert "group size" in titles
    assert "seed" not in titles
    assert "group size" not in [" ".join(column.title) for column in columns(ROWS)]


def test_splits_of_any_name_and_number():
    one = summary(result("none").record)
    one = changed(one, splits={"test-noisy": one.record.splits["clean"]})
    assert "test-noisy" in text([one])
    titles = [" ".join(column.title) for column in columns([one, ROWS[0]])]
    assert titles[3:6] == ["WER % test-noisy", "WER % clean", "WER % other"]


def test_brackets_in_a_reason_are_no_markup():
    odd = summary(bad_result("failed", "shape [64, 64] [/nonsense] [red]").record)
    assert "shape [64, 64] [/nonsense] [red]" in text([odd])


def test_random_weights_have_no_wer_but_a_speed():
    record = result("none").record
    splits = {name: split.model_copy(update={"wer": None, "cer": None}) for name, split in record.splits.items()}
    line = text([summary(record.model_copy(update={"splits": splits}))]).splitlines()[3]
    assert line.split() == "nano none cpu – – – – 0.0127 13.1 0.0 ok".split()


CAREFUL = careful_grid()


def _line(plain, quant):
    return next(line for line in plain.splitlines() if quant in line.split())


def test_a_verdict_and_the_time_against_the_baseline_with_its_reach():
    plain = text(CAREFUL)
    assert plain.splitlines()[0].split()[-4:] == "time size smaller WER".split()
    assert _line(plain, "torch_int8").split()[-7:] == "0.84 ±0.01 faster 5.6 57.0 tied ok".split()
    assert "1.00 ±0.01  no difference" in plain
    assert _line(plain, "bnb_nf4").split()[-2:] == ["underpowered", "ok"]


def test_what_was_timed_once_has_no_such_columns():
    plain = text(paper_grid())
    assert "×base" not in plain
    assert "verdict" in plain


def test_a_time_that_did_not_settle_is_marked_and_told_below():
    plain = text(CAREFUL)
    assert "1.70 ±0.20 ?" in _line(plain, "hqq_int3")
    assert "not converged: nano-hqq_int3-cpu: 1.70 [1.50, 1.90] × base after 12 blocks" in plain.splitlines()
    assert "?" not in _line(plain, "torch_int8")


def test_noise_is_told_below_once_for_cells_that_differ_in_a_number_alone():
    flags = ["throttled", *(f"other processes took {60 + index} % of the cores" for index in range(1, 7))]
    rows = [changed(item, noise=Noise(flags=(flag,))) for item, flag in zip(careful_grid(), flags, strict=True)]
    lines = [line for line in text(rows).splitlines() if line.startswith("noise")]
    assert lines == [
        "noise: nano-none-cpu: throttled",
        "noise: 6 cells: other processes took 61 to 66 % of the cores",
    ]


@pytest.mark.parametrize(("width", "shown"), [(80, "±0.01"), (100, "smaller"), (120, "nano "), (140, "no difference")])
def test_what_matters_most_stays_where_it_is_narrow(width, shown):
    plain = text(CAREFUL, width)
    assert all(len(line) <= width for line in plain.splitlines())
    for figure in ("underpowered", "0.84 ±0.01", "12.42", "0.00976", "13.1", shown):
        assert figure in plain
    assert ("no difference" in plain) == (width >= 140)


def test_with_cells_that_failed_the_verdict_outlives_the_status_column():
    rows = [*CAREFUL, summary(bad_result("unsupported", "no kernels", device="cuda").record)]
    plain = text(rows, 80)
    assert all(len(line) <= 80 for line in plain.splitlines())
    assert "underpowered" in plain
    assert "unsupported: nano-torch_int8-cuda: no kernels" in plain


def test_words_are_coloured_by_what_they_mean():
    console = _terminal(160)
    show(CAREFUL, console)
    said = console.file.getvalue()
    assert "\x1b[31mworse" in said
    assert "\x1b[33mnot converged" in said
    assert "\x1b[32mfaster" in said


def test_what_rounds_to_nothing_has_no_sign():
    assert [percent(share, 1) for share in (-0.0004, -0.0006, 0.0)] == ["0.0", "-0.1", "0.0"]


def _problem(kind, measured=False, utterance="a.wav"):
    return Problem(utterance=utterance, split="clean", kind=kind, detail="why", measured=measured)


def test_utterances_with_problems_are_counted_by_whether_they_are_in_the_figures():
    left_out = (_problem("unreadable"), _problem("unreadable", utterance="b.wav"), _problem("too long"))
    heard = (_problem("silence", measured=True),)
    records = [result(quant).record for quant in ("none", "hqq_int4")]
    some = [summary(record.model_copy(update={"problems": left_out + heard})) for record in records]
    lines = text(some).splitlines()
    named = f"named in cells/{records[0].cell_id}/record.json"
    assert f"not measured: demo: 3 utterances (2 unreadable, 1 too long), {named}" in lines
    assert f"doubtful: demo: 1 utterance (1 silence), {named}" in lines
    assert not any(records[1].cell_id in line for line in lines), "once for a corpus"


@pytest.mark.parametrize(("rows", "width"), [(ROWS, 40), (CAREFUL, 50)])
def test_where_it_is_narrow_error_rates_and_verdict_are_left(rows, width):
    table, told, _ = text(rows, width).partition("Left out, ")
    assert told
    assert all(word in table for word in ("quant", "WER %", "clean", "other"))
    assert ("verdict" in table) == any(row.verdict is not None for row in rows)


@pytest.mark.parametrize("width", range(20, 66, 5))
@pytest.mark.parametrize("rows", [ROWS, CAREFUL], ids=["plain", "careful"])
def test_where_it_is_narrow_whole_columns_go_and_no_figure_is_cut(rows, width):
    table, told, _ = text(rows, width).partition("Left out, ")
    whole = {word for line in text(rows).splitlines() for word in line.split()}
    figures = [word for line in table.splitlines() for word in line.split() if word[0].isdigit() or "." in word]
    assert told
    assert set(figures) <= whole
    assert all(len(line) <= width for line in table.splitlines())


def test_a_margin_other_than_the_usual_one_is_said():
    rows = careful_grid()
    assert "tied: " not in text(rows)
    wide = [
        row
        if row.comparison is None
        else replace(row, evidence=replace(row.evidence, comparison=replace(row.comparison, margin=0.2)))
        for row in rows
    ]
    assert "tied: an increase of WER below 20 points is shown, the margin of this report" in text(wide)
