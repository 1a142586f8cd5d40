"""Bars of next tokens: lengths are probabilities, what is cut is hatched, and no token's text can break the picture."""

import dataclasses
import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from glassgpt.decoding.next_token import next_tokens
from glassgpt.decoding.processors import processors
from glassgpt.errors import UsageError
from glassgpt.figures.files import save
from glassgpt.figures.next_token import apart, clipped, draw_next_token, draw_samplers
from glassgpt.models.ngram import NGram

HOSTILE = [
    "$x$",
    "\x00\x07\x1b[31m",
    "\u202eשלום",
    "العربية",
    "😀🤷",
    "A" * 1000,
    "$\\frac{",
    "e" + "\u0301" * 500,
    "\n\t \r",
    "",
    "<|endoftext|>",
    "日本",
    "%d {} \\n",
    "\u200b\ufeff",
    "\ufffd",
    "_^{}$$",
]
SAMPLERS = [
    processors(),
    processors(temperature=0.0),
    processors(temperature=1.5),
    processors(top_k=3),
    processors(top_p=0.99),
    processors(temperature=2.0, top_k=9, top_p=0.9, min_p=0.01, repetition_penalty=1.3),
]


def panels(names=HOSTILE, n=6, samplers=SAMPLERS):
    tokens = np.random.default_rng(0).zipf(1.5, 400) % len(names)
    return next_tokens(NGram(tokens, len(names), 2), [1], names.__getitem__, samplers, n)


def bars(axes, gid="drawn"):
    return [bar for bar in axes.patches if bar.get_gid() == gid]


def texts(axes, gid):
    return [text.get_text() for text in axes.texts if text.get_gid() == gid]


