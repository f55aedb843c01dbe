"""Values that mean something to Hydra: taken as they are, or the very argument to paste is printed, which then is."""

import shlex

import pytest

from quantlab.config.hydra import composed
from quantlab.util.errors import ConfigError

VALUES = [
    "models/epoch=3-step=100", "My Corpus (v2)/m.jsonl", "a b", "a,b", "[x]", "{x}", "{a:1}", "a[1]", "x{y}", "a:b",
    "é", "日本", "50%", "$HOME", "a$b", "${x}", "a${b}c", "123", "007", "1e3", "1_000", "true", "nan", "a'b", 'a"b',
    "x'y\"z", "a\\b", "a\\", "C:\\data", "a#b", "a;b", "a|b", "a&b", "a*b", "!x", "@x", "+x", "~x", "~/x", "-x", "=",
    "(", ")", "a(b)", "glob(x)", "range(3)", "[1", "}", "a`b", "^", "<x>", "a  b", "…", "'a", "a=b,c=d",
]  # fmt: skip
KEYS = ["model.path", "dataset.path", "model.name", "export.dir"]


def value_of(argument):
    """What Hydra makes of it, before anything is validated."""
    key = argument.partition("=")[0].split(".")
    [point] = composed([argument]).points
    return point[key[0]][key[1]]


@pytest.mark.parametrize("value", VALUES)
def test_the_argument_to_paste(value):
    key = KEYS[len(value) % len(KEYS)]
    try:
        assert value_of(f"{key}={value}") == value
        return
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message
    before, _, pasted = message.rpartition("; to pass it literally, write ")
    assert before
    [argument] = shlex.split(pasted)  # as a shell does
    assert value_of(argument) == value


def test_each_value_of_a_sweep():
    with pytest.raises(ConfigError) as refused:
        composed(["-m", "model.path=runs/epoch=3,runs/epoch=4"])
    [argument] = shlex.split(str(refused.value).rpartition("write ")[2])
    found = composed(["-m", argument]).points
    assert [point["model"]["path"] for point in found] == ["runs/epoch=3", "runs/epoch=4"]


def test_lists():
    with pytest.raises(ConfigError) as refused:
        composed(["dataset.splits=[My split (v2), b=1]"])
    [argument] = shlex.split(str(refused.value).rpartition("write ")[2])
    [point] = composed([argument]).points
    assert point["dataset"]["splits"] == ["My split (v2)", "b=1"]


@pytest.mark.parametrize("argument", ["seed=a=b", "quant=a=b", "protocol.batch_size=(1)", "no.such.key=a=b"])
def test_where_no_text_belongs_none_is_offered(argument):
    with pytest.raises(ConfigError, match=r"quote it whole, e\.g\. ") as refused:
        composed([argument])
    assert "write " not in str(refused.value)


def test_an_address_is_not_shown():
    with pytest.raises(ConfigError) as refused:
        composed(["tracking.uri=http://bob:s=cret@host"])
    assert "cret" not in str(refused.value)
