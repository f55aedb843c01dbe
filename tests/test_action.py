"""The GitHub Action: its steps, run in a repository as GitHub would."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from quantlab.cli import baseline, gate
from quantlab.records import bundle

ROOT = Path(__file__).resolve().parents[1]
ACTION = yaml.safe_load((ROOT / "action" / "action.yml").read_text(encoding="utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"] if "run" in step}
GRID = "quant=torch_int8 dataset.limit=40\n  device=cpu protocol.warmup_batches=0"
EXPRESSION = re.compile(r"\$\{\{ *([\w.-]+) *\}\}")


def step(name, folder, temp, **given):
    """Run a step with the environment that GitHub sets; its outputs and summary are files below `temp`."""
    inputs = {key: item.get("default", "") for key, item in ACTION["inputs"].items()} | given
    known = {f"inputs.{key}": value for key, value in inputs.items()} | {"github.action_path": str(ROOT / "action")}

    def filled(text):
        while EXPRESSION.search(text):
            text = EXPRESSION.sub(lambda found: known[found[1]], text)
        return text

    script = temp / "step.sh"
    script.write_text(STEPS[name]["run"], encoding="utf-8")
    github = {"RUNNER_TEMP": temp, "GITHUB_STEP_SUMMARY": temp / "summary.md", "GITHUB_OUTPUT": temp / "output"}
    environment = {key: filled(value) for key, value in STEPS[name]["env"].items()}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", script], cwd=folder, text=True, capture_output=True,
        check=False, env=os.environ | {key: str(value) for key, value in github.items()} | environment | {"PATH": path},
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory, shared_cache):
    """A repository, and what the step that measures wrote."""
    folder, temp = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("temp")
    done = step("Measure", folder, temp, grid=GRID)
    assert done.returncode == 0, done.stderr
    assert baseline.main(["--root", str(temp / "mlruns"), "--out", str(folder / "baseline.json.gz")]) == 0
    return folder, temp


def planted(folder, errors):
    """A baseline with fewer (or more) errors in each utterance than were measured."""
    [cell] = bundle.read(folder / "baseline.json.gz").cells
    rows = cell.utterances
    less = tuple(max(0, count - errors) for count in rows.errors)
    changed = {}
    for name, figures in cell.record.splits.items():
        total = sum(count for count, split in zip(less, rows.split, strict=True) if split == name)
        counts = {"substitutions": total, "deletions": 0, "insertions": 0, "hits": figures.ref_words - total}
        changed[name] = figures.model_copy(update=counts | {"wer": total / figures.ref_words})
    record = cell.record.model_copy(update={"splits": changed, "created_at": "2026-01-01T00:00:00+00:00"})
    better = cell.model_copy(update={"record": record, "utterances": rows.model_copy(update={"errors": less})})
    bundle.write(folder / f"planted{errors}.json.gz", [better])
    return f"planted{errors}.json.gz"


def compared(measured, **given):
    folder, temp = measured
    for name in ("summary.md", "output"):
        (temp / name).unlink(missing_ok=True)
    done = step("Compare with the baseline", folder, temp, **given)
    return done, (temp / "output").read_text() if (temp / "output").exists() else ""


def test_what_did_not_change_passes(measured):
    done, output = compared(measured, margin="2", baseline=planted(measured[0], 0))
    assert (done.returncode, output) == (0, "outcome=pass\n"), done.stderr
    assert "✅ pass" in (measured[1] / "summary.md").read_text(encoding="utf-8")
    assert (measured[1] / "quantlab-gate.xml").exists()


def test_what_is_worse_fails(measured):
    done, output = compared(measured, baseline=planted(measured[0], 1))
    assert (done.returncode, output) == (1, "outcome=fail\n")
    assert "❌ fail" in (measured[1] / "summary.md").read_text(encoding="utf-8")


def test_what_cannot_be_told_is_the_callers_choice(measured):
    for choice, code in (("fail", 3), ("pass", 0)):
        done, output = compared(measured, margin="0.001", **{"cannot-tell": choice})
        assert (done.returncode, output) == (code, "outcome=cannot tell\n")


def test_what_is_wrong_fails_whatever_the_choice(measured):
    assert compared(measured, baseline="nowhere.json.gz", **{"cannot-tell": "pass"})[0].returncode == 2
    assert compared(measured, **{"cannot-tell": "perhaps"})[0].returncode == 2


def test_a_grid_is_no_shell_and_a_misspelt_one_fails(measured, tmp_path):
    done = step("Measure", measured[0], tmp_path, grid="quant=none; touch evil")
    assert done.returncode == 2
    assert not (measured[0] / "evil").exists()


def test_it_installs_its_own_version(tmp_path, monkeypatch):
    pytest.importorskip("hatchling")
    for name, value in {"TARGET": tmp_path / "site", "NO_DEPS": 1, "NO_BUILD_ISOLATION": 0}.items():
        monkeypatch.setenv(f"PIP_{name}", str(value))
    done = step("Install quantlab", tmp_path, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "quantlab" / "cli" / "gate.py").exists()


def test_its_choices_are_those_of_the_command():
    assert gate.CODES == {"pass": 0, "fail": 1, "cannot tell": 3}
    assert float(ACTION["inputs"]["margin"]["default"]) == 0.5
    assert set(EXPRESSION.findall((ROOT / "action" / "action.yml").read_text())) <= {
        *(f"inputs.{name}" for name in ACTION["inputs"]), "github.action_path", "steps.gate.outputs.outcome"
    }  # fmt: skip
