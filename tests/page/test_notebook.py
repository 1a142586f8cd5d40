"""The page in a notebook's frame: it lives without a server, asks nobody, and leaves what is around it alone."""

from __future__ import annotations

import pytest
from tests.page.beside import Beside, expect_the_ring_of
from tests.page.browsing import BUILT, PATIENCE, cannot, expect

from glassgpt.notebook import show


@pytest.fixture
def notebook(browser, baby_run, tmp_path):
    """A page as a front end makes it of a cell's output, and what goes wrong in it."""
    if not (BUILT / "saved.js").is_file():
        cannot("the page is not built (npm ci and npm run build in page/)")
    frame = show(baby_run, red=["000"]).interactive()
    path = tmp_path / "notebook.html"
    path.write_text(f'<!doctype html><link rel="icon" href="data:,"><p>a cell</p>{frame._repr_html_()}')
    context = browser.new_context(viewport={"width": 1100, "height": 800}, locale="en-GB", reduced_motion="reduce")
    context.set_default_timeout(PATIENCE)
    page, wrongs, asked = context.new_page(), [], []
    page.on("console", lambda message: wrongs.append(message.text))
    page.on("pageerror", lambda error: wrongs.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    expect(page.frame_locator("iframe").get_by_role("radio")).to_have_count(8)
    yield page
    assert page.url == path.as_uri()
    assert wrongs == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
    context.close()


def test_a_run_is_alive_in_its_frame(notebook, baby_run):
    frame = notebook.frames[1]
    expect_the_ring_of(frame, Beside(baby_run.model()))
    expect(frame.get_by_text("red", exact=True).first).to_be_visible()
    frame.get_by_role("slider", name="Training step").press("Home")
    expect(frame.get_by_text("step 0 of 50")).to_be_visible()
    expect_the_ring_of(frame, Beside(baby_run.model(0)))


def test_its_places_are_a_click_away_and_back_leads_back(notebook):
    frame = notebook.frames[1]
    frame.get_by_role("button", name="Red states").click()
    expect(frame.get_by_role("heading", name="Red states")).to_be_visible()
    assert frame.evaluate("location.href").startswith("about:srcdoc#/red")
    frame.evaluate("history.back()")
    expect(frame.get_by_role("heading", name="Chain", exact=True)).to_be_visible()
    frame.get_by_role("button", name="Lessons").click()
    expect(frame.get_by_role("heading", level=1)).to_be_visible()
