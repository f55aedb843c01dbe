"""What goes into the page: fronts with their uncertainty, alignments, as many texts as fit, no markup of others."""

import base64
import gzip
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from helpers import pages
from helpers.compared import changed, compared
from helpers.synthetic import QUANTS, bad_result, grid, result, split_result
from quantlab.config.schema import DatasetConfig
from quantlab.data import open_corpus
from quantlab.data.readers.manifest import ASSETS
from quantlab.records import storage
from quantlab.records.schema import Noise
from quantlab.report import html
from quantlab.report.front import Candidate, front, on_front
from quantlab.report.html import clips, sections, summary
from quantlab.report.html.align import alignments
from quantlab.report.html.payload import asset, packed, policy
from quantlab.report.html.templates import environment
from quantlab.report.summaries import summaries
from quantlab.scoring.normalise import normaliser
from quantlab.stats.estimate import Estimate

HOSTILE = '</script><img src=x onerror="document.title=`taken`"> & \u2028 <!--texts--> $title {{7*7}}'


def block(page, name):
    """A data block of the page, as the browser reads it."""
    found = re.search(rf'<script type="application/octet-stream" id="{name}">([^<]*)</script>', page)
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


# Pareto front


def test_on_front_by_hand():
    x, y = np.array([[1.0, 2.0, 3.0, 2.5]]), np.array([[3.0, 2.0, 1.0, 2.5]])
    assert on_front(x, y).tolist() == [[True, True, True, False]]


def test_on_front_agrees_with_comparing_all_pairs():
    random = np.random.default_rng(1)
    x, y = random.random((50, 12)), random.random((50, 12))
    beaten = [
        [any(a[j] < a[i] and b[j] < b[i] for j in range(12)) for i in range(12)] for a, b in zip(x, y, strict=True)
    ]
    assert (on_front(x, y) == ~np.array(beaten)).all()


def test_equal_cells_one_is_on_the_front():
    assert on_front(np.ones((1, 2)), np.ones((1, 2))).tolist() == [[True, False]]


def test_exact_estimates_have_a_front_without_a_band():
    found = front([Candidate("a", Estimate(1), Estimate(0.2)), Candidate("b", Estimate(2), Estimate(0.1))])
    assert found.cells == ("a", "b")
    assert found.share == {"a": 1.0, "b": 1.0}
    assert found.low == found.high
    assert (found.x[0], found.low[0]) == (1, 0.2)
    assert (found.x[-1], found.low[-1]) == (2, 0.1)


def test_share_is_the_probability_of_a_normal_difference():
    # b costs more and is on the front where its WER is below a's: P(N(0.1, 0.1) > 0) = Φ(1) = 0.841
    half = 1.959964 * 0.1
    a = Candidate("a", Estimate(1), Estimate(0.5), ("a", Estimate(0.5)))
    b = Candidate("b", Estimate(2), Estimate(0.4), ("a", Estimate(0.5)), Estimate(-0.1, (-0.1 - half, -0.1 + half)))
    assert front([a, b]).share["b"] == pytest.approx(0.841, abs=0.04)


def test_times_err_by_a_factor():
    # a takes 1, b 2, each within a factor of 2: P(a slower than b) = P(N(0, 1) > ln 2 / (√2 · ln 2 / 1.96)) = 0.083
    a = Candidate("a", Estimate(1, (0.5, 2)), Estimate(0.1))
    b = Candidate("b", Estimate(2, (1, 4)), Estimate(0.1001))
    found = front([a, b])
    assert found.share["b"] == pytest.approx(0.083, abs=0.025)
    assert found.share["a"] == 1.0


def test_luck_that_cells_share_does_not_change_who_is_on_the_front():
    wide = Estimate(0.5, (0.1, 0.9))
    a = Candidate("a", Estimate(1), Estimate(0.5), ("a", wide))
    b = Candidate("b", Estimate(2), Estimate(0.45), ("a", wide), Estimate(-0.05, (-0.06, -0.04)))
    assert front([a, b]).share["b"] == 1.0
    assert front([a, Candidate("b", Estimate(2), Estimate(0.45, (0.05, 0.85)))]).share["b"] < 0.7


def test_the_same_page_twice(tmp_path):
    grid(tmp_path)
    assert html.page(summaries(tmp_path)) == html.page(summaries(tmp_path))


# alignment


