"""What a model wrote as it was trained, one text below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import CATEGORIES, GREY, in_house_style, inch_axes, line_height
from glassgpt.figures.margins import EDGE, caption_room, title_room, write_margins
from glassgpt.figures.next_token import apart, filled

NAMES, TEXT_WIDTH, NUMBERS = 0.75, 6.6, 1.0  # inches: the step, the text, the bits per byte behind it
TYPE, SMALL = 9.5, 9
MOST = 260  # characters of a text that are shown
BETWEEN, HEAD = 0.16, 0.4  # inches


@dataclass(frozen=True)
class TrainingSample:
    """What a model wrote after so many updates. bits_per_byte: of text kept back, None where none was."""

    step: int
    text: str
    bits_per_byte: float | None


@in_house_style
def draw_samples(samples: Sequence[TrainingSample], title: str | None = None) -> Figure:
    """A table: the step, what was written then, and how well the model predicted a text kept back.

    Of long texts the beginning is shown. Raises UsageError for no samples.
    """
    if not samples:
        raise UsageError("a table of samples needs at least one; got none")
    caption = (
        "What the model wrote after one and the same beginning, drawn from the same seed, at some steps of training."
    )
    if has_bits := any(sample.bits_per_byte is not None for sample in samples):
        caption += " Bits per byte: of text that was kept back; the fewer, the better it is predicted."
    lines = [_lines(sample.text) for sample in samples]
    heights = [line_height("\n".join(one), TYPE) + BETWEEN for one in lines]
    width = NAMES + TEXT_WIDTH + NUMBERS
    height = title_room(title) + HEAD + sum(heights) + caption_room(caption, width)
    figure = Figure(figsize=(width, height))
    axes = inch_axes(figure, 0.0, 0.0, np.zeros(2), np.array([width, height]))
    y = height - title_room(title) - 0.25
    axes.text(EDGE, y, "step", size=SMALL, color=GREY)
    axes.text(width - EDGE, y, "bits per byte" if has_bits else "", size=SMALL, color=GREY, ha="right")
    y -= HEAD - 0.25
    axes.plot([EDGE, width - EDGE], [y + 0.07] * 2, color=GREY, linewidth=0.8)
    for sample, written, tall in zip(samples, lines, heights, strict=True):
        first = y - 0.15
        axes.text(EDGE, first, f"{sample.step:,}", size=TYPE, weight="bold", color=CATEGORIES[0], gid="step")
        for i, line in enumerate(written):
            place = first - i * line_height(line, TYPE)
            axes.text(NAMES, place, line, size=TYPE, parse_math=False, gid="text")
        if sample.bits_per_byte is not None:
            axes.text(width - EDGE, first, f"{sample.bits_per_byte:.3f}", size=TYPE, ha="right", gid="bits")
        y -= tall
    write_margins(figure, title, caption)
    return figure


def _lines(text: str) -> list[str]:
    """The beginning of a text in lines that fit the column, its blanks as blanks and all else unseen as its code."""
    shown = text if len(text) <= MOST else text[: MOST - 1].rstrip() + "…"
    words = " ".join(apart(word) if word else "" for word in shown.split(" "))
    return filled(words.strip() or "∅", TEXT_WIDTH - 0.1, TYPE)
