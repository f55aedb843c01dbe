"""The script and the notebook of `examples/`, on little audio."""

import nbformat
from nbclient import NotebookClient

from helpers.documents import ROOT, environment, run

LESS = ["dataset.limit=1", "device.threads=1", "protocol.warmup_batches=0", "protocol.max_new_tokens=24"]


def test_the_script_prints_a_line_for_each_kind_of_layer(tmp_path, shared_cache):
    done = run(["python", str(ROOT / "examples/skip_layers.py"), *LESS], tmp_path, environment(shared_cache))
    assert done.returncode == 0, done.stderr
    _, *lines = done.stdout.splitlines()
    assert len(lines) == 5
    megabytes = {line[:14].strip(): float(line[14:22]) for line in lines}
    assert min(megabytes, key=megabytes.get) == "nothing"


def test_the_notebook_runs(tmp_path, shared_cache, monkeypatch):
    monkeypatch.setenv("QUANTLAB_CACHE", str(shared_cache))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(ROOT / "examples/worst_first.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # what it prints is made when it is run
    notebook.cells[1].source = notebook.cells[1].source.replace("LIMIT = 20", "LIMIT = 2")
    NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "56 of 57 Linear modules quantized, verified: True" in printed
