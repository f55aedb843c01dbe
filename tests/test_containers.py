"""The container files copy what exists and install as the Makefile does. Nothing here builds an image."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "containers/Dockerfile").read_text().replace("\\\n", " ")
APPTAINER = (ROOT / "containers/quantlab.def").read_text()
INSTALL = ("-m venv", "-m pip install", "uv pip install")


def section(name):
    return re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", APPTAINER, re.DOTALL | re.MULTILINE)[1]


def commands(kind):
    if kind == "Dockerfile":
        runs = re.findall(r"^RUN (.*)$", DOCKERFILE, re.MULTILINE)
        return [command.strip() for run in runs for command in run.split("&&")]
    return [line.strip() for line in section("post").splitlines()]


def copied(kind):
    if kind == "Dockerfile":
        return [name for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]]
    return [line.split()[0] for line in section("files").splitlines() if line.strip()]


def installing(lines):
    """The commands that install, without what an image has of its own: folders, and no cache that would stay in it."""
    found = [line for line in lines if any(part in line for part in INSTALL)]
    return [" ".join(word for word in shlex.split(line) if word != "--no-cache") for line in found]


def of_makefile():
    recipe = re.search(r"^\$\(READY\):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    for name, value in {"PYTHON": "python3", "VENV": ".venv", "BIN": ".venv/bin"}.items():
        recipe = recipe.replace(f"$({name})", value)
    return installing(line.strip() for line in recipe.splitlines())


@pytest.mark.parametrize("kind", ["Dockerfile", "quantlab.def"])
def test_it_installs_as_the_makefile_does(kind):
    assert len(of_makefile()) == 4
    assert installing(commands(kind)) == of_makefile()


@pytest.mark.parametrize("kind", ["Dockerfile", "quantlab.def"])
def test_what_is_copied_exists_and_is_what_the_package_needs(kind):
    names = copied(kind)
    assert all((ROOT / name).exists() for name in names)
    pyproject = (ROOT / "pyproject.toml").read_text()
    forced = re.findall(r'^"(\w+)" = "quantlab/\w+"$', pyproject, re.MULTILINE)
    packages = {"quantlab", "hydra_plugins"}
    assert packages | {*forced, "README.md", "LICENSE", "pyproject.toml", "requirements.lock"} <= set(names)


def test_docker_is_handed_what_it_copies():
    handed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert handed == set(copied("Dockerfile"))


def test_it_runs_as_nobody_in_particular_with_its_caches_outside():
    assert re.findall(r"^USER (\w+)$", DOCKERFILE, re.MULTILINE) == ["quantlab"]
    volumes = re.search(r"^VOLUME (.*)$", DOCKERFILE, re.MULTILINE)[1]
    for variable in ("HF_HOME", "QUANTLAB_CACHE"):
        assert re.search(rf"{variable}=(\S+)", DOCKERFILE)[1] in volumes
