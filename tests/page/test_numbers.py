"""Every number on the screen is Python's, to the digits shown: tables, the long run, red, bars and entropies."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.page.beside import Beside, expect_the_ring_of, expect_the_table_of
from tests.page.browsing import expect, facts_of, rows_of, running, soon
from tests.page.written import agrees, bar, bits, fixed, from_log, hundredth, percent, tenth

import glassgpt
from glassgpt.decoding.processors import apply, processors
from glassgpt.figures.ablation import likeliest_of_both
from glassgpt.models.ablation import Part, ablated_logits, ablations
from glassgpt.models.change import Change, changed
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.trace import Want, trace
from glassgpt.numerics import log_softmax
from glassgpt.serving.sources import Source, source_of, untrained_baby
from glassgpt.text.character import CharacterTokenizer
from glassgpt.weights.run import Run

pytestmark = pytest.mark.slow
SAMPLERS = [(0.5, 0, 1.0), (2.0, 0, 1.0), (0.5, 1, 1.0), (2.0, 0, 0.6), (1.3, 2, 0.9), (0.0, 0, 1.0)]
BARS = [(1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 0, 1.0), (0.7, 12, 1.0), (1.5, 0, 0.8), (2.0, 40, 0.5), (0.0, 0, 1.0)]
BAR_TEXTS = """rows => rows.map((row) => [row.getAttribute("aria-label"),
  ...[".value", ".held"].map((part) => row.querySelector(part).textContent.trim())])"""
SHAPES = "items => items.map((item) => item.querySelector('.number').textContent)"
LARGE = GPTConfig(vocab_size=4, context_length=6, n_layer=1, n_head=2, n_embd=16, bias=False)  # 4,096 states


def large_source() -> Source:
    return Source(
        ref="large",
        title="large",
        vocab_size=4,
        context_length=6,
        read=lambda step, progress: large(),
        read_tokenizer=lambda: CharacterTokenizer("abcd"),
        config=LARGE,
    )


def large() -> GPT:
    """Drawn wider than usual, so that its rows differ."""
    gpt = GPT(LARGE, seed=5)
    for parameter in gpt.parameters():
        parameter.data *= 6
    return gpt


@pytest.fixture(scope="module")
def site(browser, baby_run, base):
    run = replace(source_of(str(baby_run.path)), title="baby run")
    words = replace(source_of(str(base)), title="base")
    with running([untrained_baby(), run, words, large_source()]) as site:
        yield site


def address(place="chain", model="baby-run@50", sampler=(1.0, 0, 1.0), **more):
    names = dict(zip("Tkp", sampler, strict=True)) | more
    return f"#/{place}?m={model}" + "".join(f"&{name}={value}" for name, value in names.items())


def in_bits(nats, digits):
    return f"{fixed(bits(nats), digits)} bits"


def entropy(probs):
    kept = probs[probs > 0]
    return abs(float(np.sum(kept * np.log(kept))))


def set_slider(page, name, value):
    page.locator(f"#{name}").fill(str(value))


@pytest.mark.parametrize("step", [0, 7, 50])
def test_every_cell_of_the_table_and_the_long_run(open_page, baby_run, step):
    page = open_page(address(model=f"baby-run@{step}", ctx="111"))
    beside = Beside(baby_run.model(step))
    expect_the_table_of(page, beside, beside.law())
    expect_the_ring_of(page, beside)


def test_the_table_under_temperature_top_k_and_top_p(open_page, baby_run):
    page = open_page(address(ctx="111"))
    for temperature, top_k, top_p in SAMPLERS:
        set_slider(page, "temperature", temperature)
        numbers = page.locator(".sampler input[type=number]")
        for at, value in ((1, top_k), (2, top_p)):
            numbers.nth(at).fill(str(value))
            numbers.nth(at).press("Tab")
        beside = Beside(baby_run.model(), temperature, top_k, top_p)
        expect_the_table_of(page, beside, beside.law(start=0b111))


def test_a_gpt_of_another_shape_trained_from_the_page(open_page, site):
    """Vocabulary, context, layers, heads, width, sequence and seed are set, and the chain is that of such a GPT."""
    page, sequence = open_page(), "0120210120210"
    page.locator("summary", has_text="Settings").click()
    wanted = {"tokens V": 3, "context k": 2, "layers": 2, "heads": 3, "width": 12, "steps": 20, "seed": 5}
    for name, value in wanted.items():
        page.get_by_label(name, exact=True).fill(str(value))
    page.get_by_label("sequence", exact=True).fill(sequence)
    expect(page.get_by_text("9 states", exact=True)).to_be_visible()
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.locator("output")).to_contain_text("step 20 of 20")
    expect(page.locator("g.node")).to_have_count(9)
    run = Run(site.api.trainings["trained-1"].folder)
    config = run.config
    assert (config.vocab_size, config.context_length, config.n_layer, config.n_head, config.n_embd) == (3, 2, 2, 3, 12)
    assert run.recipe["run"]["seed"] == 5 and run.recipe["data"]["sequence"] == sequence
    beside = Beside(run.model())
    page.locator("g.node").first.click()
    expect_the_table_of(page, beside, beside.law(), sequence)
    expect_the_ring_of(page, beside)

    def check():
        facts = facts_of(page)
        assert facts["parameters"] == f"{config.n_parameters:,}" and facts["shape"] == "2 layers, 3 heads, 12 wide"

    soon(page, check)


def test_a_weight_changed_by_hand_changes_the_chain_as_in_python(open_page, site, baby_run):
    """Chosen by its numbers and by keys in the map, moved by the slider; beside it the model as it was; put back."""
    name, before = "h.2.mlp.c_fc.weight", Beside(baby_run.model(50))
    page = open_page(address(ctx="101"))
    page.locator("summary", has_text="Change one weight").click()
    page.get_by_label("Parameter").select_option(name)
    page.get_by_label("Row", exact=True).fill("20")
    page.get_by_label("Row", exact=True).press("Tab")
    expect(page.get_by_label("Column", exact=True)).to_have_value("0")
    picture = page.get_by_role("img", name=re.compile(rf"{name}, 64 × 16"))
    picture.press("ArrowDown")  # on its side: the columns of the matrix go down
    picture.press("Enter")
    expect(page.get_by_label("Column", exact=True)).to_have_value("1")
    weight = float(before.model.get_parameter(name)[20, 1].detach())
    expect(page.get_by_text(f"it was {weight:+.4f}".replace("-", "−"))).to_be_visible()
    slider = page.locator("#weight")
    for value in (-2.5, 3, 2.5):
        slider.fill(str(value))
    beside = Beside(changed(before.model, Change(name, (20, 1), 2.5)))
    assert abs(beside.probs - before.probs).max() > 0.02
    expect_the_table_of(page, beside, beside.law())
    expect_the_ring_of(page, beside)

    def check():
        shown = page.locator("output").inner_text()
        loss = re.search(r"loss (\S+) nats", shown)
        assert loss and agrees(loss[1], beside.loss(), lambda x: fixed(x, 4)), (shown, beside.loss())
        said = page.get_by_text(re.compile(r"^Loss \S+ before")).inner_text().split()
        assert agrees(said[1], before.loss(), lambda x: fixed(x, 4)), (said, before.loss())
        assert agrees(said[3], beside.loss(), lambda x: fixed(x, 4)), (said, beside.loss())
        code = page.locator("aside pre").inner_text().splitlines()
        assert f'model = changed(model, Change("{name}", (20, 1), 2.5))' in code

    soon(page, check)
    expect(page).to_have_url(re.compile(r"%3A20\.1%3A2\.5"))
    page.reload()
    expect_the_table_of(page, beside, beside.law())
    page.get_by_role("button", name="Compare with it unchanged").click()
    page.locator("label", has=page.get_by_role("radio", name="A − B")).click()

    def check_gaps():
        for state, cells in enumerate(rows_of(page)):
            for text, gap in zip(cells[1:3], 100 * (beside.probs[state] - before.probs[state]), strict=True):
                assert agrees(text.replace("−", "-").lstrip("+"), gap, lambda x: fixed(x, 1)), (cells, gap)

    soon(page, check_gaps)
    page.get_by_role("button", name="1 weight changed").click()
    page.get_by_label("Compare").or_(page.locator("#compare")).first.select_option("")
    expect_the_table_of(page, before, before.law())


def test_the_shapes_of_the_blocks_are_those_of_the_tensors(open_page, base):
    model, words = glassgpt.load(str(base))
    ids = words.encode("Mira has a")
    page = open_page(address("inside", "base", ctx=".".join(map(str, ids))))
    residual = trace(model, ids, Want(residual=True)).residual
    stream, lengths = f"{len(ids)} × {residual.shape[-1]}", np.linalg.norm(residual[1:, -1], axis=-1)
    logits = model.hidden(torch.tensor([ids])) @ model.lm_head.weight.T
    shapes = [str(len(ids)), *[stream] * len(residual), " × ".join(f"{n:,}" for n in logits.shape[1:])]

    def check():
        assert page.eval_on_selector_all("ol.flow li", SHAPES) == shapes
        told = page.locator("ol.flow li .quiet").all_inner_texts()
        for text, length in zip(told, lengths, strict=True):
            assert agrees(text.removeprefix("‖x‖ "), length, lambda x: fixed(x, 1)), (told, lengths)

    soon(page, check)


def test_what_stands_in_the_circles(open_page, baby_run):
    beside, page = Beside(baby_run.model()), open_page(address(ctx="111", red="0"))
    wanted = {
        "entropy": [(bits(entropy(row)), lambda x: fixed(x, 2)) for row in beside.probs],
        "stationary": [(p, tenth) for p in beside.law()],
        "red": [(beside.log_reach([0], 100, state), from_log) for state in range(8)],
    }
    choice = page.get_by_label("On the states")
    for overlay, values in wanted.items():
        choice.select_option(overlay)

        def check(values=values):
            shown = page.locator("g.node .second").all_text_contents()
            for text, (value, write) in zip(shown, values, strict=True):
                assert agrees(text, value, write), (shown, value)

        soon(page, check)


def test_the_inspector_of_every_state(open_page, baby_run):
    sampler = (0.5, 0, 1.0)
    beside, model = Beside(baby_run.model(), *sampler), baby_run.model()
    page = open_page(address(sampler=sampler, ctx="000", red="7", n=10))
    logits, law = model.context_table(), beside.law()
    plain = np.exp(log_softmax(logits))
    for state in range(8):
        page.locator(f'tr[data-state="{state}"]').click()

        def check(state=state):
            expect(page.locator("aside .context")).to_have_text(beside.name(state))
            for token, cells in enumerate(rows_of(page, "aside table tbody tr")):
                assert cells[0] == str(token) and cells[3] == beside.name(beside.goal(state, token))
                assert agrees(cells[1].replace("−", "-").lstrip("+"), logits[state, token], lambda x: fixed(x, 3))
                assert agrees(cells[2], beside.probs[state, token], hundredth)
            facts = facts_of(page)
            assert agrees(facts["Entropy"], entropy(beside.probs[state]), lambda x: in_bits(x, 3)), facts
            assert agrees(facts["at temperature 1, uncut"], entropy(plain[state]), lambda x: in_bits(x, 3)), facts
            assert agrees(facts["Long run"], float(np.log(law[state])), from_log), facts
            assert agrees(facts["Red within 10"], beside.log_reach([7], 10, state), from_log), facts
            assert facts["parameters"] == "12,656" and facts["states"] == "8"

        soon(page, check)


def test_the_inspector_speaks_of_the_model_that_is_shown(open_page, baby_run):
    page = open_page(f"{address(ctx='101', red='0', n=10)}&b=baby-run@0&show=b")
    for name, step in (("B", 0), ("A | B", 50)):
        page.locator("header label", has_text=re.compile(rf"^\s*{re.escape(name)}\s*$")).last.click()
        model = baby_run.model(step)
        beside, logits = Beside(model), model.next_token_logits([[1, 0, 1]])[0]

        def check(beside=beside, logits=logits, step=step):
            for token, cells in enumerate(rows_of(page, "aside table tbody tr")):
                assert agrees(cells[1].replace("−", "-").lstrip("+"), logits[token], lambda x: fixed(x, 3)), cells
                assert agrees(cells[2], beside.probs[0b101, token], hundredth), cells
            facts = facts_of(page)
            assert agrees(facts["Entropy"], entropy(beside.probs[0b101]), lambda x: in_bits(x, 3)), facts
            assert agrees(facts["Red within 10"], beside.log_reach([0], 10, 0b101), from_log), facts
            assert f"baby@{step}" in page.locator("aside pre").inner_text()

        soon(page, check)


def test_red_within_n_under_samplers_and_for_very_small_numbers(open_page, baby_run):
    page = open_page(address("red", ctx="111", red="0", n=3))
    answer, horizon = page.locator(".answer b"), page.locator(".horizon input[type=number]")
    for temperature, n in itertools.product((1.0, 0.5, 2.0, 0.02, 0.003), (3, 100, 1000)):
        page.locator(".sampler input[type=number]").first.fill(str(temperature))
        horizon.fill(str(n))
        horizon.press("Tab")
        value = Beside(baby_run.model(), temperature).log_reach([0], n, 0b111)

        def check(value=value):
            assert agrees(answer.inner_text(), value, from_log), (answer.inner_text(), value)

        soon(page, check)


def test_what_is_nearly_certain_is_not_called_certain(open_page, baby_run):
    """From 101 there is a way to write 1000 tokens without 111, so reaching it is no certainty."""
    page = open_page(address("red", ctx="101", red="7", n=1000))
    value = Beside(baby_run.model()).log_reach([7], 1000, 0b101)
    assert -1e-100 < value < 0

    def check():
        shown = page.locator(".answer b").inner_text()
        assert shown.startswith("1 −") and agrees(shown, value, from_log), (shown, value)

    soon(page, check)


@pytest.mark.parametrize("sampler", BARS)
def test_the_bars_of_a_model_with_words(open_page, base, sampler):
    model, words = glassgpt.load(str(base))
    ids = words.encode("Mira has a")
    place = address("tokens", "base", sampler, ctx=".".join(map(str, ids)))
    page = open_page(place, viewport={"width": 1720, "height": 1000})  # with room for "held so far"
    logits = model.next_token_logits([ids])
    temperature, top_k, top_p = sampler
    chosen = processors(temperature, top_k or None, top_p if top_p < 1 else None)
    (probs,) = np.exp(log_softmax(np.asarray(apply(chosen, np.array([ids]), logits, model.context_length))))
    plain = np.exp(log_softmax(logits))[0]
    order = np.argsort(-logits[0], kind="stable")[:20]
    held = np.cumsum(probs[order]).round(12)  # what a sum leaves of 1 is 1

    def check():
        rows = page.eval_on_selector_all("g.bar-row", BAR_TEXTS)
        assert len(rows) == 20
        for at, (token, (said, value, kept)) in enumerate(zip(order, rows, strict=True)):
            assert agrees(value, probs[token], bar), (said, probs[token])
            assert agrees(said.rsplit(" ", 1)[1], plain[token], bar), (said, plain[token])
            assert kept == "cut" if probs[token] == 0 else agrees(kept, held[at], bar), (kept, held[at])
        shown = page.get_by_text(re.compile(r"^Entropy \S+ bits; at temperature 1")).inner_text().split()
        assert agrees(shown[1], bits(entropy(probs)), lambda x: fixed(x, 2)), shown
        assert agrees(shown[-2], bits(entropy(plain)), lambda x: fixed(x, 2)), shown
        facts = facts_of(page, "main dl")
        assert facts["Tokens left"] == f"{np.count_nonzero(probs)} / {model.vocab_size}"
        assert agrees(facts["The likeliest has"], probs.max(), hundredth)

    soon(page, check)


def test_what_each_token_cost_while_it_was_written(open_page, base):
    """The server's generation and the page's chips: the seed's own text, and the surprise of each of its tokens."""
    model, words = glassgpt.load(str(base))
    ids = words.encode("Mira has a")
    page = open_page(address("tokens", "base", (0.8, 20, 1.0), ctx=".".join(map(str, ids)), seed=3))
    page.get_by_label("How many tokens").fill("8")
    page.get_by_role("button", name="Write on").click()
    text = ids + glassgpt.generate(model, ids, 8, temperature=0.8, top_k=20, seed=3)
    expect(page.locator("ol.chips .id")).to_have_text([str(token) for token in text])
    costs = page.locator("ol.chips .cost").all_inner_texts()
    for at in range(len(ids), len(text)):
        logprob = log_softmax(model.next_token_logits([text[:at]])[0])[text[at]]
        assert agrees(costs[at], -bits(float(logprob)), lambda x: fixed(x, 1)), (costs, at)


