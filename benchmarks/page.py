"""How quickly the page answers, beside what was promised: `python benchmarks/page.py [--only PART ...]`.

Needs Playwright and a Chromium (GLASSGPT_BROWSER=PATH, or the system's), and the page built (npm run build in page/).
Times are the browser's own performance entries. A redraw begins with the frame in which something was moved and ends
when that frame has been laid out and painted; what a graphics card does afterwards is not in it. Targets are for two
cores that have nothing else to do.

The models are made up: large tables of random logits that need no time, so that the page is measured and not them. Only
"prompt" runs a net, of the shape of SmolLM2-135M with weights as they are drawn, on this processor.
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from glassgpt.interface import Array, LanguageModel
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.serving.guard import Doors
from glassgpt.serving.server import server
from glassgpt.serving.sources import Source, untrained_baby
from glassgpt.text.character import CharacterTokenizer

try:
    from playwright.sync_api import Browser, Page, sync_playwright
except ImportError:
    sys.exit("this needs Playwright: pip install playwright")

BUILT = Path(__file__).parents[1] / "page" / "dist"
SIZE: Any = {"width": 1360, "height": 900}
LOADS, DRAGS, CLICKS, LETTERS = 5, 80, 60, 12
MANY_WORDS = 49_152
SMOLLM2: dict[str, Any] = {
    "n_layer": 30,
    "n_head": 9,
    "n_kv_head": 3,
    "n_embd": 576,
    "n_hidden": 1536,
    "bias": False,
    "position": "rope",
    "norm": "rmsnorm",
    "mlp": "swiglu",
}
PATIENCE = 120_000  # milliseconds

WATCHES = """
window.seen = { shifts: 0, largest: 0, blocked: 0 };
const watch = (type, each) =>
  new PerformanceObserver((list) => list.getEntries().forEach(each)).observe({ type, buffered: true });
watch("layout-shift", (entry) => { if (!entry.hadRecentInput) seen.shifts += entry.value; });
watch("largest-contentful-paint", (entry) => { seen.largest = entry.startTime; });
watch("longtask", (entry) => { seen.blocked += Math.max(0, entry.duration - 50); });

// Do something as a frame begins, and measure until it is painted: a message comes after the frame that it was sent in.
window.frame = (work) => new Promise((done) => requestAnimationFrame(() => {
  const { port1, port2 } = new MessageChannel();
  performance.mark("frame");
  work();
  port1.onmessage = () => done(performance.measure("frame", "frame").duration);
  port2.postMessage(null);
}));
window.drag = async (selector, values) => {
  const slider = document.querySelector(selector), durations = [];
  for (const value of values) durations.push(await frame(() => {
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  }));
  return durations;
};
window.until = (holds) => new Promise((done) => requestAnimationFrame(function look() {
  if (holds()) frame(() => {}).then(() => done(performance.now()));
  else requestAnimationFrame(look);
}));
"""


# ---- models that take no time --------------------------------------------------------------------------------------


class Drawn(LanguageModel):
    """Random logits, the same for the same seed."""

    def __init__(self, vocab_size: int, context_length: int, seed: int = 0) -> None:
        self.vocab_size, self.context_length, self.seed = vocab_size, context_length, seed

    def next_token_logits(self, contexts: Array) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        return rng.normal(0, 3, (len(contexts), self.vocab_size)).astype(np.float32)

    def context_table(self, length: int | None = None) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        n = self.vocab_size ** (length or self.context_length)
        return rng.normal(0, 2, (n, self.vocab_size)).astype(np.float32)


def drawn(title: str, vocab_size: int, context_length: int, steps: Sequence[int] = ()) -> Source:
    return Source(
        ref=title,
        title=title,
        vocab_size=vocab_size,
        context_length=context_length,
        read=lambda step, progress: Drawn(vocab_size, context_length, step or 0),
        read_tokenizer=lambda: None,
        steps=steps,
    )


def net() -> Source:
    """A GPT of SmolLM2-135M's shape; its vocabulary are single characters, so that each that is typed is a token."""
    config = GPTConfig(MANY_WORDS, 64, **SMOLLM2)
    letters = "".join(map(chr, range(32, 32 + MANY_WORDS)))
    return Source(
        ref="net",
        title="net",
        vocab_size=MANY_WORDS,
        context_length=64,
        read=lambda step, progress: GPT(config, seed=0),
        read_tokenizer=lambda: CharacterTokenizer(letters),
        config=config,
    )


