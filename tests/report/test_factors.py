"""Effects read off records, where the errors of every cell were written down by hand."""

import itertools

import pytest

from helpers.synthetic import adding_up, result
from quantlab.analysis.evidence import evidence
from quantlab.records import storage
from quantlab.records.several import Stored
from quantlab.report import markdown
from quantlab.report.factors import choice_effects
from quantlab.report.summaries import summaries

UTTERANCES = 320
WORDS = 8 * UTTERANCES


def write(root, cell_id, errors, minute=0, quant="hqq_int4", **changes):
    """A cell in which the first `errors` utterances lack a word."""
    cell = result(quant, cell_id=cell_id, minute=minute, **changes)
    heard = [
        item.model_copy(
            update={"substitutions": 0, "deletions": int(index < errors), "insertions": 0, "hits": 8 - (index < errors)}
        )
        for index, item in enumerate(cell.utterances)
    ]
    storage.write(root, adding_up(cell.model_copy(update={"utterances": tuple(heard)})))


def grid(root, errors, **changes):
    """The baseline, and a cell for each (bits, group size) with its errors."""
    write(root, "base", 10, quant="none", **changes)
    for (bits, group_size), wrong in errors.items():
        keys = {"quant__bits": bits, "quant__group_size": group_size, "quant__granularity": "per-group"}
        write(root, f"b{bits:g}g{group_size}", wrong, **keys, **changes)
    return [row for row in summaries(root) if row.ok]


ERRORS = {(8, 64): 10, (8, 32): 12, (4, 64): 30, (4, 32): 20, (2, 64): 200, (2, 32): 100}


def test_each_level_against_the_first_over_its_pairs(tmp_path):
    effects = choice_effects(grid(tmp_path, ERRORS))
    assert [(item.choice, item.level, item.reference) for item in effects] == [
        ("bits", "4", "8"),
        ("bits", "2", "8"),
        ("granularity", "groups of 32", "groups of 64"),
    ]
    four, two, fine = (item.effect for item in effects)
    assert four.mean.value * WORDS == pytest.approx((20 + 8) / 2)
    assert two.mean.value * WORDS == pytest.approx((190 + 88) / 2)
    assert fine.mean.value * WORDS == pytest.approx((2 - 10 - 100) / 3)
    assert (fine.smallest * WORDS, fine.largest * WORDS) == pytest.approx((-100, 2))
    assert [item.effect.pairs for item in effects] == [2, 2, 3]
    assert all(item.alone == () for item in effects)
    assert all(item.p_holm >= item.effect.p for item in effects)
    assert min(item.effect.p for item in effects) * 3 == pytest.approx(min(item.p_holm for item in effects))


def test_one_pair_is_the_difference_that_the_evidence_of_the_cell_gives(tmp_path):
    """With one pair alone, the effect is a comparison of two cells, which another module makes as well."""
    some = {key: ERRORS[key] for key in [(8, 64), (4, 64), (8, 32)]}
    [bits, _] = choice_effects(grid(tmp_path, some))
    assert bits.alone == ("b8g32",)
    reference = storage.read(tmp_path, "b8g64")
    as_baseline = reference.model_copy(
        update={"config": reference.config | {"quant": reference.config["quant"] | {"name": "none"}}}
    )
    compared = evidence([Stored(tmp_path, item) for item in (as_baseline, storage.read(tmp_path, "b4g64"))])[
        "b4g64"
    ].comparison
    assert bits.effect.mean == compared.wer_difference
    assert bits.effect.p == compared.p


def test_cells_without_a_partner_do_not_count_and_are_named(tmp_path):
    some = {key: value for key, value in ERRORS.items() if key != (2, 32)}
    four, two, fine = choice_effects(grid(tmp_path, some))
    assert (four.alone, two.alone, fine.alone) == ((), ("b8g32",), ("b2g64",))
    assert two.effect.mean.value * WORDS == pytest.approx(190)
    assert fine.effect.mean.value * WORDS == pytest.approx((2 - 10) / 2)


def test_where_nothing_changed_the_interval_has_a_width(tmp_path):
    same = dict.fromkeys(itertools.product([8, 4], [64, 32]), 10)
    for item in choice_effects(grid(tmp_path, same)):
        assert item.effect.mean.value == 0
        assert item.effect.mean.ci95 == pytest.approx((-3 / WORDS, 3 / WORDS))
        assert item.p_holm == 1


def test_of_cells_chosen_alike_the_latest_counts(tmp_path):
    found = grid(tmp_path, ERRORS)
    before = choice_effects(found)
    write(tmp_path, "again", 300, minute=-1 % 60, quant__bits=4, quant__group_size=32, quant__granularity="per-group")
    four, *_ = choice_effects([row for row in summaries(tmp_path) if row.ok])
    assert four.effect.mean.value * WORDS == pytest.approx((20 + 288) / 2)
    assert before[0].effect.mean.value * WORDS == pytest.approx((20 + 8) / 2)


def test_a_format_is_a_choice_only_where_bits_do_not_say_it(tmp_path):
    write(tmp_path, "base", 10, quant="none")
    for cell_id, kind, head in [
        ("a", "int8", False),
        ("b", "float8", False),
        ("c", "int8", True),
        ("d", "float8", True),
    ]:
        write(tmp_path, cell_id, 20, quant="quanto_int8", quant__format=kind, quant__head=head)
    effects = choice_effects([row for row in summaries(tmp_path) if row.ok])
    assert [(item.choice, item.reference, item.level) for item in effects] == [
        ("format", "float8", "int8"),
        ("head", "False", "True"),
    ]


def test_one_choice_or_another_baseline_is_no_design(tmp_path):
    only_bits = {key: value for key, value in ERRORS.items() if key[1] == 64}
    assert choice_effects(grid(tmp_path, only_bits)) == []
    write(tmp_path, "other", 20, quant__group_size=32, quant__granularity="per-group", dataset__limit=40)
    assert choice_effects([row for row in summaries(tmp_path) if row.ok]) == []


def test_the_section_is_in_the_document_where_there_is_a_design(tmp_path):
    found = grid(tmp_path, {key: value for key, value in ERRORS.items() if key != (2, 32)})
    text = markdown.render(found)
    section = text.split("### What each design choice costs")[1]
    lines = [[field.strip() for field in line.split("|")[1:-1]] for line in section.splitlines() if "|" in line]
    assert lines[0][:5] == ["device", "library", "choice", "level", "against"]
    assert lines[2][:5] == ["cpu", "hqq", "bits", "4", "8"]
    assert lines[2][5].startswith("+0.55 [+0.")  # 14 of 2560 words
    assert lines[2][6] == "+0.31 to +0.78"
    assert "no other cell differs from them in that choice alone: hqq_int4 (" in section
    assert "What each design choice costs" not in markdown.render(
        [row for row in found if row.settings.bits in (None, 4)]
    )
