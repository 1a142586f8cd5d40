"""What tests of the page share: a server on a free port, a browser that is watched, and a person with a keyboard."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import pytest

from glassgpt.serving.api import Api
from glassgpt.serving.guard import Doors
from glassgpt.serving.server import server
from glassgpt.serving.sources import Source

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page, expect
else:
    try:
        from playwright.sync_api import expect
    except ImportError:  # the fixtures say so
        expect = None

NEEDS_BROWSER = "GLASSGPT_NEEDS_BROWSER"  # set to 1: a check that can't be made fails instead of being skipped
BUILT = Path(__file__).parents[2] / "page" / "dist"
PATIENCE = 30_000  # milliseconds that anything may take on a machine that is busy with other things
LOOKS_OUT = """
window.told = []; window.pressed = 0;
addEventListener("securitypolicyviolation", (event) =>
  told.push(`policy: ${event.violatedDirective} ${event.blockedURI}`));
addEventListener("unhandledrejection", (event) => told.push(`rejection: ${event.reason}`));
addEventListener("pointerdown", () => pressed++, true);
"""


def cannot(reason: str) -> NoReturn:
    """Skip, or fail where a browser was promised."""
    if os.environ.get(NEEDS_BROWSER) == "1":
        pytest.fail(f"{reason}, and {NEEDS_BROWSER}=1 promised that it is")
    pytest.skip(reason)


@dataclass(frozen=True)
class Site:
    """A server as it runs: where it is, and what it holds."""

    url: str
    api: Api


@contextmanager
def running(sources: Sequence[Source]) -> Iterator[Site]:
    """A server of these models on a free port of this machine."""
    if not (BUILT / "index.html").is_file():
        cannot("the page is not built (npm ci and npm run build in page/)")
    begun = threading.Event()
    made = server(sources, Doors(), begun.set)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=made.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            assert begun.wait(PATIENCE / 1000)
            yield Site(f"http://127.0.0.1:{sock.getsockname()[1]}/", made.api)
        finally:
            made.should_exit = True
            thread.join(PATIENCE / 1000)
            assert not thread.is_alive()


@dataclass
class Watch:
    """What goes wrong in a context, or leaves this server. `allowed`: parts of messages that a test means to cause."""

    home: str
    wrongs: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def over(self, context: BrowserContext) -> None:
        context.add_init_script(LOOKS_OUT)
        context.on("request", lambda request: self.urls.append(request.url))
        context.on("page", lambda page: page.on("websocket", lambda socket: self.urls.append(socket.url)))
        context.on("weberror", lambda error: self.wrongs.append(f"page error: {error.error}"))
        context.on("dialog", self._asked)
        context.on("console", self._heard)

    def _asked(self, dialog: Any) -> None:
        self.wrongs.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.wrongs.append(f"console error: {message.text} ({message.location.get('url', '')})")

    def foreign(self) -> list[str]:
        """Requests to anywhere but the server that the page came from."""
        ours = urlsplit(self.home).netloc
        return [
            url for url in self.urls if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != ours
        ]

    def wrong(self) -> list[str]:
        return [line for line in self.wrongs if not any(part in line for part in self.allowed)]

    def verdict(self, context: BrowserContext) -> list[str]:
        """All that went wrong and wasn't allowed."""
        told = [line for page in context.pages for line in page.evaluate("window.told ?? []")]
        return [*self.wrong(), *told, *(f"request to {url}" for url in self.foreign())]


class Keyboard:
    """A person who has a keyboard and no mouse: whatever is to be used must be come to with Tab."""

    MOST_TABS = 250

    def __init__(self, page: Page) -> None:
        self.page = page

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def write(self, text: str) -> None:
        """In place of what the field holds."""
        self.press("Control+a")
        self.page.keyboard.type(text)

    def reach(self, target: Locator) -> None:
        """Tab until the target has the focus."""
        expect(target).to_be_visible()
        target.evaluate("element => { window.wanted = element; }")
        for _ in range(self.MOST_TABS):
            if self.page.evaluate("window.wanted === document.activeElement"):
                return
            self.press("Tab")
        raise AssertionError(f"{target} can't be reached with {self.MOST_TABS} presses of Tab")

    def use(self, target: Locator) -> None:
        """Reach a button and press it."""
        self.reach(target)
        expect(target).to_be_enabled()
        self.press("Enter")

    def choose(self, select: Locator, value: str) -> None:
        """Reach a list of choices, and go down from its first until the one that is wanted."""
        self.reach(select)
        self.pick(select, value)

    def pick(self, select: Locator, value: str) -> None:
        """The same in a list that has the focus."""
        self.press("Home")
        for _ in range(select.locator("option").count()):
            if select.input_value() == value:
                return
            self.press("ArrowDown")
        raise AssertionError(f"{select} holds no {value!r}")

    def state(self, number: int) -> None:
        """Along the ring to a state, and choose it."""
        self.reach(self.page.locator('g.node[tabindex="0"]').first)
        self.press("Home")
        for _ in range(self.page.locator("g.node").count()):
            focused = self.page.locator("g.node:focus[aria-checked=true]")
            expect(focused).to_have_count(1)
            if (here := focused.get_attribute("data-state")) == str(number):
                return
            self.press("ArrowRight")
            expect(self.page.locator(f'g.node:focus:not([data-state="{here}"])')).to_have_count(1)
        raise AssertionError(f"no key leads to state {number}")

    def row(self, number: int) -> None:
        """Down the table of states to one, and choose it."""
        self.reach(self.page.locator('table[role=grid] tr[tabindex="0"]'))
        self.press("Home")
        for at in range(number + 1):  # the focus follows a key with the next frame
            expect(self.page.locator(f'tr[data-state="{at}"]')).to_be_focused()
            self.press("ArrowDown" if at < number else "Enter")


def soon(page: Page, check: Callable[[], object]) -> None:
    """Check again and again until it holds."""
    deadline = time.monotonic() + PATIENCE / 1000
    while True:
        try:
            check()
            return
        except (
            AssertionError,
            AttributeError,
            IndexError,
            KeyError,
            ValueError,
        ):  # what is on the screen is still the old, or half
            if time.monotonic() > deadline:
                raise
        page.wait_for_timeout(30)


def rows_of(page: Page, selector: str = "table[role=grid] tbody tr") -> list[list[str]]:
    """The texts of a table's cells, row after row."""
    texts: list[list[str]] = page.eval_on_selector_all(
        selector, "rows => rows.map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"
    )
    return texts


def facts_of(page: Page, selector: str = "aside dl") -> dict[str, str]:
    """Names and values of lists of definitions."""
    script = """lists => lists.flatMap((list) => [...list.querySelectorAll('dt')].map(
        (dt) => [dt.innerText, dt.nextElementSibling.innerText]))"""
    return dict(page.eval_on_selector_all(selector, script))
