"""The tree of visited contexts, with a keyboard and no mouse: its widths, ways and beams are Python's own numbers."""

from __future__ import annotations

import csv
import io
import math
import re

import numpy as np
import pytest
from tests.page.browsing import Keyboard, expect, soon
from tests.page.written import agrees, bar, fixed, from_log

import glassgpt
from glassgpt.decoding.beam import beam_search, beam_steps
from glassgpt.decoding.processors import apply, processors
from glassgpt.numerics import log_softmax

pytestmark = pytest.mark.slow
PROMPT = "Mira has a"
HEIGHTS = {"step": 58.0, "prompt": 190.0}  # of the bar that is all there is
TREE = """items => items.map((item) => ({
  key: item.dataset.key, kinds: [...item.classList], level: Number(item.getAttribute('aria-level')),
  here: item.getAttribute('aria-selected') === 'true', share: item.querySelector('.share')?.textContent ?? '',
  path: item.querySelector('.ribbon')?.getAttribute('d') ?? '', said: item.getAttribute('aria-label'),
}))"""
RIBBON = re.compile(r"^M\S+ (?P<top>\S+)C.*C\S+ \S+ \S+ \S+ \S+ (?P<bottom>\S+)Z$")


class Tree:
    """The tree on the screen beside the model that it is about."""

    def __init__(self, page, base):
        self.page, self.keyboard = page, Keyboard(page)
        self.model, self.words = glassgpt.load(str(base))
        self.prompt = self.words.encode(PROMPT)

    def items(self) -> dict[tuple[int, ...], dict]:
        found = self.page.eval_on_selector_all("#tree g[role=treeitem]", TREE)
        return {tuple(map(int, filter(None, item["key"].split(".")))): item for item in found}

    def item(self, path):
        return self.page.locator(f'#tree g[data-key="{".".join(map(str, path))}"]')

    def visited(self) -> set[tuple[int, ...]]:
        return {path for path, item in self.items().items() if {"visited", "prompt"} & set(item["kinds"])}

    def shares(self, path, sampler) -> np.ndarray:
        temperature, top_k, top_p = sampler
        context = np.array([[*self.prompt, *path]])
        chosen = processors(temperature, top_k or None, top_p if top_p < 1 else None)
        logits = np.asarray(apply(chosen, context, self.model.next_token_logits(context), self.model.context_length))
        return np.exp(log_softmax(logits))[0]

    def likeliest(self, path, n=5) -> list[int]:
        logits = self.model.next_token_logits([[*self.prompt, *path]])[0]
        return np.argsort(-logits, kind="stable")[:n].tolist()

    def agrees(self, sampler=(1.0, 0, 1.0), scale="step") -> None:
        """Each branch is as thick, and says that it is as likely, as Python has it; what leaves a bar fills it."""

        def check():
            items = self.items()
            logs = {(): 0.0}
            for path, item in sorted(items.items(), key=lambda pair: len(pair[0])):
                if not path:
                    continue
                share = float(self.shares(path[:-1], sampler)[path[-1]])
                logs[path] = logs[path[:-1]] + (math.log(share) if share else -math.inf)
                text, log = item["share"].split(" · ")[0], logs[path]
                right = (
                    agrees(text, share, bar)
                    if scale == "step"
                    else agrees(text, math.exp(log), bar) or text == from_log(log)
                )
                assert right, (path, text, share, log)
                top, bottom = (float(RIBBON.match(item["path"])[name]) for name in ("top", "bottom"))
                mass = share if scale == "step" else math.exp(log)
                assert bottom - top == pytest.approx(mass * HEIGHTS[scale], abs=0.03), (path, bottom - top, mass)

        soon(self.page, check)

    def goes_to(self, *keys, here) -> None:
        """With arrows to a branch, and there."""
        self.keyboard.press(*keys)
        expect(self.item(here)).to_be_focused()
        self.keyboard.press("Enter")
        self.is_at(here)

    def is_at(self, path) -> None:
        ids = [str(token) for token in (*self.prompt, *path)]
        expect(self.page.locator("ol.chips li:has([aria-current=true]) .id")).to_have_text(ids[-1])

        def check():
            shown = self.page.locator("ol.chips .id").all_text_contents()
            current = self.page.locator("ol.chips button").evaluate_all(
                "all => all.findIndex((one) => one.getAttribute('aria-current') === 'true')"
            )
            assert shown[: current + 1] == ids, (shown, current, ids)
            assert [key for key, item in self.items().items() if item["here"]] == [tuple(path)]

        soon(self.page, check)

    def choose(self, name: str, key: str) -> None:
        """One of a few choices side by side."""
        radio = self.page.get_by_role("radio", name=name, exact=True)
        group = self.page.get_by_role("radiogroup").filter(has=radio)
        self.keyboard.reach(group.locator("input:checked"))
        self.keyboard.press(key)
        expect(radio).to_be_checked()