def expect_the_steps_of(page, steps, at):
    """Scores, weights, the numbers in the cells if there are any, the sum, and the table."""
    weights, scores = steps["weights"][at, : at + 1], steps["scores"][at, : at + 1]
    rows = [*steps["keys"][: at + 1], *steps["values"][: at + 1]]
    cells = [float(x) for row in [steps["queries"][at], *rows, steps["mix"][at]] for x in row]
    length = float(np.linalg.norm(steps["written"][at]))

    def two(value):
        return fixed(value, 2).replace("-", "−") if fixed(value, 2) != "-0.00" else "0.00"

    def check():
        shown = page.locator("svg text.score").all_text_contents()
        assert len(shown) == at + 1
        assert all(agrees(text, float(x), two) for text, x in zip(shown, scores, strict=True)), (shown, scores)
        shown = page.locator("svg text.weight").all_text_contents()
        assert all(agrees(text, float(p), bar) for text, p in zip(shown, weights, strict=True)), (shown, weights)
        marks = page.locator("figure:has(text.score) svg text.mark").all_text_contents()
        assert len(marks) == (len(cells) if len(steps["queries"][0]) <= 4 else 0)  # wider ones have no room for numbers
        assert all(agrees(text, x, two) for text, x in zip(marks, cells, strict=False)), (marks, cells)
        said = page.locator("p.sum").inner_text()
        assert f"= {two(float(steps['mix'][at, 0]))}." in said
        assert abs(float(re.search(r"length (\S+) to", said)[1]) / length - 1) < 0.06, (said, length)
        table = rows_of(page, "figure:has(text.score) details tbody tr")
        assert [row[0] for row in table] == ["query", *["key, value"] * (at + 1), "mix"]
        for row, score, weight in zip(table[1:-1], scores, weights, strict=True):
            told = [float(cell.replace("−", "-")) for cell in row[3:]]
            if len(told) > 2:  # with the vectors
                D = (len(told) - 2) // 2
                np.testing.assert_allclose(told[:D], steps["keys"][int(row[1])], rtol=1e-3, atol=1e-7)
                np.testing.assert_allclose(told[-D:], steps["values"][int(row[1])], rtol=1e-3, atol=1e-7)
                told = told[D:-D]
            np.testing.assert_allclose(told, [score, weight], rtol=1e-3, atol=1e-7)

    soon(page, check)