@pytest.mark.parametrize(
    ("reference", "hypothesis", "marks"),
    [
        ("a b c", "a b c", "e3"),
        ("a b c", "a x c", "e1s1e1"),
        ("a b c", "a c", "e1d1e1"),
        ("a c", "a b c", "e1i1e1"),
        ("a b", "", "d2"),
        ("", "a b", "i2"),
        ("", "", ""),
    ],
)
def test_alignment_by_hand(reference, hypothesis, marks):
    assert alignments([(reference, hypothesis)]) == [marks]


def test_alignment_counts_what_was_scored():
    said = pages.spoken(40)
    heard = [pages.counted(pages.heard(item, 0.3, "x")) for item in said]
    normalise = normaliser()
    pairs = [(normalise(item.reference).strip(), normalise(item.hypothesis).strip()) for item in heard]
    for item, marks in zip(heard, alignments(pairs), strict=True):
        counts = {kind: sum(int(n) for k, n in re.findall(r"([esdi])(\d+)", marks) if k == kind) for kind in "esdi"}
        assert (counts["s"], counts["d"], counts["i"]) == (item.substitutions, item.deletions, item.insertions)


# texts


def test_worst_regressions_first_and_only_what_differs(tmp_path):
    said = pages.spoken(60)
    counts = {}
    storage.write(tmp_path, pages.cell("none", said, "cell0", counts))
    storage.write(tmp_path, pages.cell("hqq_int3", said, "cell1", counts))
    page = html.page(summaries(tmp_path))
    found, known = block(page, "hypotheses-cell1"), block(page, "utterances")
    base = {u.id: u for u in storage.read_utterances(tmp_path, "cell0")}
    own = {u.id: u for u in storage.read_utterances(tmp_path, "cell1")}
    errors = lambda u: u.substitutions + u.deletions + u.insertions  # noqa: E731
    shown = [known[number][0] for number, *_ in found["hypotheses"]]
    assert set(shown) == {name for name in own if own[name].hypothesis != base[name].hypothesis}
    more = [errors(own[name]) - errors(base[name]) for name in shown]
    assert more == sorted(more, reverse=True)
    assert more[0] > 0
    assert found["worse"] == sum(change > 0 for change in more)
    assert found["compared_with"] == "cell0"


def test_a_page_of_too_much_text_holds_the_worst_and_says_so(tmp_path):
    pages.large_grid(tmp_path, cells=6, utterances=300)
    found = summaries(tmp_path)
    whole = html.page(found)
    limit = len(whole) - 20_000
    small = html.page(found, most_bytes=limit)
    assert len(small.encode()) <= limit
    cell = block(small, "hypotheses-cell005")
    assert 0 < len(cell["hypotheses"]) < cell["differing"]
    assert cell["hypotheses"] == _renumbered(
        block(whole, "hypotheses-cell005")["hypotheses"][: len(cell["hypotheses"])], whole, small
    )


def _renumbered(heard, whole, small):
    before, after = (block(page, "utterances") for page in (whole, small))
    return [[after.index(before[number]), *rest] for number, *rest in heard]


def test_what_was_scored_and_what_was_written(tmp_path):
    said = pages.spoken(2)[0].model_copy(
        update={"reference": "Mr. Brown's colour!", "hypothesis": "mister brown s color"}
    )
    item = result("none", cell_id="cell0").model_copy(update={"utterances": (pages.counted(said),)})
    storage.write(tmp_path, item)
    page = html.page(summaries(tmp_path))
    [[*_, scored, written]] = block(page, "utterances") or [[None, None]]
    assert written == "Mr. Brown's colour!"
    assert scored == normaliser()("Mr. Brown's colour!").strip()


# what others wrote


def test_templates_escape_by_default():
    """In text and in attributes, and what cannot be seen is written out."""
    template = environment().from_string('<p title="{{ x }}" class="{{ nothing }}">{{ ours }}{{ x }}</p>')
    made = template.render(x=f"{HOSTILE}\x1b[31m\ud800\u202e", nothing=None, ours=Markup("<b>ours</b>"))
    assert re.findall("<[^>]*>", made)[1:] == ["<b>", "</b>", "</p>"]
    assert made.count('"') == 4
    assert made.count(r"\x1b[31m\ud800\u202e") == 2
    assert 'class=""' in made