def boxes(figure):
    """Where everything is written that is to be seen."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    found = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    ticks = {tick for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_ticklabels()}
    mine = {text for axes in figure.axes for text in axes.texts} | set(figure.texts)
    return {text: text.get_window_extent(renderer) for text in found if text in mine | ticks}


def assert_inside_and_apart(figure):
    found = boxes(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in found.items():
        assert box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1, text
    for (one, box), (other, its) in itertools.combinations(found.items(), 2):
        assert not box.padded(-2).overlaps(its.padded(-2)), (one, other)


def test_a_bar_is_as_long_as_its_probability_and_the_last_holds_the_rest():
    (found,) = panels(samplers=[[]])
    axes = draw_next_token(found).axes[0]
    widths = [bar.get_width() for bar in bars(axes)]
    assert widths == pytest.approx(found.drawn.tolist()) and sum(widths) == pytest.approx(1)
    assert not bars(axes, "cut")
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(names) == 7 and names[-1] == "10 others"
    assert [f"{100 * p:.1f}%" for p in found.drawn] == texts(axes, "number")


def test_the_whole_vocabulary_has_no_rest():
    (found,) = panels(n=100, samplers=[[]])
    figure = draw_next_token(found)
    assert len(bars(figure.axes[0])) == len(HOSTILE)
    assert any("All 16 tokens" in text.get_text() for text in figure.texts)


def test_what_is_cut_is_hatched_and_as_long_as_before():
    found = panels()[3]
    axes = draw_next_token(found).axes[0]
    cut = bars(axes, "cut")
    assert [bar.get_width() for bar in cut] == pytest.approx(found.uncut[3:].tolist())
    assert all(bar.get_hatch() for bar in cut) and not any(bar.get_hatch() for bar in bars(axes))
    assert sum(text.endswith(" cut") for text in texts(axes, "number")) == len(cut) == 4


def test_panels_have_one_list_one_scale_and_the_models_own_probability_as_ticks():
    found = panels()
    figure = draw_samplers(found, context="a context", title="title")
    assert len(figure.axes) == 6 and len({axes.get_xlim() for axes in figure.axes}) == 1
    assert [texts(axes, "setting")[0].replace("\n", " ") for axes in figure.axes] == [one.setting for one in found]
    for axes, one in zip(figure.axes, found, strict=True):
        assert [bar.get_width() for bar in bars(axes)] == pytest.approx(one.drawn.tolist())
        ticks = [x for lines in axes.collections if lines.get_gid() == "model" for (x, _), _ in lines.get_segments()]
        differ = np.abs(one.model - one.drawn - one.cut) > 0.006  # temperature 0 has a bar of length 1
        assert ticks == pytest.approx(one.model[differ].tolist())
    assert not [x for lines in figure.axes[0].collections for x in lines.get_segments()]


def test_the_line_lies_under_the_last_token_that_stays_and_sums_tell_the_mass_above_it():
    figure = draw_samplers(panels())
    lines = [[line.get_ydata()[0] for line in axes.lines if line.get_gid() == "line"] for axes in figure.axes]
    assert lines[:4] == [[], [], [], [2.5]]
    top_k = panels()[3]
    assert texts(figure.axes[3], "sum")[2] == f"{100 * top_k.kept_mass:.1f}%"
    assert texts(figure.axes[3], "sum")[-1] == "100%"
    (numbers,) = texts(figure.axes[3], "numbers")
    assert numbers == (
        f"{top_k.drawn_bits:.2f} bits (before the cut {top_k.uncut_bits:.2f})\n"
        f"keeps 3 of 16: {100 * top_k.kept_mass:.1f}%"
    )


def test_a_cut_that_goes_through_the_rest_draws_no_line_and_one_under_the_list_does():
    within, under = panels(samplers=[processors(top_k=9), processors(top_k=6)])
    figure = draw_samplers([within, under])
    lines = [[line.get_ydata()[0] for line in axes.lines if line.get_gid() == "line"] for axes in figure.axes]
    assert lines[0] == [] and 5.5 < lines[1][0] < 6
    kept, cut = bars(figure.axes[0])[-1], bars(figure.axes[0], "cut")
    assert [bar.get_width() for bar in (kept, *cut)] == pytest.approx([within.drawn[-1], within.cut[-1]])
    assert kept.get_y() + kept.get_height() <= cut[0].get_y()
    assert texts(figure.axes[0], "number")[-2:] == [
        f"{100 * p:.1f}%{how}" for p, how in zip((within.drawn[-1], within.cut[-1]), ("", " cut"), strict=True)
    ]


@pytest.mark.parametrize("n", [1, 6, 16])
def test_hostile_tokens_are_written_as_text_inside_the_picture_and_apart(n):
    found = panels(n=n)
    context, title = "".join(HOSTILE), "$x$ and $"
    for figure in (draw_next_token(found[5], context, title), draw_samplers(found, context, title)):
        assert_inside_and_apart(figure)
        assert not any(text.get_parse_math() for text in figure.axes[0].get_yticklabels())
        everything = "".join(text.get_text() for text in figure.findobj(Text))
        assert all(c.isprintable() or c == "\n" for c in everything) and "\u202e" not in everything


def test_a_token_is_named_by_its_characters_or_their_codes():
    named = dict(zip(HOSTILE, (clipped(text, 1.7, 10) for text in HOSTILE), strict=True))
    assert named["$x$"] == "$x$" and named[""] == "∅" and named["\n\t \r"] == "↵⇥␣\\r"
    assert named["\u202eשלום"] == "\\u202eשלום" and named["日本"] == "\\u65e5\\u672c"
    assert named["A" * 1000].endswith("A…") and len(named["A" * 1000]) < 30
    assert named["e" + "\u0301" * 500].startswith("e\\u0301") and apart("é") == "é"
    end = clipped("the end is shown", 1.0, 10, from_end=True)
    assert end.startswith("…") and end.endswith("shown")


def test_few_panels_and_narrow_lists_fit_too():
    for n in (1, 2, 4, 5):
        assert_inside_and_apart(draw_samplers(panels(["a", "b", "c"], samplers=SAMPLERS[:n]), "a", "title"))
    assert_inside_and_apart(draw_next_token(panels(["a", "b"], n=1)[0]))


def test_the_same_tokens_give_the_same_bytes(tmp_path):
    files = [save(draw_samplers(panels()), tmp_path / f"{i}.svg").read_bytes() for i in range(2)]
    assert files[0] == files[1]


def test_what_cannot_be_drawn_is_refused():
    found = panels()
    with pytest.raises(UsageError, match="at least one"):
        draw_samplers([])
    with pytest.raises(UsageError, match="list the same tokens"):
        draw_samplers([found[0], *panels(n=5)])
    with pytest.raises(UsageError, match="between 0 and 1"):
        draw_next_token(dataclasses.replace(found[0], drawn=found[0].drawn * np.nan))
    with pytest.raises(UsageError, match="a number for each and the rest"):
        draw_next_token(dataclasses.replace(found[0], tokens=("a",)))
