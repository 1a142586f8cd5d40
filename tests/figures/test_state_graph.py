"""The picture of the state graph: what is in it, where it stands, and what is refused."""

import itertools

import numpy as np
import pytest
from matplotlib import pyplot, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg

from glassgpt.errors import UsageError
from glassgpt.figures.necklace_plan import plan_necklaces
from glassgpt.figures.necklaces import necklaces
from glassgpt.figures.ring_plan import plan_ring
from glassgpt.figures.state_graph import draw_before_after, draw_state_graph, graph_from_tables

SIZES = {
    "8": (2, [3]),
    "9": (3, [2]),
    "14": (2, [1, 2, 3]),
    "64 of two": (2, [6]),
    "64 of four": (4, [3]),
    "64 of eight": (8, [2]),
}


def some_graph(vocab_size, lengths, seed=0, red=()):
    rng = np.random.default_rng(seed)
    tables = [rng.dirichlet(np.full(vocab_size, 0.7), vocab_size**length) for length in lengths]
    return graph_from_tables(tables, "01234567"[:vocab_size], red)


def greedy_graph(vocab_size, length):
    choices = np.random.default_rng(0).integers(vocab_size, size=vocab_size**length)
    return graph_from_tables([np.eye(vocab_size)[choices]], "01234567"[:vocab_size])


def parts(figure, name):
    """The artists of a figure whose gid begins with a name."""
    return [
        artist
        for axes in figure.axes
        for artist in [*axes.patches, *axes.texts]
        if (artist.get_gid() or "").startswith(name)
    ]


def boxes(figure, artists):
    renderer = FigureCanvasAgg(figure).get_renderer()
    return [artist.get_window_extent(renderer) for artist in artists]


@pytest.mark.parametrize("size", SIZES)
def test_there_is_an_arrow_for_each_edge_and_a_node_for_each_state(size):
    graph = some_graph(*SIZES[size])
    figure = draw_state_graph(graph)
    assert len(parts(figure, "edge-")) == len(graph.edges)
    assert len(parts(figure, "state-")) == len(parts(figure, "name-")) == len(graph.labels)


@pytest.mark.parametrize("size", SIZES)
def test_everything_stands_inside_the_picture(size):
    graph = some_graph(*SIZES[size], red=[1, 5])
    figure = draw_state_graph(graph, "a title")
    width, height = figure.get_size_inches() * figure.dpi
    texts = [text for axes in figure.axes for text in axes.texts] + figure.texts
    for box in boxes(figure, [text for text in texts if text.get_text()] + parts(figure, "edge-")):
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= width and box.y1 <= height


@pytest.mark.parametrize("size", ["8", "9", "14"])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_label_covers_another_or_a_node(size, seed):
    figure = draw_state_graph(some_graph(*SIZES[size], seed=seed))
    labels = boxes(figure, parts(figure, "label-"))
    assert not any(one.overlaps(other) for one, other in itertools.combinations(labels, 2))
    for node in boxes(figure, parts(figure, "state-")):
        x, y = (node.x0 + node.x1) / 2, (node.y0 + node.y1) / 2
        for label in labels:
            away = np.hypot(max(label.x0 - x, 0, x - label.x1), max(label.y0 - y, 0, y - label.y1))
            assert away > node.width / 2


def test_names_fit_inside_their_nodes():
    figure = draw_state_graph(some_graph(*SIZES["14"]))
    for name, node in zip(*(boxes(figure, parts(figure, kind)) for kind in ("name-", "state-")), strict=True):
        assert node.x0 < name.x0 and name.x1 < node.x1


def test_the_lists_beside_64_states_do_not_overlap():
    plan = plan_ring(some_graph(2, [6]))
    gaps = np.hypot(*np.diff(plan.positions[np.argsort(np.arctan2(*plan.positions.T))], axis=0).T)
    assert gaps.min() > 2 * 9 / 72  # two lines of 9 points


