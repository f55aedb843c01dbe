"""Commands and programs of the documents, and what it takes to run them as a reader would, but on less."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import soundfile

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "quantlab/assets/demo"
FENCE = r"```(\w+)\n(.*?)```"
NAMED = re.compile(rf"^`([\w./-]+)`: [^\n]*(?:\n[^\n]+)*\n\n{FENCE}", re.DOTALL | re.MULTILINE)


def blocks(page):
    """The fenced blocks of a page, `(language, text)`, in its order."""
    return re.findall(FENCE, (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def commands(page):
    """Every line of its shell blocks."""
    return [line for language, block in blocks(page) if language == "sh" for line in block.splitlines()]


def programs(page):
    """Its blocks of Python."""
    return [block for language, block in blocks(page) if language == "python"]


def last_wins(arguments):
    """The arguments without the keys that come again: quantlab refuses a key that is given twice."""
    later = [{item.partition("=")[0] for item in arguments[place + 1 :]} for place in range(len(arguments))]
    return [
        item for item, keys in zip(arguments, later, strict=True) if "=" not in item or item.split("=")[0] not in keys
    ]


def on_less(command, less):
    """A line of a shell block with other values for some keys."""
    for key in re.findall(r"(\S+)=", less):
        command = re.sub(rf" {re.escape(key)}=\S+", "", command)
    if "protocol=careful" not in command:
        less = re.sub(r"protocol.budget_s=\S+ ?", "", less)  # acts in that one only
    return f"{command} {less}"


def write_files(page, folder):
    """Write down the files that a page shows, each after a paragraph that begins with its name."""
    for name, _, text in NAMED.findall((ROOT / page).read_text(encoding="utf-8")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def environment(cache, *python_path, warm=None):
    """Of a reader who activated the environment; `warm` runs the commands (`helpers.warm`)."""
    bins = [] if warm is None else [warm.path()]
    return os.environ | {
        "PATH": os.pathsep.join([*bins, str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(map(str, python_path)),
        "QUANTLAB_CACHE": str(cache),
    }


def run(command, folder, variables, timeout=280):
    """Run a line of a shell block, or its words."""
    return subprocess.run(
        command,
        shell=isinstance(command, str),
        executable="/bin/bash" if isinstance(command, str) else None,
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_program(program, folder, variables):
    """Run a block of Python as a script."""
    return run([sys.executable, "-c", program], folder, variables)


def user_folder(folder):
    """A user's folder: a checkpoint and recordings of their own, and LibriSpeech as it is unpacked."""
    shutil.copytree(ROOT / "quantlab/assets/nano", folder / "my-whisper")
    clips = [json.loads(line) for line in (DEMO / "manifest.jsonl").open()][:4]
    lines = [{"audio": str(DEMO / clip["audio"]), "text": clip["text"]} for clip in clips]
    for name, some in (("my.jsonl", lines[:2]), ("calls.jsonl", lines[2:])):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in some))
    for split, speaker in (("test-clean", "1089"), ("test-other", "1688")):
        chapter = folder / "LibriSpeech" / split / speaker / "134686"
        chapter.mkdir(parents=True)
        samples, rate = soundfile.read(lines[0]["audio"])
        soundfile.write(chapter / f"{speaker}-134686-0000.flac", samples, rate)
        transcript = f"{speaker}-134686-0000 {lines[0]['text'].upper()}\n"
        (chapter / f"{speaker}-134686.trans.txt").write_text(transcript)
    return folder
