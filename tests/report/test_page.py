"""The page as a browser shows it: opened from a file, hovered over, clicked, sorted, on a phone, in the dark."""

import json
import re
import shutil

import pytest

from helpers import pages
from helpers.browsers import chromium
from helpers.synthetic import result
from quantlab.config.schema import DatasetConfig
from quantlab.data import open_corpus
from quantlab.data.readers.manifest import ASSETS
from quantlab.records import storage
from quantlab.report import html
from quantlab.report.summaries import summaries

pytestmark = pytest.mark.browser
HOSTILE = '</script><img src=x onerror="document.title=`taken`"> & \u2028 <b>bold</b> <a href="javascript:1">link</a>'
PAGE_BYTES = 8_000_000


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The page of 30 cells with 400 utterances each, and its records."""
    root = tmp_path_factory.mktemp("large")
    pages.large_grid(root)
    path = root / "report.html"
    path.write_text(html.page(summaries(root)), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser):
    """Opens pages; fails the test if one of them complains or asks for anything but itself."""
    complaints, contexts = [], []

    def show(path, width=1280, height=900, wait=True, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else 0
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url[:100]}"))
        page.on("request", lambda request: None if _own(request.url) else complaints.append(request.url[:100]))
        page.goto(path.as_uri())
        if wait:
            page.wait_for_selector("html[data-drawn=all-charts]")
        return page

    yield show
    for context in contexts:
        context.close()
    assert complaints == []


def _own(url):
    return url.startswith(("file:", "data:", "blob:"))


def point(page, cell):
    """Where a cell's point is on the screen."""
    return page.evaluate(
        """cell => {
            const chart = document.getElementById("scatter"), box = chart.getBoundingClientRect();
            for (const trace of chart.data.filter((one) => one.customdata)) {
                const index = trace.customdata.findIndex(([id]) => id === cell);
                if (index < 0) continue;
                const { xaxis, yaxis, _size } = chart._fullLayout;
                return [box.x + _size.l + xaxis.d2p(trace.x[index]), box.y + _size.t + yaxis.d2p(trace.y[index])];
            }
        }""",
        cell,
    )


def shown_cells(page):
    return [row.get_attribute("data-cell") for row in page.locator("#cells tbody tr:not([hidden])").all()]


def column(page, title):
    heads = page.locator("#cells thead th").all_inner_texts()
    return next(index for index, text in enumerate(heads) if text.startswith(title))


def figures(page, title):
    index = column(page, title)
    return [
        float(value) if value is not None else None
        for row in page.locator("#cells tbody tr").all()
        for value in [row.locator("th, td").nth(index).get_attribute("data-v")]
    ]


def test_all_charts_are_drawn(opened, large):
    page = opened(large)
    assert page.locator("#scatter .scatterlayer .point").count() == 30
    assert page.locator("#forest .scatterlayer .point").count() == 25
    assert page.locator("#splits .scatterlayer .point").count() == 60
    assert page.locator("#scatter .errorbar").count() >= 30
    assert page.locator("#scatter-note").inner_text().count("%") > 3


def test_with_a_reference_asked_for_accuracy_is_compared_with_it(opened, tmp_path):
    said, counts = pages.spoken(60), {}
    for quant in ("none", "hqq_int3", "hqq_int4"):
        storage.write(tmp_path, pages.cell(quant, said, quant, counts))
    path = tmp_path / "report.html"
    path.write_text(html.page(summaries(tmp_path, against="hqq_int3")), encoding="utf-8")
    page = opened(path)
    assert page.locator("#forest .scatterlayer .point").count() == 2
    assert "of hqq_int3, points" in page.locator("#forest").inner_text()
    assert page.locator("#cells .badge.reference").count() == 1
    assert page.locator("#scatter .legend").text_content().count("fp32") == 1
    page.locator("#cells tbody a", has_text="hqq_int4").click()
    assert page.locator("#hypotheses h3").inner_text() == "Texts that differ from those of hqq_int3"
    assert set(page.locator("#hypotheses .hypotheses b").all_text_contents()) == {"reference", "hqq_int3", "this cell"}