@pytest.fixture
def tree(open_page, base):
    tree = Tree(open_page("#/tokens?m=base"), base)
    tree.keyboard.reach(tree.page.locator("#prompt"))
    tree.keyboard.write(PROMPT)
    tree.is_at(())
    return tree


def test_ways_are_gone_and_gone_back(tree):
    """The likeliest ways stand one above the other; each that is gone becomes a branch, and the address holds all."""
    first, second = tree.likeliest(())[:2]
    tree.agrees()
    tree.keyboard.reach(tree.item(()))
    tree.goes_to("ArrowRight", here=(first,))
    tree.agrees()
    third = tree.likeliest((first,))[1]
    tree.goes_to("ArrowRight", "ArrowDown", here=(first, third))
    tree.goes_to("ArrowLeft", "ArrowLeft", here=())
    tree.goes_to("ArrowRight", "ArrowDown", here=(second,))
    assert tree.visited() == {(), (first,), (first, third), (second,)}
    tree.agrees()
    expect(tree.page.locator("figure", has_text="The contexts you were in")).to_have_count(1)
    tree.page.go_back()
    tree.is_at(())
    tree.page.go_back()
    tree.is_at((first, third))
    assert tree.visited() == {(), (first,), (first, third)}
    tree.page.go_forward()
    tree.page.go_forward()
    tree.is_at((second,))
    tree.page.reload()
    tree.is_at((second,))
    assert tree.visited() == {(), (first,), (first, third), (second,)}
    tree.agrees()
    tree.keyboard.use(tree.page.get_by_role("button", name="Begin a new tree here"))
    expect(tree.page.locator("#tree g.visited")).to_have_count(0)
    expect(tree.page.locator("ol.chips [aria-current=true] .id")).to_have_text(str(second))


def test_widths_follow_the_sliders_and_nobody_is_asked(tree, watch):
    first = tree.likeliest(())[0]
    tree.keyboard.reach(tree.item(()))
    tree.goes_to("ArrowRight", here=(first,))
    tree.goes_to("ArrowRight", "ArrowDown", here=(first, tree.likeliest((first,))[1]))
    tree.agrees()
    expect(tree.page.locator("ol.chips .cost").last).not_to_be_empty()  # the last that is asked for
    asked = len(watch.urls)
    slider = tree.page.locator("#tree input[type=range]")
    tree.keyboard.reach(slider)
    tree.keyboard.press(*["ArrowLeft"] * 30)
    expect(slider).to_have_value("0.7")
    tree.agrees((0.7, 0, 1.0))
    tree.keyboard.press("Home")
    tree.agrees((0.0, 0, 1.0))
    for sampler in ((1.6, 0, 1.0), (1.6, 3, 1.0), (0.8, 0, 0.6)):
        for name, value in zip(("temperature", "top-k", "top-p"), sampler, strict=True):
            tree.page.locator(f".sampler input[type=number][aria-label^={name.capitalize()}]").fill(str(value))
            tree.keyboard.press("Enter")
        tree.agrees(sampler)
    tree.choose("since the prompt", "ArrowRight")
    tree.agrees((0.8, 0, 0.6), "prompt")
    soon(tree.page, lambda: tree.page.url.index("of=prompt"))
    assert len(watch.urls) == asked


@pytest.mark.parametrize("n_beams", [1, 3])
def test_beams_are_pythons(tree, n_beams):
    tree.choose("beam search", "ArrowLeft")  # from the first choice round to the last
    tree.keyboard.reach(tree.page.get_by_label("How many tokens"))
    tree.keyboard.write("6")
    tree.keyboard.reach(tree.page.get_by_label("How many beams"))
    tree.keyboard.write(str(n_beams))
    tree.keyboard.use(tree.page.get_by_role("button", name="Search", exact=True))
    ends = tree.words.end_token
    beams = beam_search(tree.model, tree.prompt, 6, n_beams, end_token=ends)
    steps = list(beam_steps(tree.model, tree.prompt, 6, n_beams, end_token=ends))
    rows = tree.page.locator("#tree tbody tr")
    expect(rows.first.locator("td").first).to_have_text("1")
    expect(rows).to_have_count(len(beams))
    for row, beam in zip(rows.all(), beams, strict=True):
        written, total, mean = row.locator("td").all_inner_texts()[1:]
        assert written.replace("␣", " ").startswith("".join(map(tree.words.text_of, beam.tokens)))
        assert agrees(total, beam.logprob, minus) and agrees(mean, beam.logprob / len(beam.tokens), minus)

    def check():
        items = tree.items()
        for rank, beam in enumerate(beams, 1):
            assert "kept" in items[beam.tokens]["kinds"], beam
            assert items[beam.tokens]["share"].endswith(f" · beam {rank}: {minus(beam.logprob)}")
        dropped = {beam.tokens: beam for step in steps for beam in step.dropped}
        shown = {path for path, item in items.items() if "✕" in item["share"]}
        kept = {beam.tokens[:n] for beam in beams for n in range(7)}
        assert shown == set(dropped) - kept
        for path in shown:
            assert "dropped" in items[path]["kinds"]
            assert items[path]["share"].endswith(f"✕ {minus(dropped[path].logprob)}")

    soon(tree.page, check)
    tree.agrees()
    best = beams[0].tokens
    tree.keyboard.use(rows.first.get_by_role("button"))
    tree.is_at(best)
    tree.page.reload()  # the search is in the address, and made again
    tree.is_at(best)
    soon(tree.page, check)
    tree.keyboard.use(tree.page.get_by_role("button", name="Hide the beams"))
    expect(tree.page.locator("#tree g.kept")).to_have_count(0)
    assert tree.visited() == {best[:n] for n in range(len(best) + 1)}


