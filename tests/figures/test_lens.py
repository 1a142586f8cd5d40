"""The logit lens: every layer's answer in its cell, the model's own framed below, and shares that are counted."""

import numpy as np
import pytest
from tests.figures.reading import assert_writing_stands_apart_inside, caption, texts

from glassgpt.errors import UsageError
from glassgpt.figures.lens import LensGrid, draw_lens

RNG = np.random.default_rng(0)
WORDS = ["zero", " one", "$x$", "\n", " four", "<b>", " a rather long token", "∅"]


def grid(n_rows=4, T=6, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, len(WORDS), T)
    answers = rng.integers(0, len(WORDS), (n_rows, T))
    names = [[WORDS[i] for i in row] for row in answers]
    return LensGrid([WORDS[i] for i in ids], ids.tolist(), names, answers, rng.uniform(0, 1, (n_rows, T)))


def strips(figure):
    return [axes for axes in figure.axes if axes.images]


def cells(axes):
    found = [text for text in axes.texts if text.get_gid() == "answer"]
    return {(int(text.get_position()[1]), int(text.get_position()[0])): text for text in found}


def test_each_cell_holds_the_answer_and_its_probability_as_colour():
    data = grid()
    [axes] = strips(draw_lens(data))
    np.testing.assert_array_equal(axes.images[0].get_array(), data.probabilities)
    assert axes.images[0].get_clim() == (0, 1)
    shown = {"\n": "↵", " one": "␣one", " four": "␣four"}
    for (row, place), text in cells(axes).items():
        word = data.answers[row][place]
        if not word.startswith(" a rather"):
            assert text.get_text() == shown.get(word, word)
        assert not text.get_parse_math()
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        shown.get(word, word) if not word.startswith(" a rather") else label.get_text()
        for word, label in zip(data.tokens, axes.get_xticklabels(), strict=True)
    ]


def test_rows_are_named_from_the_embeddings_to_the_answer():
    [axes] = strips(draw_lens(grid(5)))
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["embeddings", "after layer 0", "after layer 1", "after layer 2", "model's answer"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row above


def test_what_is_the_models_answer_already_is_bold():
    data = grid(seed=3)
    [axes] = strips(draw_lens(data))
    assert data.is_final[:-1].any() and not data.is_final[:-1].all() and data.is_final[-1].all()
    for (row, place), text in cells(axes).items():
        assert (text.get_fontweight() == "bold") == (data.answer_ids[row, place] == data.answer_ids[-1, place])


def test_answers_that_come_true_are_ticked_and_counted():
    data = grid(T=6)
    data.answer_ids[-1, :5] = [*data.ids[1:4], (data.ids[4] + 1) % 8, (data.ids[5] + 1) % 8]
    figure = draw_lens(data)
    assert data.is_right.tolist() == [True] * 3 + [False] * 3
    ticked = [text.get_position()[0] for text in strips(figure)[0].texts if text.get_gid() == "right"]
    assert sorted(ticked) == [0, 1, 2] and "(3 of 5)" in caption(figure)


def test_the_shares_of_answers_that_stand_already_are_counted_over_the_whole_text():
    data = grid(4, 40, seed=5)
    figure = draw_lens(data)
    assert len(strips(figure)) > 1
    expected = [np.mean(row == data.answer_ids[-1]) for row in data.answer_ids]
    assert texts(figure, "same") == [f"{100 * share:.0f}%" for share in expected]


def test_the_layer_from_which_half_the_answers_stand_is_named():
    ids = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])
    data = LensGrid(list("abcd"), range(4), [[str(i) for i in row] for row in ids], ids, np.full((5, 4), 0.5))
    assert "From layer 1 on it stands at half of them or more." in caption(draw_lens(data))


def test_long_texts_are_broken_into_strips_that_hold_them_in_order():
    data = grid(3, 50)
    found = strips(draw_lens(data))
    np.testing.assert_array_equal(
        np.concatenate([axes.images[0].get_array() for axes in found], axis=1), data.probabilities
    )
    bottoms = [axes.get_position().y0 for axes in found]
    assert bottoms == sorted(bottoms, reverse=True)


def test_strips_are_as_long_as_each_other_but_for_a_position_or_two():
    lengths = [axes.images[0].get_array().shape[1] for axes in strips(draw_lens(grid(3, 50)))]
    assert len(lengths) > 2 and max(lengths) - min(lengths) < len(lengths)


@pytest.mark.parametrize(("n_rows", "T"), [(2, 1), (4, 6), (3, 50), (31, 12)])
def test_nothing_overlaps(n_rows, T):
    assert_writing_stands_apart_inside(draw_lens(grid(n_rows, T), title="$A$ lens"))


def test_what_does_not_fit_is_refused():
    data = grid()
    with pytest.raises(UsageError, match="between 0 and 1"):
        draw_lens(LensGrid(data.tokens, data.ids, data.answers, data.answer_ids, data.probabilities + 1))
    with pytest.raises(UsageError, match="over 5 tokens"):
        draw_lens(LensGrid(data.tokens[1:], data.ids[1:], data.answers, data.answer_ids, data.probabilities))
    with pytest.raises(UsageError, match="as a text and as an id"):
        draw_lens(LensGrid(data.tokens, data.ids, data.answers[1:], data.answer_ids, data.probabilities))
    with pytest.raises(UsageError, match="2 rows or more"):
        draw_lens(LensGrid(data.tokens, data.ids, data.answers[:1], data.answer_ids[:1], data.probabilities[:1]))
    with pytest.raises(UsageError, match="up to 96 positions"):
        draw_lens(grid(2, 97))
