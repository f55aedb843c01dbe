"""The tutorial from its first command to its last program, in one folder, on two utterances of each split."""

import re

import pytest

from helpers.documents import blocks, environment, on_less, run, run_program

pytestmark = pytest.mark.minutes

PAGE = "docs/tutorial/deploy.md"
LESS = "dataset.limit=2 device.threads=1 tracking=off"
# In place of `make demo`, which CI runs by itself: the baseline, and the cell that the page goes on with.
STANDS_FOR = {
    "make demo": f"quantlab -m quant=none,quanto_int8_static {LESS}",
    "source .venv/bin/activate": "true",
}
SAID = "daniel traveled from prague to london by ferry"


@pytest.fixture(scope="module")
def steps(tmp_path_factory, shared_cache, warm):
    """What each block of the page printed, `(language, text, result)`."""
    folder, variables = tmp_path_factory.mktemp("reader"), environment(shared_cache, warm=warm)
    done = []
    for language, text in blocks(PAGE):
        if language == "sh":
            command = STANDS_FOR.get(text.strip(), text.strip())
            if re.match(r"quantlab (-m|quant=)", command):
                command = on_less(command, LESS)
            done.append((language, text, run(command, folder, variables)))
        elif language == "python":
            done.append((language, text, run_program(text, folder, variables)))
    return done


def test_every_command_runs(steps):
    for language, text, result in steps:
        enough = "recommend" in text  # four utterances show nothing
        assert result.returncode in ((0, 1) if enough else (0,)), (text, result.stdout, result.stderr)
        assert "Traceback" not in result.stderr, (language, result.stderr)


def test_the_chosen_cell_is_exported_without_being_measured_again(steps):
    [exported] = [result for _, text, result in steps if "quant=quanto_int8_static export.dir" in text]
    assert "recorded before" in exported.stdout + exported.stderr


def test_all_three_engines_print_the_sentence(steps):
    programs = [result for language, _, result in steps if language == "python"]
    assert len(programs) == 3
    assert [SAID in result.stdout for result in programs] == [True] * 3, [item.stdout for item in programs]
