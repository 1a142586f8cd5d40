"""Curve fits: the least squares that NumPy finds by another way, measured on points that no curve saw."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from tests.figures.reading import assert_writing_stands_apart_inside, caption, lines, texts

from glassgpt.errors import UsageError
from glassgpt.figures.files import save
from glassgpt.figures.fits import draw_fits, error_text, noisy_fits, polynomial_fits

FITS = noisy_fits()


@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_a_fit_is_the_least_squares_solution_in_powers_of_x(size):
    index = FITS.parameters.tolist().index(size)
    powers = np.vander(FITS.x, size)
    solution = np.linalg.lstsq(powers, FITS.y, rcond=None)[0]
    np.testing.assert_allclose(FITS.curves[index], np.polyval(solution, FITS.places), atol=1e-8)
    left_over = FITS.y - powers @ solution
    assert FITS.training_error[index] == pytest.approx(np.sqrt(left_over @ left_over / len(FITS.y)))
    missed = FITS.held_out_y - np.polyval(solution, FITS.held_out_x)
    assert FITS.held_out_error[index] == pytest.approx(np.sqrt(missed @ missed / len(missed)))


def test_as_many_parameters_as_points_go_through_all_of_them_even_where_powers_would_be_lost():
    fits = noisy_fits([40], n_points=40)
    assert fits.training_error[0] < 1e-7
    near = np.abs(fits.places[:, None] - fits.x).argmin(axis=0)[[0, -1]]
    np.testing.assert_allclose(fits.curves[0, near], fits.y[[0, -1]], atol=1e-6)


def test_more_parameters_always_fit_better_and_too_many_miss_what_was_held_out():
    assert (np.diff(FITS.training_error) <= 1e-12).all()
    assert 0 < FITS.best < len(FITS.parameters) - 1
    least = FITS.held_out_error[FITS.best]
    assert least < 0.5 * FITS.held_out_error[0] and least < 0.5 * FITS.held_out_error[-1]
    assert FITS.training_error[-1] < 0.5 * FITS.noise < FITS.noise < least


def test_points_scatter_about_what_is_behind_them_by_the_noise():
    fits = noisy_fits([1], n_held_out=20_000, noise=0.5, seed=3)
    away = fits.held_out_y - np.interp(fits.held_out_x, fits.places, fits.truth)
    assert away.std() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(2 * 20_000))  # 4 standard errors
    assert fits.x[0] <= fits.held_out_x.min() and fits.held_out_x.max() <= fits.x[-1]


def test_the_same_seed_gives_the_same_points_and_another_gives_others():
    np.testing.assert_array_equal(noisy_fits(seed=1).held_out_y, noisy_fits(seed=1).held_out_y)
    assert not np.array_equal(noisy_fits(seed=1).y, noisy_fits(seed=2).y)


def test_a_panel_holds_its_curve_and_says_both_errors():
    figure = draw_fits(FITS, shown=[2, 16])
    panels = figure.axes[:2]
    assert [axes.get_title(loc="left") for axes in panels] == ["2 parameters", "16 parameters"]
    np.testing.assert_array_equal(lines(figure, "fit")[1].get_ydata(), FITS.curves[-1])
    np.testing.assert_array_equal(lines(figure, "training")[0].get_ydata(), FITS.y)
    np.testing.assert_array_equal(lines(figure, "held-out")[0].get_xdata(), FITS.held_out_x)
    assert (
        texts(figure, "errors")[1] == f"training {FITS.training_error[-1]:.2f}, held out {FITS.held_out_error[-1]:.2f}"
    )


def test_the_best_fit_has_a_panel_and_is_marked_among_the_errors():
    figure = draw_fits(FITS)
    best = int(FITS.parameters[FITS.best])
    assert f"{best} parameters: best" in [axes.get_title(loc="left") for axes in figure.axes]
    assert lines(figure, "best")[0].get_xdata()[0] == best
    np.testing.assert_array_equal(lines(figure, "errors held out")[0].get_ydata(), FITS.held_out_error)
    np.testing.assert_array_equal(lines(figure, "errors training")[0].get_ydata(), FITS.training_error)
    assert texts(figure, "side") == ["underfitting  ", "  overfitting"]
    assert f"met best by {best} parameters" in caption(figure)


def test_an_error_of_rounding_alone_is_written_as_zero_and_does_not_stretch_the_axis():
    figure = draw_fits(noisy_fits(range(1, 9), n_points=8))
    assert "training 0" in texts(figure, "end-label")
    assert figure.axes[-1].get_ylim()[0] > 1e-3
    assert lines(figure, "points training")[0].get_xdata().tolist() == list(range(1, 8))


def test_one_fit_of_given_points_without_a_truth_can_be_drawn():
    fits = polynomial_fits([0, 1, 2], [1, 3, 5], [0.5], [2.0], [2])
    assert fits.held_out_error[0] == pytest.approx(0, abs=1e-12)
    figure = draw_fits(fits, title="A <b>line</b> $x$")
    assert not lines(figure, "truth") and not lines(figure, "noise") and not texts(figure, "side")
    FigureCanvasAgg(figure).draw()


def test_what_is_written_stands_apart_inside():
    assert_writing_stands_apart_inside(draw_fits(FITS))
    assert_writing_stands_apart_inside(draw_fits(noisy_fits(range(1, 9), n_points=8), title="Fits"))


def test_the_same_fits_give_the_same_bytes(tmp_path):
    one, other = (save(draw_fits(noisy_fits()), tmp_path / name).read_bytes() for name in ("one.svg", "other.svg"))
    assert one == other


@pytest.mark.parametrize(
    ("value", "text"), [(0.254, "0.25"), (0.0, "0"), (2e-16, "0"), (3.0, "3.00"), (41.2, "41"), (0.0041, "0.004")]
)
def test_errors_are_short(value, text):
    assert error_text(value) == text


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(UsageError, match="from 1 to 3 parameters"):
        polynomial_fits([0, 1, 2, 2], [0, 1, 2, 3], [1], [1], [4])
    with pytest.raises(UsageError, match="from 1 to 2 parameters"):
        polynomial_fits([0, 1], [0, 1], [1], [1], [0, 1])
    with pytest.raises(UsageError, match="as many x as y"):
        polynomial_fits([0, 1], [0], [1], [1], [1])
    with pytest.raises(UsageError, match="held out must be finite"):
        polynomial_fits([0, 1], [0, 1], [1], [np.nan], [1])
    with pytest.raises(UsageError, match="noise is a standard deviation"):
        noisy_fits(noise=-1.0)
    with pytest.raises(UsageError, match="2 points or more"):
        noisy_fits(n_points=1)
    with pytest.raises(UsageError, match="shown must be some"):
        draw_fits(FITS, shown=[3, 99])