# ---- server and browser --------------------------------------------------------------------------------------------


@contextmanager
def running(sources: Sequence[Source]) -> Iterator[str]:
    begun = threading.Event()
    made = server(sources, Doors(), begun.set)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=made.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            begun.wait()
            yield f"http://127.0.0.1:{sock.getsockname()[1]}/"
        finally:
            made.should_exit = True
            thread.join()


@contextmanager
def shown(browser: Browser, address: str, slower: int = 1, script: str = WATCHES) -> Iterator[Page]:
    """A page in a context of its own, on a processor so many times slower."""
    context = browser.new_context(viewport=SIZE, reduced_motion="reduce", locale="en-GB")
    context.set_default_timeout(PATIENCE)
    context.add_init_script(script)
    page = context.new_page()
    if slower > 1:
        context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": slower})
    page.goto(address)
    yield page
    context.close()


def row(what: str, measured: float, most: float, unit: str = "ms", *, least: bool = False, note: str = "") -> None:
    """A line; `least`: the target is a lower bound."""
    is_kept = measured >= most if least else measured <= most
    sign = ">=" if least else "<="
    numbers = f"{measured:10,.4g} {unit:4} {sign} {most:,g}"
    print(f"{what:58} {numbers:28} {'' if is_kept else 'MISSED '}{note}", flush=True)


def p95(values: Sequence[float]) -> float:
    return float(np.quantile(values, 0.95))


def middle(values: Sequence[float]) -> str:
    return f"median {statistics.median(values):.1f}"


# ---- what is measured ----------------------------------------------------------------------------------------------


def bundle(browser: Browser) -> None:
    sizes = {path: len(gzip.compress(path.read_bytes(), 9)) / 1024 for path in BUILT.rglob("*") if path.is_file()}
    index = (BUILT / "index.html").read_text()
    # What a saved page is made of is fetched when a view is saved, and by no view.
    page = {path: size for path, size in sizes.items() if not path.name.startswith("saved.")}
    first = sum(size for path, size in page.items() if path.name == "index.html" or path.name in index)
    row("first view, gzipped", first, 150, "KB")
    row(
        "all views, gzipped",
        sum(page.values()),
        300,
        "KB",
        note=f"{sum(sizes.values()):.0f} with what saved views hold",
    )


def start(browser: Browser) -> None:
    """From `glassgpt serve` to the first ring, in a browser that is open already.

    Python may keep what it has compiled, as it usually does: where it is told not to, each start compiles all modules.
    """
    command = [str(Path(sys.executable).with_name("glassgpt")), "serve", "--no-open", "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    times = []
    for _ in range(3):
        began = time.perf_counter()
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment | {"COLUMNS": "200"})
        try:
            assert process.stderr is not None
            found = None
            while found is None:
                found = re.search(r"http://\S+/", process.stderr.readline())
            with shown(browser, found[0]) as page:
                page.locator("g.node").nth(7).wait_for()
                times.append(time.perf_counter() - began)
        finally:
            process.terminate()
            process.wait()
    row("glassgpt serve: from the command to the ring", statistics.median(times), 3, "s")


def load(browser: Browser) -> None:
    paints, largest, shifts, blocked = [], [], [], []
    with running([untrained_baby()]) as address:
        for slower in (1, 4):
            for _ in range(LOADS):
                with shown(browser, address, slower) as page:
                    page.wait_for_load_state("networkidle")
                    # Not by a locator, whose own program takes its time in the page.
                    page.evaluate("until(() => document.querySelectorAll('g.node').length === 8)")
                    seen = page.evaluate("seen")
                    if slower > 1:
                        blocked.append(seen["blocked"])
                        continue
                    script = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
                    paints.append(page.evaluate(script))
                    largest.append(seen["largest"])
                    shifts.append(seen["shifts"])
    row("first contentful paint (median of loads)", statistics.median(paints), 500)
    row("largest contentful paint", statistics.median(largest), 1000)
    row("cumulative layout shift (the worst load)", max(shifts), 0.02, "")
    row("blocked in all, on a processor 4 times slower", statistics.median(blocked), 150)


