"""Generation of reference pages when the site is built: API, commands, options of `conf/`, files of the root.

A page requests generated text by a comment, `<!-- generated: api quantlab.export.load -->`. Only the names of commands
are imported from quantlab: griffe reads the API without running code.
"""

from __future__ import annotations

import ast
import functools
import io
import os
import posixpath
import re
import subprocess
import sys
import textwrap
import tokenize
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import griffe
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
DOCS = "docs"
MARK = re.compile(r"<!-- generated: (\w+) ?(.*?) -->")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PAGES = {
    "CHANGELOG.md": "docs/project/changelog.md",
    "CONTRIBUTING.md": "docs/project/contributing.md",
    "SECURITY.md": "docs/project/security.md",
    "README.md": "docs/index.md",
    "action/README.md": "docs/reference/action.md",
    "quantlab/assets/demo/README.md": "docs/reference/demo.md",
    "quantlab/assets/nano/README.md": "docs/reference/nano.md",
    "quantlab/assets/nano_ctc/README.md": "docs/reference/nano_ctc.md",
}  # files outside of docs/ with a page on the site
CODE_WIDTH = 88  # columns that fit on a page
SCHEMA = "quantlab.config.schema"
TYPES = "quantlab.config.types"
IN_YAML = {
    "None": "null",
    "True": "true",
    "False": "false",
    "()": "[]",
    "str": "text",
    "Name": "text",
    "FilePath": "a path",
    "int": "whole number",
    "float": "number",
    "bool": "true, false",
    "Names": "[texts]",
}
DOCSTRINGS = {"returns_multiple_items": False, "returns_named_value": False, "warnings": False}


def setup(app: Sphinx) -> dict[str, bool]:
    """Entry point of the Sphinx extension: pages are filled when they are read."""
    app.connect("source-read", _read)
    app.connect("build-finished", _write_reports)
    return {"parallel_read_safe": True}


def _read(app: Sphinx, name: str, source: list[str]) -> None:
    source[0] = filled(source[0], f"{DOCS}/{name}.md")


def _write_reports(app: Sphinx, failure: Exception | None) -> None:
    """The report as a page with charts, of each archive of records in `docs/results`."""
    for archive in [] if failure else sorted((ROOT / DOCS / "results").glob("*.tar.xz")):
        page = Path(app.outdir) / "results" / _report_of(archive)
        command = [sys.executable, "-m", "quantlab", "report", "--root", archive, "--format", "html", "--out", page]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def _report_of(archive: Path) -> str:
    return f"{archive.name.partition('.')[0]}_report.html"


def filled(text: str, page: str) -> str:
    """Insert the generated parts of a page, and adapt its links to the site.

    Args:
        text: Markdown.
        page: path relative to the root of the project, e.g. `docs/index.md`.
    """
    text = MARK.sub(lambda found: GENERATORS[found[1]](found[2], page), text)
    return relinked(text, page, page)


def relinked(text: str, written: str, shown: str) -> str:
    """Adapt the links of a text that was written for one file and is shown in another."""

    def link(found: re.Match[str]) -> str:
        path, mark, anchor = found[1].partition("#")
        if not path or ":" in path:
            return found[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(written), path))
        return f"]({posixpath.relpath(PAGES.get(target, target), posixpath.dirname(shown))}{mark}{anchor})"

    return LINK.sub(link, text)


def file(path: str, page: str) -> str:
    """A file outside of `docs/`."""
    return relinked((ROOT / path).read_text(encoding="utf-8"), path, page)


def report(archive: str, page: str) -> str:
    """A link to the report that is made of an archive of records once the pages are written."""
    return f'<a href="{_report_of(Path(archive))}">The report of {Path(archive).name}, with charts</a>'


def commands(_: str, page: str) -> str:
    """The `--help` of every command."""
    from quantlab.util.console import COMMANDS

    names = ["quantlab", *(f"quantlab {name}" for name in COMMANDS)]
    with ThreadPoolExecutor() as pool:
        said = pool.map(_help, names)
    return "\n".join(f"## `{name}`\n\n```text\n{text}\n```\n" for name, text in zip(names, said, strict=True))


