"""Who can use the page: axe finds nothing in any view, light or dark; both languages; a telephone's width; keys."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from tests.page.browsing import Keyboard, cannot, expect, running, soon
from tests.page.test_numbers import large_source

from glassgpt.serving import landscape
from glassgpt.serving.sources import source_of, untrained_baby

pytestmark = pytest.mark.slow
LESSONS = ["letters", "temperature", "fits", "activations", "attractors", "digits", "landscape", "parentheses"]
HAS = "101.262.105.290"  # ids of the small model with words
BABY, WORDS = "m=baby-run@50&ctx=101&red=0", f"m=base&ctx={HAS}"
VIEWS = {  # a name: the address, and what is there once it is ready
    "chain, untrained": ("chain?m=baby-gpt-untrained", "g.node"),
    "chain, a state": (f"chain?{BABY}&over=entropy", "g.node .second"),
    "chain, shorter contexts too": (f"chain?{BABY}&every=1", "g.node >> nth=13"),
    "chain, A and B": (f"chain?{BABY}&b=baby-run@0&show=both", "g.node >> nth=15"),
    "chain, A less B": (f"chain?{BABY}&b=baby-run@0&show=difference", "text=percentage points"),
    "chain, necklaces": (f"chain?{BABY}&lay=necklace", "text=rotations of one another"),
    "chain, a small map": (f"chain?{BABY}&lay=map", "tr[aria-selected=true]"),
    "chain, a map": ("chain?m=large&ctx=103102&red=7", "tr[aria-selected=true]"),
    "chain, a weight changed": (
        "chain?m=baby-run@50~h.1.mlp.c_fc.weight:2.1:1.7&ctx=101&b=baby-run@50&show=both",
        "section.weights canvas",
    ),
    "chain, too large": ("chain?m=base", "text=Commodore 64"),
    "chain, no such model": ("chain?m=nobody", "text=isn't served here"),
    "tokens, empty": ("tokens?m=base", "text=No text yet"),
    "tokens, baby": (f"tokens?{BABY}&T=0.5", "g.bar-row"),
    "tokens, words and cuts": (f"tokens?{WORDS}&T=1.5&k=12&p=0.8", "g.bar-row >> nth=19"),
    "tokens, a tree": (f"tokens?{WORDS}&from=2&tree=0.105.290*1.259*0.46.46", "#tree g.visited >> nth=4"),
    "tokens, beams": (f"tokens?{WORDS}&from=3&way=beam&of=prompt&search=3.5.1", "#tree g.kept"),
    "tokens, A less B": (f"tokens?{BABY}&b=baby-run@0&show=difference", "main .change"),
    "inside, empty": ("inside?m=base", "text=No text yet"),
    "inside, words": (f"inside?{WORDS}", "table.lens button"),
    "inside, a head off": (f"inside?{WORDS}&off=1.0&L=1", "text=Strongest heads"),
    "inside, A less B": (f"inside?{BABY}&b=baby-run@0&show=difference", "table.lens button >> nth=20"),
    "inside, A and B": (
        "inside?m=baby-run@50&ctx=101&b=baby-gpt-untrained&show=both",
        "h2.which >> nth=1",
    ),
    "inside, baby": (f"inside?{BABY}", "table.lens button"),
    "inside, a head step by step": (f"inside?{WORDS}&L=1&H=1&steps=2", "text.weight"),
    "inside, a head of the baby": (f"inside?{BABY}&steps=last", "text.mark"),
    "meaning, words": (f"meaning?{WORDS}", "ol.steps > li"),
    "meaning, empty": ("meaning?m=base", "g.dot"),
    "meaning, A and B": ("meaning?m=baby-run@50&ctx=101&b=baby-run@0&show=both", ".pair > div + div ol.steps > li"),
    "meaning, A less B": (f"meaning?{WORDS}&b=base&show=difference", ".pair > div + div ol.steps > li"),
    "red, none": ("red?m=baby-run@50&ctx=101", "text=No state is red"),
    "red, marked": (f"red?{BABY}", ".answer b"),
    "red, compared": (f"red?{BABY}&b=baby-run@0&show=both", ".answer span"),
    "red, A less B": (f"red?{BABY}&b=baby-run@0&show=difference", ".answer span >> nth=1"),
    "red, too large": ("red?m=base", "text=Commodore 64"),
    "red, a pattern": (f"red?{WORDS}&pat=290.262.105&n=8&walks=16", "ol.chips li"),
    "lessons, a drawing, blurred": (f"lessons?lesson=digits&x.ink={'0g' * 32}&x.blur=0.7", "main figure"),
    "lessons, a random plane": ("lessons?lesson=landscape&m=baby-run@7&x.plane=random", "main figure"),
    "lessons, no path": ("lessons?lesson=landscape&m=base", "text=has no path to draw"),
    **{f"lessons, {lesson}": (f"lessons?lesson={lesson}&m=baby-run@50", "main figure") for lesson in LESSONS},
}

# What is wider than the window, and stands in nothing that scrolls.
WIDE = """() => {
  const scrolls = (element) => element !== null &&
    (['auto', 'scroll', 'hidden'].includes(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
  return [...document.querySelectorAll('body *')]
    .filter((element) => element.getBoundingClientRect().right > innerWidth + 1 && !scrolls(element))
    .filter((element) => getComputedStyle(element).position !== 'absolute' && !element.closest('svg, .hidden, .skip'))
    .map((element) => `${element.outerHTML.slice(0, 80)} to ${element.getBoundingClientRect().right}`).slice(0, 5);
}"""
# What is to be pressed and smaller than 24 pixels. Sliders have their box of numbers beside them.
SMALL = """() => [...document.querySelectorAll('button, select, summary, input')]
  .map((element) => [element, (element.closest('.switch label') ?? element).getBoundingClientRect()])
  .filter(([, box]) => box.width > 0 && (box.width < 24 || box.height < 24))
  .filter(([element]) => !(element.type === 'checkbox' && element.closest('label')) && element.type !== 'range')
  .map(([element, box]) => `${element.outerHTML.slice(0, 90)}: ${box.width} x ${box.height}`)"""
FOCUS_SHOWS = """() => {
  const at = document.activeElement;
  const isMarked = (element) => {
    const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(element);
    return (outlineStyle !== 'none' && parseFloat(outlineWidth) > 0) || boxShadow !== 'none';
  };
  const part = at.closest('.switch label') ?? at.querySelector('.focus, .ground');
  return at === document.body || isMarked(at) ||
    (part !== null && (isMarked(part) || getComputedStyle(part).stroke !== 'none'));
}"""


@pytest.fixture(scope="module")
def site(browser, baby_run, base):
    run = replace(source_of(str(baby_run.path)), title="baby run")
    words = replace(source_of(str(base)), title="base")
    with pytest.MonkeyPatch.context() as patch, running([untrained_baby(), run, words, large_source()]) as site:
        patch.setattr(landscape, "SIZE", 11)  # a tenth of the losses is as good to look at
        yield site


@pytest.fixture(scope="module")
def axe():
    try:
        from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
    except ImportError:
        cannot("axe is not installed (pip install axe-playwright-python)")
    return Axe()


def violations(axe, page, name):
    """What axe finds, as lines: the rule, what it is about, and where."""
    found = axe.run(page).response["violations"]
    return [
        f"{name}: {rule['id']} ({rule['help']}): {node['target']} {node.get('failureSummary', '')[:300]}"
        for rule in found
        for node in rule["nodes"]
    ]


@pytest.fixture(autouse=True)
def strangers(watch):
    """Of a model that isn't served the page asks whether it is a training: no."""
    watch.allowed.append("/api/v1/train/nobody/events")


def both_themes(axe, page, name):
    found = []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (theme == "dark")
        found += violations(axe, page, f"{name}, {theme}")
    page.emulate_media(color_scheme="light")
    return found


def visit(page, site, view):
    address, ready = VIEWS[view]
    page.goto(f"{site.url}#/{address}")
    expect(page.locator(ready).first).to_be_visible()
    expect(page.locator("main h1")).to_be_visible()


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(view, page, site, axe):
    visit(page, site, view)
    wrong = both_themes(axe, page, view)
    assert not wrong, "\n".join(wrong)


def test_axe_would_find_something(page, site, axe):
    visit(page, site, "chain, a state")
    page.evaluate("document.querySelector('main h1').innerHTML = '<img src=data:,><i style=color:#ccc>pale</i>'")
    found = "\n".join(violations(axe, page, "spoilt"))
    assert "image-alt" in found and "color-contrast" in found


def test_axe_finds_nothing_in_what_opens(page, site, axe):
    """The list of keys, the settings of a training, the table behind a picture."""
    visit(page, site, "inside, words")
    wrong = []
    for summary in page.locator("main summary").all():
        summary.click()
    wrong += both_themes(axe, page, "tables of numbers")
    visit(page, site, "tokens, a tree")
    page.locator("#tree summary").click()
    expect(page.get_by_role("navigation", name="As a list")).to_be_visible()
    wrong += both_themes(axe, page, "a tree as a list")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    wrong += both_themes(axe, page, "list of keys")
    page.get_by_role("button", name="Close").press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    visit(page, site, "chain, untrained")
    page.locator("summary", has_text="Settings").click()
    expect(page.get_by_label("context k")).to_be_visible()
    wrong += both_themes(axe, page, "settings")
    page.get_by_label("context k").fill("40")  # longer than the sequence
    expect(page.get_by_text("The sequence must be longer")).to_be_visible()
    wrong += both_themes(axe, page, "wrong settings")
    assert not wrong, "\n".join(wrong)


def test_axe_finds_nothing_in_an_estimate_of_red(page, site, axe):
    visit(page, site, "red, a pattern")
    page.get_by_role("button", name="Estimate").press("Enter")
    expect(page.get_by_text("from 16 walks.")).to_be_visible()
    page.locator("main summary").click()
    expect(page.locator("main details tbody tr")).to_have_count(9)
    wrong = both_themes(axe, page, "an estimate")
    assert not wrong, "\n".join(wrong)


def test_axe_finds_nothing_when_something_fails(page, site, axe, watch):
    watch.allowed += ["status of 400", "ERR_INTERNET_DISCONNECTED"]
    visit(page, site, "tokens, baby")
    page.locator("#prompt").fill("no digits")
    expect(page.get_by_role("alert")).to_contain_text("is not in this model's vocabulary")
    wrong = both_themes(axe, page, "a text that can't be read")
    page.context.set_offline(True)
    page.locator("#prompt").fill("111")
    expect(page.get_by_role("alert").first).to_be_visible()
    wrong += both_themes(axe, page, "no server")
    page.context.set_offline(False)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "view",
    [
        "chain, a state",
        "tokens, words and cuts",
        "tokens, beams",
        "inside, a head step by step",
        "red, a pattern",
        "lessons, digits",
        "lessons, landscape",
    ],
)
def test_chinese(view, page, site, axe, watch):
    visit(page, site, view)
    english = page.locator("main h1").inner_text()
    page.get_by_label("Language").select_option("zh")
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    expect(page.locator("main h1")).not_to_have_text(english)
    for text in page.locator("h1, h2, main p.lead, footer strong, nav button").all_inner_texts():
        assert re.search(r"[\u4e00-\u9fff]", text), text
    assert not page.locator("body").inner_text().count("{")  # every name in braces is filled in
    wrong = both_themes(axe, page, f"{view}, Chinese")
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")  # it is remembered
    page.get_by_label("语言").select_option("en")
    expect(page.locator("main h1")).to_have_text(english)
    assert not wrong, "\n".join(wrong)


def test_a_browser_that_speaks_chinese_is_greeted_in_it(open_page):
    page = open_page(locale="zh-CN")
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    expect(page.locator("main h1")).to_have_text("马尔可夫链")


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_cut_off_at_360_pixels(view, open_page, site):
    page = open_page(viewport={"width": 360, "height": 740})
    visit(page, site, view)

    def check():
        wide = page.evaluate(WIDE)
        width = page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= 360 and not wide, (width, wide)

    soon(page, check)


def test_what_can_be_pressed_is_large_enough(page, site):
    """24 pixels at least (WCAG 2.5.8), links in running text excepted."""
    small = []
    views = (
        "chain, a state",
        "tokens, words and cuts",
        "tokens, beams",
        "inside, words",
        "inside, a head step by step",
        "red, marked",
        "red, a pattern",
        "lessons, digits",
    )
    for view in views:
        visit(page, site, view)
        small += page.evaluate(SMALL)
    assert not small, "\n".join(small)


def test_escape_closes_the_list_of_keys(page):
    expect(page.locator("g.node").first).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0, timeout=2000)


def test_a_stroke_leads_to_the_text_from_any_view(page):
    expect(page.locator("g.node").first).to_be_visible()
    page.keyboard.press("/")
    expect(page.locator("#prompt")).to_be_visible()
    expect(page.locator("#prompt")).to_be_focused(timeout=2000)


def test_the_focus_can_be_seen_and_the_main_view_be_skipped_to(page):
    keyboard = Keyboard(page)
    expect(page.locator("g.node").first).to_be_visible()
    keyboard.press("Tab")
    skip = page.locator("a.skip")
    expect(skip).to_be_focused()
    assert skip.bounding_box()["x"] >= 0
    keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    for _ in range(25):
        keyboard.press("Tab")
        shown = page.evaluate(FOCUS_SHOWS)
        assert shown, page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