def test_a_name_that_a_template_is_not_given_is_an_error():
    with pytest.raises(UndefinedError):
        environment().from_string("{{ forgotten }}").render()


def test_packed_data_cannot_leave_its_block():
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", packed({"text": HOSTILE, "lone": "\ud800"}))


def test_hostile_names_and_reasons_stay_text(tmp_path):
    storage.write(tmp_path, bad_result("failed", HOSTILE, model__name=HOSTILE, dataset__name=HOSTILE))
    storage.write(tmp_path, result("none", cell_id="cell0", quant__library=HOSTILE))
    page = html.page(summaries(tmp_path))
    assert "<img" not in page
    assert page.count("<script") == page.count("</script>")
    assert "{{7*7}}" in page  # it is there, as text


def test_the_policy_allows_the_two_scripts_and_no_network():
    rules = dict(rule.strip().split(" ", 1) for rule in policy().split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].count("sha256-") == 2
    assert "unsafe" not in rules["script-src"]
    assert "http" not in policy()


def test_nothing_of_ours_points_to_the_network():
    for name in ("page.html.j2", "page.css", "main.js", "base.js", "cell.js", "scatter.js", "forest.js", "table.js"):
        assert not re.search(r"https?://|//cdn|@import|url\(", asset(name))


# what others made


@pytest.mark.parametrize(
    ("name", "digest"),
    [  # of the npm package plotly.js-basic-dist-min 4.1.1
        ("plotly-basic.min.js", "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"),
        ("plotly-basic.LICENSE", "8c45d9eaf50c2f72dd9c7ab9ef440788ba58a3538484b5c51c1f17d5128752e7"),
    ],
)
def test_plotly_is_what_its_makers_published(name, digest):
    assert hashlib.sha256((Path(html.__file__).parent / "assets" / name).read_bytes()).hexdigest() == digest


def test_a_page_of_seven_cells_is_less_than_a_megabyte(tmp_path):
    said, counts = pages.spoken(400), {}
    for quant in QUANTS:
        storage.write(tmp_path, pages.cell(quant, said, quant, counts))
    assert len(html.page(summaries(tmp_path)).encode()) < 1_000_000


# audio, groups, what is told


def test_audio_is_offered_where_the_measured_corpus_lies():
    dataset = {"name": "demo", "source": "shipped", "limit": 2}
    corpus = open_corpus(DatasetConfig.model_validate(dataset))
    found = clips.uris(dataset, corpus.fingerprint)
    assert len(found) == 4
    assert all(uri.startswith("file:///") and uri.endswith(".ogg") for uri in found.values())
    assert clips.uris(dataset, "another corpus") == {}
    assert clips.uris({"name": "librispeech", "source": "hub"}, corpus.fingerprint) == {}
    assert clips.uris({"name": "x", "source": "manifest", "path": "/nowhere.jsonl"}, corpus.fingerprint) == {}
    assert clips.uris({"name": "x", "unknown": 1, "source": "manifest"}, corpus.fingerprint) == {}


def test_of_a_segment_no_more_is_played_than_was_heard(tmp_path):
    shutil.copyfile(ASSETS / "demo/clean/clean-0001.ogg", tmp_path / "talk.ogg")
    rows = [{"offset": 0.25, "duration": 0.5}, {"offset": 1.5}, {"duration": 0.5}, {"channel": 0}, {"id": "whole"}]
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps({"audio": "talk.ogg", "text": "x"} | row) + "\n" for row in rows))
    dataset = {"name": "manifest", "source": "manifest", "path": str(path)}
    found = clips.uris(dataset, open_corpus(DatasetConfig.model_validate(dataset)).fingerprint, (tmp_path,))
    uri = (tmp_path / "talk.ogg").as_uri()
    assert list(found.values()) == [f"{uri}#t=0.250,0.750", f"{uri}#t=1.500", f"{uri}#t=0.000,0.500", uri]
    assert list(found)[-1] == "whole"


