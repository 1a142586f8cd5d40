"""Words as vectors: strips hold the numbers and name the tokens, the map says what it keeps, neighbours are nearest."""

import numpy as np
import pytest
from tests.figures.reading import assert_writing_stands_apart_inside, caption, texts

from glassgpt.errors import UsageError
from glassgpt.figures.embeddings import (
    EmbeddingSum,
    Neighbours,
    draw_embedding_map,
    draw_embedding_sum,
    draw_neighbours,
    embedding_map,
    nearest_of_own_group,
    nearest_rows,
    neighbours_of,
)
from glassgpt.figures.files import save

RNG = np.random.default_rng(0)
HELLO = ["hello"] * 10 + ["bye"] * 10


def sum_of(tokens, n_numbers=24, position=True):
    kinds = list(dict.fromkeys(tokens))
    token = RNG.normal(size=(len(kinds), n_numbers))[[kinds.index(one) for one in tokens]]
    positions = RNG.normal(size=(len(tokens), n_numbers)) if position else None
    kind = "learned" if position else "rope"
    return EmbeddingSum(tokens, token, positions, token + positions if position else token, kind)


def strips(figure):
    return [axes for axes in figure.axes if axes.images]


# --- Token plus position ----------------------------------------------------------------------------------------------


def test_three_strips_on_one_scale_hold_the_numbers_and_stand_above_each_other():
    data = sum_of(HELLO)
    figure = draw_embedding_sum(data)
    found = sorted(strips(figure), key=lambda axes: -axes.get_position().y0)
    for axes, numbers in zip(found, (data.token, data.position, data.total), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), numbers.T)
    limits = {axes.images[0].get_clim() for axes in found}
    [(low, high)] = limits
    everything = np.abs([data.token, data.position, data.total])
    assert low == -high and np.mean(everything <= high) == pytest.approx(0.99, abs=0.001)
    assert len({(axes.get_position().x0, axes.get_position().x1, axes.get_xlim()) for axes in found}) == 1


def test_tokens_stand_below_the_last_strip_as_plain_text():
    tokens = ["$x$", " a", "\n", *["hello"] * 7]
    figure = draw_embedding_sum(sum_of(tokens))
    lowest = min(strips(figure), key=lambda axes: axes.get_position().y0)
    assert [label.get_text() for label in lowest.get_xticklabels()] == ["$x$", "␣a", "↵", *["hello"] * 7]
    assert not any(label.get_parse_math() for label in lowest.get_xticklabels())
    assert_writing_stands_apart_inside(figure)


@pytest.mark.parametrize(("tokens", "turned"), [(["1", "0", "1"], 0), (["word"] * 40, 90)])
def test_tokens_are_written_upwards_only_where_they_have_no_room(tokens, turned):
    lowest = min(strips(draw_embedding_sum(sum_of(tokens))), key=lambda axes: axes.get_position().y0)
    assert {label.get_rotation() for label in lowest.get_xticklabels()} == {turned}


def test_the_caption_counts_equal_vectors_before_and_after_positions():
    data = sum_of(HELLO)
    said = caption(draw_embedding_sum(data))
    assert "the 20 tokens have 2 different ones. With the positions added there are 20." in said
    lengths = [np.sqrt((numbers**2).sum(axis=1)).mean() for numbers in (data.token, data.position)]
    assert f"Mean length of a token's vector {lengths[0]:.2f}, of a position's {lengths[1]:.2f}." in said
    assert "different ones" not in caption(draw_embedding_sum(sum_of(["a", "b", "c"])))


def test_a_model_without_position_embeddings_has_one_strip_and_says_so():
    figure = draw_embedding_sum(sum_of(HELLO, position=False))
    assert len(strips(figure)) == 1
    assert "adds nothing to them: rope turns queries and keys inside attention" in caption(figure)
    assert_writing_stands_apart_inside(figure)


def test_of_long_vectors_evenly_spaced_numbers_are_shown():
    data = sum_of(["a", "b"], 511)
    figure = draw_embedding_sum(data)
    shown = strips(figure)[-1].images[0].get_array()
    np.testing.assert_array_equal(shown, data.token[:, ::2].T)
    assert "511 numbers, of which 256 are shown" in caption(figure)