@pytest.mark.parametrize("model", ["baby-run@20", "base"])
def test_every_step_inside_a_head(open_page, baby_run, base, model):
    """At one token and then, chosen with the keyboard, at the next; what lies ahead is hatched."""
    gpt, words = (baby_run.model(20), None) if model != "base" else glassgpt.load(str(base))
    ids = words.encode("Mira has a lamp") if words else [1, 0, 1]
    steps = trace(gpt, ids, Want(attention=[1], heads=[1])).steps_of(1, 1)
    page = open_page(address("inside", model, ctx=".".join(map(str, ids)), L=1, H=1, steps=1))
    page.locator("figure:has(text.score) summary", has_text="As a table").click()
    expect_the_steps_of(page, steps, 1)
    expect(page.locator("rect.ahead")).to_have_count(1)
    expect(page.get_by_text(f"{len(ids) - 2} ahead")).to_be_visible()
    page.get_by_role("radio").nth(1).press("ArrowRight")
    expect_the_steps_of(page, steps, 2)
    expect(page.get_by_role("radio").nth(2)).to_be_focused()
    page.get_by_role("radio").last.click()
    expect(page).to_have_url(re.compile("steps=last"))
    expect_the_steps_of(page, steps, len(ids) - 1)
    expect(page.locator("rect.ahead")).to_have_count(0)
    page.get_by_role("button", name="Hide the steps").click()
    expect(page.locator("text.score")).to_have_count(0)
    expect(page).to_have_url(re.compile(r"^(?!.*steps=).*$"))