def test_nothing_is_opened_but_where_the_user_says_that_audio_is(tmp_path, monkeypatch):
    """Whatever a record names: a file elsewhere, a folder that is left again, a link that leads out."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
        shutil.copyfile(ASSETS / "demo/clean/clean-0001.ogg", folder / "a.ogg")
        lines = [{"audio": "a.ogg", "text": "x", "id": "inside"}, {"audio": "out.ogg", "text": "x", "id": "link"}]
        lines += [{"audio": str(theirs / "a.ogg"), "text": "x", "id": "elsewhere"}]
        (folder / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (ours / "out.ogg").symlink_to(theirs / "a.ogg")
    (ours / "m2.jsonl").symlink_to(theirs / "m.jsonl")

    def dataset(path, **more):
        return {"name": "manifest", "source": "manifest", "path": str(path)} | more

    mark = open_corpus(DatasetConfig.model_validate(dataset(ours / "m.jsonl"))).fingerprint
    assert clips.uris(dataset(ours / "m.jsonl"), mark, (ours,)) == {"inside": (ours / "a.ogg").as_uri()}
    assert clips.uris(dataset(ours / "m.jsonl"), mark, ()) == {}
    monkeypatch.setattr(clips, "_listed", lambda *_: pytest.fail("it was opened"))
    noise = {"kind": "recorded", "snr_db": 3.0, "path": str(theirs), "seed": 0}
    for named in (theirs / "m.jsonl", ours / ".." / "theirs" / "m.jsonl", ours / "m2.jsonl", "/dev/zero", "~/m.jsonl"):
        assert clips.uris(dataset(named), mark, (ours,)) == {}
    assert clips.uris(dataset(ours / "m.jsonl", noise=noise), mark, (ours,)) == {}
    assert clips.uris(dataset(theirs / "m.jsonl", source="shipped", name="demo"), mark, ()) == {}


def test_cells_of_other_corpora_and_devices_are_apart(tmp_path):
    grid(tmp_path)
    storage.write(tmp_path, result("none", cell_id="gpu", device="cuda"))
    storage.write(tmp_path, bad_result("failed", "no corpus", cell_id="lost", model__name="base"))
    made = summary.groups(summaries(tmp_path))
    assert [group.label for group in made] == ["demo, cpu", "demo, cuda"]
    assert "lost" in [row.cell_id for row in made[0].rows]


def test_every_flag_and_every_reason_is_told(tmp_path):
    grid(tmp_path)
    found = summaries(tmp_path)
    flagged = changed(found[0], noise=Noise(flags=("another process took 30 % of the cores",)))
    found = [flagged, *found[1:]]
    assert "another process took 30 % of the cores" in dict(sections.noise(found))
    told = [reason for *_, reason in sections.not_measured(found)]
    for row in found:
        assert row.ok or row.record.reason in told
    page = html.page(found)
    assert all(re.search(rf'id="{part}"', page) for part in ("noise", "not-measured"))


def test_flags_that_differ_in_numbers_are_one_line_with_all_of_them():
    flags = [f"its clock varied between {low} and {high} GHz" for low, high in ((1.2, 3.4), (0.9, 3.1))]
    cells = [changed(compared("hqq_int4", cell_id=flag[25]), noise=Noise(flags=(flag,))) for flag in flags]
    [(what, _)] = sections.noise(cells)
    assert what == "its clock varied between 0.9 to 1.2 and 3.1 to 3.4 GHz"


def test_random_weights_have_a_page_too(tmp_path):
    item = result("none", cell_id="cell0", model__weights="random")
    splits = {name: split_result(None, 0.01) for name in item.record.splits}
    mute = tuple(u.model_copy(update={"hypothesis": None}) for u in item.utterances)
    changed = item.record.model_copy(update={"splits": splits})
    storage.write(tmp_path, item.model_copy(update={"record": changed, "utterances": mute}))
    page = html.page(summaries(tmp_path))
    assert block(page, "state")["cells"]["cell0"]["wer"]["all"] is None
    assert "hypotheses-cell0" not in page.replace("`hypotheses-", "")


@pytest.mark.parametrize(
    ("stored", "called"),
    [(["float32"], "fp32"), (["float16"], "float16"), (["float32", "bfloat16"], "the baseline")],
)
def test_what_cells_are_compared_with_is_called_what_it_is(stored, called, tmp_path):
    for dtype in stored:
        for quant in ("none", "hqq_int4"):
            storage.write(tmp_path, result(quant, f"{dtype}-{quant}", runtime__dtype=dtype))
    page = html.page(summaries(tmp_path))
    assert f"Is it worse than {called}?" in page
    assert f">against {called}" in page
    assert block(page, "state")["reference"] == called
    assert "float32" in stored or "fp32" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)


def test_no_records():
    assert "quantlab -m quant" in html.page(None, [])
