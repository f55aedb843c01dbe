"""Every command of the README runs, and so does its Python."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import soundfile

from quantlab.config.compose import compose

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
PYTHON = [block for kind, block in BLOCKS if kind == "python"]

SET_UP = ["make demo", "make test"]  # CI runs these two; the second is what runs this file
NEEDS_HUB = [line for line in COMMANDS if "librispeech " in line or "paper_table" in line]
SERVERS = [line for line in COMMANDS if line.startswith("mlflow ui")]
RUN = [line for line in COMMANDS if line not in SET_UP + NEEDS_HUB + SERVERS]
# The same command on less: what comes last wins.
LESS = ["protocol.max_new_tokens=64", "protocol.warmup_batches=1", "protocol.budget_s=1", "tracking=off",
        "dataset.limit=1", "model.random_tokens=2"]  # fmt: skip
ANSWERS = (0, 1)  # of `recommend`: one utterance a split shows nothing


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder: a recording of their own, and LibriSpeech as it is unpacked."""
    folder = tmp_path_factory.mktemp("user")
    clips = [json.loads(line) for line in (ROOT / "quantlab/assets/demo/manifest.jsonl").open()][:2]
    lines = [{"audio": str(ROOT / "quantlab/assets/demo" / clip["audio"]), "text": clip["text"]} for clip in clips]
    (folder / "my.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for split, speaker in (("test-clean", "1089"), ("test-other", "1688")):
        chapter = folder / "LibriSpeech" / split / speaker / "134686"
        chapter.mkdir(parents=True)
        samples, rate = soundfile.read(lines[0]["audio"])
        soundfile.write(chapter / f"{speaker}-134686-0000.flac", samples, rate)
        transcript = f"{speaker}-134686-0000 {lines[0]['text'].upper()}\n"
        (chapter / f"{speaker}-134686.trans.txt").write_text(transcript)
    return folder


@pytest.fixture(scope="module")
def environment(shared_cache):
    bin_dir = str(Path(sys.executable).parent)
    return os.environ | {
        "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}",
        "QUANTLAB_CACHE": str(shared_cache),
    }


def test_the_readme_has_its_two_set_up_commands():
    assert COMMANDS[:2] == SET_UP
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE) for command in SET_UP)


@pytest.mark.parametrize("command", RUN)
def test_command_runs(command, folder, environment):
    grid = command.startswith("python -m quantlab ")
    done = subprocess.run(
        [*shlex.split(command), *(LESS if grid else [])],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    expected = ANSWERS if command.startswith("python -m quantlab.recommend") else (0,)
    assert done.returncode in expected, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", NEEDS_HUB)
def test_command_that_needs_the_hub_composes(command):
    assert compose(shlex.split(command)[3:])


@pytest.mark.parametrize("command", SERVERS)
def test_server_answers(command, folder, environment):
    port = 5000 + os.getpid() % 1000
    (folder / "mlruns").mkdir(exist_ok=True)
    server = subprocess.Popen(
        [*shlex.split(command), "--port", str(port)],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert _answers(f"http://127.0.0.1:{port}/health", within_s=120)
    finally:
        os.killpg(server.pid, 9)


def _answers(url, within_s):
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            return urllib.request.urlopen(url, timeout=2).status == 200
        except OSError:
            time.sleep(0.5)
    return False


@pytest.mark.parametrize("program", PYTHON)
def test_python_runs(program, folder, environment):
    done = subprocess.run(
        [sys.executable, "-c", program.replace("dataset.limit=20", "dataset.limit=1")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [quant for quant, *_ in lines] == ["none", "hqq_int4"]
    assert all(float(error_rate) >= 0 for _, error_rate, _ in lines)
    assert [int(quantized) > 0 for *_, quantized in lines] == [False, True]
