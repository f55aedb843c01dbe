"""What is printed to be pasted: through a shell and through Hydra it is the value that it was."""

import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from quantlab.util.quoting import override, shell

ODD = st.sampled_from(list("\\\"'${}=,()[]: \n\t%@#~&;|<>*?!"))
TEXTS = st.text(st.one_of(ODD, st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), max_size=12)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_subnormal=False),
    TEXTS,
    st.lists(TEXTS, max_size=3),
)


def read_back(argument):
    """The value that a configuration has in the end."""
    [parsed] = OverridesParser.create().parse_overrides([argument])
    assert not parsed.is_sweep_override()
    resolved = OmegaConf.to_container(OmegaConf.create({"key": parsed.value()}), resolve=True)["key"]
    # what a sweep makes of it, for each of its points
    again = OverridesParser.create().parse_overrides([f"key={parsed.get_value_element_as_str()}"])[0]
    assert again.value() == parsed.value()
    return resolved


@given(VALUES)
@example("models/epoch=3-step=100")
@example("My Corpus (v2)/m.jsonl")
@example("a,b")
@example("null")
@example("1e3")
@example("${oc.env:HOME}")
@example("C:\\clips\\")
@example('say "x\\"')
def test_hydra_reads_what_was_meant(value):
    assert read_back(override("key", value)) == value


@pytest.mark.parametrize("plain", ["base", "/data/clips.jsonl", "a-b_c.d", "../x"])
def test_what_needs_no_quotes_has_none(plain):
    assert shell(override("model.path", plain)) == f"model.path={plain}"


@settings(max_examples=20)
@given(st.lists(TEXTS, min_size=1, max_size=20))
def test_a_shell_hands_on_what_was_meant_and_it_is_one_line(texts):
    line = " ".join(map(shell, texts))
    assert "\n" not in line
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == texts
