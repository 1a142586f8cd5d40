"""How wrong a model goes in the language of parentheses: the probability of one close too many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from glassgpt.figures.curves import draw_red_over_training
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import GREY


def draw_wrong_close(
    at: Sequence[float],
    series: Mapping[str, Sequence[float]],
    axis: str = "length of the balanced string",
    trained_to: float | None = None,
    title: str | None = None,
) -> Figure:
    """Probability of a close at depth 0 against `at`, one line for each name in `series`, on a logarithmic scale.

    series: name (of a model, or of a training step) -> probabilities, one for each of `at`; exact zeros are not drawn,
    but said. trained_to: where training ended, a dotted line. Raises UsageError for NaN or probabilities above 1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms = {name: np.log10(np.asarray(line, dtype=np.float64)).tolist() for name, line in series.items()}
    caption = "The probability of closing what nothing opened, after balanced strings; the lower, the better it counts."
    figure = draw_red_over_training(at, logarithms, title, caption)
    axes = figure.axes[0]
    axes.set_xlabel(axis)
    axes.set_ylabel("probability of a wrong close")
    if trained_to is not None:
        axes.axvline(trained_to, color=GREY, linestyle=":", linewidth=1.2, gid="trained-to")
        top = axes.get_ylim()[1]
        axes.annotate(" trained to here", (trained_to, top), color=GREY, size=9, va="top")
    return figure
