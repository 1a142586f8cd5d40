"""The newcomer's twelve steps with a keyboard and no mouse, each with what must be on the screen after it.

Where numbers are shown, Python computes them from the same weights: those that the server's own trainings left behind.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from tests.page.beside import SEQUENCE, Beside, expect_the_ring_of, expect_the_table_of, followers_of, walk_of
from tests.page.browsing import expect, facts_of, rows_of, soon
from tests.page.written import agrees, bits, fixed, from_log, hundredth, percent, signed, tenth

import glassgpt
from glassgpt.decoding.generate import generate
from glassgpt.evaluation.red import estimate_red
from glassgpt.models.trace import Want, trace
from glassgpt.numerics import log_softmax
from glassgpt.weights.run import Run

pytestmark = pytest.mark.slow
N_DEEDS = 12


class Newcomer:
    """What one sees, and does with keys."""

    def __init__(self, page, keyboard, site, base):
        self.page, self.keyboard, self.site = page, keyboard, site
        self.base, self.words = glassgpt.load(str(base))

    def trained(self, n: int) -> Run:
        """The folder of the n-th training that was begun from the page."""
        return Run(self.site.api.trainings[f"trained-{n}"].folder)

    def button(self, name: str):
        return self.page.get_by_role("button", name=name, exact=True)

    def go_to(self, place: str) -> None:
        self.keyboard.use(self.page.get_by_role("navigation").get_by_role("button", name=place, exact=True))
        expect(self.page.locator("h1", has_text=place)).to_be_visible()

    def has_done(self, n: int) -> None:
        """The line below offers the next thing: so many of the twelve are done."""
        what = f"{n + 1} of {N_DEEDS}" if n < N_DEEDS else "You have seen the whole path"
        expect(self.page.locator("footer")).to_contain_text(what)

    def fact(self, name: str, value: float, write) -> None:
        """Soon the inspector shows this number."""

        def check():
            text = facts_of(self.page)[name]
            assert agrees(text, value, write), (name, text, value)

        soon(self.page, check)

    # ---- the steps --------------------------------------------------------------------------------------------

    def opens_at_the_untrained_ring(self):
        expect(self.page.locator("g.node")).to_have_count(8)
        expect(self.page.locator("#model")).to_have_value("baby-gpt-untrained")
        from glassgpt.models.gpt_torch import GPT
        from glassgpt.training.recipe import read_recipe

        recipe = read_recipe("baby")
        self.untrained = Beside(GPT(recipe.model, seed=recipe.run.seed))
        expect_the_ring_of(self.page, self.untrained)
        self.has_done(0)

    def trains(self):
        self.keyboard.use(self.button("Train"))
        expect(self.page.locator("output")).to_contain_text("step 50 of 50")
        expect(self.button("Train")).to_be_enabled()
        self.run = self.trained(1)
        self.baby = Beside(self.run.model())
        expect_the_ring_of(self.page, self.baby)
        first, last = Beside(self.run.model(0)).loss(), self.baby.loss()
        assert last < first - 0.1

        def check():
            curve = self.page.get_by_role("img", name="The loss falls").get_attribute("aria-label") or ""
            shown = re.fullmatch(r"The loss falls from (\S+) to (\S+) nats", curve).groups()
            for text, loss in zip(shown, (first, last), strict=True):
                assert agrees(text, loss, lambda x: fixed(x, 4)), (curve, first, last)

        soon(self.page, check)
        self.has_done(1)

    def scrubs_back(self):
        self.keyboard.reach(self.page.locator("#timeline"))
        self.keyboard.press("Home")
        expect(self.page.locator("output")).to_contain_text("step 0 of 50")
        expect_the_ring_of(self.page, self.untrained)
        self.keyboard.press(".")
        expect(self.page.locator("output")).to_contain_text("step 1 of 50")
        expect_the_ring_of(self.page, Beside(self.run.model(1)))
        self.keyboard.press("End")
        expect_the_ring_of(self.page, self.baby)
        self.has_done(2)

    def looks_at_101(self):
        self.keyboard.row(0b101)
        best = self.baby.probs[0b101, 1]
        expect(self.page.locator("p[aria-live]").first).to_have_text(f"State 101: 1, {percent(best)}, goes to 011")
        assert 0.75 < best < 0.83  # the text's 79 %

        def check():
            for row, p in zip(rows_of(self.page, "aside table tbody tr"), self.baby.probs[0b101], strict=True):
                assert agrees(row[2], p, hundredth), (row, p)

        soon(self.page, check)
        times = SEQUENCE.count("101")  # none of them overlap, nor ends the text
        expect(self.page.get_by_text(f"101 occurs {times} times, followed by 1 ({times}×).")).to_be_visible()
        self.fact("Entropy", bits(float(-np.sum(self.baby.probs[0b101] * np.log(self.baby.probs[0b101])))), in_bits(3))
        self.has_done(3)

    def looks_at_000(self):
        self.keyboard.state(0)
        expect(self.page.get_by_text("000 never occurs with a token after it")).to_be_visible()
        assert followers_of("000", 2) == "never seen"
        expect_the_table_of(self.page, self.baby, self.baby.law())
        assert abs(self.baby.probs[0, 0] - 0.5) > 0.1  # nobody told it, and it isn't even
        self.has_done(4)

    def walks(self):
        self.keyboard.use(self.button("Walk 20"))
        text = self.page.locator(".walk .text")
        expect(text).to_have_text(walk_of(self.baby, 0, 20))
        self.has_done(5)

    def marks_000_red(self):
        self.keyboard.state(0)
        self.keyboard.press("r")
        expect(self.page.locator('g.node[data-state="0"]')).to_have_attribute(
            "aria-label", re.compile("^State 000, red:")
        )
        self.fact("Red within 100", 0.0, from_log)
        self.keyboard.state(0b111)
        self.fact("Red within 100", self.baby.log_reach([0], 100, 0b111), from_log)
        self.has_done(6)
        self.go_to("Red states")
        answer = self.page.locator(".answer b")

        def shows(beside, n):
            def check():
                assert agrees(answer.inner_text(), beside.log_reach([0], n, 0b111), from_log)

            soon(self.page, check)

        shows(self.baby, 100)
        self.keyboard.reach(self.page.locator("#horizon"))
        self.keyboard.press("Home")
        shows(self.baby, 1)  # impossible: it takes three zeros
        expect(answer).to_have_text("0")
        self.keyboard.press(*["ArrowRight"] * 2)
        shows(self.baby, 3)
        self.keyboard.press("t")
        expect(self.page.locator("#temperature")).to_be_focused()
        self.keyboard.press(*["ArrowLeft"] * 5)
        shows(Beside(self.run.model(), temperature=0.95), 3)
        self.keyboard.use(self.button("As the model says"))
        shows(self.baby, 3)

    def makes_the_context_12(self):
        self.go_to("Chain")
        self.keyboard.use(self.page.locator("summary", has_text="Settings"))
        self.keyboard.reach(self.page.get_by_label("context k"))
        self.keyboard.write("12")
        self.keyboard.reach(self.page.get_by_label("steps", exact=True))
        self.keyboard.write("4")
        self.keyboard.use(self.button("Train"))
        picture = self.page.get_by_role("img", name="Map of 4,096 states.")
        expect(picture).to_be_visible()
        expect(self.page.locator("g.node")).to_have_count(0)
        expect(self.page.locator("output")).to_contain_text("step 4 of 4")
        expect(self.button("Train")).to_be_enabled()
        self.keyboard.reach(picture)
        self.keyboard.press("Home", "ArrowRight")
        expect(self.page.locator('tr[aria-selected="true"]')).to_have_count(1)
        beside = Beside(self.trained(2).model())
        state = int(self.page.locator('tr[aria-selected="true"]').get_attribute("data-state"))

        def check():
            cells = rows_of(self.page, 'tr[aria-selected="true"]')[0]
            assert cells[0] == beside.name(state)
            assert all(agrees(text, p, tenth) for text, p in zip(cells[1:3], beside.probs[state], strict=True))

        soon(self.page, check)
        self.keyboard.reach(self.page.locator("#model"))
        self.keyboard.press("ArrowUp", "ArrowDown")  # to the other one and back: having trained it need not count
        expect(self.page.locator("#model")).to_have_value("trained-2")
        expect(picture).to_be_visible()
        self.has_done(7)

    def chooses_a_real_model(self):
        self.keyboard.choose(self.page.locator("#model"), "base")
        V, k = self.base.vocab_size, self.base.context_length
        log10 = k * math.log10(V)
        mantissa = fixed(10 ** (log10 % 1), 1)
        power = str(int(log10)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
        expect(self.page.get_by_text(f"{V}^{k} = {mantissa} × 10{power} states", exact=True)).to_be_visible()
        self.has_done(8)
        self.keyboard.use(self.button("Walk it token by token"))
        expect(self.page.locator("#prompt")).to_be_visible()
        self.keyboard.press("/")
        expect(self.page.locator("#prompt")).to_be_focused()
        self.keyboard.write("Mira has a")
        self.ids = self.words.encode("Mira has a")
        self.shows_tokens(self.ids)
        self.keyboard.use(self.button("T = 0"))
        self.keyboard.reach(self.page.get_by_label("How many tokens"))
        self.keyboard.write("6")
        self.keyboard.use(self.button("Write on"))
        self.ids += generate(self.base, self.ids, 6, temperature=0)
        self.shows_tokens(self.ids)
        self.keyboard.use(self.button("As the model says"))

    def shows_tokens(self, ids):
        chips = self.page.locator("ol.chips li .id")
        expect(chips).to_have_text([str(token) for token in ids])

        def check():
            probs = np.exp(log_softmax(self.base.next_token_logits([ids])[0]))
            plain = self.page.get_by_text(re.compile(r"at temperature 1, uncut: \S+ bits")).inner_text().split()[-2]
            assert agrees(plain, bits(float(-np.sum(probs * np.log(probs)))), lambda x: fixed(x, 2)), plain

        soon(self.page, check)

    def looks_inside(self):
        self.go_to("Inside")
        self.has_done(9)
        config = self.base.config
        expect(self.page.get_by_role("button", name=re.compile(r"^Layer \d+, head \d+$"))).to_have_count(
            config.n_layer * config.n_head
        )
        found = trace(self.base, self.ids, Want(attention=[1], lens=5))
        title = self.page.locator("figure h2", has_text="Layer 0, head 0")
        expect(title).to_be_visible()
        self.keyboard.press("]")
        expect(self.page.locator("figure h2", has_text="Layer 1, head 0")).to_be_visible()
        heat = self.page.get_by_role("img", name=re.compile("^Layer 1, head 0"))
        self.keyboard.reach(heat)
        self.keyboard.press("End", "ArrowUp", "ArrowLeft")  # the last token but one looks at itself
        last = len(self.ids) - 2

        def check():
            p = (heat.get_attribute("aria-label") or "").rsplit(": ", 1)[1]
            assert agrees(p, found.attention[0][0, last, last], tenth), (p, found.attention[0][0, last])

        soon(self.page, check)
        shown = self.page.locator("table.lens tbody tr")
        expect(shown).to_have_count(config.n_layer + 1)

        def check_lens():
            cells = self.page.locator("table.lens tbody button .hidden").all_text_contents()
            logprobs = found.lens_logprobs[::-1, :, 0].ravel()  # the last layer stands on top
            for cell, logprob in zip(cells, logprobs, strict=True):
                assert agrees(cell.strip(), math.exp(logprob), percent), (cell, logprob)

        soon(self.page, check_lens)

    def sees_the_meaning_space(self):
        self.go_to("Meaning space")
        self.has_done(10)
        steps = self.page.locator("ol.steps > li")
        self.keyboard.reach(self.page.get_by_label("Tokens ahead"))
        self.keyboard.write("4")
        self.keyboard.reach(self.page.get_by_label("Words in a fan"))
        self.keyboard.write("3")
        expect(steps).to_have_count(5)
        went = generate(self.base, self.ids, 4, temperature=0)

        def check():
            fans = steps.evaluate_all(
                "items => items.map((li) => [...li.querySelectorAll('button')].map((b) => b.innerText))"
            )
            assert [len(fan) for fan in fans] == [3, 3, 3, 3, 0]
            for n, fan in enumerate(fans[:4]):
                probs = np.exp(log_softmax(self.base.next_token_logits([[*self.ids, *went[:n]]])[0]))
                for text, p in zip(fan, sorted(probs, reverse=True), strict=False):
                    assert agrees(text.rsplit(" ", 1)[1], p, percent), (fan, p)

        soon(self.page, check)

    def estimates_red(self):
        """Of a real model red is estimated from walks; how large the model is stands below."""
        self.go_to("Red states")
        rows = dict(row[:2] for row in rows_of(self.page, "main section:last-of-type table tbody tr"))
        assert rows["base"] == f"{math.ceil(self.base.context_length * math.log2(self.base.vocab_size)):,}"
        self.keyboard.reach(self.page.locator("#pattern"))
        self.keyboard.write(" drum.")
        pattern = self.words.encode(" drum.")
        expect(self.page.locator("ol.chips li .id")).to_have_text([str(token) for token in pattern])
        self.keyboard.reach(self.page.get_by_label("Within tokens"))
        self.keyboard.write("12")
        self.keyboard.reach(self.page.get_by_label("Walks"))
        self.keyboard.write("40")
        self.keyboard.use(self.button("Estimate"))
        interval = self.page.get_by_text("from 40 walks.")
        expect(interval).to_be_visible()
        *_, found = estimate_red(self.base, [pattern], self.ids, 12, walks=40, seed=1)
        low, high = (from_log(curve[-1]) for curve in (found.log_low, found.log_high))
        expect(self.page.locator(".answer b")).to_have_text(from_log(found.log_within[-1]))
        expect(interval).to_have_text(f"95% interval: {low} to {high}, from 40 walks.")
        assert found.log_low[-1] < found.log_within[-1] < found.log_high[-1]
        curve = self.page.get_by_role("img", name="Within 12 tokens the pattern has probability")
        expect(curve).to_be_visible()
        self.has_done(11)

    def compares(self):
        self.go_to("Chain")
        self.keyboard.choose(self.page.locator("#model"), "trained-1")
        self.keyboard.press("Escape", "c")
        expect(self.page.locator("#compare")).to_be_focused()
        self.keyboard.pick(self.page.locator("#compare"), "trained-1")
        self.has_done(12)
        expect(self.page.locator("g.node")).to_have_count(16)  # A | B
        self.keyboard.reach(self.page.locator(".switch input:checked"))
        self.keyboard.press("ArrowRight")
        expect(self.page.locator("g.node")).to_have_count(8)  # A - B

        def check():
            for state, cells in enumerate(rows_of(self.page)):
                a, b = self.baby.probs[state], self.untrained.probs[state]
                for text, gap in zip(cells[1:3], 100 * (a - b), strict=True):
                    assert agrees(text, gap, lambda x: signed(x, 1)), (cells, gap)
                assert agrees(cells[4], bits(jensen_shannon(a, b)), lambda x: fixed(x, 3)), cells

        soon(self.page, check)


def in_bits(digits):
    return lambda x: f"{fixed(x, digits)} bits"


def jensen_shannon(p, q):
    middle = (p + q) / 2
    return float(np.sum(p * np.log(p / middle)) + np.sum(q * np.log(q / middle))) / 2


def test_a_newcomer_goes_the_whole_path_with_a_keyboard_alone(page, keyboard, site, base):
    newcomer = Newcomer(page, keyboard, site, base)
    newcomer.opens_at_the_untrained_ring()
    newcomer.trains()
    newcomer.scrubs_back()
    newcomer.looks_at_101()
    newcomer.looks_at_000()
    newcomer.walks()
    newcomer.marks_000_red()
    newcomer.makes_the_context_12()
    newcomer.chooses_a_real_model()
    newcomer.looks_inside()
    newcomer.sees_the_meaning_space()
    newcomer.estimates_red()
    newcomer.compares()
    assert page.evaluate("pressed") == 0  # no mouse, no finger