def _help(command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command.split(), "--help"],
        env=os.environ | {"COLUMNS": str(CODE_WIDTH), "TERM": "dumb", "NO_COLOR": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def options(folder: str, page: str) -> str:
    """All YAML files of a folder with their comment and keys, preceded by the keys that they share."""
    shared = ROOT / "conf" / "base" / f"{Path(folder).name}.yaml"
    files = [shared] * shared.exists() + sorted((ROOT / folder).glob("*.yaml"))
    return "\n".join(_option(path, "What options share" if path == shared else path.stem) for path in files)


def _option(path: Path, title: str) -> str:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("defaults: [/base/")]
    first = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    said = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:first])
    keys = "\n".join(lines[first:]).strip("\n")
    return f"### {title}\n\n{_prose(said)}\n\n```yaml\n{keys}\n```\n"


def _prose(comment: str) -> str:
    """A comment as a paragraph; its indented commands become a code block."""
    parts: list[str] = []
    indented = False
    for line in comment.splitlines():
        if line.startswith("  ") != indented:
            indented = not indented
            parts.append("")
        parts.append(f"  {line}" if indented else re.sub(r"([*<])", r"\\\1", line))
    return "\n".join(parts)


def keys(name: str, page: str) -> str:
    """The keys of a class of `quantlab.config.schema` in YAML terms, with their comments."""
    return _fields(cast("griffe.Class", _find(f"{SCHEMA}.{name}")), in_yaml=True)


def api(name: str, page: str) -> str:
    """A function or class: signature, docstring, fields and public methods."""
    return _documented(name.rpartition(".")[2], _find(name), "##")


@functools.cache
def _package() -> griffe.Module:
    return cast("griffe.Module", griffe.load("quantlab", search_paths=[str(ROOT)], try_relative_path=False))


def _find(name: str) -> griffe.Object:
    found = _package()[name.removeprefix("quantlab.")]
    return found.final_target if isinstance(found, griffe.Alias) else cast("griffe.Object", found)


def _documented(title: str, item: griffe.Object, level: str) -> str:
    parts = [f"{level} `{title}`", f"*{item.kind.value} of* `{item.parent.path}`" if item.parent else ""]
    if isinstance(item, griffe.Function):
        parts.append(f"```python\n{_signature(title.rpartition('.')[2], item)}\n```")
    parts.append(_docstring(item))
    if isinstance(item, griffe.Class):
        parts.append(_fields(item))
        methods = [part for part in item.functions.values() if part.is_public and not part.is_special]
        parts += [_documented(f"{title}.{part.name}", part, f"{level}#") for part in methods]
    return "\n\n".join(filter(None, parts)) + "\n"


def _signature(name: str, function: griffe.Function) -> str:
    given = [_parameter(item) for item in function.parameters]
    named_only = [item.kind is griffe.ParameterKind.keyword_only for item in function.parameters]
    if any(named_only) and not any(text.startswith("*") for text in given):
        given.insert(named_only.index(True), "*")
    returned = f" -> {function.returns}" if function.returns else ""
    line = f"{name}({', '.join(given)}){returned}"
    if len(line) <= CODE_WIDTH:
        return line
    return f"{name}(\n" + "".join(f"    {item},\n" for item in given) + f"){returned}"


def _parameter(item: griffe.Parameter) -> str:
    star = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}
    annotation = f": {item.annotation}" if item.annotation else ""
    return f"{star.get(item.kind, '')}{item.name}{annotation}" + (
        f" = {item.default}" if item.default and item.kind not in star else ""
    )


def _docstring(item: griffe.Object) -> str:
    if item.docstring is None:
        return ""
    return "\n\n".join(_section(section) for section in item.docstring.parse("google", **DOCSTRINGS))