def test_inside_two_models_side_by_side_and_their_difference(open_page, baby_run):
    """Of each head how much attention lies elsewhere, of one head each cell, and the lens of either model."""
    ids = [1, 0, 1]
    page = open_page(f"{address('inside', ctx='101')}&b=baby-run@0&show=difference&L=2&H=1")
    a, b = (trace(baby_run.model(step), ids, Want(attention="all", lens=1)) for step in (50, 0))
    gaps = a.attention - b.attention
    apart = 0.5 * np.abs(gaps).sum(-1).mean(-1)

    def check():
        marks = page.locator(".beside.pair svg .mark").all_text_contents()
        assert len(marks) == apart.size
        for text, distance in zip(marks, apart.ravel(), strict=True):
            assert agrees(f"{text}%", float(distance), percent), (marks, apart)

    soon(page, check)
    picture = page.get_by_role("img", name=re.compile("^A − B: layer 2, head 1"))
    picture.focus()
    for row, column in itertools.product(range(3), range(3)):
        picture.press("Home")
        for key, times in (("ArrowDown", row), ("ArrowRight", column)):
            for _ in range(times):
                picture.press(key)

        def check_cell(row=row, column=column):
            told = re.search(r"(\S+) percentage points", picture.get_attribute("aria-label"))
            gap = 100 * float(gaps[2, 1, row, column])
            assert told and agrees(told[1].replace("−", "-").lstrip("+"), gap, lambda x: fixed(x, 1)), (told, gap)

        soon(page, check_cell)

    def check_lenses():
        for table, found in zip(page.locator("table.lens").all(), (a, b), strict=True):
            cells = [cell.split() for cell in table.get_by_role("button").all_inner_texts()]
            best = found.lens_tokens[::-1, :, 0].ravel()
            assert [int(cell[0]) for cell in cells] == best.tolist(), (cells, best)

    soon(page, check_lenses)
    page.locator("label", has=page.get_by_role("radio", name="B", exact=True)).click()
    expect(page.get_by_role("heading", name=re.compile("^B: baby run, step 0"))).to_be_visible()
    expect(page.locator("table.lens")).to_have_count(1)