@pytest.mark.parametrize("size", SIZES)
def test_the_two_directions_between_a_pair_run_apart(size):
    graph = some_graph(*SIZES[size])
    plan = plan_ring(graph)
    middle = {(e.source, e.target): curve[len(curve) // 2] for e, curve in zip(graph.edges, plan.curves, strict=True)}
    pairs = [(way, way[::-1]) for way in middle if way[0] < way[1] and way[::-1] in middle]
    assert pairs
    assert all(np.hypot(*(middle[one] - middle[other])) > 0.08 for one, other in pairs)


@pytest.mark.parametrize("size", SIZES)
def test_arrows_end_at_the_rim_of_their_node(size):
    graph = some_graph(*SIZES[size])
    plan = plan_ring(graph)
    for edge, curve in zip(graph.edges, plan.curves, strict=True):
        tip_to_centre = np.hypot(*(curve[-1] - plan.positions[edge.target]))
        assert plan.node_radius < tip_to_centre < plan.node_radius + 0.06


@pytest.mark.parametrize("size", ["8", "9", "14"])
def test_no_arrow_runs_through_a_node_that_is_not_its_own(size):
    graph = some_graph(*SIZES[size])
    plan = plan_ring(graph)
    for edge, curve in zip(graph.edges, plan.curves, strict=True):
        others = np.delete(plan.positions, [edge.source, edge.target], axis=0)
        away = np.hypot(*(curve[:, None] - others[None]).transpose(2, 0, 1))
        assert away.min() > plan.node_radius


def test_likelier_arrows_are_thicker():
    graph = graph_from_tables([np.array([[0.1, 0.9], [0.5, 0.5]])], "01")
    figure = draw_state_graph(graph)
    thin, thick = (patch.get_path().vertices for patch in parts(figure, "edge-")[:2])
    assert np.hypot(*(thick[0] - thick[-2])) > 3 * np.hypot(*(thin[0] - thin[-2]))


def test_labels_say_token_and_percent():
    graph = graph_from_tables([np.array([[0.21, 0.79], [1e-9, 1 - 1e-9]])], "01")
    assert [text.get_text() for text in parts(draw_state_graph(graph), "label-")] == [
        "0 (21%)",
        "1 (79%)",
        "0 (<1%)",
        "1 (>99%)",
    ]


@pytest.mark.parametrize("size", ["8", "64 of two"])
def test_red_states_are_marked_in_words_too(size):
    figure = draw_state_graph(some_graph(*SIZES[size], red=[3]))
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert sum("red" in text for text in texts) == 1
    assert "Double ring: red." in figure.texts[-1].get_text()


def test_large_vocabularies_list_the_likeliest_tokens_and_say_so():
    caption = draw_state_graph(some_graph(8, [2])).texts[-1].get_text()
    assert "its 4 likeliest of 8 next tokens" in caption.replace("\n", " ")


@pytest.mark.parametrize(("vocab_size", "length"), [(2, 3), (3, 2), (2, 6)])
def test_at_temperature_zero_each_state_has_one_arrow(vocab_size, length):
    figure = draw_state_graph(greedy_graph(vocab_size, length))
    assert len(parts(figure, "edge-")) == vocab_size**length


def test_more_than_64_states_are_refused_with_what_to_use_instead():
    with pytest.raises(
        UsageError, match=r"at most 64 states and this graph has 128; .*draw_transition_heat_map.*to_dot"
    ):
        draw_state_graph(some_graph(2, [7]))


def test_before_and_after_have_the_same_layout():
    figure = draw_before_after(some_graph(2, [3], seed=1), some_graph(2, [3], seed=2))
    left, right = (np.array([text.get_position() for text in axes.texts]) for axes in figure.axes)
    # A label moves by half of the width that `<1%` has more than `79%`, so that it touches its arrow alike.
    assert np.abs(left - right).max() < 0.08
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert [text.get_text() for text in figure.texts[:2]] == ["before training", "after training"]


def test_before_and_after_must_have_the_same_states():
    with pytest.raises(UsageError, match="same states"):
        draw_before_after(some_graph(2, [3]), some_graph(3, [2]))


def test_symbols_that_are_blank_or_a_formula_or_unknown_to_the_font_can_be_drawn():
    graph = graph_from_tables([np.full((5, 5), 0.2)], [" ", "\n", "$x^2$", "語", "\\"])
    figure = draw_state_graph(graph)
    FigureCanvasAgg(figure).draw()
    assert [text.get_text() for text in parts(figure, "name-")] == ["␣", "↵", "$x^2$", "\\u8a9e", "\\"]


def test_drawing_leaves_pyplot_and_its_settings_alone():
    before = dict(rcParams)
    draw_state_graph(some_graph(2, [3]))
    assert pyplot.get_fignums() == []
    assert dict(rcParams) == before


# ---- necklaces -------------------------------------------------------------------------------------------------------

NECKLACES = {"8": (2, [3]), "9": (3, [2]), "16": (2, [4]), "64 of two": (2, [6]), "64 of four": (4, [3])}


@pytest.mark.parametrize("size", NECKLACES)
def test_a_necklace_has_all_states_and_arrows_and_its_names_inside(size):
    graph = some_graph(*NECKLACES[size], red=[1])
    figure = draw_state_graph(graph, "a title", layout="necklace")
    assert len(parts(figure, "edge-")) == len(graph.edges)
    assert len(parts(figure, "label-")) == (len(graph.edges) if len(graph.edges) <= 48 else 0)
    for name, node in zip(*(boxes(figure, parts(figure, kind)) for kind in ("name-", "state-")), strict=True):
        assert node.x0 < name.x0 and name.x1 < node.x1
    width, height = figure.get_size_inches() * figure.dpi
    for box in boxes(figure, [*parts(figure, "edge-"), *parts(figure, "label-"), *figure.texts]):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    assert "rotations of one another" in figure.texts[-1].get_text().replace("\n", " ")


@pytest.mark.parametrize("size", ["8", "9", "16"])
def test_on_a_necklace_no_label_covers_another_or_a_node(size):
    figure = draw_state_graph(some_graph(*NECKLACES[size]), layout="necklace")
    labels = boxes(figure, parts(figure, "label-"))
    assert not any(one.overlaps(other) for one, other in itertools.combinations(labels, 2))
    for node in boxes(figure, parts(figure, "state-")):
        x, y = (node.x0 + node.x1) / 2, (node.y0 + node.y1) / 2
        for label in labels:
            away = np.hypot(max(label.x0 - x, 0, x - label.x1), max(label.y0 - y, 0, y - label.y1))
            assert away > node.width / 2


@pytest.mark.parametrize("size", ["8", "16", "64 of two"])
def test_arrows_of_the_pure_shift_run_along_their_ring(size):
    """And where there are few, none runs through a state that isn't its own."""
    vocab_size, (length,) = NECKLACES[size]
    graph = some_graph(vocab_size, [length])
    plan = plan_necklaces(graph)
    curves = {(e.source, e.target): curve for e, curve in zip(graph.edges, plan.curves, strict=True)}
    for ring in necklaces(vocab_size, length):
        if len(ring) == 1:
            continue
        centre = plan.positions[ring].mean(axis=0)
        for source, target in zip(ring, [*ring[1:], ring[0]], strict=True):
            away = np.hypot(*(curves[source, target] - centre).T)
            np.testing.assert_allclose(away, np.hypot(*(plan.positions[source] - centre)), rtol=1e-3)
    for (source, target), curve in curves.items():
        others = np.delete(plan.positions, [source, target], axis=0)
        away = np.hypot(*(curve[:, None] - others[None]).transpose(2, 0, 1))
        assert away.min() > plan.node_radius or len(plan.positions) > 16


def test_a_necklace_of_contexts_that_still_grow_is_refused():
    with pytest.raises(UsageError, match="leave out --every-length"):
        draw_state_graph(some_graph(2, [1, 2, 3]), layout="necklace")
    with pytest.raises(UsageError, match="ring or necklace"):
        draw_state_graph(some_graph(2, [3]), layout="spiral")


def test_before_and_after_stand_alike_on_necklaces():
    figure = draw_before_after(some_graph(2, [3], seed=1), some_graph(2, [3], seed=2), layout="necklace")
    left, right = (np.array([text.get_position() for text in axes.texts]) for axes in figure.axes)
    assert np.abs(left - right).max() < 0.08
