"""One head step by step: panels hold its arrays, what lies ahead is hatched, the caption computes with real numbers."""

import numpy as np
import pytest
from tests.figures.reading import assert_writing_stands_apart_inside, caption, texts

from glassgpt.errors import UsageError
from glassgpt.figures.head import HeadSteps, draw_head, number


def steps_of(T=3, D=4, tokens=None, slope=None, seed=0, scale=1.0):
    """Computed by hand from random queries, keys and values."""
    random = np.random.default_rng(seed)
    q, k, v = random.normal(size=(3, T, D)) * scale
    scores = np.array([[q[t] @ k[j] / D**0.5 for j in range(T)] for t in range(T)])
    weights = np.zeros((T, T))
    for t in range(T):
        powers = np.exp([scores[t, j] - (slope or 0.0) * (t - j) for j in range(t + 1)])
        weights[t, : t + 1] = powers / powers.sum()
    mix = np.array([sum(weights[t, j] * v[j] for j in range(T)) for t in range(T)])
    names = tokens or [f"t{i}" for i in range(T)]
    slopes = None if slope is None else np.array([slope])
    return HeadSteps(names, q, k, v, scores, weights, mix, mix @ random.normal(size=(D, 9)), slopes)


def panel(figure, name):
    return next(axes for axes in figure.axes if axes.get_gid() == name)


def numbers(figure, name):
    return [text.get_text() for text in panel(figure, name).texts if text.get_gid() == "number"]


def test_each_panel_holds_its_step():
    data = steps_of(5, 6)
    figure = draw_head(data, 0, 0)
    held = {name: np.asarray(panel(figure, name).images[0].get_array().data) for name in
            ("queries", "keys", "scores", "weights", "values", "mix")}  # fmt: skip
    np.testing.assert_array_equal(held["queries"], data.queries)
    np.testing.assert_array_equal(held["keys"], data.keys.T)
    np.testing.assert_array_equal(held["scores"], data.scores)
    np.testing.assert_array_equal(held["weights"], data.weights)
    np.testing.assert_array_equal(held["values"], data.values)
    np.testing.assert_array_equal(held["mix"], data.mix)


def test_panels_stand_in_the_order_in_which_they_are_computed():
    figure = draw_head(steps_of(), 0, 0)
    titles = sorted(texts(figure, "title"))
    assert titles == ["1  queries q", "2  keys k", "3  scores q·k/√4", "4  weights in %", "5  values v", "6  mix"]
    lefts = [panel(figure, name).get_position().x0 for name in ("queries", "scores", "weights", "mix")]
    assert lefts == sorted(lefts)


def test_keys_stand_over_the_scores_and_values_over_the_mix():
    figure = draw_head(steps_of(), 0, 0)
    for above, below in (("keys", "scores"), ("values", "mix")):
        one, other = panel(figure, above).get_position(), panel(figure, below).get_position()
        assert (one.x0, one.x1) == pytest.approx((other.x0, other.x1)) and one.y0 > other.y1


@pytest.mark.parametrize("name", ["scores", "weights"])
def test_what_lies_ahead_is_hatched_and_has_no_colour(name):
    axes = panel(draw_head(steps_of(4), 0, 0), name)
    np.testing.assert_array_equal(axes.images[0].get_array().mask, np.triu(np.ones((4, 4), dtype=bool), 1))
    ahead = [patch for patch in axes.patches if patch.get_gid() == "ahead"]
    assert [(patch.get_x(), patch.get_y(), patch.get_width()) for patch in ahead] == [
        (0.5, -0.5, 3),
        (1.5, 0.5, 2),
        (2.5, 1.5, 1),
    ]
    assert all(patch.get_hatch() for patch in ahead)


def test_cells_have_their_numbers():
    data = steps_of(3, 4)
    figure = draw_head(data, 0, 0)
    assert numbers(figure, "queries") == [number(x) for x in data.queries.ravel()]
    assert numbers(figure, "mix") == [number(x) for x in data.mix.ravel()]
    seen = [(t, j) for t in range(3) for j in range(t + 1)]
    assert numbers(figure, "scores") == [number(data.scores[at]) for at in seen]
    assert numbers(figure, "weights")[0] == "100" and len(numbers(figure, "weights")) == len(seen)


def test_weights_of_few_tokens_are_written_so_that_rows_can_be_summed():
    written = numbers(draw_head(steps_of(3, 4), 0, 0), "weights")
    rows = [written[:1], written[1:3], written[3:]]
    for row in rows:
        assert abs(sum(float(text.strip("<>")) for text in row) - 100) <= 1


def test_small_cells_have_no_numbers_and_none_is_written_as_nothing():
    assert not numbers(draw_head(steps_of(24, 4), 0, 0), "weights")
    assert not numbers(draw_head(steps_of(3, 64), 0, 0), "queries")
    small = draw_head(steps_of(3, 4, scale=0.01), 0, 0)
    assert not numbers(small, "scores") or set(numbers(small, "scores")) != {"0.0"}


