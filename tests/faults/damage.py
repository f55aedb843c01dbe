"""Random damage to JSON, for tests that fuzz what is read: places taken away, replaced, or added to."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

FEW = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=40,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # an example takes a tenth of a second, shrinking it minutes
)
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
