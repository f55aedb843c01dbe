"""One direction: a package imports those below it, lazy imports and those for types too; nothing goes in circles."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "quantlab"
FLOORS = (  # from below; those of one floor do not import one another
    {"util", "stats"},
    {"config"},
    {"records"},
    {"models", "scoring", "analysis", "streaming", "tracking"},
    {"data"},
    {"engines"},
    {"quantization"},
    {"recogniser", "report"},
    {"export", "allocation"},
    {"measurement"},
    {"bundle"},
    {"grid"},
    {"cli"},
)
FLOOR = {name: number for number, floor in enumerate(FLOORS) for name in floor}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py") if "assets" not in path.parts}


def known(name: str) -> str:
    while name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {item.name for item in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{item.name}" for item in node.names}
    return {known(name) for name in found if name.split(".")[0] == "quantlab"}


IMPORTS = {name: imported(path) - {name} for name, path in MODULES.items()}


def room(module: str) -> str | None:
    return [*module.split("."), None][1]


def test_packages_import_those_below():
    wrong = [
        f"{name} imports {other}"
        for name, others in IMPORTS.items()
        for other in others
        if (above := room(name)) in FLOOR and (below := room(other)) != above and FLOOR[below] >= FLOOR[above]
    ]
    assert wrong == []


def test_every_package_has_its_floor():
    assert {room(name) for name in MODULES} == {None, "__main__", *FLOOR}


@pytest.mark.parametrize("depth", range(2, 6))
def test_no_circles_between_files_or_folders(depth):
    """At every level: modules cut off after so many names are folders of that level."""

    def cut(name):
        return ".".join(name.split(".")[:depth])

    graph = {}
    for name, others in IMPORTS.items():
        graph.setdefault(cut(name), set()).update(cut(other) for other in others if cut(other) != cut(name))
    TopologicalSorter(graph).prepare()  # CycleError names the circle
