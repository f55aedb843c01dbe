"""The documents as a reader of the file meets them: parsed again, and held against the rows."""

import csv
import io
import re
import shutil
import subprocess

import pytest

from helpers.compared import careful_grid, changed, compared, paper_grid, uncompared
from helpers.synthetic import bad_result
from quantlab.records.schema import Noise
from quantlab.report import document, flat, latex, markdown
from quantlab.report.summaries import summary

UNSUPPORTED = summary(bad_result("unsupported", "no | [CUDA](x) *kernels*_").record)


def _tables(text: str) -> dict[str, list[list[str]]]:
    """Heading → lines of its table, header first, without the rule."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|") and not re.fullmatch(r"[|\-: ]+", line):
            fields = [item.strip() for item in re.split(r"(?<!\\)\|", line)[1:-1]]
            found.setdefault(heading, []).append(fields)
    return found


def _column(lines: list[list[str]], title: str) -> dict[str, str]:
    index = lines[0].index(title)
    return {line[1]: line[index] for line in lines[1:]}


def test_the_study_s_table_with_intervals_and_the_best_marked():
    lines = _tables(markdown.render(careful_grid()))["nano on demo, protocol careful"]
    assert lines[0] == [
        "device", "method", "WER % clean", "WER % other", "CER % clean", "CER % other", "RTF", "time ×base",
        "smaller by %", "WER against baseline",
    ]  # fmt: skip
    wer = _column(lines, "WER % clean")
    assert wer["hqq_int3"] == "4.69 [3.89, 5.49]"
    assert wer["none"] == "**3.12 [2.33, 3.92]**"
    assert wer["torch_int8"].startswith("≈ 3.20")  # +0.08 ± 0.40 points: level
    assert _column(lines, "time ×base")["hqq_int3"] == "1.70 [1.50, 1.90] not converged"
    assert _column(lines, "time ×base")["none"] == "–"
    assert _column(lines, "smaller by %")["hqq_int3"] == "**71.0**"
    assert _column(lines, "WER against baseline")["bnb_nf4"] == "underpowered"


def test_table_4_names_no_winner_that_the_intervals_do_not_show():
    lines = _tables(markdown.render(careful_grid()))["Best by priority"]
    best = _column(lines, "best")
    assert best["fastest"] == "torch_int8 leads, but is not shown to be best: cannot be told from bnb_nf4"
    assert best["smallest"] == "**hqq_int3**"
    assert "+2.81 [+2.41, +3.21] points against fp32 (worse)" in _column(lines, "what it comes with")["smallest"]


def test_table_4_of_cells_timed_once_claims_no_fastest():
    text = markdown.render(paper_grid())
    assert re.search("no interval to tell it from none, .* and 2 more", text)
    assert "protocol=careful shows it" in text
    assert "**torch_int8**" not in text


def test_figure_1_and_the_robustness_gap():
    found = _tables(markdown.render(careful_grid()))
    increase = found["WER increase against the baseline"]
    assert _column(increase, "other, points")["hqq_int3"] == "+4.06 [+3.66, +4.46]"
    gap = found["Robustness gap"]
    assert _column(gap, "gap, points")["none"].startswith("+9.30 [")
    assert _column(gap, "change, points")["hqq_int3"] == "+2.50 [+1.93, +3.07]"
    assert _column(gap, "change, points")["none"] == "–"


def test_published_and_measured_are_columns_of_their_own_and_neither_fills_the_other():
    small = {"model": "small", "dataset__name": "librispeech", "device": "cuda"}
    rows = [compared("none", baseline="small", **small), *careful_grid()]
    lines = _tables(markdown.render(rows))["Published against measured"]
    header, *lines = lines
    assert {line[0] for line in lines} == {"small-none-cuda"}
    [rtf] = [line for line in lines if line[header.index("figure")] == "rtf"]
    assert rtf[header.index("published") :][:3] == ["0.006", "0.0127", "not comparable"]
    [cer] = [line for line in lines if line[header.index("figure")] == "CER % test-clean"]
    assert cer[header.index("published") :][:3] == ["1.02", "1.562 [0.762, 2.362]", "reproduced"]
    verdicts = [line[header.index("verdict")] == "not comparable" for line in lines]
    assert verdicts == sorted(verdicts)
    assert "published" in document.sections(rows)[-1].heading.lower()


def test_a_grid_that_no_paper_reports_has_no_such_section():
    assert "Published" not in markdown.render(careful_grid())


def test_what_was_not_measured_is_listed_and_its_reason_is_no_markup():
    text = markdown.render([*careful_grid(), UNSUPPORTED])
    [_, line] = _tables(text)["Not measured"]
    assert line == ["nano-torch_int8-cpu (protocol=paper)", "unsupported", r"no \| [CUDA]\(x) \*kernels\*\_"]


def test_noise_is_said_beneath_the_table():
    rows = careful_grid()
    rows[1] = changed(rows[1], noise=Noise(flags=("steal time 8 %", "other load")))
    text = markdown.render(rows)
    assert "- While timed, torch_int8: steal time 8 %." in text
    assert "- While timed, torch_int8: other load." in text


def test_no_interval_no_brackets_and_no_verdict_column():
    text = markdown.render([uncompared("none"), uncompared("torch_int8")])
    lines = _tables(text)["nano on demo, protocol paper"]
    assert "WER against baseline" not in lines[0]
    assert _column(lines, "WER % clean") == {"none": "3.12", "torch_int8": "3.20"}
    assert "WER increase" not in text


def test_an_empty_report_is_a_document():
    for form in (markdown, latex, flat):
        assert isinstance(form.render([]), str)


def test_latex_is_balanced_and_in_characters_that_tex_has():
    text = latex.render([*careful_grid(), UNSUPPORTED])
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 5
    body = text.replace(r"\{", "").replace(r"\}", "")
    assert body.count("{") == body.count("}")
    assert text.isascii()
    for table in text.split(r"\begin{tabular}")[1:]:
        columns = re.match(r"\{((?:[lr]|p\{[^}]*\})+)\}", table)[1]
        wanted = len(re.findall(r"p\{[^}]*\}|[lr]", columns)) - 1
        lines = [line for line in table.split(r"\bottomrule")[0].splitlines() if line.endswith(r"\\")]
        assert lines
        assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {wanted}
    assert r"torch\_int8" in text
    assert r"\textbf{hqq\_int3}" in text
    assert not re.search(r"(?<!\\)[#%_](?! needs)", text.replace(r"\resizebox", "").replace("!}{%", "!}{"))


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles(tmp_path):
    packages = r"\usepackage[utf8]{inputenc}\usepackage{booktabs,graphicx}"
    text = latex.render([*careful_grid(), UNSUPPORTED])
    (tmp_path / "a.tex").write_text(rf"\documentclass{{article}}{packages}\begin{{document}}{text}\end{{document}}")
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"], cwd=tmp_path,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


def test_csv_has_one_line_per_cell_at_full_precision():
    rows = [*careful_grid(), UNSUPPORTED]
    lines = list(csv.DictReader(io.StringIO(flat.render(rows))))
    assert len(lines) == len(rows)
    wanted = rows[1].to_dict()
    found = lines[1]
    assert (found["label"], found["model_path"]) == ("nano-torch_int8-cpu (protocol=careful)", "")
    assert float(found["rtf"]) == rows[1].rtf.value
    assert float(found["splits.clean.wer"]) == wanted["splits"]["clean"]["wer"]
    assert float(found["splits.clean.wer_ci95.low"]) == wanted["splits"]["clean"]["wer_ci95"][0]
    assert float(found["speed.ci95.high"]) == 0.85
    assert found["receipt.bytes_by_dtype.float32"] == str(wanted["receipt"]["bytes_by_dtype"]["float32"])
    assert lines[-1]["splits.clean.wer"] == lines[-1]["size_bytes"] == ""
    assert "speed" not in found  # it is in parts
    assert lines[-1]["reason"] == "no | [CUDA](x) *kernels*_"
