"""LaTeX report: tables to \\input into a paper, with booktabs, in ASCII except for accented letters."""

from __future__ import annotations

from collections.abc import Sequence

from quantlab.report import document
from quantlab.report.cell_summary import CellSummary
from quantlab.report.parts import Cell, Section, Table
from quantlab.util.printable import printable

_PROSE = r"p{0.4\textwidth}"
_HEAD = "% needs \\usepackage{booktabs,graphicx}; written by quantlab report --format latex"
_ESCAPED = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "–": "--",
    "−": "$-$",
    "×": r"$\times$",
    "≈": r"$\approx$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "→": r"$\rightarrow$",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after the end of a table row, [ would begin a length, and * a variant of the row end
    "]": "{]}",
    "*": "{*}",
    "`": "{`}",  # ?` would be a ligature
}
_TRANSLATION = str.maketrans(_ESCAPED)


def render(rows: Sequence[CellSummary], unread: Sequence[str] = ()) -> str:
    """Render one `table*` per table of the report; ends with a line break."""
    found = document.sections(rows, unread)
    parts = [_HEAD, *(_table(section, section.table) for section in found if section.table is not None)]
    return "\n\n".join(parts) + "\n"


def _table(section: Section, table: Table) -> str:
    body = [" & ".join(map(_cell, line)) + r" \\" for line in table.lines]
    return "\n".join(
        [
            r"\begin{table*}",
            r"  \centering",
            rf"  \caption{{{escape(table.caption)}}}",
            r"  \resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
            rf"  \begin{{tabular}}{{{table.align.replace('p', _PROSE)}}}",
            r"    \toprule",
            "    " + " & ".join(map(escape, table.header)) + r" \\",
            r"    \midrule",
            *(f"    {line}" for line in body),
            r"    \bottomrule",
            r"  \end{tabular}}",
            *(rf"  \par\smallskip\footnotesize {escape(note)}" for note in (*section.bullets, *section.notes)),
            r"\end{table*}",
        ]
    )


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    return {"best": rf"\textbf{{{text}}}", "level": rf"$\approx$ {text}", "": text}[cell.mark]


def escape(text: str) -> str:
    """Escape characters that are special in TeX or missing from its standard fonts."""
    return printable(" ".join(text.split())).translate(_TRANSLATION)
