"""The parentheses language."""

from collections import Counter
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.errors import UsageError
from glassgpt.text.draws import Draws
from glassgpt.text.parentheses import Parentheses, balanced, depths, is_balanced, wrong_closes


def reduced(text):
    """Another definition: take away () until there is none."""
    while "()" in text:
        text = text.replace("()", "")
    return text


@settings(deadline=None)
@given(st.text(alphabet="()", max_size=40))
def test_a_string_is_balanced_if_taking_pairs_away_leaves_nothing(text):
    assert is_balanced(text) == (reduced(text) == "")
    assert len(wrong_closes(text)) == reduced(text).count(")")
    assert all(depths(text)[at] == 0 and text[at] == ")" for at in wrong_closes(text))


def test_other_signs_do_not_belong_to_the_language():
    assert not is_balanced("(a)")
    assert is_balanced("")


def test_all_that_is_generated_is_balanced_and_no_deeper_than_asked():
    for i in range(500):
        text = balanced(Draws("test", i), 0.49, deepest=6)
        assert is_balanced(text)
        assert max(depths(text)) <= 6


def test_lengths_and_depths_follow_the_stated_law():
    n, p = 20_000, 0.45
    texts = [balanced(Draws("law", i), p, deepest=10**6) for i in range(n)]
    lengths = Counter(len(text) // 2 for text in texts)
    for k in range(1, 8):
        expected = n * comb(2 * k - 2, k - 1) / k * p ** (k - 1) * (1 - p) ** k
        assert abs(lengths[k] - expected) < 5 * expected**0.5
    r = (1 - p) / p
    for depth in range(1, 12):
        expected = n * (r - 1) / (r ** (depth + 1) - 1)
        assert abs(sum(max(depths(text)) > depth for text in texts) - expected) < 5 * expected**0.5
    assert sum(map(len, texts)) / n == pytest.approx(2 * (1 - p) / (1 - 2 * p), rel=0.06)


def test_the_source_follows_from_its_seed():
    texts = [document.text for document in Parentheses(3, 50).documents()]
    assert texts == [document.text for document in Parentheses(3, 50).documents()]
    assert texts != [document.text for document in Parentheses(4, 50).documents()]
    assert Parentheses(3, 50).identity() != Parentheses(4, 50).identity()
    assert texts[0] == "()"


@pytest.mark.parametrize("options", [{"p_open": 0.5}, {"n_documents": 0}, {"deepest": 0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(UsageError):
        Parentheses(**options)
