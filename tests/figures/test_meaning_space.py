"""Paths through meaning space: seen on the path's own axes, with fans that the axes don't know, and honest shares."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from mpl_toolkits.mplot3d import proj3d
from tests.figures.reading import assert_writing_stands_apart_inside, caption, lines, texts

from glassgpt.errors import UsageError
from glassgpt.figures.files import save
from glassgpt.figures.meaning_space import draw_fans, draw_path, draw_path_3d, meaning_space, most_open

WORDS = [f" w{i}" for i in range(18)] + ["$x$", "\n"]


def arrays(N=8, m=4, C=12, seed=0):
    rng = np.random.default_rng(seed)
    states = np.cumsum(rng.normal(size=(N + 1, C)), axis=0)
    fan_tokens = np.stack([rng.permutation(20)[:m] for _ in range(N)])
    tokens = fan_tokens[:, 0].copy()
    tokens[-1] = next(i for i in range(20) if i not in fan_tokens[-1])  # written, and none of the likeliest
    fan_states = states[:-1, None] + rng.normal(size=(N, m, C))
    fan_states[:-1, 0] = states[1:-1]
    probs = np.sort(rng.dirichlet(np.full(m, 0.5), N))[:, ::-1]
    probs[0, -1] = 0.001
    return {"states": states, "tokens": tokens, "fan_states": fan_states, "fan_tokens": fan_tokens, "fan_probs": probs}


def shown(word):
    return word.replace(" ", "␣").replace("\n", "↵")


def space_of(**sizes):
    return meaning_space(**arrays(**sizes), piece=WORDS.__getitem__, start="the start")


# --- The data ---------------------------------------------------------------------------------------------------------


def test_the_axes_are_the_principal_axes_of_the_path_alone():
    decomposition = pytest.importorskip("sklearn.decomposition")
    given, data = arrays(), space_of()
    theirs = decomposition.PCA(3).fit(given["states"])
    np.testing.assert_allclose(np.abs(data.points), np.abs(theirs.transform(given["states"])), atol=1e-9)
    fan = theirs.transform(given["fan_states"].reshape(-1, 12)).reshape(8, 4, 3)
    np.testing.assert_allclose(np.abs(data.fan), np.abs(fan), atol=1e-9)
    np.testing.assert_allclose(data.kept, theirs.explained_variance_ratio_)
    assert data.flat.kept == pytest.approx(data.kept[:2].sum()) and data.solid.kept == pytest.approx(data.kept.sum())
    assert data.flat.random == pytest.approx(2 / 12, rel=0.3) and data.solid.random == pytest.approx(3 / 12, rel=0.3)


def test_the_share_of_the_fans_is_that_of_their_squared_steps():
    given, data = arrays(), space_of()
    whole = np.sum((given["fan_states"] - given["states"][:-1, None]) ** 2)
    for d, share in zip((2, 3), data.fan_kept, strict=True):
        seen = np.sum((data.fan[..., :d] - data.points[:-1, None, :d]) ** 2)
        assert share == pytest.approx(seen / whole)


def test_a_written_token_of_the_fan_ends_where_the_path_goes_on():
    data = space_of()
    assert data.is_written[:-1, 0].all() and not data.is_written[-1].any()
    np.testing.assert_allclose(data.fan[:-1][data.is_written[:-1]], data.points[1:-1])
    assert not data.is_drawn[0, -1] and not data.is_drawn[:, 0][:-1].any()


def test_the_most_open_steps_have_the_greatest_entropy():
    probs = np.array([[0.9, 0.05], [0.5, 0.5], [1.0, 0.0], [0.4, 0.3]])
    assert most_open(probs, 2) == [1, 3] and most_open(probs, 9) == [0, 1, 2, 3]


def test_arrays_that_do_not_fit_are_refused():
    for name in ("states", "tokens", "fan_states", "fan_tokens", "fan_probs"):
        wrong = arrays()
        wrong[name] = wrong[name][:-1]
        with pytest.raises(UsageError, match="states \\(N \\+ 1, C\\) and fans"):
            meaning_space(**wrong, piece=WORDS.__getitem__, start="")
    with pytest.raises(UsageError, match="3 to 60 steps can be drawn; got 2"):
        space_of(N=2)
    with pytest.raises(UsageError, match="3 to 60 steps can be drawn; got 61"):
        space_of(N=61)


def test_states_that_do_not_move_are_refused():
    still = arrays()
    still["states"][:] = 1.0
    with pytest.raises(UsageError, match="all points are the same"):
        meaning_space(**still, piece=WORDS.__getitem__, start="")


# --- The pictures -----------------------------------------------------------------------------------------------------


def test_the_plane_holds_the_path_and_the_fans_of_one_percent_or_more():
    data = space_of()
    figure = draw_path(data, title="A path")
    [path] = lines(figure, "path")
    np.testing.assert_array_equal(path.get_xydata(), data.points[:, :2])
    for i in range(8):
        drawn = np.flatnonzero(data.is_drawn[i])
        found = [line.get_xydata() for line in lines(figure, f"fan {i}")]
        assert len(found) == len(drawn)
        for ends, j in zip(found, drawn, strict=True):
            np.testing.assert_array_equal(ends, [data.points[i, :2], data.fan[i, j, :2]])
    assert texts(figure, "name") == [f"{i} {shown(word)}" for i, word in enumerate([data.start, *data.words])]
    assert_writing_stands_apart_inside(figure)


@pytest.mark.parametrize("draw", [draw_path, draw_path_3d])
def test_the_caption_says_what_is_kept_and_what_knows_nothing_keeps(draw):
    data = space_of()
    found = data.flat if draw is draw_path else data.solid
    said = caption(draw(data))
    assert f"It keeps {100 * found.kept:.0f}% of their variance" in said
    assert f"{100 * found.random:.0f}% on average" in said and f"shuffled {100 * found.shuffled:.0f}%." in said
    share = data.fan_kept[0 if draw is draw_path else 1]
    assert f"{100 * share:.0f}% of their squared length" in said and "12 numbers" in said


def test_a_unit_is_as_long_across_as_up_in_the_plane():
    figure = draw_path(space_of())
    box = figure.axes[0].get_position()
    size = np.array(figure.get_size_inches()) * [box.width, box.height]
    assert size[0] / np.ptp(figure.axes[0].get_xlim()) == pytest.approx(size[1] / np.ptp(figure.axes[0].get_ylim()))


def test_fans_point_from_where_the_text_stands_to_each_likely_token():
    data = space_of()
    figure = draw_fans(data, [0, 7])
    for axes, step in zip(figure.axes, (0, 7), strict=True):
        drawn = np.flatnonzero(data.is_drawn[step])
        arrows = [text for text in axes.texts if text.get_text() == "" and text.arrow_patch is not None]
        tips = [arrow.xy for arrow in arrows]
        np.testing.assert_allclose(tips, [*data.fan[step, drawn, :2], data.points[step + 1, :2]])
        assert {arrow.get_position() for arrow in arrows} == {tuple(data.points[step, :2])}
    first = [text.get_text() for text in figure.axes[0].texts if text.get_gid() == "end"]
    assert first[0] == f"{shown(data.words[0])} {100 * data.fan_probs[0, 0]:.0f}%"
    last = [text.get_text() for text in figure.axes[1].texts if text.get_gid() == "end"]
    assert "%" not in last[0] and len(last) == 1 + data.is_drawn[7].sum()
    assert figure.axes[0].get_title(loc="left") == "0: after the␣start"
    assert lines(figure, "before")[0].axes is not figure.axes[0]


def test_without_steps_the_most_open_fans_are_drawn():
    data = space_of()
    titles = [axes.get_title(loc="left").split(":")[0] for axes in draw_fans(data).axes]
    assert titles == [str(step) for step in most_open(data.fan_probs, 4)]
    assert_writing_stands_apart_inside(draw_fans(data))


@pytest.mark.parametrize("steps", [[], [8], [-1], list(range(7))])
def test_fans_that_are_not_there_are_refused(steps):
    with pytest.raises(UsageError, match="1 to 6 steps from 0 to 7"):
        draw_fans(space_of(), steps)


def test_space_holds_the_path_its_shadow_and_the_fans():
    data = space_of()
    figure = draw_path_3d(data)
    axes = figure.axes[0]
    [path] = lines(figure, "path")
    np.testing.assert_allclose(np.array(path.get_data_3d()).T, data.points)
    [shadow] = lines(figure, "shadow")
    x, y, z = shadow.get_data_3d()
    np.testing.assert_allclose(np.array([x, y]).T, data.points[:, :2])
    assert set(z) == {axes.get_zlim()[0]}
    assert sum(len(lines(figure, f"fan {i}")) for i in range(8)) == data.is_drawn.sum()
    assert texts(figure, "name") == [str(i) for i in range(9)]
    assert caption(figure).startswith(f"Tokens: 0:the␣start 1:{shown(data.words[0])} ")
    assert lines(figure, "shadow") and caption(figure).endswith("Grey: the path's shadow on the floor.")
    spans = [np.ptp([axis.get_view_interval()]) for axis in (axes.xaxis, axes.yaxis, axes.zaxis)]
    assert np.ptp(axes._box_aspect / spans) < 1e-9  # a unit is as long on every axis


def test_numbers_stand_beside_the_points_as_they_are_seen():
    data = space_of(N=3)
    figure = draw_path_3d(data)
    FigureCanvasAgg(figure).draw()
    solid, front = figure.axes
    x, y, _ = proj3d.proj_transform(*data.points.T, solid.get_proj())
    pixels = solid.transData.transform(np.stack([x, y], axis=1))
    written = [front.transData.transform(text.get_position()) for text in front.texts if text.get_gid() == "name"]
    assert (np.linalg.norm(pixels - written, axis=1) < 0.8 * figure.dpi).all()
    assert np.linalg.norm(pixels - written, axis=1).min() < 0.2 * figure.dpi


@pytest.mark.parametrize("draw", [draw_path, draw_fans, draw_path_3d])
def test_the_same_path_gives_the_same_file(draw, tmp_path):
    first, second = (save(draw(space_of()), tmp_path / f"{i}.png") for i in range(2))
    assert first.read_bytes() == second.read_bytes()
