"""Effects in their cells, one part framed and its bars beside: before, after, and the difference in points."""

from dataclasses import replace

import numpy as np
import pytest
from tests.figures.reading import assert_writing_stands_apart_inside, caption, texts

from glassgpt.errors import UsageError
from glassgpt.figures.ablation import AblationMap, Without, draw_ablation, likeliest_of_both

NAMES = [" Paris", "$x$", "\n", " a rather long token of many letters", "∅", "<b>"]


def effects(L=4, H=3, scale=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return AblationMap("The $capital$ of", scale * rng.beta(0.3, 3, (L, H)), scale * rng.beta(0.5, 1, L))


def without(layer=1, head: int | None = 2, n=6, seed=0):
    whole, ablated = np.random.default_rng(seed).dirichlet(np.ones(n), 2)
    return Without(layer, head, NAMES[:n], whole, ablated, 1.234)


def axes_of(figure, gid):
    return next(axes for axes in figure.axes if axes.get_gid() == gid)


def test_each_cell_is_the_effect_of_its_part():
    data = effects()
    figure = draw_ablation(data, without())
    for gid, values in (("heads", data.heads), ("mlps", data.mlps[:, None])):
        [picture] = axes_of(figure, gid).images
        np.testing.assert_array_equal(picture.get_array(), values)
        assert picture.get_clim() == (0, max(data.heads.max(), data.mlps.max()))  # one scale for both
    heads = axes_of(figure, "heads")
    assert heads.get_ylim()[0] > heads.get_ylim()[1]  # layer 0 above
    numbers = {text.get_position(): text.get_text() for text in heads.texts}
    for (row, column), value in np.ndenumerate(data.heads):
        assert numbers.get((column, row), "0.00") == f"{value:.2f}"


@pytest.mark.parametrize(("scale", "unit"), [(1.0, "bits"), (0.003, "millibits"), (2e-8, "nanobits")])
def test_small_effects_have_small_units(scale, unit):
    data = effects(scale=scale)
    figure = draw_ablation(data, without())
    assert axes_of(figure, "scale").get_title(loc="left") == unit and f"in {unit} of" in caption(figure)
    factor = {"bits": 1, "millibits": 1e3, "nanobits": 1e9}[unit]
    numbers = [float(text.get_text()) for gid in ("heads", "mlps") for text in axes_of(figure, gid).texts]
    effect = factor * max(data.heads.max(), data.mlps.max())
    assert 0.1 <= effect < 100 and any(abs(number - effect) <= max(0.05, 0.03 * effect) for number in numbers)


def test_bars_are_the_probabilities_and_their_difference():
    found = without(0, None)
    axes = axes_of(draw_ablation(effects(), found), "bars")
    bars = {gid: [bar.get_width() for bar in box] for box in axes.containers for gid in [box[0].get_gid()]}
    np.testing.assert_array_equal(bars["whole"], found.whole)
    np.testing.assert_array_equal(bars["ablated"], found.ablated)
    changes = [text.get_text() for text in axes.texts if text.get_gid() == "change"]
    assert changes == [f"{100 * x:+.1f}".replace("-", "\u2212") for x in found.ablated - found.whole]
    assert [label.get_text() for label in axes.get_yticklabels()][:3] == ["␣Paris", "$x$", "↵"]
    assert not any(label.get_parse_math() for label in axes.get_yticklabels())


@pytest.mark.parametrize("head", [2, None])
def test_the_part_of_the_bars_is_framed(head):
    figure = draw_ablation(effects(), without(1, head))
    frames = {axes.get_gid(): [p.get_xy() for p in axes.patches if p.get_gid() == "off"] for axes in figure.axes}
    heads, mlps = ([(1.5, 0.5)], []) if head == 2 else ([], [(-0.5, 0.5)])
    assert frames["heads"] == heads and frames["mlps"] == mlps
    named = "without layer 1, head 2" if head == 2 else "without layer 1, MLP"
    assert texts(figure, "key") == ["whole model", named]


def test_the_caption_names_the_strongest_heads():
    data = effects(12, 12)
    figure = draw_ablation(data, without())
    places = np.argsort(-data.heads.ravel())[:4]
    named = ", ".join(f"{i // 12}.{i % 12} ({data.heads.ravel()[i]:.2f})" for i in places)
    assert named in caption(figure) and "Of 144 heads" in caption(figure)


def test_tokens_are_the_likeliest_of_both_in_the_order_of_the_whole_model():
    whole, ablated = np.array([0.1, 0.5, 0.0, 0.2, 0.2]), np.array([0.0, 0.1, 0.8, 0.1, 0.0])
    assert likeliest_of_both(whole, ablated, 2).tolist() == [1, 3, 2]
    assert likeliest_of_both(whole, ablated, 99).tolist() == [1, 3, 4, 0, 2]


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (30, 9), (12, 12), (48, 25), (80, 64)])
def test_writing_stands_apart_in_models_of_every_size(shape):
    data = replace(effects(*shape), context="a long text " * 40)
    part = without(shape[0] - 1, shape[1] - 1)
    assert_writing_stands_apart_inside(draw_ablation(data, part, "A title"))
    assert_writing_stands_apart_inside(draw_ablation(effects(*shape, 0.004), replace(part, head=None)))


@pytest.mark.parametrize(
    ("data", "part", "message"),
    [
        (replace(effects(), mlps=np.zeros(3)), without(), r"\(4, 3\) and \(3,\)"),
        (replace(effects(), heads=np.full((4, 3), 1.5)), without(), "between 0 and 1 bit"),
        (replace(effects(), mlps=np.full(4, np.nan)), without(), "between 0 and 1 bit"),
        (effects(), without(4, 0), "got layer 4, head 0"),
        (effects(), without(0, 3), "got layer 0, head 3"),
        (effects(), replace(without(), whole=np.ones(2)), "two probabilities"),
        (effects(), replace(without(), ablated=np.full(6, -0.1)), "between 0 and 1"),
        (effects(), replace(without(), names=[], whole=np.ones(0), ablated=np.ones(0)), "two probabilities"),
        (AblationMap("", np.zeros((201, 1)), np.zeros(201)), without(), "up to 200 layers"),
    ],
)
def test_what_is_no_map_is_refused(data, part, message):
    with pytest.raises(UsageError, match=message):
        draw_ablation(data, part)