def _section(section: griffe.DocstringSection) -> str:
    if isinstance(section.value, str):
        return section.value
    lines = []
    for item in section.value:
        name = getattr(item, "name", "") or (str(item.annotation) if section.kind.value == "raises" else "")
        said = " ".join(item.description.split())
        if section.kind is griffe.DocstringSectionKind.returns and isinstance(item.annotation, str):
            said = f"{' '.join(item.annotation.split())}: {said}"  # text before a colon, which griffe takes for a type
        lines.append(f"- `{name}`: {said}" if name else f"- {said}")
    return f"**{section.kind.value.capitalize()}**\n\n" + "\n".join(lines)


def _fields(owner: griffe.Class, in_yaml: bool = False) -> str:
    fields = [item for item in owner.attributes.values() if item.is_public and item.annotation]
    if in_yaml:
        rows = [_key(item) for item in fields if "property" not in item.labels]
        head = ["| key | value | default | |", "|---|---|---|---|"]
    else:
        rows = [_field(item) for item in fields]
        head = ["| field | type | default | |", "|---|---|---|---|"]
    if not rows:
        return ""
    return "\n".join(head + [f"| {' | '.join(part.replace('|', chr(92) + '|') for part in row)} |" for row in rows])


def _field(item: griffe.Attribute) -> list[str]:
    computed = "property" in item.labels
    annotation = f"{item.annotation}, computed" if computed else str(item.annotation)
    return [_code(item.name), _code(annotation), "" if computed else _code(_default(item)), _said(item)]


def _key(item: griffe.Attribute) -> list[str]:
    default = _default(item)
    default = IN_YAML.get(default, default.strip("'\"") if not default.endswith("()") else "")
    return [_code(item.name), _values(ast.parse(str(item.annotation), mode="eval").body), _code(default), _said(item)]


def _values(annotation: ast.expr) -> str:
    """Allowed values of a key, as far as its type tells."""
    match annotation:
        case ast.BinOp(left, ast.BitOr(), right):
            return f"{_values(left)}, {_values(right)}"
        case ast.Subscript(ast.Name("Literal"), ast.Tuple(options)):
            return ", ".join(f"`{ast.literal_eval(option)}`" for option in options)
        case ast.Subscript(ast.Name("Annotated"), ast.Tuple([first, *_])):
            return _values(first)
        case ast.Name(name) if name not in IN_YAML and name in _find(TYPES).members:
            alias = cast("griffe.Attribute", _find(f"{TYPES}.{name}"))
            return _values(ast.parse(str(alias.value), mode="eval").body)
        case ast.Name(name) if name not in IN_YAML:
            return "keys of its own"
    written = ast.unparse(annotation)
    return IN_YAML.get(written, f"`{written}`")


def _default(item: griffe.Attribute) -> str:
    if item.value is None or not (given := _of_field(item)):
        return "" if item.value is None else str(item.value)
    factory = f"{ast.unparse(given['default_factory'])}()" if "default_factory" in given else ""
    return ast.unparse(given["default"]) if "default" in given else factory


def _said(item: griffe.Attribute) -> str:
    if description := _of_field(item).get("description"):
        return str(ast.literal_eval(description))
    return _comment(item) or (item.docstring.value.splitlines()[0] if item.docstring else "")


def _of_field(item: griffe.Attribute) -> dict[str, ast.expr]:
    """Arguments of pydantic's `Field`; empty if a field has none."""
    match ast.parse(str(item.value), mode="eval").body:
        case ast.Call(ast.Name("Field"), keywords=given):
            return {word.arg: word.value for word in given if word.arg}
    return {}


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _comment(item: griffe.Attribute) -> str:
    """The comment beside a field in the source."""
    if "property" in item.labels:
        return ""
    tokens = tokenize.generate_tokens(io.StringIO(textwrap.dedent(item.source)).readline)
    return " ".join(token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT)


GENERATORS: dict[str, Callable[[str, str], str]] = {
    "api": api,
    "commands": commands,
    "file": file,
    "keys": keys,
    "options": options,
    "report": report,
}
