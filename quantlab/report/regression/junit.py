"""What a gate found as JUnit XML, which CI servers show as tests.

A question about a cell is a test case. What fails is a failure, what cannot be told an error, so that no reader takes
it for a success; what is not judged is skipped. The elements are those that Jenkins and GitLab read
(https://github.com/testmoapp/junitxml).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from xml.etree import ElementTree as Xml

from quantlab.analysis.regression.judge import Judged, Limits
from quantlab.report.regression import lines
from quantlab.util.printable import printable

_ELEMENTS = {"fail": "failure", "cannot tell": "error", "not judged": "skipped"}


def junit(cells: Sequence[Judged], limits: Limits) -> bytes:
    """The XML file; names and texts in it are printable."""
    suite = Xml.Element("testsuite", name="quantlab gate")
    for item, name in zip(cells, lines.names(cells), strict=True):
        for answer in item.answers:
            case = Xml.SubElement(suite, "testcase", classname=printable(name), name=answer.question, time="0")
            said = printable(lines.line(item, answer, limits))
            if element := _ELEMENTS.get(answer.outcome):
                Xml.SubElement(case, element, message=said)
            notes = [said, *map(printable, lines.notes(item))]
            Xml.SubElement(case, "system-out").text = "\n".join(notes)
    outcomes: list[str] = [answer.outcome for item in cells for answer in item.answers]
    suite.set("tests", str(len(outcomes)))
    for outcome, attribute in (("fail", "failures"), ("cannot tell", "errors"), ("not judged", "skipped")):
        suite.set(attribute, str(outcomes.count(outcome)))
    suite.set("time", "0")
    root = Xml.Element("testsuites")
    root.append(suite)
    Xml.indent(root)
    out = io.BytesIO()
    Xml.ElementTree(root).write(out, encoding="utf-8", xml_declaration=True)
    return out.getvalue() + b"\n"