def test_what_a_line_between_splits_shows_is_said_by_its_scale(opened, large):
    page = opened(large)
    note = page.locator("#splits-note").inner_text()
    log = page.evaluate("document.getElementById('splits')._fullLayout.xaxis.type") == "log"
    assert ("not by the length" in note) is log
    assert ("The longer the line" in note) is not log


def test_hover_names_the_cell(opened, large):
    page = opened(large)
    page.locator("#scatter").scroll_into_view_if_needed()
    page.mouse.move(*point(page, "cell003"))
    page.wait_for_selector("#scatter .hoverlayer .hovertext")
    told = page.locator("#scatter .hoverlayer").text_content()
    assert page.locator("tr[data-cell=cell003] a").inner_text() in told
    assert "WER" in told
    assert "RTF" in told


def test_click_on_a_point_opens_its_sheet(opened, large):
    page = opened(large)
    page.locator("#scatter").scroll_into_view_if_needed()
    page.mouse.click(*point(page, "cell003"))
    page.wait_for_selector("#sheet[open] .utterance")
    assert page.url.endswith("#cell=cell003")
    page.keyboard.press("Escape")
    page.wait_for_selector("#sheet", state="hidden")
    assert "#" not in page.url


def test_the_sheet_compares_worst_first_word_by_word(opened, large):
    page = opened(large)
    page.locator("tr[data-cell=cell003] a").click()
    page.wait_for_selector("#sheet[open] .utterance")
    told = page.locator(".utterance .head span:nth-child(2)").all_text_contents()
    counts = [tuple(map(int, re.findall(r"\d+", text))) for text in told]
    change = [after - before for before, after in counts]
    assert change == sorted(change, reverse=True)
    first = page.locator(".utterance").first
    before, after = counts[0]
    both = first.locator(".hypotheses > div")
    assert both.nth(1).locator(".s, ins, del").count() == before
    assert both.nth(2).locator(".s, ins, del").count() == after
    colours = {kind: page.evaluate("name => getComputedStyle(document.querySelector(`.legend ${name}`)).color", kind)
               for kind in (".s", "ins", "del")}  # fmt: skip
    assert len(set(colours.values())) == 3


def test_the_sheet_searches_and_shows_more(opened, large):
    page = opened(large)
    page.locator("tr[data-cell=cell003] a").click()
    page.wait_for_selector("#sheet[open] .utterance")
    at_first = page.locator(".utterance").count()
    page.get_by_role("button", name=re.compile("^Show .* more")).click()
    assert page.locator(".utterance").count() > at_first
    page.get_by_label("Find").last.fill("thunder")
    texts = page.locator(".utterance").all_text_contents()
    assert texts
    assert all("thunder" in text for text in texts)


def test_the_sheet_holds_receipt_timing_and_environment(opened, large):
    page = opened(large)
    page.locator("tr[data-cell=cell003] a").click()
    page.wait_for_selector("#sheet[open] #latency .bars .point")
    receipt = page.locator("details.part", has_text="Receipt")
    assert receipt.get_attribute("open") is None
    receipt.locator("summary").click()
    assert receipt.locator("tbody tr").count() == 73
    assert "QLinear" in receipt.inner_text()
    page.locator("details.part", has_text="Environment").locator("summary").click()
    assert "a processor" in page.locator("details.part", has_text="Environment").inner_text()


def test_headings_sort_with_the_mouse_and_the_keyboard(opened, large):
    page = opened(large)
    head = page.locator("#cells thead th").nth(column(page, "WER"))
    head.locator("button").click()
    there = [value for value in figures(page, "WER") if value is not None]
    assert there == sorted(there)
    assert figures(page, "WER")[-2:] == [None, None]  # what was not measured comes last
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").press("Enter")
    there = [value for value in figures(page, "WER") if value is not None]
    assert there == sorted(there, reverse=True)
    assert figures(page, "WER")[-2:] == [None, None]
    assert head.get_attribute("aria-sort") == "descending"
    assert page.locator("th[aria-sort]:not([aria-sort=none])").count() == 1


