"""Attention: habits are what they are called, squares hold the weights, tokens name both axes."""

import math

import numpy as np
import pytest
from tests.figures.reading import assert_writing_stands_apart_inside, caption, texts

from glassgpt.errors import UsageError
from glassgpt.figures.attention import AttentionMaps, draw_attention_grid, draw_attention_head, head_habits

RNG = np.random.default_rng(0)


def causal(n_layers, H, T, seed=0):
    scores = np.random.default_rng(seed).normal(size=(n_layers, H, T, T)) * 2
    scores = np.where(np.tril(np.ones((T, T), dtype=bool)), scores, -np.inf)
    powers = np.exp(scores)
    return powers / powers.sum(axis=-1, keepdims=True)


def maps_of(n_layers=2, H=3, T=7, tokens=None, ids=None, weights=None, layers=None):
    tokens = tokens or [f"t{i}" for i in range(T)]
    ids = list(range(len(tokens))) if ids is None else ids
    weights = causal(n_layers, H, T) if weights is None else weights
    return AttentionMaps(tokens, ids, range(len(weights)) if layers is None else layers, weights)


def pure(places):
    """One head that looks at one place from each token."""
    weights = np.zeros((1, 1, len(places), len(places)))
    weights[0, 0, np.arange(len(places)), places] = 1.0
    return weights


def squares(figure):
    return {axes.get_gid(): axes for axes in figure.axes if axes.get_gid() != "scale"}


# --- Habits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("places", "name"), [([0, 0, 1, 2, 3, 4], "previous"), ([0] * 6, "first"), ([0, 1, 2, 3, 4, 5], "itself")]
)
def test_a_head_with_one_habit_has_it_alone(places, name):
    found = head_habits(maps_of(T=6, weights=pure(places)))
    shares = {other: getattr(found, other)[0, 0] for other in ("previous", "first", "itself")}
    assert shares == {"previous": 0.0, "first": 0.0, "itself": 0.0} | {name: 1.0}
    assert found.strongest(0, 0) == (name, 1.0)
    assert found.entropy[0, 0] == found.evenness[0, 0] == 0
    assert np.isnan(found.repeat).all()


def test_a_head_that_looks_behind_the_earlier_copy_repeats():
    """a b c a b c: from the second a at what followed the first, b, and so on."""
    found = head_habits(maps_of(tokens=list("abcabc"), ids=[0, 1, 2, 0, 1, 2], weights=pure([0, 1, 2, 1, 2, 3])))
    assert found.repeat[0, 0] == 1.0 and found.strongest(0, 0) == ("repeat", 1.0)


def test_habits_by_hand():
    """hello hello bye hello: behind an earlier hello stand places 1 (from 1), 1 and 2 (from 3)."""
    data = maps_of(2, 3, 4, ids=[7, 7, 3, 7])
    found, w = head_habits(data), data.weights
    np.testing.assert_allclose(found.previous, (w[:, :, 2, 1] + w[:, :, 3, 2]) / 2)
    np.testing.assert_allclose(found.first, (w[:, :, 2, 0] + w[:, :, 3, 0]) / 2)
    np.testing.assert_allclose(found.itself, (w[:, :, 2, 2] + w[:, :, 3, 3]) / 2)
    np.testing.assert_allclose(found.repeat, (w[:, :, 1, 1] + w[:, :, 3, 1] + w[:, :, 3, 2]) / 2)
    rows = [[-sum(p * math.log(p) for p in w[0, 0, t, : t + 1]) for t in (2, 3)]]
    assert found.entropy[0, 0] == pytest.approx(np.mean(rows))
    assert found.evenness[0, 0] == pytest.approx(np.mean([rows[0][0] / math.log(3), rows[0][1] / math.log(4)]))


def test_an_even_head_has_the_greatest_entropy_and_says_so():
    weights = np.tril(np.ones((5, 5)))[None, None]
    data = maps_of(T=5, weights=weights / weights.sum(axis=-1, keepdims=True))
    found = head_habits(data)
    assert found.evenness[0, 0] == pytest.approx(1.0)
    assert found.entropy[0, 0] == pytest.approx(np.mean(np.log([3, 4, 5])))
    figure = draw_attention_grid(data)
    [note] = texts(figure, "note")
    assert note.startswith("even")


def test_an_even_look_at_a_text_of_one_word_is_no_habit():
    """It looks mostly at what followed an earlier copy, and so does every head that looks at all."""
    weights = np.tril(np.ones((9, 9)))[None, None]
    data = maps_of(T=9, ids=[5] * 9, weights=weights / weights.sum(axis=-1, keepdims=True))
    assert head_habits(data).repeat[0, 0] > 0.5
    assert "none of them" in caption(draw_attention_grid(data))


# --- All heads --------------------------------------------------------------------------------------------------------


def test_each_square_holds_its_heads_weights_with_what_lies_ahead_left_out():
    data = maps_of(2, 3, 7, layers=(4, 9))
    found = squares(draw_attention_grid(data))
    assert list(found) == [f"layer {layer} head {head}" for layer in (4, 9) for head in range(3)]
    for i, layer in enumerate((4, 9)):
        for head in range(3):
            picture = found[f"layer {layer} head {head}"].images[0].get_array()
            np.testing.assert_array_equal(picture.mask, np.triu(np.ones((7, 7), dtype=bool), 1))
            np.testing.assert_array_equal(np.tril(picture.data), data.weights[i, head])
    assert found["layer 9 head 0"].get_ylabel() == "layer 9" and found["layer 4 head 2"].get_title() == "head 2"


