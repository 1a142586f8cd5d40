"""Contexts by rotation class: Burnside's count of them, the shift that goes round, and where they stand."""

import itertools
from math import gcd

import numpy as np
import pytest

from glassgpt.figures.necklaces import GAP, necklace_layout, necklaces, radius_of
from glassgpt.figures.states import spell

SHAPES = [(1, 1), (2, 1), (2, 3), (2, 4), (2, 6), (3, 3), (4, 3), (8, 2), (64, 1)]


def words(vocab_size, length):
    return ["".join(word) for word in itertools.product("0123456789"[:vocab_size], repeat=length)]


@pytest.mark.parametrize(("V", "k"), SHAPES)
def test_there_are_as_many_classes_as_burnside_counts(V, k):
    """The mean over all rotations of how many words each leaves as they are: V**gcd(i, k) by i places."""
    assert len(necklaces(V, k)) == sum(V ** gcd(i, k) for i in range(1, k + 1)) // k


@pytest.mark.parametrize(("V", "k"), [(2, 3), (2, 4), (2, 6), (3, 3), (4, 3)])
def test_a_class_is_a_word_and_its_rotations_one_after_the_other(V, k):
    all_words = words(V, k)
    for ring in necklaces(V, k):
        spelled = [all_words[code] for code in ring]
        assert spelled == [spelled[0][i:] + spelled[0][:i] for i in range(len(ring))]
        assert spelled[0] == min(spelled) and len(set(spelled)) == len(ring)
        assert spelled[-1][1:] + spelled[-1][:1] == spelled[0]
    everything = sorted(code for ring in necklaces(V, k) for code in ring)
    assert everything == list(range(V**k))


@pytest.mark.parametrize(("V", "k"), SHAPES)
def test_neighbours_on_a_ring_are_1_apart_and_all_others_at_least_that(V, k):
    positions, centres = necklace_layout(V, k)
    for ring in necklaces(V, k):
        assert np.ptp(centres[ring], axis=0).max() == 0
        away = np.hypot(*(positions[ring] - centres[ring]).T)
        np.testing.assert_allclose(away, radius_of(len(ring)), atol=1e-12)
        if len(ring) > 1:
            steps = positions[ring] - positions[np.roll(ring, -1)]
            np.testing.assert_allclose(np.hypot(*steps.T), 1, atol=1e-12)
    if V**k > 1:
        distances = np.hypot(*(positions[:, None] - positions[None]).transpose(2, 0, 1))
        assert distances[~np.eye(V**k, dtype=bool)].min() > min(1, GAP) - 1e-9


def test_a_ring_goes_clockwise():
    positions, centres = necklace_layout(2, 4)
    for ring in necklaces(2, 4):
        if len(ring) > 2:
            (a, b), (c, d) = (positions[code] - centres[code] for code in ring[:2])
            assert a * d - b * c < 0


@pytest.mark.parametrize("k", [3, 4, 6])
def test_from_left_to_right_the_ones_grow_in_number(k):
    _, centres = necklace_layout(2, k)
    ones = np.array([spell(code, k, "01").count("1") for code in range(2**k)])
    for less, more in itertools.pairwise(range(k + 1)):
        assert centres[ones == less, 0].max() < centres[ones == more, 0].min()


def test_the_picture_lies_about_its_middle():
    for V, k in SHAPES:
        _, centres = necklace_layout(V, k)
        assert abs(centres[:, 1].max() + centres[:, 1].min()) < 3  # in units of neighbours' distance


def test_rings_are_turned_so_that_their_arrows_are_short():
    """No other turn of one ring among those tried makes the arrows between rings shorter."""
    V, k = 2, 4
    positions, centres = necklace_layout(V, k)

    def cost(places):
        arrows = [(code, (2 * code + token) % 16) for code in range(16) for token in range(2)]
        between = [(a, b) for a, b in arrows if not np.array_equal(centres[a], centres[b])]
        return sum(float(np.sum((places[a] - places[b]) ** 2)) for a, b in between)

    best = cost(positions)
    for ring in necklaces(V, k):
        for turn in range(1, 6 * len(ring)):
            angle = 2 * np.pi * turn / (6 * len(ring))
            rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            turned = positions.copy()
            turned[ring] = centres[ring] + (positions[ring] - centres[ring]) @ rotation.T
            assert cost(turned) > best - 1e-9
