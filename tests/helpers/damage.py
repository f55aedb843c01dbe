"""Random damage to JSON, for tests that fuzz what is read: places taken away, replaced, or added to.

How much is tried is in QUANTLAB_TEST_EXAMPLES: the examples of a test whose example takes a tenth of a second. Tests
of quicker ones try several times as many, of slower ones a part.
"""

import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("QUANTLAB_TEST_EXAMPLES", "40"))


def tried(share=1.0):
    """The settings of a test that tries this part of EXAMPLES."""
    return settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
        max_examples=max(1, round(share * EXAMPLES)),
        phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking an example takes minutes
        deadline=None,
    )


FEW = tried()
HOSTILE = ("", "../../evil", "a\nb", "x" * 4000, "\0", "\ud800", "[/bold]", "\x1b[2J", "nan", "{0}", "%s")
NUMBERS = st.sampled_from([0, -1, 1, 2**63, 10**30, -(10**400), 0.5, -0.0, 1e308, float("nan"), float("inf")])
NAMES = st.sampled_from(HOSTILE)
SCALARS = st.none() | st.booleans() | NUMBERS | NAMES | st.text(max_size=5)
JUNK = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2), max_leaves=4
)


def places(value, path=()):
    """Every place in a JSON value, by the keys that lead there."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def nudged(data, value):
    """The value with one to four places changed to another value of their type, so that most of it is accepted."""
    for _ in range(data.draw(st.integers(1, 4))):
        ends = [path for path in places(value) if path and not isinstance(_at(value, path), (dict, list))]
        path = data.draw(st.sampled_from(ends))
        _at(value, path[:-1])[path[-1]] = _other(data, _at(value, path))
    return value


def _at(value, path):
    for key in path:
        value = value[key]
    return value


def _other(data, value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return data.draw(NAMES | st.text(max_size=8))
    if isinstance(value, (int, float)):
        near = [value + 1, value - 1, 2 * value, -value, value / 3 if isinstance(value, float) else value // 3]
        return data.draw(st.sampled_from([*near, 0, 1, 1e-9, 1e12, 2**53, 2**40]))
    return data.draw(SCALARS)


def damaged(data, value):
    """The value with one to three places changed; what is mutable in it is changed in place."""
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(value))))
        if not path:
            return data.draw(JUNK)
        part = value
        for key in path[:-1]:
            part = part[key]
        what = data.draw(st.sampled_from(["replace", "replace", "delete", "add"]))
        if what == "delete":
            del part[path[-1]]
        elif what == "replace":
            part[path[-1]] = data.draw(JUNK)
        elif isinstance(part, dict):
            part[data.draw(NAMES)] = data.draw(JUNK)
        else:
            part.append(data.draw(JUNK))
    return value
