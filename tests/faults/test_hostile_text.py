"""A record whose every text is hostile: each output shows it as text, and neither obeys it nor lets it forge a line."""

import base64
import csv
import gzip
import io
import json
import re
import shutil
import unicodedata
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from helpers.synthetic import bad_result, result
from quantlab.cli import recommend, rescore, status, verify
from quantlab.grid.progress import Display
from quantlab.records import storage
from quantlab.records.labels import of_record
from quantlab.records.schema import Record
from quantlab.report import __main__ as report
from quantlab.report import flat, latex, markdown, table
from quantlab.report.html import page
from quantlab.report.plots import figures
from quantlab.report.recommend import show
from quantlab.report.recommend.choose import recommend as recommended
from quantlab.report.recommend.judge import Limits
from quantlab.report.summaries import summaries, summary
from quantlab.tracking import describe, view
from quantlab.util.console import console, on_stderr, warn
from quantlab.util.printable import markdown as as_markdown
from quantlab.util.printable import printable

HOSTILE = {
    "terminal": "a\x1b[2J\x1b]0;owned\x07\x9b31mb\x08\x7f",
    "forged line": "a\nfake: ok\r\nfake: ok\x85fake: ok\u2028fake: ok\u2029fake: ok\x0bfake: ok",
    "direction": "a\u202egnp.exe\u202c\u2066b\u2069\u200f\u061c\u200e, invisible \u200bb\ufeffc\u00add\U000e0041",
    "formula": "=cmd|' /C calc'!A0",
    "plus": "+1+cmd",
    "minus": "-1+cmd",
    "at": "@SUM(A1)",
    "tab": "\t=1+1",
    "second formula": "a;=1+1",
    "rich": "[/bold] [bold red]x[/bold red][/] :smile: [link=http://evil.example]",
    "markdown": "a|b `code` **bold** _em_ ~~s~~ <b>x</b> [a](http://x) ![i](http://x) [a][b] &lt;b&gt; $x$ ```",
    "definition": "[x]: http://evil.example",
    "heading": "# heading",
    "list": "- item",
    "number": "1. item",
    "rule": "---",
    "html": "$title ${title} {0} %s <script>alert(1)</script><img src=x onerror=alert(1)>\"' onclick=x --></script>",
    "latex": r"[3em] * \input{/etc/passwd} $x^2$ % # & _ ~ ^ { } \end{tabular} \write18{id}",
    "mathematics": r"$\frac",
    "long": "x" * 4000,
}
KEPT = {
    "cell_id",
    "status",
    "created_at",
    "verdict",
    "kind",
    "of",
    "work",
    "digests",
    "normaliser",
    "source",
    "scheme",
} | {"error_unit", "scorer"}
FIXED = {"corpus", "versions", "processor", "gpu", "commit"}  # keys by which readers find things