@pytest.mark.parametrize("n", [1, 3, 64])
def test_few_tokens_and_many_find_room(n):
    assert_writing_stands_apart_inside(draw_embedding_sum(sum_of([f"w{i % 12}" for i in range(n)]), title="A title"))


def test_zeros_are_drawn():
    zero = np.zeros((3, 4))
    draw_embedding_sum(EmbeddingSum("abc", zero, zero, zero))


def test_strips_that_do_not_fit_are_refused():
    data = sum_of(HELLO)
    with pytest.raises(UsageError, match="embeddings of 19 tokens"):
        draw_embedding_sum(EmbeddingSum(HELLO[1:], data.token, data.position, data.total))
    with pytest.raises(UsageError, match="all alike"):
        draw_embedding_sum(EmbeddingSum(HELLO, data.token, data.position[:, 1:], data.total))
    with pytest.raises(UsageError, match="64 tokens can be named"):
        draw_embedding_sum(sum_of(["a"] * 65))


# --- A map of words ---------------------------------------------------------------------------------------------------

KINDS = ["town"] * 8 + ["food"] * 8 + ["pet"] * 8
WORDS = [f"{kind}{i}" for i, kind in enumerate(KINDS)]
CENTRES = RNG.normal(size=(3, 40)) * 4
ROWS = np.repeat(CENTRES, 8, axis=0) + RNG.normal(size=(24, 40))


def test_the_map_is_the_principal_plane():
    decomposition = pytest.importorskip("sklearn.decomposition")
    theirs = decomposition.PCA(2).fit(ROWS)
    found = embedding_map(ROWS, WORDS)
    np.testing.assert_allclose(np.abs(found.points), np.abs(theirs.transform(ROWS)), atol=1e-9)
    np.testing.assert_allclose(found.kept, theirs.explained_variance_ratio_)
    assert found.honesty.kept == pytest.approx(found.kept.sum())
    assert found.honesty.random == pytest.approx(2 / 40, rel=0.4)
    assert found.honesty.random < found.honesty.shuffled < found.honesty.kept


def test_neighbours_of_the_own_group_are_counted():
    found = embedding_map(ROWS, WORDS, KINDS).neighbours
    assert found.whole == found.view == 24 > found.random
    assert found.chance == pytest.approx(24 * 7 / 23)
    mixed = np.random.default_rng(1).permutation(KINDS).tolist()
    assert embedding_map(ROWS, WORDS, mixed).neighbours.whole < 16


def test_the_nearest_of_own_group_is_scikit_learns():
    neighbours = pytest.importorskip("sklearn.neighbors")
    nearest = neighbours.NearestNeighbors(n_neighbors=2).fit(ROWS).kneighbors(ROWS)[1][:, 1]
    mixed = np.random.default_rng(1).permutation(KINDS).tolist()
    assert nearest_of_own_group(ROWS, mixed) == sum(mixed[i] == mixed[j] for i, j in enumerate(nearest))


def test_the_map_names_every_word_and_says_what_it_keeps():
    data = embedding_map(ROWS, WORDS, KINDS)
    figure = draw_embedding_map(data, title="Words")
    axes, side = figure.axes
    assert texts(figure, "name") == WORDS
    for kind in ("town", "food", "pet"):
        for panel, points in ((axes, data.points), (side, data.random_points)):
            [dots] = [one for one in panel.collections if one.get_gid() == f"words {kind}"]
            np.testing.assert_array_equal(dots.get_offsets(), points[[one == kind for one in KINDS]])
    said = caption(figure)
    for share in (data.honesty.kept, data.honesty.random, data.honesty.shuffled):
        assert f"{100 * share:.0f}%" in said
    assert f"for 24 words in all 40 dimensions, for 24 in this plane and {data.neighbours.random} in the random" in said
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["town", "food", "pet"]
    assert f"({100 * data.kept[0]:.0f}% of the variance)" in axes.get_xlabel()
    assert_writing_stands_apart_inside(figure)


