import pytest
from matplotlib.collections import PathCollection

from helpers.compared import careful_grid, changed, compared, paper_grid, uncompared
from helpers.synthetic import QUANTS, split_result
from quantlab.report import plots, study


def _group(rows):
    [group] = study.groups(rows)
    return group


def _texts(figure):
    [axes] = figure.axes
    return [text.get_text() for text in axes.texts]


def _marks(axes):
    return [part for part in axes.collections if isinstance(part, PathCollection)]


def test_every_group_has_its_plots():
    found = plots.figures([*careful_grid(), *paper_grid()])
    assert sorted(found) == [
        f"nano_on_demo_protocol_{protocol}/{name}.png"
        for protocol in ("careful", "paper")
        for name in ("verdicts", "wer_against_speed", "wer_increase")
    ]
    assert all(content.startswith(b"\x89PNG\r\n") for content in found.values())


def test_each_cell_is_where_its_figures_say_and_axes_name_their_units():
    figure = plots.wer_against_speed(_group(careful_grid()))
    [axes] = figure.axes
    assert "RTF" in axes.get_xlabel()
    assert axes.get_ylabel().endswith("%")
    places = [tuple(mark.get_offsets()[0]) for mark in _marks(axes)]
    int3 = ((0.0219 + 0.02409) / 2, 100 * (60 + 211) / 2560)
    assert any(place == pytest.approx(int3) for place in places)
    assert sorted(_texts(figure)) == sorted(QUANTS)


def test_marks_are_as_large_as_the_models():
    [axes] = plots.wer_against_speed(_group(careful_grid())).axes
    areas = [mark.get_sizes()[0] for mark in _marks(axes)]
    assert max(areas) == areas[0] > 3 * min(areas)  # the baseline is drawn first; int3 is 0.29 of it


def test_the_pareto_front_is_what_nothing_beats_in_both():
    # torch int8 is the fastest, none the most accurate; all else is slower than both and worse than none
    placed = [plots._Placed(row, row.rtf, row.wer, 1) for row in careful_grid()]
    assert [cell.row.settings.quant for cell in plots.pareto(placed)] == ["torch_int8", "none"]


def test_bars_have_the_length_of_the_increase():
    [axes] = plots.wer_increase(_group(careful_grid())).axes
    lengths = sorted(patch.get_width() for patch in axes.patches)
    assert lengths[-1] == pytest.approx(100 * 52 / 1280)
    assert len(lengths) == 12
    assert "percentage points" in axes.get_xlabel()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["clean", "other"]


def test_the_margin_and_every_verdict_are_in_the_forest_plot():
    [axes] = plots.verdicts(_group(careful_grid())).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert set(labels) == {"margin, 0.5 points", "tied", "worse", "underpowered"}
    assert axes.get_yticklabels()[-1].get_text() == "hqq_int3"


def test_verdicts_differ_in_shape_as_well_as_in_colour():
    assert len({marker for _, marker in plots._VERDICTS.values()}) == len(plots._VERDICTS)


def test_what_was_not_compared_has_no_empty_plots():
    rows = [uncompared("none"), uncompared("torch_int8")]
    assert plots.figures(rows[:1]) == {}
    assert plots.figures([changed(row, splits={"clean": split_result(None, 0.01)}) for row in rows]) == {}


def test_of_very_many_cells_the_worst_are_shown_and_it_is_said():
    rows = [compared("none")] + [compared("hqq_int3", "worse", cell_id=f"c{seed}", seed=seed) for seed in range(90)]
    [axes] = plots.verdicts(_group(rows)).axes
    assert len(axes.get_yticklabels()) == 40
    assert "the 40 worst of 90" in axes.get_title()
    assert len(_texts(plots.wer_against_speed(_group(rows)))) < 10


def test_of_very_many_groups_four_are_drawn():
    rows = [
        compared(quant, cell_id=f"{quant}{n}", baseline=f"base{n}", model=f"m{n}")
        for n in range(30)
        for quant in ("none", "hqq_int3")
    ]
    assert len(plots.figures(rows)) == 12