def expect_the_bars_of_b(page, order, probs, plain):
    """A bar for each of the likeliest tokens, and the entropies and cuts that stand beside them."""

    def check():
        rows = page.eval_on_selector_all("g.bar-row", BAR_TEXTS)
        assert len(rows) == len(order)
        for token, (said, value, _) in zip(order, rows, strict=True):
            assert agrees(value, probs[token], bar) and agrees(said.rsplit(" ", 1)[1], plain[token], bar), said
        shown = page.get_by_text(re.compile(r"^Entropy \S+ bits; at temperature 1")).inner_text().split()
        assert agrees(shown[1], bits(entropy(probs)), lambda x: fixed(x, 2)), shown
        assert agrees(shown[-2], bits(entropy(plain)), lambda x: fixed(x, 2)), shown
        facts = facts_of(page, "main dl")
        assert facts["Tokens left (B)"] == f"{np.count_nonzero(probs)} / {len(probs)}"
        assert agrees(facts["The likeliest has (B)"], probs.max(), hundredth)

    soon(page, check)


def test_the_bars_of_b_and_of_a_less_b(open_page, base):
    """The model with words beside itself with one weight changed, under a temperature and top-k."""
    model, words = glassgpt.load(str(base))
    ids = words.encode("Mira has a")
    by_hand = Change("ln_f.weight", (3,), 6.0)
    a, b = (m.next_token_logits([ids])[0] for m in (model, changed(model, by_hand)))
    context, cuts = np.array([ids]), processors(1.5, 12)
    p, q = (np.exp(log_softmax(np.asarray(apply(cuts, context, z[None], model.context_length))))[0] for z in (a, b))
    place = address("tokens", "base", (1.5, 12, 1.0), ctx=".".join(map(str, ids)))
    page = open_page(f"{place}&b=base~ln_f.weight:3:6&show=b", viewport={"width": 1720, "height": 1000})
    expect_the_bars_of_b(page, np.argsort(-b, kind="stable")[:20], q, np.exp(log_softmax(b)))
    page.get_by_text("A − B", exact=True).click()
    top = [token for token in likeliest_of_both(p, q, 10) if max(p[token], q[token]) > 0]
    middle = (p + q) / 2
    divergence = entropy(middle) - (entropy(p) + entropy(q)) / 2
    assert divergence > 1e-4

    def check():
        values = page.locator("main svg .value").all_text_contents()
        changes = page.locator("main svg .change").all_text_contents()
        assert len(changes) == len(top)
        for at, token in enumerate(top):
            assert agrees(values[2 * at], q[token], bar) and agrees(values[2 * at + 1], p[token], bar)
            digits = len(changes[at].partition(".")[2])
            assert abs(float(changes[at].replace("−", "-")) - 100 * (p[token] - q[token])) <= 0.51 * 10**-digits
        shown = page.get_by_text(re.compile(r"^Jensen-Shannon divergence of A and B: ")).inner_text().split()
        assert agrees(shown[-2], bits(divergence), lambda x: fixed(x, 4)), (shown, divergence)

    soon(page, check)
    page.locator("header").get_by_text("B", exact=True).last.click()
    page.locator("g.bar-row").first.click()  # what B expects can be written too
    expect(page.locator("ol.chips > li")).to_have_count(len(ids) + 1)