def test_filters_choose_for_table_and_charts(opened, large):
    page = opened(large)
    page.get_by_label("Library").select_option("hqq")
    assert {page.locator(f"tr[data-cell={cell}]").get_attribute("data-library") for cell in shown_cells(page)} == {
        "hqq"
    }
    page.wait_for_timeout(400)
    ticks = page.locator("#forest .ytick text").all_text_contents()
    assert ticks
    assert all("hqq" in text for text in ticks)
    page.get_by_label("Find").fill("int3")
    assert all("int3" in page.locator(f"tr[data-cell={cell}]").inner_text() for cell in shown_cells(page))
    assert page.locator("#count").inner_text() == f"{len(shown_cells(page))} of 32 cells; charts: demo, cpu"
    assert page.locator("[data-short]:visible").count() == 1
    page.get_by_label("Corpus and device").select_option(index=2)
    assert page.locator("[data-short]:visible").get_attribute("data-short") == "1"
    page.get_by_role("button", name="Show all").click()
    assert len(shown_cells(page)) == 32
    page.get_by_label("Status").select_option("oom")
    assert shown_cells(page) == ["bad1"]


def test_axes_of_the_scatter_can_be_chosen(opened, large):
    page = opened(large)
    before = page.locator("#scatter .xtitle").text_content()
    page.get_by_label("size", exact=True).check()
    page.locator("#scatter .xtitle", has_text="MB").wait_for()
    assert "MB" not in before
    page.locator("#y").get_by_label("other").check()
    page.wait_for_timeout(300)
    assert page.locator("#scatter .scatterlayer .point").count() == 30


def test_charts_of_few_cells_leave_no_blank_and_the_toolbar_covers_no_legend(opened, large):
    """At any width, also after it changed, whatever is filtered."""
    page = opened(large, width=600)
    boxes = """() => [...document.querySelectorAll("main .chart")].map((chart) => {
        const box = (part) => chart.querySelector(part)?.getBoundingClientRect();
        return [chart.offsetHeight, chart._fullLayout.height, box(".modebar").bottom, box(".legend")?.top ?? Infinity];
    })"""
    page.get_by_label("Library").select_option("hqq")
    page.get_by_label("Find").fill("base")
    page.locator("#forest .ytick", has_text="tiny").first.wait_for(state="detached")
    for width in (600, 1280, 320):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(400)
        for there, drawn, toolbar, legend in page.evaluate(boxes):
            assert there == drawn
            assert toolbar < legend


def test_failed_cells_have_a_sheet_with_their_reason(opened, large):
    page = opened(large)
    page.locator("#not-measured li", has_text="oom").locator("a").click()
    page.wait_for_selector("#sheet[open] .facts")
    assert "needs 3.2 GB, has 2.0" in page.locator("#sheet").inner_text()


def test_dark_by_preference_and_by_button(opened, large):
    light, dark = opened(large), opened(large, color_scheme="dark")

    def look(page):
        ink = "getComputedStyle(document.body).color"
        tick = "getComputedStyle(document.querySelector('#scatter .xtick text')).fill"
        return page.evaluate(f"[getComputedStyle(document.body).backgroundColor, {ink}, {tick}]")

    assert len(set(look(light) + look(dark))) == 4  # page and ink, each light and dark; ticks are ink
    light.locator("#theme").click()
    light.wait_for_timeout(500)
    assert look(light) == look(dark)


@pytest.mark.parametrize("width", [320, 375])
def test_a_phone_scrolls_down_and_never_sideways(opened, large, width):
    page = opened(large, width=width, height=720, is_mobile=True, has_touch=True)
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) <= width
    assert page.evaluate("(box => box.scrollWidth > box.clientWidth)(document.querySelector('#all .box'))")
    page.locator("tr[data-cell=cell003] a").tap()
    page.wait_for_selector("#sheet[open] .utterance")
    for part in page.locator("details.part").all():
        part.evaluate("part => part.open = true")
    assert page.evaluate("document.getElementById('sheet').scrollWidth") <= width


def test_every_field_has_a_name_and_the_focus_is_seen(opened, large):
    page = opened(large)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button")].filter((one) => one.offsetParent
            && !one.labels?.length && !one.textContent.trim() && !one.getAttribute("aria-label"))
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2


