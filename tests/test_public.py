"""`from quantlab import …`: the public names, quick to import, documented, and what they do together."""

import importlib.metadata
import inspect
import logging
import subprocess
import sys

import pytest

import quantlab
from helpers.synthetic import grid, result
from quantlab.records import storage
from quantlab.report import __main__ as report
from quantlab.util.errors import ConfigError

SMALL = ["dataset.limit=1", "dataset.splits=[clean]", "protocol.warmup_batches=0", "tracking=off"]
# A script without `if __name__ == "__main__"`, as in a notebook.
SCRIPT = """
from quantlab import load_records, run, summaries
print("begins")
cells = run(["quant=none,ggml_q4_0", OPTIONS])
print([cell.status for cell in cells], list(cells.to_dataframe()["quant"]))
assert {record.cell_id for record in load_records("mlruns")} == {cell.cell_id for cell in cells}
assert [cell.cell_id for cell in summaries("mlruns")] == [cell.cell_id for cell in cells]
"""


def test_every_public_name_is_there_and_documented():
    for name in quantlab.__all__:
        found = getattr(quantlab, name)
        if name != "__version__":
            assert inspect.getdoc(found), name
            assert not inspect.isfunction(found) or "Raises:" in found.__doc__ or name == "run_cell", name
    assert set(quantlab.__all__) <= set(dir(quantlab))
    assert quantlab.__version__ == importlib.metadata.version("quantlab")


def test_what_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="'quantlab' has no attribute 'nothing'"):
        _ = quantlab.nothing


def test_importing_it_imports_nothing_else():
    program = (
        "import sys; before = set(sys.modules); import quantlab; "
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "sys.exit(str(new - set(sys.stdlib_module_names) - {'quantlab'} or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == "\n"


def test_a_comma_list_composes_to_a_grid():
    configs = quantlab.compose(["quant=none,hqq_int4", "seed=1,2", "quant.skip=[a,b]"])
    assert [(config.quant.name, config.seed) for config in configs] == [
        ("none", 1), ("none", 2), ("hqq_int4", 1), ("hqq_int4", 2)
    ]  # fmt: skip
    assert all(isinstance(config, quantlab.RunConfig) for config in configs)
    assert quantlab.compose(["quant=hqq_int4"]) == quantlab.compose(["-m", "quant=hqq_int4"])
    with pytest.raises(ConfigError, match="did you mean 'hqq_int"):
        quantlab.compose(["quant=none,hqq_int5"])


def test_records_of_one_root_and_of_several(tmp_path):
    grid(tmp_path / "a")
    storage.write(tmp_path / "b", result("none", "of-b"))
    found = quantlab.load_records(tmp_path / "a")
    assert [record.cell_id for record in found] == storage.recorded(tmp_path / "a")
    assert all(isinstance(record, quantlab.Record) for record in found)
    both = quantlab.load_records([str(tmp_path / "a"), tmp_path / "b"])
    assert {record.cell_id for record in both} == {record.cell_id for record in found} | {"of-b"}
    with pytest.raises(ConfigError, match="no records in"):
        quantlab.load_records(tmp_path / "nowhere")


def test_what_cannot_be_read_is_told_to_pythons_logging_and_by_a_command_on_stderr(tmp_path, caplog, capsys):
    grid(tmp_path)
    broken = tmp_path / "cells" / storage.recorded(tmp_path)[0] / "record.json"
    broken.write_text("{")
    quantlab.load_records(tmp_path)
    [said] = [entry for entry in caplog.records if entry.name == "quantlab"]
    assert said.levelname == "WARNING"
    assert str(broken) in said.getMessage()
    assert capsys.readouterr().err == ""
    caplog.clear()
    assert report.main(["--root", str(tmp_path), "--format", "csv"]) == 0
    assert f"quantlab: {said.getMessage()}\n" in capsys.readouterr().err
    assert caplog.records == [], "and nowhere else"
    logging.getLogger("quantlab").setLevel(logging.ERROR)
    try:
        quantlab.load_records(tmp_path)
    finally:
        logging.getLogger("quantlab").setLevel(logging.NOTSET)
    assert caplog.records == []


def test_a_grid_is_measured_in_a_script_that_runs_once(quantlab):
    script = quantlab.folder / "study.py"
    script.write_text(SCRIPT.replace("OPTIONS", ", ".join(map(repr, SMALL))))
    done = subprocess.run(
        [sys.executable, str(script)], cwd=quantlab.folder, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "begins\n['ok', 'ok'] ['none', 'ggml_q4_0']\n"


def test_slurm_is_for_the_command():
    with pytest.raises(ConfigError, match="hydra/launcher: run"):
        quantlab.run(["hydra/launcher=slurm"])
