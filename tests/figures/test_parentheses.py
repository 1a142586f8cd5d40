"""The figure of wrong closes: logarithms of what was given, and where training ended."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from glassgpt.errors import UsageError
from glassgpt.figures.parentheses import draw_wrong_close


def test_probabilities_stand_on_a_logarithmic_scale_against_length():
    figure = draw_wrong_close([2, 4, 6], {"step 50": [0.5, 0.25, 0.1], "step 200": [0.001, 0.01, 0.0]}, trained_to=4)
    axes = figure.axes[0]
    lines = {line.get_gid(): line for line in axes.lines}
    np.testing.assert_allclose(lines["line-0"].get_ydata(), np.log10([0.5, 0.25, 0.1]))
    assert lines["trained-to"].get_xdata() == [4, 4]
    assert axes.get_xlabel() == "length of the balanced string"
    assert axes.get_ylabel() == "probability of a wrong close"
    assert any("exactly zero at" in text.get_text() for text in figure.texts)
    assert any("closing what nothing opened" in text.get_text() for text in figure.texts)
    assert not any("red" in text.get_text() for text in figure.texts)
    FigureCanvasAgg(figure).draw()


@pytest.mark.parametrize("wrong", [[1.5], [-0.1], [float("nan")]])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(UsageError):
        draw_wrong_close([2], {"model": wrong})
