"""The gate: which cell is compared, three outcomes, what is said, and the file of a baseline."""

import gzip
import json
import random
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.damage import damaged, tried
from helpers.synthetic import adding_up, bad_result, result
from quantlab.cli import baseline, gate
from quantlab.records import bundle, storage
from quantlab.records.schema import Speed
from quantlab.util.errors import ConfigError

MARGIN = ("--margin", "1")


def spoken(quant="hqq_int4", cell_id="cell", speakers=40, worse=0, better=0, seed=7, **changes):
    """A cell whose utterances are of many speakers; `worse` of them have one more error, `better` one fewer."""
    found = result(quant, cell_id, **changes)
    order = random.Random(seed).sample(range(320), 320)
    more, fewer = set(order[:worse]), set(order[-better:] if better else [])
    some = []
    for index, item in enumerate(found.utterances):
        wrong = min(8, max(0, item.substitutions + (index in more) - (index in fewer)))
        counts = {"substitutions": wrong, "hits": 8 - wrong, "char_errors": 2 * wrong}
        heard = item.hypothesis if wrong == item.substitutions else f"{item.hypothesis} changed"
        some.append(item.model_copy(update=counts | {"speaker": f"s{index % speakers}", "hypothesis": heard}))
    return adding_up(found.model_copy(update={"utterances": tuple(some)}))


@pytest.fixture
def asked(tmp_path, capsys):
    """Compare cells with a baseline of others: exit code and what was printed as JSON."""

    def ask(before, now, *options):
        earlier = [changed(cell, created_at="2026-01-01T00:00:00+00:00") for cell in before]
        for name, cells in (("before", earlier), ("now", now)):
            for cell in cells:
                storage.write(tmp_path / name, cell)
        packed = tmp_path / "baseline.json.gz"
        assert baseline.main(["--root", str(tmp_path / "before"), "--out", str(packed)]) == 0
        capsys.readouterr()
        where = ["--root", str(tmp_path / "now"), "--baseline", str(packed), "--format", "json"]
        code = gate.main([*where, *MARGIN, *options])
        return code, json.loads(capsys.readouterr().out)

    return ask


def answers(found):
    return [(one["question"], one["outcome"]) for cell in found["cells"] for one in cell["answers"]]


def changed(found, **update):
    return found.model_copy(update={"record": found.record.model_copy(update=update)})


# The outcomes


@pytest.mark.parametrize(
    ("difference", "code", "said"),
    [
        ({}, 0, "a loss of 1 points is excluded"),
        ({"worse": 60}, 1, "a loss is shown"),
        ({"worse": 8}, 0, "a loss is shown (p = 0.008), but one of 1 points is excluded"),
        ({"better": 60}, 0, "better"),
    ],
)
def test_the_outcome_follows_from_the_difference(difference, code, said, asked):
    found_code, found = asked([spoken()], [spoken(**difference)])
    assert found_code == code, found
    assert said in found["cells"][0]["answers"][0]["why"]


def test_what_differs_in_both_directions_cannot_be_told(asked):
    code, found = asked([spoken(worse=60, seed=1)], [spoken(worse=64, seed=2)], "--margin", "0.2")
    assert (code, found["cells"][0]["accuracy"]["worse"]) == (3, False)
    assert "no loss is shown" in found["cells"][0]["answers"][0]["why"]


def test_too_few_units_cannot_tell(asked):
    few = [cell.model_copy(update={"utterances": cell.utterances[:9]}) for cell in (spoken(), spoken(worse=300))]
    code, found = asked(*([adding_up(cell)] for cell in few))
    assert code == 3
    assert "too few utterances (9)" in found["cells"][0]["answers"][0]["why"]


def test_the_worst_cell_decides_and_the_correction_is_over_all(asked):
    code, found = asked([spoken(), spoken("bnb_nf4", "bnb")], [spoken(), spoken("bnb_nf4", "bnb", worse=60)])
    assert code == 1
    both = [cell["accuracy"] for cell in found["cells"]]
    worse = max(both, key=lambda item: item["difference"]["value"])
    assert worse["p_holm"] == pytest.approx(2 * worse["p"])