def minus(value: float) -> str:
    return fixed(value, 2).replace("-", "−")


def test_what_is_drawn_becomes_branches(tree):
    """The seed's own text; then another way from the same place, with the next seed; greedy, whatever the sampler."""
    tree.keyboard.reach(tree.page.get_by_label("How many tokens"))
    tree.keyboard.write("5")
    texts = [
        glassgpt.generate(tree.model, tree.prompt, 5, seed=seed, end_token=tree.words.end_token) for seed in (1, 2)
    ]
    tree.keyboard.use(tree.page.get_by_role("button", name="Write on"))
    tree.is_at(texts[0])
    tree.keyboard.use(tree.page.get_by_role("button", name="Another way"))
    tree.is_at(texts[1])
    expect(tree.page.get_by_label("Seed")).to_have_value("2")
    tree.choose("greedy", "ArrowRight")
    tree.keyboard.reach(tree.item(texts[1]))
    tree.keyboard.press("Home", "Enter")
    tree.is_at(())
    tree.keyboard.use(tree.page.get_by_role("button", name="Write on"))
    texts.append(glassgpt.generate(tree.model, tree.prompt, 5, temperature=0, end_token=tree.words.end_token))
    tree.is_at(texts[2])
    soon(
        tree.page,
        lambda: expect_equal(tree.visited(), {tuple(text[:n]) for text in texts for n in range(len(text) + 1)}),
    )
    tree.agrees()


def expect_equal(a, b):
    assert a == b


def test_the_list_says_the_same_and_the_numbers_can_be_kept(tree):
    first, second = tree.likeliest(())[:2]
    tree.keyboard.reach(tree.item(()))
    tree.goes_to("ArrowRight", here=(first,))
    tree.goes_to("ArrowLeft", here=())
    tree.goes_to("ArrowRight", "ArrowDown", here=(second,))
    tree.agrees()
    tree.keyboard.reach(tree.page.locator("#tree summary"))
    tree.keyboard.press("Enter")
    listed = tree.page.get_by_role("navigation", name="As a list")
    expect(listed).to_be_visible()
    texts = [text.replace("\n", " ") for text in listed.get_by_role("button").all_inner_texts()]
    for token in (first, second):
        share = bar(float(tree.shares((), (1.0, 0, 1.0))[token]))
        assert any(text.endswith(f" {share}") for text in texts), (share, texts)
    expect(listed.locator("[aria-current=true]")).to_have_count(1)
    tree.keyboard.use(listed.get_by_role("button").nth(1))
    tree.is_at((first,))
    with tree.page.expect_download() as download:
        tree.keyboard.use(tree.page.get_by_role("button", name="Save as CSV: The contexts you were in"))
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert {row["kind"] for row in rows} == {"prompt", "visited", "stub", "others"}
    assert [row["ids"] for row in rows if row["here"] == "1"] == [str(first)]
    here = [row for row in rows if row["ids"].split()[:1] == [str(first)] and row["tokens_since_prompt"] == "2"]
    assert sum(float(row["probability"]) for row in here) == pytest.approx(1, abs=1e-12)
    for row in here:
        if row["kind"] == "stub":
            expected = tree.shares((first,), (1.0, 0, 1.0))[int(row["ids"].split()[1])]
            assert float(row["probability"]) == pytest.approx(float(expected), rel=1e-6)


def test_a_tree_that_is_too_large_says_what_it_left_out(open_page, base):
    words = glassgpt.load(str(base))[1]
    ids = words.encode(PROMPT)
    page = open_page(f"#/tokens?m=base&ctx={'.'.join(map(str, ids))}&ahead=215&T=1.4")
    page.get_by_role("button", name="Write on").press("Enter")
    expect(page.locator("ol.chips")).to_have_attribute("aria-label", f"Tokens ({len(ids) + 215})")
    tree = page.locator("#tree")
    expect(tree.get_by_text("15 contexts, visited longest ago, were left out.")).to_be_visible()
    expect(tree.locator("g.visited")).to_have_count(200)
    page.wait_for_timeout(500)  # until the address, which is written once nothing moves, has it
    page.reload()
    expect(tree.get_by_text("15 contexts, visited longest ago, were left out.")).to_be_visible()