def test_a_unit_is_as_long_across_as_up():
    figure = draw_embedding_map(embedding_map(ROWS, WORDS))
    for axes in figure.axes:
        size = np.array(figure.get_size_inches()) * [axes.get_position().width, axes.get_position().height]
        assert size[0] / np.ptp(axes.get_xlim()) == pytest.approx(size[1] / np.ptp(axes.get_ylim()))
    assert not figure.legends


def test_the_same_rows_give_the_same_file(tmp_path):
    first, second = (save(draw_embedding_map(embedding_map(ROWS, WORDS)), tmp_path / f"{i}.png") for i in range(2))
    assert first.read_bytes() == second.read_bytes()


def test_a_map_of_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="got 23 words"):
        embedding_map(ROWS, WORDS[1:])
    with pytest.raises(UsageError, match="a name for each of the 24"):
        embedding_map(ROWS, WORDS, KINDS[1:])
    with pytest.raises(UsageError, match="3 points"):
        embedding_map(ROWS[:2], WORDS[:2])
    with pytest.raises(UsageError, match="3 to 80 words"):
        embedding_map(np.ones((81, 4)), ["a"] * 81)


# --- Neighbours -------------------------------------------------------------------------------------------------------


def test_the_nearest_rows_are_those_of_the_greatest_cosine():
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    rows = RNG.normal(size=(50, 6)) + 0.5
    nearest, cosines = nearest_rows(rows, 7, 5)
    expected = pairwise.cosine_similarity(rows)[7]
    np.testing.assert_allclose(cosines, expected)
    np.testing.assert_array_equal(nearest, np.argsort(-expected)[1:6])
    found = neighbours_of(rows, 7, [f"w{i}" for i in range(50)], 5)
    assert found.word == "w7" and found.names == [f"w{i}" for i in nearest]
    others = np.delete(expected, 7)
    assert found.middle == pytest.approx(np.median(others)) and found.high == pytest.approx(np.percentile(others, 99))


def test_a_vector_of_zeros_is_near_nothing():
    rows = np.array([[1.0, 0], [0, 0], [1, 1], [-1, 0]])
    nearest, cosines = nearest_rows(rows, 0, 3)
    assert nearest.tolist() == [2, 1, 3] and cosines.tolist() == pytest.approx([1, 0, 0.5**0.5, -1])


@pytest.mark.parametrize(("row", "n"), [(4, 1), (-1, 1), (0, 0), (0, 4)])
def test_rows_that_are_not_there_have_no_neighbours(row, n):
    with pytest.raises(UsageError, match="1 to 3 rows beside one of rows 0 to 3"):
        nearest_rows(np.eye(4), row, n)


def test_bars_are_the_cosines():
    panels = [
        Neighbours(" king", [" queen", "$a$", "x" * 60], [0.8, 0.5, -0.1], 0.2, 0.6),
        Neighbours("dog", ["cat"], [0.3], 0.1, 0.25),
        Neighbours("three", ["four", "five"], [0.9, 0.8], 0.1, 0.3),
    ]
    figure = draw_neighbours(panels, title="Neighbours")
    for axes, panel in zip(figure.axes, panels, strict=True):
        assert [bar.get_width() for bar in axes.patches] == panel.cosines
        assert [text.get_text() for text in axes.texts] == [f"{cosine:.2f}" for cosine in panel.cosines]
        marks = {line.get_gid(): line.get_xdata()[0] for line in axes.lines}
        assert marks == {"middle": panel.middle, "high": panel.high}
        assert axes.get_xlim() == (-0.1, 1.0)
    assert figure.axes[0].get_title(loc="left") == "next to ␣king"
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[:2] == ["␣queen", "$a$"] and labels[2].endswith("…")
    assert_writing_stands_apart_inside(figure)


def test_none_or_too_many_panels_are_refused():
    for panels in ([], [Neighbours("a", ["b"], [0.1], 0, 0)] * 5, [Neighbours("a", ["b"], [], 0, 0)]):
        with pytest.raises(UsageError, match="1 to 4 words"):
            draw_neighbours(panels)