def test_below_each_square_stands_its_strongest_habit():
    weights = np.concatenate([pure([0, 0, 1, 2, 3, 4]), pure([0] * 6)], axis=1)
    figure = draw_attention_grid(maps_of(T=6, weights=weights))
    assert texts(figure, "note") == ["previous 100%", "first 100%"]
    said = caption(figure)
    assert "more than half at one thing: 2 of them (1 at the previous token, 1 at the first token)." in said
    assert "Mean entropy 0.00 nats, 0% of an even look's." in said


def test_the_caption_explains_the_names_that_stand_below_the_squares_and_no_others():
    weights = np.concatenate([pure([0, 0, 1, 2, 3, 4]), pure([0] * 6)], axis=1)
    assert "strongest habit. " in caption(draw_attention_grid(maps_of(T=6, weights=weights)))
    many = draw_attention_grid(maps_of(T=6, weights=np.repeat(weights, 8, axis=1)))
    assert set(texts(many, "note")) == {"prev 100%", "first 100%"}
    assert "strongest habit (prev: the previous token). " in caption(many)


def test_heads_without_a_strong_habit_are_counted_as_none():
    assert "Looking more than half at one thing: none of them." in caption(draw_attention_grid(maps_of(T=30)))


@pytest.mark.parametrize(("n_layers", "H"), [(1, 1), (2, 3), (12, 12), (2, 16)])
def test_any_number_of_heads_finds_room(n_layers, H):
    assert_writing_stands_apart_inside(draw_attention_grid(maps_of(n_layers, H, 5), title="Heads"))


# --- One head ---------------------------------------------------------------------------------------------------------


def test_one_head_names_its_tokens_on_both_axes_as_plain_text():
    tokens = ["$x$", " a", "\n", "hello", "hello", "<b>", "\x1b"]
    data = maps_of(tokens=tokens, layers=(2, 5))
    figure = draw_attention_head(data, 5, 1, title="$y$")
    axes = figure.axes[0]
    expected = ["$x$", "␣a", "↵", "hello", "hello", "<b>", "\\x1b"]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == expected
        assert not any(label.get_parse_math() for label in labels)
    np.testing.assert_array_equal(np.tril(axes.images[0].get_array().data), data.weights[1, 1])
    assert_writing_stands_apart_inside(figure)


def test_a_short_texts_cells_have_their_numbers():
    data = maps_of(T=12)
    numbers = texts(draw_attention_head(data, 0, 0), "number")
    assert len(numbers) == 12 * 13 // 2 and numbers[0] == "100%"
    assert numbers[1] == f"{100 * data.weights[0, 0, 1, 0]:.0f}%"
    assert not texts(draw_attention_head(maps_of(T=13), 0, 0), "number")


def test_the_caption_gives_the_heads_numbers():
    data = maps_of(2, 3, 4, ids=[7, 7, 3, 7])
    found, said = head_habits(data), caption(draw_attention_head(data, 1, 2))
    assert said.startswith("Layer 1, head 2 (both counted from 0).")
    assert f"{100 * found.previous[1, 2]:.0f}% at the previous token" in said
    assert f"{100 * found.repeat[1, 2]:.0f}% at what followed an earlier copy" in said
    assert f"Entropy of a look {found.entropy[1, 2]:.2f} nats" in said
    assert "earlier copy" not in caption(draw_attention_head(maps_of(), 0, 0))


@pytest.mark.parametrize("T", [3, 20, 64])
def test_texts_of_any_length_find_room(T):
    assert_writing_stands_apart_inside(draw_attention_head(maps_of(1, 1, T), 0, 0))


# --- What is refused --------------------------------------------------------------------------------------------------


def test_weights_that_are_none_are_refused():
    good = causal(1, 1, 4)
    ahead = good.copy()
    ahead[0, 0, 0] = [0.5, 0.5, 0, 0]
    for wrong in (good * 0.9, ahead, -good, np.full_like(good, np.nan)):
        with pytest.raises(UsageError, match="sum to 1 in each row and are 0 ahead"):
            draw_attention_grid(maps_of(T=4, weights=wrong))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r"2 layers over 4 tokens is of shape \(2, heads, 4, 4\)"):
        draw_attention_grid(AttentionMaps("abcd", range(4), [0, 1], causal(1, 1, 4)))
    with pytest.raises(UsageError, match="a number for each of the 4 tokens; got 3"):
        draw_attention_grid(maps_of(T=4, ids=[1, 2, 3]))
    with pytest.raises(UsageError, match="this text has 2"):
        draw_attention_grid(maps_of(T=2))
    with pytest.raises(UsageError, match="64 tokens can be named"):
        draw_attention_head(maps_of(1, 1, 65), 0, 0)


@pytest.mark.parametrize(("layer", "head"), [(2, 0), (0, 3), (0, -1)])
def test_a_head_that_is_not_there_is_refused(layer, head):
    with pytest.raises(UsageError, match="layers 0, 1 and heads 0 to 2"):
        draw_attention_head(maps_of(), layer, head)
