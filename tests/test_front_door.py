"""`quantlab` is one command, and `python -m quantlab` is the same; each command begins quickly."""

import importlib.metadata
import os
import re
import subprocess
import sys

import pytest

from helpers.synthetic import grid
from quantlab.cli import keys, main
from quantlab.config.key_names import keys as every_key
from quantlab.config.options import BASE
from quantlab.config.schema import RunConfig
from quantlab.grid import run as grids
from quantlab.util.console import COMMANDS
from quantlab.util.resources import shared_dir

VERSION = f"quantlab {importlib.metadata.version('quantlab')}\n"
HEAVY = {"torch", "transformers", "mlflow", "hydra", "pandas", "matplotlib"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    grid(folder)
    return folder


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What reaches the grid, which is not run."""
    found = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(grids, "run_grid", lambda configs: found.extend(configs) or 0)
    return found


def started(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "quant=torch_int8 seed=3",
        "run quant=torch_int8 seed=3",
        "run -m quant=torch_int8 seed=3",
        "-m seed=3 quant=torch_int8",
        "seed=3 -m quant=torch_int8",
    ],
)
def test_a_grid_with_and_without_its_name(line, asked):
    assert main.main(line.split()) == 0
    assert [(config.quant.name, config.seed) for config in asked] == [("torch_int8", 3)]


@pytest.mark.parametrize("line", ["", "run"])
def test_without_keys_it_is_the_default_cell(line, asked):
    assert main.main(line.split()) == 0
    assert [config.label for config in asked] == ["nano-none-auto"]


def test_what_is_hydras_reaches_hydra_as_it_is_written(asked, tmp_path):
    (tmp_path / "own" / "quant").mkdir(parents=True)
    (tmp_path / "own" / "quant" / "mine.yaml").write_text((shared_dir("conf") / "quant" / "hqq_int4.yaml").read_text())
    assert (
        main.main(["--config-dir", "own", "-m", "quant=none,mine", 'quant.skip=["*.k_proj"]', "++seed=range(2)"]) == 0
    )
    assert [config.quant.skip for config in asked] == [(), (), ("*.k_proj",), ("*.k_proj",)]
    assert [config.seed for config in asked] == [0, 1, 0, 1]


def test_every_name_has_its_command_and_its_module():
    for name in COMMANDS:
        assert main.command.get_command(None, name).name == name
        assert main.command.get_command(None, name).help, name


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_the_help_names_every_command_and_every_group(arguments, capsys):
    assert main.main(arguments) == 0
    said = capsys.readouterr().out
    for name in [*COMMANDS, *keys.groups()]:
        assert f"\n  {name} " in said
    assert "hqq_int4" in said


def test_the_groups_are_those_that_are_composed():
    assert keys.groups()["quant"] == sorted(path.stem for path in (shared_dir("conf") / "quant").glob("*.yaml"))
    folders = {path.name for path in shared_dir("conf").iterdir() if path.is_dir()}
    assert set(keys.groups()) == folders - {"hydra", BASE} | {"experiment"}
    assert "demo" in keys.groups()["experiment"]


def test_the_help_of_a_grid_says_what_each_key_does(capsys):
    described = dict(keys.described())
    known = set(every_key(RunConfig))
    inner = {key for key in known if key.startswith("dataset.hub_splits.")}  # of anybody's splits
    known -= inner
    assert set(described) == {key for key in known if not any(other.startswith(f"{key}.") for other in known)}
    silent = [key for key, what in described.items() if not re.match(r"[^;]{4}", what) or what.startswith("default ")]
    assert silent == []
    assert main.main(["run", "--help"]) == 0
    said = "".join(capsys.readouterr().out.split())  # lines are wrapped
    assert [what for what in described.values() if "".join(what.split()) not in said] == []


@pytest.mark.parametrize("arguments", [["--version"], ["run", "--version"], ["quant=none", "--version"]])
def test_its_own_version(arguments, capsys):
    assert main.main(arguments) == 0
    assert capsys.readouterr().out == VERSION


def test_a_dry_run_lists_the_cells_and_measures_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = ["-m", "quant=none,ggml_q4_0", "runtime=eager,compile", "dataset.limit=1", "--dry-run"]
    assert main.main(line) == 0
    *cells, conclusion = capsys.readouterr().out.splitlines()
    told = [re.fullmatch(r"([0-9a-f]{16})  (\S+) \((\S+)\) +(.*)", cell).groups() for cell in cells]
    assert [label for _, label, _, _ in told] == 2 * ["nano-none-cpu"] + 2 * ["nano-ggml_q4_0-cpu"]
    assert [what for *_, what in told[:3]] == 3 * ["would be measured"]
    assert "unsupported: ggml has its own engine, but runtime=compile needs torch" in cells[3]
    assert conclusion == "3 of 4 cells would be measured, in mlruns"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["output_dir", "export.dir", "QUANTLAB_CACHE"])
@pytest.mark.parametrize("place", ["file", "file/inside"])
def test_a_dry_run_refuses_what_the_run_would_refuse(key, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    if key.isupper():
        monkeypatch.setenv(key, place)
    more = [] if key.isupper() else [f"{key}={place}"]
    for line in ([*more, "--dry-run"], more):
        assert main.main(["device=cpu", "tracking=off", *line]) == 2
        printed = capsys.readouterr()
        assert place in printed.err
        assert len(printed.err.splitlines()) == 1
        assert printed.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("module", [["-m", "quantlab"], ["-c", "from quantlab.__main__ import main; main()"]])
def test_the_script_and_both_ways_by_module_are_the_same(module, root):
    options = ["--root", str(root), "--format", "json"]
    through, alone = started(*module, "report", *options), started("-m", "quantlab.report", *options)
    assert through.returncode == alone.returncode == 0
    assert through.stdout == alone.stdout != ""
    assert through.stderr == alone.stderr == ""


def test_the_exit_code_of_a_command_comes_through(tmp_path, capsys):
    assert main.main(["report", "--root", str(tmp_path)]) == 1
    assert main.main(["report", "--nonsense"]) == 2


def test_help_imports_nothing_that_takes_long():
    program = (
        "import sys; from quantlab.cli.main import main\n"
        "for name in sys.argv[1:]: assert main([*name.split(), '--help']) == 0\n"
        f"sys.exit(str(set(sys.modules) & {HEAVY} or ''))"
    )
    assert started("-c", program, "", *(name for name in COMMANDS if name != "fetch")).stderr == "\n"


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        ("quantlab rep", ["report"]),
        ("quantlab quant=bnb_nf4", ["quant=bnb_nf4", "quant=bnb_nf4_dq"]),
        ("quantlab -m device=cpu,cu", ["device=cpu,cuda"]),
        ("quantlab run dataset.lim", ["dataset.limit="]),
        ("quantlab quant=none dataset.lim", ["dataset.limit="]),
        ("quantlab run --dry", ["--dry-run"]),
        ("quantlab report --format js", ["json"]),
        ("quantlab report --marg", ["--margin"]),
        ("quantlab fetch protocol=pap", ["protocol=paper"]),
    ],
)
def test_shells_complete(words, offers, monkeypatch, capsys):
    place = str(len(words.split()) - 1)
    for name, value in {main.COMPLETE: "zsh_complete", "COMP_WORDS": words, "COMP_CWORD": place}.items():
        monkeypatch.setenv(name, value)
    main.main([])
    assert capsys.readouterr().out.split("\n")[1::3] == offers


def test_bash_takes_words_apart_at_the_equals_sign(monkeypatch, capsys):
    for words, place, offers in (("quantlab quant = hqq_int4", "3", ["hqq_int4"]), ("quantlab device =", "2", None)):
        for name, value in {main.COMPLETE: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": place}.items():
            monkeypatch.setenv(name, value)
        main.main([])
        found = [line.partition(",")[2] for line in capsys.readouterr().out.split()]
        assert found == (keys.groups()["device"] if offers is None else offers)
