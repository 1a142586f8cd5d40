"""The alignment page: it holds the numbers, marks where gold turns, says what is missing, and overlaps nowhere."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from glassgpt.errors import UsageError
from glassgpt.figures.alignment import (
    AlignmentData,
    EntropyCurve,
    PlayerRating,
    ReliabilityBins,
    RewardCurve,
    Sample,
    alignment_page,
    draw_entropies,
    draw_ratings,
    draw_reliability,
    draw_rewards,
    looks_of,
    smoothed_gold,
    turn,
)

RNG = np.random.default_rng(0)
D = np.linspace(0, 5, 60)


def reward_curve(method, top, noise=0.1):
    """Gold rises to sqrt(KL) = top and falls again; the learned reward only rises."""
    gold = 2 + 2 * D / top - (D / top) ** 2 + noise * RNG.normal(size=60)
    return RewardCurve(method, D**2, 0.5 * D, gold)


REWARDS = [reward_curve("PPO", 3.0), reward_curve("GRPO", 2.0), reward_curve("best-of-n", 9.0, noise=0.02)]
ENTROPIES = [EntropyCurve("PPO", range(50), np.linspace(1, 0.4, 50)), EntropyCurve("GRPO", [0, 10], [1.0, 0.2])]
BINS = ReliabilityBins([0.1, 0.5, 0.9], [0.2, 0.5, 0.7], [0.1, 0.4, 0.6], [0.3, 0.6, 0.8], [1000, 500, 500], "so\nso")
RATINGS = [
    PlayerRating("SFT", 900, 880, 925),
    PlayerRating("PPO", 1100.4, 1080, 1130),
    PlayerRating("DPO", 1000, 9e2, 1100),
]
DATA = AlignmentData(REWARDS, ENTROPIES, BINS, RATINGS)


def line(figure, gid):
    found = [line for axes in figure.axes for line in axes.lines if line.get_gid() == gid]
    assert len(found) == 1, gid
    return found[0]


def texts(figure, gid):
    return [text.get_text() for axes in figure.axes for text in axes.texts if text.get_gid() == gid]


PAGE = alignment_page(DATA, "After preference training")


def test_what_was_said_stands_below_as_the_text_it_is():
    said = {"base": "no $x$ \u202e\x07 end " * 60, "sft": "Mira lives in Oakford."}
    page = alignment_page(AlignmentData(REWARDS, samples=[Sample("Who is Mira?", said), Sample("And Tom?", said)]))
    assert [text.get_text() for text in page.texts if text.get_gid() == "player"] == ["", "base", "sft"] * 2
    written = [text for text in page.texts if text.get_gid() in ("heading", "said")]
    assert "\x07" not in written[2].get_text() and "…" in written[2].get_text()
    assert written[1].get_text() == "“Who is Mira?”" and written[3].get_text() == said["sft"]
    renderer = FigureCanvasAgg(page).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in written]
    lowest = min(axes.get_tightbbox(renderer).y0 for axes in page.axes)
    assert all(box.y0 >= 0 and box.x1 <= page.bbox.width and box.y1 < lowest for box in boxes)
    assert all(below.y1 <= above.y0 + 1 for above, below in itertools.pairwise(boxes))


def test_the_page_holds_the_rewards():
    for curve in REWARDS:
        for gid, values in (("gold", curve.gold), ("learned", curve.learned), ("smooth", smoothed_gold(curve))):
            drawn = line(PAGE, f"{gid} {curve.method}")
            np.testing.assert_allclose(drawn.get_xdata(), np.sqrt(curve.kl))
            np.testing.assert_array_equal(drawn.get_ydata(), values)


def test_the_page_holds_the_entropies():
    for curve in ENTROPIES:
        drawn = line(PAGE, f"entropy {curve.method}")
        assert list(drawn.get_xdata()) == list(curve.steps)
        assert list(drawn.get_ydata()) == list(curve.entropy)
        low, high = drawn.axes.get_ylim()
        assert low == 0 and high > 1.05 * max(curve.entropy)  # or its marker would be cut off
        assert all(float(tick).is_integer() for tick in drawn.axes.get_xticks())


def test_the_page_holds_the_reliability_and_its_diagonal():
    drawn = line(PAGE, "observed")
    assert list(drawn.get_xdata()) == list(BINS.predicted) and list(drawn.get_ydata()) == list(BINS.observed)
    [intervals] = [c for axes in PAGE.axes for c in axes.collections if c.get_gid() == "intervals"]
    ends = [segment.tolist() for segment in intervals.get_segments()]
    assert ends == [[[0.1, 0.1], [0.1, 0.3]], [[0.5, 0.4], [0.5, 0.6]], [[0.9, 0.6], [0.9, 0.8]]]
    diagonal = line(PAGE, "diagonal")
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]
    assert texts(PAGE, "note") == ["so\nso\n2,000 pairs in 3 bins"]


def test_the_page_holds_the_ratings_best_first():
    for row, player in enumerate(sorted(RATINGS, key=lambda rating: -rating.elo)):
        assert line(PAGE, f"elo {player.player}").get_xydata().tolist() == [[player.elo, row]]
        assert line(PAGE, f"interval {player.player}").get_xydata().tolist() == [[player.low, row], [player.high, row]]
    assert texts(PAGE, "number") == ["1100", "1000", "900"]
    assert [label.get_text() for label in PAGE.axes[3].get_yticklabels()] == ["PPO", "DPO", "SFT"]


# --- Where gold turns -------------------------------------------------------------------------------------------------


def test_the_turn_is_marked_at_the_maximum_of_the_smoothed_gold():
    for curve, top in zip(REWARDS[:2], (3.0, 2.0), strict=True):
        at = int(np.argmax(smoothed_gold(curve)))
        found = line(PAGE, f"turn {curve.method}")
        assert found.get_xydata().tolist() == [[D[at], smoothed_gold(curve)[at]]] == [list(turn(curve))]
        assert D[at] == pytest.approx(top, abs=0.5)


def test_gold_that_still_rises_has_no_turn():
    assert turn(REWARDS[2]) is None
    with pytest.raises(AssertionError):
        line(PAGE, "turn best-of-n")
    alone = alignment_page(AlignmentData(rewards=REWARDS[2:]))
    assert "gold turns" not in [text.get_text() for text in alone.axes[0].get_legend().get_texts()]


def test_a_turn_needs_more_than_one_high_point():
    gold = 2 + 0.2 * D
    gold[10] += 1.5
    curve = RewardCurve("PPO", D**2, D, gold)
    assert np.argmax(gold) == 10 and turn(curve) is None


def test_smoothing_leaves_a_straight_line_alone_and_takes_points_in_any_order():
    straight = RewardCurve("PPO", D**2, D, 1 + 0.3 * D)
    np.testing.assert_allclose(smoothed_gold(straight), straight.gold, atol=1e-9)
    curve, order = REWARDS[0], RNG.permutation(60)
    mixed = RewardCurve("PPO", curve.kl[order], curve.learned[order], curve.gold[order])
    np.testing.assert_allclose(smoothed_gold(mixed), smoothed_gold(curve))
    assert turn(mixed) == pytest.approx(turn(curve))


def test_smoothing_is_the_local_line_of_least_squares():
    curve = REWARDS[0]
    for i in (0, 7, 59):
        weights = np.exp(-0.25 * ((D - D[i]) / (0.08 * 5)) ** 2)  # polyfit squares them
        _, height = np.polyfit(D - D[i], curve.gold, 1, w=weights)
        assert smoothed_gold(curve)[i] == pytest.approx(height)


def test_points_in_one_place_are_averaged_and_kl_below_0_is_0():
    assert smoothed_gold(RewardCurve("PPO", [-0.01, -0.02], [0, 0], [1, 3])).tolist() == [2, 2]
    assert turn(RewardCurve("PPO", [1.0], [0.0], [1.0])) is None


# --- Looks ------------------------------------------------------------------------------------------------------------


def test_a_method_has_one_colour_on_the_whole_page_and_no_two_share_one():
    for method in ("PPO", "GRPO"):
        colours = {
            line(PAGE, f"{gid} {method}").get_color() for gid in ("gold", "smooth", "learned", "entropy", "turn")
        }
        assert colours == {looks_of(DATA)[method].colour}
    assert line(PAGE, "elo PPO").get_color() == looks_of(DATA)["PPO"].colour
    assert line(PAGE, "elo SFT").get_color() not in {look.colour for look in looks_of(DATA).values()}
    seven = looks_of(AlignmentData(entropies=[EntropyCurve(name, [0], [0]) for name in "abcdefg"])).values()
    assert len({look.colour for look in seven}) == len({look.marker for look in seven}) == 7


@pytest.mark.parametrize("n", [1, 3, 6])
def test_all_that_is_written_is_inside_and_apart(n):
    rewards = [reward_curve(f"method {i}", 3.0) for i in range(n)]
    ratings = [PlayerRating(f"player {i}", 1000 + i, 900, 1100) for i in range(2 * n)]
    figure = alignment_page(AlignmentData(rewards, ENTROPIES, BINS, ratings), "After preference training")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    written = list(figure.texts)
    for axes in figure.axes:
        written += [*axes.texts, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = axis.get_major_ticks()
            written += [
                label for tick in ticks if low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)
            ]
        written += axes.get_legend().get_texts() if axes.get_legend() else []
    boxes = [
        text.get_window_extent(canvas.get_renderer()) for text in written if text.get_text() and text.get_visible()
    ]
    width, height = figure.get_size_inches() * figure.dpi
    assert len(boxes) > 40
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
    assert not any(one.padded(-1).overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_what_was_not_measured_is_said():
    figure = alignment_page(AlignmentData())
    FigureCanvasAgg(figure).draw()
    assert texts(figure, "missing") == [
        "rewards were not measured",
        "entropy was not measured",
        "the reward model was not judged",
        "no games were played",
    ]
    assert texts(PAGE, "missing") == []
    assert texts(alignment_page(AlignmentData(ratings=RATINGS)), "missing")[2:] == ["the reward model was not judged"]


@pytest.mark.parametrize(
    ("draw", "part", "gid"),
    [
        (draw_rewards, REWARDS, "smooth PPO"),
        (draw_entropies, ENTROPIES, "entropy GRPO"),
        (draw_reliability, BINS, "observed"),
        (draw_ratings, RATINGS, "elo DPO"),
    ],
)
def test_each_panel_can_stand_alone(draw, part, gid):
    figure = Figure()
    draw(figure.add_subplot(), part)
    FigureCanvasAgg(figure).draw()
    assert line(figure, gid)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (AlignmentData(rewards=[RewardCurve("PPO", [1], [1, 2], [1])]), "'PPO' must be columns"),
        (AlignmentData(entropies=[EntropyCurve("PPO", [], [])]), "'PPO' must be columns"),
        (AlignmentData(entropies=[EntropyCurve("PPO", [0], [np.nan])]), "'PPO' must be finite"),
        (AlignmentData(ratings=[PlayerRating("PPO", np.inf, 0, 0)]), "'ratings' must be finite"),
    ],
)
def test_what_cannot_be_drawn_is_refused(data, message):
    with pytest.raises(UsageError, match=message):
        alignment_page(data)