def test_red_by_b_and_the_difference(open_page, baby_run):
    page = open_page(f"{address('red', ctx='111', red='0', n=20)}&b=baby-run@0&show=b")
    a, b = (Beside(baby_run.model(step)).log_reach([0], 20, 0b111) for step in (50, 0))
    near = [Beside(baby_run.model(0)).log_reach([0], 20, state) for state in range(1, 8)]

    def check_b():
        assert agrees(page.locator(".answer b").inner_text(), b, from_log)
        for text, log in zip(rows_of(page, "main table.ruled tbody tr"), sorted(near, reverse=True), strict=True):
            assert agrees(text[1], log, from_log), (text, log)

    soon(page, check_b)
    page.get_by_text("A − B", exact=True).click()

    def check_both():
        assert agrees(page.locator(".answer b").inner_text(), a, from_log)
        other, less = page.locator(".answer span").all_inner_texts()
        assert agrees(other.split()[-1], b, from_log)
        points = 100 * (np.exp(a) - np.exp(b))
        assert abs(points) >= 1 and agrees(
            less.split()[-2].replace("−", "-").lstrip("+"), points, lambda x: fixed(x, 1)
        )

    soon(page, check_both)


def test_what_is_lost_without_each_head_and_mlp(open_page, base):
    """The cells of the map, and of one head the bars before and after with their difference."""
    model, words = glassgpt.load(str(base))
    ids = words.encode("Mira has a")
    page = open_page(address("inside", "base", ctx=".".join(map(str, ids)), off="1.0"))
    found, units = ablations(model, ids), {"bits": 1.0, "millibits": 1e3, "microbits": 1e6}
    cells = page.get_by_role("group", name="Every head and MLP").get_by_role("button")

    def check_cells():
        told = [cell.get_attribute("aria-label") for cell in cells.all()]
        assert len(told) == found.heads.size + found.mlps.size
        for at, text in enumerate(told):
            layer, head = divmod(at, model.config.n_head + 1)
            is_mlp = head == model.config.n_head
            name = f"the MLP of layer {layer}" if is_mlp else f"layer {layer}, head {head}"
            effect = bits(found.mlps[layer] if is_mlp else found.heads[layer, head])
            written = re.fullmatch(rf"{name}: (\S+) (\w+)", text)
            assert written is not None, text
            digits = len(written[1].partition(".")[2])
            assert abs(float(written[1]) - effect * units[written[2]]) <= 0.51 * 10**-digits, (text, effect)

    soon(page, check_cells)
    whole, ablated = (np.exp(log_softmax(ablated_logits(model, ids, part))) for part in (None, Part(1, 0)))
    top = likeliest_of_both(whole, ablated)
    page.locator("summary", has_text="As a table").last.click()

    def check_bars():
        rows = rows_of(page, ".beside details tbody tr")
        assert [int(row[0]) for row in rows] == top.tolist()
        for (_, _, before, after), token in zip(rows, top, strict=True):
            assert abs(float(before) / whole[token] - 1) < 1e-3 and abs(float(after) / ablated[token] - 1) < 1e-3
        values = page.locator(".beside svg .value").all_text_contents()
        changes = page.locator(".beside svg .change").all_text_contents()
        for at, token in enumerate(top):
            assert agrees(values[2 * at], whole[token], bar) and agrees(values[2 * at + 1], ablated[token], bar)
            digits = len(changes[at].partition(".")[2])
            change = float(changes[at].replace("−", "-"))
            assert abs(change - 100 * (ablated[token] - whole[token])) <= 0.51 * 10**-digits

    soon(page, check_bars)
    page.keyboard.press("Escape")
    page.keyboard.press("o")  # all on again
    expect(page.get_by_text("Choose a head or an MLP")).to_be_visible()
    expect(page).to_have_url(re.compile(r"^(?!.*off=).*$"))
    page.keyboard.press("}")
    page.keyboard.press("o")
    expect(page).to_have_url(re.compile(r"off=0\.1"))
    expect(page.get_by_role("heading", name="Without layer 0, head 1")).to_be_visible()


