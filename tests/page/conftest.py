"""The page in a browser, served by a real server. Where there is no browser the tests are skipped, and say why.

With GLASSGPT_NEEDS_BROWSER=1 they fail instead. Every context is watched: a test fails at its end if a request left the
server it talks to, if anything was told on the console or thrown, or if the content security policy was in the way.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.page.browsing import PATIENCE, Keyboard, Site, Watch, cannot, expect, running

from glassgpt.serving.sources import source_of, untrained_baby
from glassgpt.weights.run import Run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # no name of the network leads anywhere
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", OFFLINE]
SIZE = {"width": 1360, "height": 900}


def browser_path() -> str:
    """The browser of GLASSGPT_BROWSER, or the system's."""
    found = os.environ.get("GLASSGPT_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None or not Path(found).is_file():
        cannot("there is no browser (on Debian: apt install chromium; or GLASSGPT_BROWSER=PATH)")
    return found


@pytest.fixture(scope="module")  # Playwright's own event loop must not outlive the file: others run theirs
def browser() -> Iterator[Browser]:
    if expect is None:
        cannot("Playwright is not installed (pip install playwright)")
    from playwright.sync_api import sync_playwright

    path = browser_path()
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(browser: Browser, baby_run: Run, base: Path) -> Iterator[Site]:
    """The baby GPT before training, its run with every step, and a small model with words."""
    run = replace(source_of(str(baby_run.path)), title="baby run")
    words = replace(source_of(str(base)), title="base")
    with running([untrained_baby(), run, words]) as site:
        yield site


@pytest.fixture
def watch(site: Site) -> Watch:
    return Watch(site.url)


@pytest.fixture
def open_page(browser: Browser, site: Site, watch: Watch) -> Iterator[Callable[..., Page]]:
    """A page of the site at an address after "#", in a context of its own with the options of Playwright."""
    contexts = []

    def opened(address: str = "", **options: Any) -> Page:
        usual = {"viewport": SIZE, "locale": "en-GB", "color_scheme": "light", "reduced_motion": "reduce"}
        context = browser.new_context(**usual | options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        watch.over(context)
        page = context.new_page()
        page.goto(site.url + address)
        return page

    yield opened
    wrongs = [wrong for context in contexts for wrong in watch.verdict(context)]
    for context in contexts:
        context.close()
    assert not wrongs, "\n".join(wrongs)
    assert watch.urls or not contexts  # else nothing was watched


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    return open_page()


@pytest.fixture
def keyboard(page: Page) -> Keyboard:
    return Keyboard(page)