def test_size_and_speed(asked):
    assert asked([spoken()], [spoken()], "--max-size", "5")[0] == 0
    assert asked([spoken()], [spoken()], "--max-size", "4")[0] == 1
    slow = spoken()
    slow = slow.model_copy(
        update={"batches": tuple(b.model_copy(update={"elapsed_s": 1.3 * b.elapsed_s}) for b in slow.batches)}
    )
    code, found = asked([spoken()], [adding_up(slow)], "--max-slowdown", "1.1")
    assert (code, found["cells"][0]["time_ratio"]["value"]) == (1, pytest.approx(1.3))
    assert asked([spoken()], [adding_up(slow)], "--max-slowdown", "1.4")[0] == 0


def test_on_another_machine_speed_is_not_judged(asked):
    other = changed(spoken(), environment=spoken().record.environment | {"processor": "another"})
    code, found = asked([spoken()], [other], "--max-slowdown", "0.5")
    assert (code, answers(found)) == (0, [("accuracy", "pass"), ("speed", "not judged")])
    assert "a processor → another" in found["cells"][0]["answers"][1]["why"]


def test_ratios_in_turns_are_preferred_and_an_interval_over_the_limit_cannot_tell(asked):
    def timed(ratio, low, high):
        speed = Speed(ratio=ratio, ci95=(low, high), converged=True, verdict="faster", blocks=12)
        return changed(spoken(), speed=speed)

    code, found = asked([timed(0.5, 0.48, 0.52)], [timed(0.55, 0.5, 0.6)], "--max-slowdown", "1.1")
    ratio = found["cells"][0]["time_ratio"]
    assert (code, ratio["value"]) == (3, pytest.approx(1.1))
    assert ratio["ci95"][0] == pytest.approx(0.9923, abs=1e-4)  # 1.1 exp(−√(ln(.55/.5)² + ln(.52/.5)²)), by hand
    assert asked([timed(0.5, 0.49, 0.51)], [timed(0.7, 0.69, 0.71)], "--max-slowdown", "1.1")[0] == 1


# What is compared


@pytest.mark.parametrize(
    ("now", "code", "said"),
    [
        ([bad_result("failed", "why", "bnb_nf4")], 3, "there is no cell with quant=hqq_int4"),
        ([bad_result("oom", "no memory", "hqq_int4")], 1, "its status is oom: no memory"),
        ([changed(spoken(), fingerprints={"checkpoint": "c" * 64, "corpus": "e" * 64})], 3, "but other audio"),
        (
            [changed(spoken(dataset__limit=40), fingerprints={"checkpoint": "c" * 64, "corpus": "e" * 64})],
            3,
            "measured on other utterances: dataset.limit none → 40",
        ),
        ([adding_up(spoken().model_copy(update={"utterances": spoken().utterances[:300]}))], 3, "20 of 320"),
        ([changed(spoken(), normaliser="basic")], 3, "normaliser whisper in the baseline, basic now"),
        ([spoken(protocol__batch_size=8), spoken(cell_id="other", protocol__batch_size=4)], 3, "name one with --cell"),
    ],
)
def test_what_is_not_comparable_is_no_silent_pass(now, code, said, asked):
    found_code, found = asked([spoken()], now)
    assert found_code == code
    assert said in found["cells"][0]["answers"][0]["why"]


def test_the_record_that_the_baseline_was_made_of_is_no_measurement(tmp_path, capsys):
    storage.write(tmp_path / "root", spoken())
    packed = tmp_path / "baseline.json.gz"
    assert baseline.main(["--root", str(tmp_path / "root"), "--out", str(packed)]) == 0
    assert gate.main(["--root", str(tmp_path / "root"), "--baseline", str(packed), *MARGIN]) == 3
    assert "cannot tell  measured: not measured again: it is the record that the baseline" in capsys.readouterr().out


def test_other_references_are_not_compared(asked):
    one = spoken()
    first = one.utterances[0].model_copy(update={"reference": "other words"})
    code, found = asked([one], [one.model_copy(update={"utterances": (first, *one.utterances[1:])})])
    assert (code, "1 reference text of 320 differ" in found["cells"][0]["answers"][0]["why"]) == (3, True)


