"""Above a figure its title, below it a caption that says what is to be seen, and how much room the two take."""

from __future__ import annotations

from matplotlib.figure import Figure

from glassgpt.figures.house_style import GREY, INK, line_height, text_width

CAPTION_TYPE, TITLE_TYPE = 9, 13
EDGE = 0.15  # inches from the edge of the figure
LONGEST_LINE = 9.0  # inches of a caption: longer ones are hard to read
HINTING = 1.08  # what is drawn in pixels may be so much wider than what is measured


def caption_room(text: str, width: float) -> float:
    """Inches that a caption takes at the foot of a figure `width` inches wide, with the space above it."""
    return line_height(_lines(text, width), CAPTION_TYPE) + 2 * EDGE if text else EDGE


def title_room(title: str | None) -> float:
    """Inches that a title takes at the top."""
    return 0.4 if title else EDGE


def write_margins(figure: Figure, title: str | None, caption: str) -> None:
    """Title and caption at the left edge, as plain text."""
    width, height = figure.get_size_inches()
    if title:
        head = figure.text(EDGE / width, 1 - 0.1 / height, title, va="top", parse_math=False, gid="title")
        head.set(size=TITLE_TYPE, weight="bold", color=INK)
    foot = figure.text(EDGE / width, 0.1 / height, _lines(caption, width), va="bottom", parse_math=False)
    foot.set(size=CAPTION_TYPE, color=GREY, gid="caption")


def _lines(text: str, width: float) -> str:
    """The text broken between words, each line as long as fits. (`wrapped` breaks by the mean width of a letter.)"""
    width = min(width, LONGEST_LINE)
    space = HINTING * (text_width("a a", CAPTION_TYPE) - text_width("aa", CAPTION_TYPE))
    lines: list[str] = []
    used = width
    for word in text.split():
        length = HINTING * text_width(word, CAPTION_TYPE)
        if used + space + length > width - 2 * EDGE:
            lines.append(word)
            used = length
        else:
            lines[-1] += f" {word}"
            used += space + length
    return "\n".join(lines)
