"""The heat map at its three sizes."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from glassgpt.errors import UsageError
from glassgpt.figures.heat_map import draw_transition_heat_map, entropy_nats


def table(n_rows, n_columns, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(n_columns), n_rows)


def bits(n):
    return [format(code, f"0{n}b") for code in range(2**n)]


def images(figure):
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


@pytest.mark.parametrize("n", [3, 6])
def test_few_states_have_a_number_in_every_cell(n):
    probabilities = table(2**n, 2)
    figure = draw_transition_heat_map(probabilities, bits(n), "01", "title", red=[5])
    numbers = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert len(numbers) == 2 ** (n + 1)
    assert np.concatenate(images(figure)) == pytest.approx(probabilities)
    names = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    assert bits(n)[5] + " red" in names


def test_the_numbers_are_explained():
    figure = draw_transition_heat_map(table(8, 2), bits(3), "01")
    assert "the probability that the token above comes next" in figure.texts[0].get_text().replace("\n", " ")
    box = figure.texts[0].get_window_extent(FigureCanvasAgg(figure).get_renderer())
    assert box.x1 <= figure.get_figwidth() * figure.dpi
    assert box.y1 <= min(axes.get_window_extent().y0 for axes in figure.axes)


def test_some_hundreds_of_states_are_rows_without_numbers():
    probabilities = table(256, 2)
    figure = draw_transition_heat_map(probabilities, bits(8), "01", red=[255])
    assert images(figure)[0] == pytest.approx(probabilities)
    assert not figure.axes[0].texts
    assert any("red states (1)" in text.get_text() for text in figure.texts)


def test_many_states_of_two_tokens_are_a_square_of_the_second_tokens_probability():
    probabilities = table(2**16, 2)
    figure = draw_transition_heat_map(probabilities, bits(16), "01", red=[0, 65535])
    assert images(figure)[0].shape == (256, 256)
    assert images(figure)[0][3, 5] == probabilities[3 * 256 + 5, 1]
    FigureCanvasAgg(figure).draw()
    assert "65,536 states" in figure.texts[0].get_text()


def test_many_states_of_more_tokens_are_a_square_of_entropy():
    probabilities = table(4**5, 4)
    labels = [np.base_repr(code, 4).zfill(5) for code in range(4**5)]
    figure = draw_transition_heat_map(probabilities, labels, "0123", red=range(200))
    assert images(figure)[0] == pytest.approx(entropy_nats(probabilities).reshape(16, 64))
    assert "Red states: 200, not marked." in figure.texts[0].get_text().replace("\n", " ")


def test_a_number_of_states_that_is_no_power_fills_its_last_row_with_nothing():
    figure = draw_transition_heat_map(table(1022, 2), [str(i) for i in range(1022)], "01")
    assert images(figure)[0].shape == (32, 32)
    assert np.isnan(images(figure)[0][-1, -2:]).all()


@pytest.fixture
def labels_that_count():
    class Labels:
        asked = 0

        def __len__(self):
            return 2**16

        def __getitem__(self, code):
            self.asked += 1
            return format(code, "016b")

    return Labels()


def test_only_the_labels_that_are_written_are_looked_at(labels_that_count):
    draw_transition_heat_map(table(2**16, 2), labels_that_count, "01")
    assert 0 < labels_that_count.asked < 50


@pytest.mark.parametrize(
    ("probabilities", "words"),
    [(np.zeros((3, 2)), r"got \(3, 2\)"), (np.full((2, 2), np.nan), "NaN"), (np.full((2, 2), 1.5), "between 0 and 1")],
)
def test_tables_that_do_not_fit_are_refused(probabilities, words):
    with pytest.raises(UsageError, match=words):
        draw_transition_heat_map(probabilities, ["0", "1"], "01")


def test_red_states_that_do_not_exist_are_refused():
    with pytest.raises(UsageError, match="from 0 to 1"):
        draw_transition_heat_map(table(2, 2), ["0", "1"], "01", red=[2])
