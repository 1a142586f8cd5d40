"""The page loads, draws the ring of the baby GPT, and asks nobody but the server that it came from."""

from __future__ import annotations

import pytest
from tests.page.beside import Beside, expect_the_ring_of
from tests.page.browsing import expect, running

from glassgpt.models.gpt_torch import GPT
from glassgpt.serving.sources import untrained_baby
from glassgpt.training.recipe import read_recipe


@pytest.fixture(scope="module")
def site(browser):
    """The baby GPT alone."""
    with running([untrained_baby()]) as site:
        yield site


def test_the_page_opens_at_the_ring_of_the_untrained_baby(page, watch):
    expect(page.get_by_role("radiogroup", name="The 8 states as a ring")).to_be_visible()
    expect(page.get_by_role("radio")).to_have_count(8)
    expect(page.locator("svg path.arrow")).to_have_count(16)
    recipe = read_recipe("baby")
    expect_the_ring_of(page, Beside(GPT(recipe.model, seed=recipe.run.seed)))
    assert watch.urls and not watch.foreign()


def test_whose_code_is_in_the_page_is_told_beside_it(page, site):
    answer = page.request.get(f"{site.url}licences.txt")
    assert answer.ok and answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "svelte 5" in answer.text() and answer.text().count("Permission is hereby granted") >= 2
    assert "Permission is hereby granted" in page.request.get(f"{site.url}saved.js").text()[:3000]
