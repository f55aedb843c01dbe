"""What figures do not show is said beside them: too few utterances, and sizes that look like a mistake."""

import io

import pytest
from rich.console import Console

from helpers.compared import careful_grid, changed, compared, of_six_utterances, split_changed
from helpers.synthetic import result
from quantlab.quantization.embedding import EMBEDDING
from quantlab.report import markdown, table
from quantlab.report.html import grid, sections, summary
from quantlab.report.recommend import Limits, recommend
from quantlab.report.summaries import summary as summarised
from quantlab.report.wording import megabytes

FEW = [of_six_utterances(quant) for quant in ("none", "torch_int8", "hqq_int4")]
NOTE = "6 utterances; an interval needs 10, so no cell is shown to be better or worse"


def test_of_a_few_utterances_no_error_rate_is_the_best():
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="standard")
    table.show(FEW, console)
    lines = console.file.getvalue().splitlines()
    bold = [line.partition("\x1b[1m")[2].partition("\x1b")[0].strip() for line in lines if line.startswith("nano")]
    assert set(bold) <= {"", "0.00976", "4.1"}  # time and size are counted all the same
    assert f"too few utterances: demo: {NOTE}" in table.text(FEW)
    document = markdown.render(FEW)
    assert f"Too few utterances: {NOTE}." in document
    assert "**3" not in document


def test_the_page_claims_nothing_of_a_few_utterances():
    columns = [column for column in grid._columns(FEW) if column.title.startswith(("WER", "CER"))]
    assert [grid._marks(column, summary.groups(FEW)) for column in columns] == [{}] * len(columns)
    [group] = summary.state(FEW)["groups"]
    assert (group["fronts"], group["few"]) == ({}, NOTE)
    said = sections.in_short(FEW)
    assert NOTE in said
    assert "Lowest WER" not in said
    [enough] = summary.state(careful_grid())["groups"]
    assert enough["fronts"]
    assert enough["few"] is None
    assert "Lowest WER" in sections.in_short(careful_grid())


def test_one_utterance_is_one():
    one = split_changed(split_changed(of_six_utterances("none"), utterances=0), "clean", utterances=1)
    assert "1 utterance," in sections.measured([one])


def test_one_cell_is_one():
    assert "Of 1 quantized cell (" in sections.in_short([compared("hqq_int4")])
    assert "Of 2 quantized cells (" in sections.in_short([compared("hqq_int4"), compared("bnb_nf4")])


def test_a_page_of_two_corpora_tells_their_cells_and_answers_apart():
    """The script shows the answer of the corpus that is chosen; the table has both."""
    marks = {"checkpoint": "c" * 64, "corpus": "e" * 64}
    few = [changed(item, cell_id=f"few-{item.cell_id}", fingerprints=marks) for item in FEW]
    both = [*careful_grid(), *few]
    said = sections.in_short(both)
    assert said.count("data-short=") == 2
    assert said.count(" hidden") == 1
    first, second = (group.label for group in summary.groups(both))
    assert f'<td data-v="{first}"' in grid.table(both)
    assert grid.table(both).count(f'<td data-v="{second}"') == len(few)
    assert "on 2 corpora" in sections.title(both)
    assert "2 corpora" in sections.measured(both)


def with_embedding(quantized=False):
    """A cell whose token embedding is 3 of its 4 MB."""
    record = result("hqq_int4").record
    receipt, head = record.receipt, record.receipt.modules[0].model_copy(
        update={"name": "proj_out", "bytes_before": 3_000_000, "bytes_after": 3_000_000, "quantized": False}
    )  # fmt: skip
    more = (head, head.model_copy(update={"name": EMBEDDING, "quantized": True})) if quantized else (head,)
    return summarised(
        record.model_copy(update={"receipt": receipt.model_copy(update={"modules": receipt.modules + more})})
    )


def test_a_size_that_looks_like_a_mistake_is_explained_where_it_is_shown():
    what = "3.0 of 4.1 MB are the token embedding, which is not quantized; quant.embedding=true does it"
    rows = [summarised(result("none").record), with_embedding()]
    assert f"size: nano-hqq_int4-cpu: {what}" in table.text(rows)
    assert f"Size of hqq_int4: {what}" in markdown.render(rows)
    assert what in sections.in_short(rows)
    [finding] = [one for one in recommend(rows, Limits(max_size_mb=2)).rejected if "hqq" in one.cell.name]
    assert finding.advice.startswith(what)


def test_a_note_on_the_sizes_of_several_cells_gives_the_range_not_one_of_them():
    one, other = with_embedding(), with_embedding()
    receipt = other.record.receipt.model_copy(update={"size_bytes": other.size_bytes + 2_000_000})
    larger = changed(other, cell_id="larger", receipt=receipt)
    [line] = [line for line in table.text([one, larger]).splitlines() if line.startswith("size: ")]
    assert f"3.0 of {megabytes(one.size_bytes)} to {megabytes(larger.size_bytes)} MB are the token embedding" in line


@pytest.mark.parametrize(
    "rows", [[with_embedding(quantized=True)], [summarised(result("none").record)], careful_grid()]
)
def test_where_it_is_quantized_or_small_nothing_is_said(rows):
    assert "embedding" not in table.text(rows)