def test_the_nearest_cell_and_of_equal_ones_the_latest_is_chosen(asked):
    now = [spoken(cell_id="far", protocol__batch_size=4, worse=60), spoken(cell_id="old", worse=60)]
    code, found = asked([spoken()], [*now, spoken(cell_id="new", minute=9)])
    assert (code, found["cells"][0]["cell_id"]) == (0, "new")
    assert "the latest of 2 records with its settings" in found["cells"][0]["notes"]


def test_no_record_is_compared_twice(asked):
    code, found = asked([spoken(), spoken(cell_id="seed1", seed=1)], [spoken()])
    assert (code, sorted(outcome for _, outcome in answers(found))) == (3, ["cannot tell", "pass"])


def test_another_quantizer_is_compared_if_asked_for(asked):
    assert asked([spoken()], [spoken("bnb_nf4", "bnb")])[0] == 3
    code, found = asked([spoken()], [spoken("bnb_nf4", "bnb")], "--cell", "bnb")
    assert code in (0, 3)
    assert any("quant.library hqq → bnb" in note for note in found["cells"][0]["notes"])


def test_the_order_of_the_utterances_does_not_matter(asked):
    one = spoken(worse=60)
    code, found = asked([spoken()], [one.model_copy(update={"utterances": one.utterances[::-1]})])
    assert code == 1
    assert found["cells"][0]["accuracy"]["difference"]["value"] > 0


def test_without_records_nothing_passes(tmp_path, capsys):
    storage.write(tmp_path / "before", spoken())
    where = ["--root", str(tmp_path / "nowhere"), "--baseline", str(tmp_path / "before")]
    assert gate.main(where) == 3
    assert "no records" in capsys.readouterr().err


def test_of_what_changed_the_likeliest_causes_come_first(asked):
    marks = spoken().record.fingerprints | {"checkpoint": "e" * 64}
    environment = spoken().record.environment | {"versions": {"torch": "9.9"}, "threads": 7}
    now = changed(spoken(protocol__batch_size=3, model__name="other"), fingerprints=marks, environment=environment)
    names = [line.split(" ")[0] for line in asked([spoken()], [now])[1]["cells"][0]["changed"]]
    assert names[0] == "model.name"
    places = [names.index(name) for name in ("checkpoint", "torch", "threads", "protocol.batch_size")]
    assert places == sorted(places)


# What is written


def test_junit_has_a_case_for_each_question(asked, tmp_path):
    other = changed(spoken(worse=60), environment={"processor": "x"})
    bad = bad_result("oom", "no \x1b memory", "bnb_nf4")
    asked([spoken(), spoken("bnb_nf4", "b")], [other, bad], "--max-slowdown", "1", "--junit", str(tmp_path / "j.xml"))
    suite = ElementTree.parse(tmp_path / "j.xml").getroot().find("testsuite")
    counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == ["3", "2", "0", "1"]
    cases = {(case.get("classname"), case.get("name")): [child.tag for child in case] for case in suite}
    assert cases["nano-hqq_int4-cpu", "speed"] == ["skipped", "system-out"]
    assert cases["nano-bnb_nf4-cpu", "measured"] == ["failure", "system-out"]


def test_markdown_is_a_table(asked, tmp_path):
    asked([spoken()], [spoken(worse=60)], "--markdown", str(tmp_path / "m.md"))
    said = (tmp_path / "m.md").read_text(encoding="utf-8")
    assert said.startswith("### quantlab gate: fail: 1 cell of the baseline, 1 fail\n")
    assert "| ❌ fail | nano-hqq_int4-cpu | accuracy | WER " in said


# The file


def test_five_hundred_utterances_are_below_a_megabyte_and_the_bytes_are_the_same(tmp_path):
    one = spoken()
    many = tuple(one.utterances[index % 320].model_copy(update={"id": f"utterance-{index}"}) for index in range(500))
    storage.write(tmp_path, adding_up(one.model_copy(update={"utterances": many})))
    [packed] = baseline.packed(tmp_path)
    sizes = [bundle.write(tmp_path / name, [packed]) for name in ("a", "b")]
    assert sizes[0] < 100_000
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert bundle.read(tmp_path / "a").cells == (packed,)