def test_a_chain_of_thousands_of_states(open_page):
    """What is iterated rather than solved, and shown on a map: table, long run, red."""
    beside, state = Beside(large()), 1234
    page = open_page(address(model="large", ctx="103102", red="7"))
    assert beside.context(state) == [1, 0, 3, 1, 0, 2]

    def check():
        cells = rows_of(page, 'tr[aria-selected="true"]')[0]
        assert cells[0] == "bad" + "bac"
        for text, p in zip(cells[1:5], beside.probs[state], strict=True):
            assert agrees(text, p, tenth), (cells, beside.probs[state])
        assert agrees(cells[5], beside.law()[state], bar), (cells, beside.law()[state])
        facts = facts_of(page)
        assert agrees(facts["Long run"], float(np.log(beside.law()[state])), from_log), facts
        assert agrees(facts["Red within 100"], beside.log_reach([7], 100, state), from_log), facts
        assert facts["states"] == "4,096"

    soon(page, check)
    picture = page.get_by_role("img", name="Map of 4,096 states.")
    best = int(beside.probs[state].argmax())
    expect(picture).to_have_attribute(
        "aria-label", re.compile(f"{'abcd'[best]} {percent(beside.probs[state, best])} → ")
    )


def test_a_b_and_their_difference(open_page, baby_run):
    """A run compared with itself as it began: gaps in percentage points, and the divergence of each state."""
    page = open_page(f"{address(ctx='101')}&b=baby-run@0&show=difference")
    a, b = Beside(baby_run.model()).probs, Beside(baby_run.model(0)).probs

    def check():
        for state, cells in enumerate(rows_of(page)):
            for text, gap in zip(cells[1:3], 100 * (a[state] - b[state]), strict=True):
                assert agrees(text.replace("−", "-").lstrip("+"), gap, lambda x: fixed(x, 1)), (cells, gap)
            middle = (a[state] + b[state]) / 2
            divergence = entropy(middle) - (entropy(a[state]) + entropy(b[state])) / 2
            assert agrees(cells[4], bits(divergence), lambda x: fixed(x, 3)), (cells, divergence)
            if state == 0b101:
                assert agrees(facts_of(page)["Divergence A, B"], divergence, lambda x: in_bits(x, 4))

    soon(page, check)