def test_the_caption_computes_the_mix_of_the_last_token():
    data = steps_of(3, 4)
    said = caption(draw_head(data, 2, 1))
    s, w, v = data.scores[2], data.weights[2], data.values[:, 0]
    assert said.startswith("Layer 2, head 1 (both counted from 0): softmax(q·k/√4) v. In the frame, at “t2” (token 2):")
    assert "scores of " + ", ".join(f"{number(s[j])} for “t{j}”" for j in range(3)) in said
    sum_of = " + ".join(f"{100 * w[j]:.0f}% × {number(v[j])}" for j in range(3))
    assert f"{sum_of} = {number(float(w @ v))}." in said
    assert f"a vector of length {np.linalg.norm(data.written[2]):.2g}." in said


def test_the_caption_of_a_long_text_names_where_it_looks_most_and_sums_the_rest():
    data = steps_of(12, 16, scale=0.5)
    order = np.argsort(-data.weights[11])
    said = caption(draw_head(data, 0, 0))
    rest = 1 - data.weights[11, order[:3]].sum()
    assert ", ".join(f"{100 * data.weights[11, j]:.0f}%" for j in order[:3]) + f" ({100 * rest:.0f}% for the" in said
    assert " + ... = " in said and "for the other 9)" in said


def test_another_token_can_be_framed():
    data = steps_of(4, 4)
    figure = draw_head(data, 0, 0, at=1)
    for name in ("queries", "scores", "weights", "mix"):
        [frame] = [patch for patch in panel(figure, name).patches if patch.get_gid() == "frame"]
        assert (frame.get_y(), frame.get_height()) == (0.5, 1)
    rows = [label.get_text() for label in panel(figure, "values").get_yticklabels()]
    assert rows[0] == f"{100 * data.weights[1, 0]:.0f}% × v(t0)" and rows[2:] == ["unseen: t2", "unseen: t3"]
    assert "at “t1” (token 1)" in caption(figure)


def test_alibi_lowers_the_scores_that_are_shown_and_says_so():
    data = steps_of(6, 4, slope=0.25)
    figure = draw_head(data, 0, 0)
    shown = panel(figure, "scores").images[0].get_array()
    assert shown[5, 2] == pytest.approx(data.scores[5, 2] - 0.75)
    assert shown[5, 5] == data.scores[5, 5]
    assert "3  scores q·k/√4 − 0.25·distance" in texts(figure, "title")
    assert "softmax(q·k/√4 − 0.25·distance) v" in caption(figure)
    assert "3  scores" in texts(draw_head(steps_of(2, 4, slope=0.25), 0, 0), "title")  # no room beside it


def test_texts_from_outside_stay_text():
    tokens = ["$x$", " a", "\n", "<b>", "\x1b"]
    figure = draw_head(steps_of(5, 4, tokens), 0, 0, title="$y$")
    labels = panel(figure, "queries").get_yticklabels()
    assert [label.get_text() for label in labels] == ["$x$", "␣a", "↵", "<b>", "\\x1b"]
    for name in ("queries", "values"):
        assert not any(label.get_parse_math() for label in panel(figure, name).get_yticklabels())
    assert_writing_stands_apart_inside(figure)


@pytest.mark.parametrize(("T", "D"), [(1, 1), (2, 2), (3, 4), (12, 16), (12, 64), (24, 128)])
@pytest.mark.parametrize("word", ["a", "incomprehensibilities"])
def test_texts_and_heads_of_any_size_find_room(T, D, word):
    figure = draw_head(steps_of(T, D, [f"{word}{i}" for i in range(T)]), 0, 0, title="A head")
    assert_writing_stands_apart_inside(figure)
    assert max(figure.get_size_inches()) < 13.5


@pytest.mark.parametrize("slope", [0.0039, 0.5])
def test_slopes_find_room(slope):
    assert_writing_stands_apart_inside(draw_head(steps_of(3, 4, slope=slope), 0, 0))


def test_what_does_not_fit_is_refused():
    good = steps_of(3, 4)
    for change, message in (
        ({"keys": good.keys[:2]}, r"all of shape \(3, width\)"),
        ({"mix": good.mix[:, :2]}, r"all of shape \(3, width\)"),
        ({"scores": good.scores[:2]}, r"of shape \(3, 3\)"),
        ({"weights": good.weights * 0.9}, "sum to 1 in each row"),
        ({"weights": np.full((3, 3), 1 / 3)}, "0 ahead of their token"),
        ({"tokens": []}, "of 0 tokens"),
    ):
        with pytest.raises(UsageError, match=message):
            draw_head(HeadSteps(**vars(good) | change), 0, 0)
    with pytest.raises(UsageError, match="24 tokens have room"):
        draw_head(steps_of(25, 4), 0, 0)
    for wrong in (3, -1):
        with pytest.raises(UsageError, match="tokens 0 to 2"):
            draw_head(good, 0, 0, at=wrong)