def test_it_holds_no_text_and_no_path(tmp_path):
    config = spoken().record.config
    for key in bundle.PATHS:
        *sections, last = key.split(".")
        part = config = {**config}
        for name in sections:
            part[name] = {**(part.get(name) or {})}
            part = part[name]
        part[last] = f"/home/me/secret/{'model' if key == 'model.path' else key}"
    config["dataset"]["noise"] |= {"kind": None, "snr_db": None}
    one = changed(spoken(), config=config, keywords=("amiodarone",))
    storage.write(tmp_path, one)
    bundle.write(tmp_path / "b", baseline.packed(tmp_path))
    text = gzip.decompress((tmp_path / "b").read_bytes()).decode()
    for secret in (
        one.utterances[0].reference,
        one.utterances[0].id,
        '"s1"',
        "/home/me",
        'traceback":"T',
        "amiodarone",
    ):
        assert secret not in text
    assert '"path":"model"' in text


def rewritten(path, change):
    content = json.loads(gzip.decompress(path.read_bytes()))
    change(content)
    path.write_bytes(gzip.compress(json.dumps(content).encode()))


@pytest.fixture
def packed(tmp_path):
    storage.write(tmp_path, spoken())
    bundle.write(tmp_path / "b.json.gz", baseline.packed(tmp_path))
    return tmp_path / "b.json.gz"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.update(version=0), "version 0 of the format, this quantlab reads version 1"),
        (lambda content: content.update(format="x"), "is not a baseline"),
        (lambda content: content.update(cells=[]), "cells"),
        (lambda content: content["cells"][0]["utterances"]["errors"].pop(), "differ in length"),
        (lambda content: content["cells"][0]["utterances"]["errors"].__setitem__(0, 99), "do not add up"),
        (lambda content: content["cells"][0]["utterances"]["id"].__setitem__(0, "../x"), "pattern"),
    ],
)
def test_a_file_that_is_not_right_is_one_line(change, said, packed, capsys):
    rewritten(packed, change)
    assert gate.main(["--root", str(packed.parent), "--baseline", str(packed)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", gzip.compress(b"[" * 100_000), gzip.compress(b"x")[:-4], gzip.compress(b"{}") + b"y"],
    ids=["empty", "no gzip", "no object", "cut off", "more after it"],  # the bytes have the time in them
)
def test_what_is_no_baseline_is_one_line(content, tmp_path, capsys):
    (tmp_path / "b.json.gz").write_bytes(content)
    assert gate.main(["--root", str(tmp_path), "--baseline", str(tmp_path / "b.json.gz")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "UNPACKED_BYTES", 1000)
    (tmp_path / "b").write_bytes(gzip.compress(b" " * 10_000_000))
    with pytest.raises(ConfigError, match="unpacks to more than 1,000 bytes"):
        bundle.read(tmp_path / "b")


@pytest.mark.fuzz
@tried()
@given(data=st.data())
def test_a_damaged_file_is_refused_or_compared(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    few = spoken()
    storage.write(folder, adding_up(few.model_copy(update={"utterances": few.utterances[:12]})))
    path = folder / "b.json.gz"
    bundle.write(path, baseline.packed(folder))
    content = damaged(data, json.loads(gzip.decompress(path.read_bytes())))
    path.write_bytes(gzip.compress(json.dumps(content).encode("utf-8", "replace")))
    assert gate.main(["--root", str(folder), "--baseline", str(path)]) in (0, 1, 2, 3)


def test_a_cell_that_was_not_measured_is_no_baseline(tmp_path, capsys):
    storage.write(tmp_path, bad_result("failed", "why"))
    assert baseline.main(["--root", str(tmp_path), "--out", str(tmp_path / "b")]) == 1
    assert baseline.main(["bad", "--root", str(tmp_path), "--out", str(tmp_path / "b")]) == 2
    assert "its status is failed" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