def spoiled(value, text, within_environment=False):
    """The JSON of a record with the text for every text that may be any, and for the keys that may."""
    if isinstance(value, str):
        return text
    if isinstance(value, list):
        return [spoiled(item, text) for item in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, item in value.items():
        free = within_environment and key not in FIXED
        inner = key in ("environment", "dtypes", "bytes_by_dtype", "versions")
        found[f"{text}{key}" if free else key] = item if key in KEPT else spoiled(item, text, inner)
    return found


def hostile(found, text):
    """A result of which all that is text is this one."""
    stored = json.loads(found.record.model_dump_json())
    stored["environment"] |= {"gpu": "", "load_average": [0.5], "deep": {"in": ["x"]}}
    stored["noise"] = {"flags": ["other processes took 3 %"], "gpu_throttled": ["heat"]}
    stored["problems"] = [{"utterance": "u", "split": "s", "kind": "unreadable", "detail": "d"}]
    stored |= {"energy_source": "RAPL", "calibration_ids": ["u"], "reason": "why", "traceback": "Traceback"}
    quant = found.record.config["quant"]["name"]
    stored = spoiled(stored, text)
    if quant == "none":
        stored["config"]["quant"]["name"] = "none"
    stored["splits"] = {text if name == "clean" else name: split for name, split in stored["splits"].items()}
    return found.model_copy(
        update={
            "record": Record.model_validate_json(json.dumps(stored)),
            "utterances": tuple(
                item.model_copy(
                    update={
                        "id": f"{text}{item.id}",
                        "speaker": text,
                        "reference": text if index == 0 else item.reference,
                        "hypothesis": text if index < 2 else item.hypothesis,
                        "split": text if item.split == "clean" else item.split,
                    }
                )
                for index, item in enumerate(found.utterances)
            ),
            "batches": tuple(
                item.model_copy(update={"split": text if item.split == "clean" else item.split})
                for item in found.batches
            ),
        }
    )


# A record is spoiled by each of these; the others are tried on the escapes themselves.
WHOLE = ("terminal", "forged line", "direction", "formula", "minus", "rich", "markdown", "html", "latex", "mathematics")


@pytest.fixture(scope="module", params=WHOLE)
def text(request):
    return HOSTILE[request.param]


@pytest.fixture(scope="module")
def root(tmp_path_factory, text):
    root = tmp_path_factory.mktemp("hostile")
    for quant, cell_id in (("none", "base"), ("hqq_int4", "cell")):
        storage.write(root, hostile(result(quant, cell_id), text))
    storage.write(root, hostile(bad_result("failed", "why", cell_id="bad"), text))
    return root


def obeyed(character):
    """What a terminal or an editor would act upon."""
    return character != "\n" and (
        unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in "\u200c\u200d"
    )


def check_plain(said):
    assert not {character for character in said if obeyed(character)}
    assert not [line for line in said.split("\n") if line.startswith("fake: ok")]


def test_no_command_lets_it_through(root, text, capsys, tmp_path):
    calls = [(report.main, ["--format", style]) for style in ("table", "markdown", "latex", "csv", "json")]
    calls += [(verify.main, []), (recommend.main, ["--all", "--max-wer-increase", "9"]), (status.main, [])]
    calls += [(recommend.main, [f"--dataset={text}"]), (recommend.main, [f"--split={text}"])]
    calls += [(rescore.main, ["--normaliser", "basic"])]
    for run, options in calls:
        assert run(["--root", str(root), *options]) in (0, 1)
        printed = capsys.readouterr()
        check_plain(printed.out)
        check_plain(printed.err)
    other = shutil.copytree(root, tmp_path / "other")
    (other / "cells" / "cell").rename(other / "cells" / f"no id {text[:60].replace('/', '')}")
    assert report.main(["--root", str(other)]) == 0
    check_plain(capsys.readouterr().err)


def test_csv_holds_no_formula(root, capsys):
    assert report.main(["--root", str(root), "--format", "csv"]) == 0
    for line in csv.reader(io.StringIO(capsys.readouterr().out)):
        for field in line:
            for part in re.split("[;,|]", field):
                assert not part.strip().startswith(tuple("=+@-")) or re.fullmatch(r"-?[\d.e+-]+", part)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_is_a_formula_or_more_than_a_line(name):
    record = bad_result("failed", HOSTILE[name]).record
    odd = record.model_copy(update={"environment": {HOSTILE[name]: [1, HOSTILE[name]]}})
    written = flat.render([summary(odd)])
    check_plain(written)
    for line in csv.reader(io.StringIO(written)):
        assert not [
            part for field in line for part in re.split("[;,|]", field) if part.strip().startswith(tuple("=+@-"))
        ]


def test_a_terminal_in_colour_gets_no_codes_but_ours(root):
    for print_it in (
        lambda console: table.show(summaries(root), console),
        lambda console: show.show(recommended(root, Limits()), console),
        lambda console: shown_as_it_goes(root, console),
    ):
        stream = io.StringIO()
        print_it(console(file=stream, force_terminal=True, width=150, color_system="truecolor"))
        ours = r"\x1b\[[\d;]*m|\x1b\[(?:2K|1A|\?25[lh])|\r"
        check_plain(re.sub(ours, "", stream.getvalue()))
        assert "\x1b[2J" not in stream.getvalue()
    assert isinstance(console(), Console)


def shown_as_it_goes(root, console):
    with Display(3, console) as display:
        for record in storage.read_all(root):
            name = of_record(record).dataset
            display.begin(name)
            display.end(name, record)
            display.say(name)


ALLOWED = {"paragraph", "heading", "bullet_list", "list_item", "table", "thead", "tbody", "tr", "th", "td", "strong"}


def test_markdown_has_no_markup_but_ours(root):
    said = markdown.render(summaries(root))
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(said):
        for part in [token, *(token.children or [])]:
            kind = part.type.removesuffix("_open").removesuffix("_close")
            assert kind in ALLOWED | {"inline", "text", "text_special", "softbreak"}, part


@pytest.mark.parametrize("name", HOSTILE)
def test_what_markdown_escapes_reads_as_it_was(name):
    for text in (HOSTILE[name], f"a {HOSTILE[name]}"):
        [_, inline, _] = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(as_markdown(text))
        assert "".join(part.content for part in inline.children) == printable(" ".join(text.split()))


def test_latex_has_no_command_but_ours(root, text):
    said = latex.render(summaries(root))
    commands = set(re.findall(r"\\([a-zA-Z]+)", said))
    assert not commands & {"input", "write", "frac"}
    assert said.count(r"\end{tabular}") == said.count(r"\begin{tabular}")
    assert not [line for line in said.split("\n") if re.match(r"\s*[\[*]", line)], "it would belong to the line before"
    bare = re.sub(r"\\[\\{}_%&#$]", "", said)
    assert bare.count("{") == bare.count("}")


class Tags(HTMLParser):
    """Every element with the names of its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, tuple(name for name, _ in attributes)))


def test_the_page_has_no_element_but_ours(root, text):
    said = page(summaries(root))
    tags = Tags(said).found
    assert sum(tag == "script" for tag, _ in tags) == 2 + said.count('type="application/octet-stream"') - 1
    assert not [tag for tag, names in tags if tag == "img" or any(name.startswith("on") for name in names)]
    for block in re.findall(r'<script type="application/octet-stream" id="(?!plotly)[^"]*">([^<]*)<', said):
        for value in strings(json.loads(gzip.decompress(base64.b64decode(block)))):
            check_plain(value.replace("\t", "").replace("fake: ok", ""))
    check_plain(re.sub("<script.*?</script>|<style.*?</style>", "", said, flags=re.DOTALL))


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from (key, *strings(part))
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def test_mlflow_is_told_plain_text(root):
    for record in storage.read_all(root):
        told = describe.params(record) | describe.tags(record) | {name: name for name in describe.metrics(record)}
        for name, value in told.items():
            check_plain(name)
            check_plain(value)
            assert "\n" not in value
    note = view.summary_note(table.text(summaries(root)), ["run"], "0")
    tokens = MarkdownIt("commonmark").parse(note)
    assert [token.type for token in tokens][:2] == ["fence", "paragraph_open"]


def test_plots_are_drawn(root):
    assert all(content.startswith(b"\x89PNG") for content in figures(summaries(root)).values())


def test_a_warning_is_one_line(text, capsys):
    with on_stderr():
        warn(f"{text} is wrong")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    check_plain(said)


def test_figures_stay_figures_in_csv():
    environment = {"a": -1.5, "b": [-1, 0.5], "c": "-3"}
    odd = bad_result("failed", "").record.model_copy(update={"environment": environment})
    [line] = csv.DictReader(io.StringIO(flat.render([summary(odd)])))
    assert [line[f"environment.{name}"] for name in environment] == ["-1.5", "-1;0.5", "-3"]


@pytest.mark.parametrize("kept", ["ünï", "日本語", "किताब", "نص عربي", "می‌خواهم", "a b", "🎧", "x²"])
def test_what_people_write_stays_as_it_is(kept):
    assert printable(kept) == kept
