"""The machine at temperature 0: its cycles, its basins, and their picture."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from glassgpt.errors import UsageError
from glassgpt.figures.greedy import basins_of, draw_greedy_machine


def shift_machine(vocab_size, length, seed):
    codes = np.arange(vocab_size**length)
    tokens = np.random.default_rng(seed).integers(vocab_size, size=len(codes))
    return (codes * vocab_size + tokens) % len(codes)


def parts(figure, name):
    return [p for p in [*figure.axes[0].patches, *figure.axes[0].texts] if (p.get_gid() or "").startswith(name)]


MACHINES = {
    "fixed points": range(9),
    "all to one": [0] * 16,
    "one ring": [*range(1, 64), 0],
    "a chain": [*range(1, 64), 63],
    "8 states": shift_machine(2, 3, 4),
    "64 states of two": shift_machine(2, 6, 1),
    "64 states of eight": shift_machine(8, 2, 2),
}


def test_basins_are_found_with_their_cycles_in_walking_order():
    assert basins_of([2, 0, 1, 1, 3, 5]) == [([0, 2, 1], [0, 1, 2, 3, 4]), ([5], [5])]


@pytest.mark.parametrize("name", MACHINES)
def test_every_walk_ends_in_the_cycle_of_its_basin(name):
    machine = [int(state) for state in MACHINES[name]]
    basins = basins_of(machine)
    assert sorted(state for _, members in basins for state in members) == list(range(len(machine)))
    for cycle, members in basins:
        assert [machine[state] for state in cycle] == cycle[1:] + cycle[:1]
        for state in members:
            for _ in machine:
                state = machine[state]
            assert state in cycle


@pytest.mark.parametrize("name", MACHINES)
def test_each_state_has_one_arrow_and_a_place_of_its_own_inside_the_picture(name):
    machine = MACHINES[name]
    figure = draw_greedy_machine(machine, [format(state, "06b") for state in range(len(machine))], "title")
    assert len(parts(figure, "edge-")) == len(parts(figure, "state-")) == len(machine)
    renderer = FigureCanvasAgg(figure).get_renderer()
    found = [node.get_window_extent(renderer) for node in parts(figure, "state-")]
    for one, other in itertools.combinations(found, 2):
        apart = np.hypot(one.x0 + one.x1 - other.x0 - other.x1, one.y0 + one.y1 - other.y0 - other.y1) / 2
        assert apart > one.width * 0.99
    width, height = figure.get_size_inches() * figure.dpi
    for artist in [*figure.axes[0].texts, *parts(figure, "edge-"), *figure.texts]:
        box = artist.get_window_extent(renderer)
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


@pytest.mark.parametrize(
    ("machine", "labels", "words"),
    [
        ([0] * 65, ["x"] * 65, "up to 64 states and this one has 65"),
        ([0, 2], ["a", "b"], "from 0 to 1; got 2"),
        ([0, 1], ["a"], "got 2 and 1"),
    ],
)
def test_machines_that_cannot_be_are_refused(machine, labels, words):
    with pytest.raises(UsageError, match=words):
        draw_greedy_machine(machine, labels)