def words(browser: Browser) -> None:
    values = [round(0.4 + 0.02 * i, 2) for i in range(DRAGS)]
    with (
        running([drawn("words", MANY_WORDS, 64)]) as address,
        shown(browser, f"{address}#/tokens?m=words&ctx=5.6") as page,
    ):
        page.locator("g.bar-row").nth(19).wait_for()
        for name, selector, dragged in (
            ("temperature", "#temperature", values),
            ("top-k", "#top-k", [str(0.1 * i) for i in range(1, DRAGS)]),
            ("top-p", "#top-p", [str(0.99 - 0.01 * i) for i in range(DRAGS)]),
        ):
            before = page.locator("g.bar-row .value").first.text_content()
            taken = page.evaluate("([selector, values]) => drag(selector, values)", [selector, dragged])
            assert page.locator("g.bar-row .value").first.text_content() != before
            row(f"{name} dragged, {MANY_WORDS:,} tokens: redraw, p95", p95(taken), 16, note=middle(taken))


def states(browser: Browser) -> None:
    values = [round(0.4 + 0.02 * i, 2) for i in range(DRAGS)]
    shapes = {"2^12": (2, 12, 33), "16^3": (16, 3, 33), "64^2": (64, 2, 50)}
    sources = [drawn(f"map-{V}", V, k, range(51) if V == 2 else ()) for V, k, _ in shapes.values()]
    with running(sources) as address:
        for name, (V, k, most) in shapes.items():
            ctx = ".".join(["1"] * k)
            with shown(browser, f"{address}#/chain?m=map-{V}&ctx={ctx}&red=0&over=red") as page:
                settled(page)
                taken = page.evaluate("values => drag('#temperature', values)", values)
                row(f"temperature dragged, {name} states: redraw, p95", p95(taken), most, note=middle(taken))
                for temperature in ("0.8", "0.3"):
                    found = page.evaluate(WORKS_OUT, temperature)
                    row(f"  until the probability of red at T = {temperature} is there", found, 150)
                if V == 2:
                    scrub(page)
                    row("  heap with 4,096 states and 51 steps", heap(page), 200, "MB")


WORKS_OUT = """async (temperature) => {
  const red = () => document.querySelector("aside dd.red")?.textContent ?? "";
  let before = "", since = performance.now();
  await until(() => {  // it is there, and nothing is on its way from before
    if (red() !== before || before === "") [before, since] = [red(), performance.now()];
    return performance.now() - since > 1500;
  });
  performance.mark("moved");
  await drag("#temperature", [temperature]);
  await until(() => red() !== before);
  return performance.measure("moved", "moved").duration;
}"""


def settled(page: Page) -> float:
    """When nothing is being worked out any more, in the page's time."""
    return float(
        page.evaluate("until(() => document.querySelector('canvas') && !document.querySelector('.busy, .waits'))")
    )


def scrub(page: Page) -> None:
    tables = "performance.getEntriesByType('resource').filter((entry) => entry.name.endsWith('/chain')).length"
    page.evaluate(f"until(() => {tables} >= 51)")
    page.wait_for_load_state("networkidle")
    began = page.evaluate("performance.now()")
    taken = page.evaluate("drag('#timeline', [...Array(51).keys()])")
    rate = 1000 * len(taken) / (page.evaluate("performance.now()") - began)
    row(
        "  training step scrubbed, frames a second",
        rate,
        30,
        "",
        least=True,
        note=f"redraw {middle(taken)}, p95 {p95(taken):.1f}",
    )