def test_what_models_say_is_text(opened, tmp_path):
    said = [item.model_copy(update={"reference": f"{item.reference} {HOSTILE}"}) for item in pages.spoken(8)]
    heard = [pages.counted(item.model_copy(update={"hypothesis": f"{HOSTILE} wrong"})) for item in said]
    right = [pages.counted(item.model_copy(update={"hypothesis": item.reference})) for item in said]
    for quant, cell, texts in (("none", "cell0", right), ("torch_int8", "cell1", heard)):
        made = pages.cell(quant, said, cell, {})
        storage.write(tmp_path, made.model_copy(update={"utterances": tuple(texts)}))
    name = result("bnb_nf4", cell_id="cell2", quant__name=HOSTILE, quant__library=HOSTILE, model__name=HOSTILE)
    storage.write(tmp_path, name)
    path = tmp_path / "report.html"
    path.write_text(html.page(summaries(tmp_path)), encoding="utf-8")
    page = opened(path)
    page.locator("tr[data-cell=cell1] a").click()
    page.wait_for_selector("#sheet[open] .utterance")
    page.locator(".utterance details").first.evaluate("part => part.open = true")
    assert '<img src=x onerror="document.title=`taken`">' in page.locator(".utterance").first.inner_text()
    assert page.locator("img, a[href^=javascript]").count() == 0
    assert page.title() != "taken"
    page.keyboard.press("Escape")
    page.locator("tr[data-cell=cell2] a").click()
    page.wait_for_selector("#sheet[open] .facts")
    assert "<b>bold</b>" in page.locator("#sheet-title").inner_text()
    for chart in ("#scatter", "#forest", "#splits"):
        told = page.locator(chart).text_content()
        assert "<b>bold</b>" in told or "img src" not in told  # in legends, labels and ticks it is text, too
    assert "<b>bold</b>" in page.locator("#scatter .legend").text_content()
    assert page.locator("img, a[href^=javascript]").count() == 0


def test_audio_plays_and_where_it_has_gone_the_player_goes(browser, tmp_path):
    corpus = _corpus(tmp_path)
    path = _page_of(corpus, tmp_path)
    page = browser.new_page()
    page.goto(path.as_uri())
    page.locator("tr[data-cell=cell0] a").click()
    page.wait_for_selector("audio")
    assert page.locator("audio").count() == 4
    seconds = page.evaluate(
        """() => new Promise((done) => {
            const audio = document.querySelector("audio");
            audio.onloadedmetadata = () => done(audio.duration);
            audio.preload = "metadata";
        })"""
    )
    assert 0.5 < seconds < 30
    for item in corpus.splits["clean"]:
        item.audio().unlink()
    page.locator("audio").nth(1).evaluate("audio => { audio.play().catch(() => {}) }")
    page.locator("audio").nth(3).wait_for(state="detached")
    assert page.locator("audio").count() == 3
    page.close()


def _corpus(folder):
    """Four clips of the shipped corpus, moved to where a test may delete them."""
    lines = (ASSETS / "demo" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[:4]
    (folder / "clean").mkdir()
    for line in lines:
        name = json.loads(line)["audio"]
        shutil.copy(ASSETS / "demo" / name, folder / name)
    (folder / "manifest.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return open_corpus(DatasetConfig.model_validate(_dataset(folder)))


def _dataset(folder):
    return {"name": "manifest", "source": "manifest", "path": str(folder / "manifest.jsonl")}


def _page_of(corpus, folder):
    said = [
        pages.spoken(1)[0].model_copy(update={"id": item.id, "reference": item.text, "hypothesis": "wrong"})
        for item in corpus.splits["clean"]
    ]
    made = pages.cell("none", said, "cell0", {})
    config = made.record.config | {"dataset": _dataset(folder)}
    marks = made.record.fingerprints | {"corpus": corpus.fingerprint}
    changed = made.record.model_copy(update={"config": config, "fingerprints": marks})
    texts = tuple(pages.counted(item) for item in said)
    storage.write(folder, made.model_copy(update={"record": changed, "utterances": texts}))
    path = folder / "report.html"
    path.write_text(html.page(summaries(folder), audio=(folder,)), encoding="utf-8")
    return path


def test_thirty_cells_weigh_little(large):
    assert large.stat().st_size < PAGE_BYTES


def test_without_a_script_the_tables_stand(browser, large):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(large.as_uri())
    assert page.locator("#cells tbody tr").count() == 32
    assert page.locator("noscript").inner_text().startswith("Charts")
    context.close()
