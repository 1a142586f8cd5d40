"""The page loads, draws the ring of the baby GPT, and asks nobody but the server that it came from."""

from __future__ import annotations

import pytest
from tests.page.browsing import expect, running
from tests.page.written import agrees, percent

from glassgpt.models.gpt_torch import GPT
from glassgpt.numerics import log_softmax
from glassgpt.serving.sources import untrained_baby
from glassgpt.training.recipe import read_recipe


@pytest.fixture(scope="module")
def site(browser):
    """The baby GPT alone."""
    with running([untrained_baby()]) as site:
        yield site


def test_the_page_opens_at_the_ring_of_the_untrained_baby(page, watch):
    labels = page.locator("svg text.label")
    expect(page.get_by_role("radiogroup", name="The 8 states as a ring")).to_be_visible()
    expect(page.get_by_role("radio")).to_have_count(8)
    expect(labels).to_have_count(16)
    recipe = read_recipe("baby")
    probs = 2.718281828459045 ** log_softmax(GPT(recipe.model, seed=recipe.run.seed).context_table())
    shown = sorted(labels.all_inner_texts())
    expected = sorted(f"{token} ({percent(p)})" for row in probs for token, p in enumerate(row))
    assert shown == expected or all(agrees(text[3:-1], p, percent) for text, p in zip(shown, sorted(probs.flat)))
    assert watch.urls and not watch.foreign()