def heap(page: Page) -> float:
    """Objects, nodes and the numbers of typed arrays, in MB, once what is no longer needed has gone."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")
    return float(sum(used.get(part, 0) for part in ("usedSize", "embedderHeapUsedSize", "backingStorageSize")) / 2**20)


def most(browser: Browser) -> None:
    """65,536 states, from the moment that their logits are here."""
    for V, k in ((2, 16), (16, 4)):
        with running([drawn("most", V, k)]) as address, shown(browser, f"{address}#/chain?m=most") as page:
            painted = settled(page)
            entry = "performance.getEntriesByType('resource').find((e) => e.name.endsWith('/chain')).responseEnd"
            row(f"{V}^{k} states, from their logits to the map", painted - page.evaluate(entry), 1000)
            row("  heap", heap(page), 200, "MB")


def click(browser: Browser) -> None:
    choose = """async (count) => {
      const durations = [];
      for (let i = 0; i < count; i++) {
        const row = document.querySelector(`tr[data-state="${(i * 5 + 3) % 8}"]`);
        durations.push(await frame(() => row.click()));
        const name = row.querySelector("th").textContent;
        const said = ["aside .context", ".walk .text"].map((place) => document.querySelector(place).textContent);
        said.push(document.querySelector("g.node[aria-checked=true]").ariaLabel.slice(6, 9));
        said.push(row.ariaSelected === "true" ? name : "");
        if (said.some((text) => text.trim() !== name)) throw new Error(`${name}: ${said}`);
      }
      return durations;
    }"""
    with running([untrained_baby()]) as address, shown(browser, address) as page:
        page.locator("g.node").nth(7).wait_for()
        taken = page.evaluate(choose, CLICKS)
        row("state chosen, until every view shows it, p95", p95(taken), 50, note=middle(taken))
        taken = page.evaluate("values => drag('#temperature', values)", [0.4 + 0.02 * i for i in range(DRAGS)])
        row("temperature dragged, 8 states: redraw, p95", p95(taken), 16, note=middle(taken))


def train(browser: Browser) -> None:
    """Fifty steps of the baby: how long, and how many of them a frame of the screen showed."""
    watches = """() => { window.steps = new Set(); requestAnimationFrame(function look() {
      const step = /step (\\d+)/.exec(document.querySelector("output")?.textContent ?? "");
      if (step && step[1] !== "0") steps.add(step[1]);
      requestAnimationFrame(look); }); }"""
    with running([untrained_baby()]) as address, shown(browser, address) as page:
        page.locator("g.node").nth(7).wait_for()
        page.evaluate(watches)
        button = page.get_by_role("button", name="Train", exact=True)
        began = time.perf_counter()
        button.click()
        page.get_by_text("step 50 of 50").first.wait_for()
        page.evaluate("until(() => steps.has('50'))")
        row("50 steps trained and streamed", time.perf_counter() - began, 5, "s")
        row("  of these steps seen on the screen", page.evaluate("steps.size"), 50, "", least=True)


def prompt(browser: Browser) -> None:
    with running([net()]) as address:
        text = ".".join(str(i) for i in range(40, 90))
        with shown(browser, f"{address}#/tokens?m=net&ctx={text}") as page:
            page.locator("g.bar-row").nth(19).wait_for()
            taken = []
            for i in range(LETTERS):
                taken.append(page.evaluate(TYPES, [chr(100 + i), 51 + i]))
            row("a letter typed, until its bars (135M, up to 62 tokens), p95", p95(taken), 1000, note=middle(taken))


TYPES = """async ([letter, count]) => {
  const field = document.querySelector("#prompt");
  performance.mark("typed");
  field.value += letter;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  await until(() => document.querySelectorAll("ol.chips .id").length === count &&
    document.querySelector("g.bar-row") && !document.querySelector(".busy") && document.querySelector("aside table"));
  return performance.measure("typed", "typed").duration;
}"""


def saved(browser: Browser) -> None:
    """A view as one file, opened from the disk."""
    with running([untrained_baby()]) as address, shown(browser, f"{address}#/chain?ctx=101") as page:
        page.locator("g.node").nth(7).wait_for()
        with page.expect_download() as download:
            page.get_by_role("button", name="Save this view").click()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "saved.html"
            download.value.save_as(file)
            row("a saved view of the baby", file.stat().st_size / 2**20, 1, "MB")
            with shown(browser, file.as_uri()) as copy:
                copy.locator("g.node").nth(7).wait_for()
                row(
                    "  from opening it to the ring",
                    copy.evaluate("until(() => document.querySelector('g.node'))"),
                    1000,
                )


PARTS: dict[str, Callable[[Browser], None]] = {
    "bundle": bundle,
    "start": start,
    "load": load,
    "click": click,
    "train": train,
    "words": words,
    "states": states,
    "most": most,
    "saved": saved,
    "prompt": prompt,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    chosen = parser.parse_args().only
    names: list[Any] = [os.environ.get("GLASSGPT_BROWSER"), *map(shutil.which, ("chromium", "google-chrome"))]
    path = next(filter(None, names), None)
    if path is None:
        sys.exit("there is no browser: install Chromium, or name one in GLASSGPT_BROWSER")
    if not (BUILT / "index.html").is_file():
        sys.exit("the page is not built: npm ci and npm run build in page/")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        print("How quickly the page answers in a browser, from the command to each redraw, beside what was promised:")
        machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        print(f"{machine}, Chromium {browser.version}, {time.strftime('%Y-%m-%d')}\n")
        for name in chosen:
            PARTS[name](browser)
        browser.close()


if __name__ == "__main__":
    main()