def test_the_way_ahead_and_the_neighbours_are_those_of_the_models_shown(open_page, baby_run):
    """Of B alone, and of A beside B: the path with the chances in its fans, and how near the other token is."""
    page = open_page(f"{address('meaning', ctx='101')}&b=baby-run@0&show=b")
    page.get_by_label("Tokens ahead").fill("4")
    page.get_by_label("Nearest words").fill("0")
    gpts = {"A": baby_run.model(50), "B": baby_run.model(0)}

    def expect_only(*shown):
        lists = page.locator("ol.steps")
        assert lists.count() == len(shown)
        cosines = page.locator(".near ol li").all_inner_texts()
        for at, gpt in enumerate(gpts[name] for name in shown):
            ids = [1, 0, 1]
            steps = lists.nth(at).locator("li")
            assert steps.count() == 5
            for step in range(4):
                probs = np.exp(log_softmax(gpt.next_token_logits([ids[-3:]])[0]))
                fan = steps.nth(step).locator("button").all_inner_texts()
                assert steps.nth(step).locator("b").inner_text() == str(ids[-1])
                for text, token in zip(fan, np.argsort(-probs), strict=True):
                    name, chance = text.split()
                    assert name == str(token) and agrees(chance, probs[token], percent), (text, probs)
                ids.append(int(probs.argmax()))
            zero, one = gpt.wte.weight.detach().double().numpy()
            cosine = zero @ one / np.linalg.norm(zero) / np.linalg.norm(one)
            name, shown_cosine = cosines[at].split()
            assert name == "1" and agrees(shown_cosine, cosine, lambda x: fixed(x, 3)), (cosines, cosine)

    soon(page, lambda: expect_only("B"))
    expect(page.get_by_role("button", name="Save as CSV: Words in meaning space")).to_have_count(1)
    with page.expect_download() as kept:
        page.get_by_role("button", name="Save as CSV: Words in meaning space").click()
    assert kept.value.suggested_filename == "embedding-map-b.csv"
    page.get_by_text("A | B", exact=True).click()
    soon(page, lambda: expect_only("A", "B"))
    headings = page.locator("main .pair h2.one").all_inner_texts()
    assert headings == ["A: baby run, step 50", "B: baby run, step 0"] * 3
    page.get_by_text("A − B", exact=True).click()
    expect(page.get_by_text("there is no A − B of two maps")).to_be_visible()
    soon(page, lambda: expect_only("A", "B"))


def test_the_loss_of_every_step(open_page, baby_run):
    page = open_page(address(model="baby-run@50"))
    slider, output = page.locator("#timeline"), page.locator("output")
    for at, step in enumerate(baby_run.steps):
        if step % 10 == 0:
            slider.fill(str(at))
            loss = Beside(baby_run.model(step)).loss()

            def check(step=step, loss=loss):
                shown = re.fullmatch(r"step (\d+) of 50 · loss (\S+) nats", output.inner_text().strip())
                assert shown is not None and shown[1] == str(step)
                assert agrees(shown[2], loss, lambda x: fixed(x, 4)), (shown[2], loss)

            soon(page, check)
