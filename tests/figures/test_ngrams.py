"""Letters, words, pairs and texts of n-grams: what is in the axes is what was counted, and all of it can be read."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from glassgpt.errors import UsageError
from glassgpt.figures.files import save
from glassgpt.figures.ngrams import (
    NGramText,
    draw_letter_bars,
    draw_letter_pairs,
    draw_ngram_texts,
    draw_word_bars,
)

LETTERS = " etaoinshrdlu"
COUNTS = np.array([170, 110, 90, 80, 70, 60, 50, 40, 30, 20, 10, 5, 1])
WORDS = [f"word{i}" for i in range(1, 501)]
ZIPF = 5000 // np.arange(1, 501)
HOSTILE = ["$x$", "\x00\x1b", "\u202eשלום", "😀", "A" * 1000, "$\\frac{", "e" + "\u0301" * 99, "", "日本"]


def texts(axes, gid):
    return [text for text in axes.texts if text.get_gid() == gid]


def assert_inside_and_apart(figure):
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    ticks = [tick for axes in figure.axes if axes.axison for tick in seen(axes)]
    mine = [*figure.texts, *(text for axes in figure.axes for text in axes.texts), *ticks]
    found = [(text, text.get_window_extent(renderer)) for text in mine if text.get_text() and text.get_visible()]
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in found:
        assert box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1, text
    for (one, box), (other, its) in itertools.combinations(found, 2):
        assert not box.padded(-2).overlaps(its.padded(-2)), (one, other)


def seen(axes):
    """The tick labels that lie within the axes' limits; matplotlib keeps some beyond and doesn't draw them."""
    across, up = axes.get_xlim(), sorted(axes.get_ylim())
    return [tick for tick in axes.get_xticklabels() if across[0] <= tick.get_position()[0] <= across[1]] + [
        tick for tick in axes.get_yticklabels() if up[0] <= tick.get_position()[1] <= up[1]
    ]


def caption(figure):
    return next(text.get_text().replace("\n", " ") for text in figure.texts if text.get_gid() == "caption")


def pairs(n=6, seed=0):
    counts = np.random.default_rng(seed).integers(0, 50, (n, n))
    return counts, counts.sum(axis=1) + 3


def rows(texts_of_letters, texts_of_words=()):
    letters = [NGramText("letters", n, text, 0.25 * n, 10 * n) for n, text in enumerate(texts_of_letters, start=1)]
    return letters + [NGramText("words", n, text, None, n) for n, text in enumerate(texts_of_words, start=1)]


def test_a_letters_bar_is_its_share_of_the_text_and_the_space_can_be_seen():
    figure = draw_letter_bars(LETTERS, COUNTS, "title")
    axes = figure.axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx((COUNTS / COUNTS.sum()).tolist())
    assert [label.get_text() for label in axes.get_xticklabels()] == ["␣", *LETTERS[1:]]
    assert texts(axes, "number")[0].get_text() == f"{100 * 170 / COUNTS.sum():.1f}"
    p = COUNTS / COUNTS.sum()
    assert f"736 letters and spaces, of 13 kinds. Their entropy is {-(p * np.log2(p)).sum():.2f} bits" in caption(
        figure
    )
    assert_inside_and_apart(figure)


def test_letters_beyond_the_most_frequent_are_told():
    figure = draw_letter_bars([chr(0x4E00 + i) for i in range(100)], np.full(100, 3))
    assert len(figure.axes[0].patches) == 36 and "64 rarer kinds, 64.0% in all, are left out" in caption(figure)


def test_words_are_bars_and_points_by_rank_on_logarithmic_axes():
    figure = draw_word_bars(WORDS, ZIPF, "title")
    bars, ranks = figure.axes
    assert [bar.get_width() for bar in bars.patches] == pytest.approx((ZIPF[:20] / ZIPF.sum()).tolist())
    assert ranks.get_xscale() == ranks.get_yscale() == "log"
    lines = {line.get_gid(): line for line in ranks.lines}
    places = lines["ranks"].get_xdata().astype(int)
    assert places[0] == 1 and places[-1] == 500 and len(places) <= 200
    np.testing.assert_array_equal(lines["ranks"].get_ydata(), ZIPF[places - 1])
    assert lines["zipf"].get_ydata() == pytest.approx(5000 / places)
    for name in texts(ranks, "name"):
        rank, count = name.xy
        assert name.get_text() == WORDS[rank - 1] and count == ZIPF[rank - 1]
    once = int(np.sum(ZIPF == 1))
    assert f"{ZIPF.sum():,} words, 500 of them different; {once} occur only once" in caption(figure)
    assert_inside_and_apart(figure)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_few_words_can_be_drawn(n):
    assert_inside_and_apart(draw_word_bars(WORDS[:n], ZIPF[:n]))
    assert_inside_and_apart(draw_letter_bars(LETTERS[:n], COUNTS[:n]))


def test_a_cell_is_the_probability_of_the_next_letter_and_the_likely_have_numbers():
    counts, totals = pairs()
    figure = draw_letter_pairs(" abcde", counts, totals, "title")
    axes = figure.axes[0]
    table = counts / totals[:, None]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), table)
    cells = [tuple(int(i) for i in reversed(text.get_position())) for text in texts(axes, "number")]
    assert cells == [tuple(cell) for cell in np.argwhere(table >= 0.1).tolist()]
    assert [text.get_text() for text in texts(axes, "number")] == [f"{100 * table[cell]:.0f}" for cell in cells]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["␣", *"abcde"]
    row, column = np.unravel_index(table.argmax(), table.shape)
    surest = f"{'␣abcde'[row]} is followed by {'␣abcde'[column]} in {100 * table.max():.1f}% of cases"
    assert surest in caption(figure) and "too rare to be drawn" in caption(figure)
    assert_inside_and_apart(figure)


def test_a_letter_that_nothing_follows_leaves_its_row_empty():
    figure = draw_letter_pairs("ab", np.array([[0, 2], [0, 0]]), np.array([2, 0]))
    table = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    np.testing.assert_array_equal(table, [[0, 1], [np.nan, np.nan]])
    assert "a is followed by b in 100% of cases" in caption(figure) and "too rare" not in caption(figure)
    FigureCanvasAgg(draw_letter_pairs("a", np.array([[0]]), np.array([0]))).draw()


def test_an_alphabet_of_thirty_six_can_be_read():
    counts, totals = pairs(36)
    assert_inside_and_apart(draw_letter_pairs([chr(0x3B1 + i) for i in range(36)], counts, totals))


def test_each_text_stands_beside_its_n_whole_and_in_order():
    long = " ".join(f"word{i}" for i in range(60))
    figure = draw_ngram_texts(rows(["qx zr", long], ["the", "the cat"]), "title")
    (axes,) = figure.axes
    assert [text.get_text() for text in texts(axes, "n")] == ["1", "2", "1", "2"]
    assert " ".join(text.get_text() for text in texts(axes, "text")) == f"qx zr {long} the the cat"
    numbers = [text.get_text() for text in texts(axes, "number")]
    assert numbers == ["25%", "10 letters", "50%", "20 letters", "", "1 word", "", "2 words"]
    heights = [text.get_position()[1] for text in texts(axes, "n")]
    assert heights == sorted(heights, reverse=True)
    headings = [text.get_text() for text in axes.texts]
    assert headings.count("known words") == 1 and headings.count("longest copy") == 2
    assert_inside_and_apart(figure)


def test_hostile_texts_are_written_as_text_inside_the_picture():
    n = len(HOSTILE)
    counts = np.arange(n, 0, -1)
    figures = [
        draw_letter_bars([text[:1] for text in HOSTILE], counts, "$x$"),
        draw_word_bars(HOSTILE, counts, "$x$"),
        draw_letter_pairs([text[:1] for text in HOSTILE], *pairs(n)),
        draw_ngram_texts(rows(HOSTILE, [" ".join(HOSTILE)]), "$x$"),
    ]
    for figure in figures:
        FigureCanvasAgg(figure).draw()
        everything = "".join(text.get_text() for text in figure.findobj(Text))
        assert all(c.isprintable() or c == "\n" for c in everything)
    for figure in figures[1::2]:
        assert_inside_and_apart(figure)


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    files = [save(draw_word_bars(WORDS, ZIPF), tmp_path / f"{i}.png").read_bytes() for i in range(2)]
    assert files[0] == files[1]


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(UsageError, match="one name or more"):
        draw_letter_bars("", np.array([]))
    with pytest.raises(UsageError, match="2 names"):
        draw_letter_bars("ab", np.array([1, 2, 3]))
    with pytest.raises(UsageError, match="not all of them 0"):
        draw_letter_bars("ab", np.array([0, 0]))
    with pytest.raises(UsageError, match="most frequent first"):
        draw_word_bars("ab", np.array([1, 2]))
    with pytest.raises(UsageError, match=r"shape \(2, 2\)"):
        draw_letter_pairs("ab", np.ones((2, 3)), np.ones(2))
    with pytest.raises(UsageError, match="no more than the totals"):
        draw_letter_pairs("ab", np.ones((2, 2)), np.ones(2))
    with pytest.raises(UsageError, match="at least one"):
        draw_ngram_texts([])
