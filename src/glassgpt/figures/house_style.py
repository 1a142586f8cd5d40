"""What all figures have in common: ink, colours, type and the way a title and a caption are set.

Colours are those of Okabe and Ito (2008), which people with any colour vision tell apart; no meaning hangs on colour
alone. Type is DejaVu Sans, which matplotlib ships, so a figure looks the same on every machine.
"""

import textwrap
from functools import lru_cache

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.textpath import TextPath

from glassgpt.figures import states

INK = "#1b2733"
GREY = "#5f6b76"
RED = "#D55E00"
RED_TINT = "#fbe0cf"
NODE_TINT = "#f3f6f9"
CATEGORIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
FONT = "DejaVu Sans"
POINT = 1 / 72  # inches

in_house_style = rc_context(
    {
        "font.family": FONT,
        "font.size": 10,
        "text.color": INK,
        "text.usetex": False,
        "mathtext.fontset": "dejavusans",
        "axes.edgecolor": GREY,
        "axes.facecolor": "white",
        "axes.grid": False,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": True,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "hatch.linewidth": 0.8,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
    }
)


def shown(text: str) -> str:
    """The text as a figure writes it: blanks made visible, characters that the font lacks as their code."""
    has_shape = get_font(fontManager.findfont(FontProperties(family=FONT))).get_char_index
    return "".join(c if has_shape(ord(c)) else c.encode("unicode_escape").decode() for c in states.visible(text))


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width in inches of one line set at `size` points."""
    if not text.strip():
        return 0.0
    # A dollar sign would begin a formula; S is as wide.
    path = TextPath((0, 0), text.replace("$", "S"), size=size, prop=FontProperties(family=FONT, weight=weight))
    # The points that steer the curves bound them well enough, and much faster than the exact extent.
    return float(np.ptp(path.vertices[:, 0])) * POINT


def inch_axes(figure: Figure, left: float, bottom: float, low: np.ndarray, high: np.ndarray) -> Axes:
    """Frameless axes at (left, bottom) inches, on which one unit is one inch and (low, high) are the corners shown."""
    width, height = figure.get_size_inches()
    size = high - low
    axes = figure.add_axes((left / width, bottom / height, size[0] / width, size[1] / height))
    axes.set_axis_off()
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    return axes


def wrapped(text: str, width: float, size: float) -> str:
    """The text broken into lines at most `width` inches long."""
    per_character = text_width(text, size) / max(len(text), 1)
    return textwrap.fill(text, max(int(width / max(per_character, 1e-9)), 12))


def line_height(text: str, size: float) -> float:
    """Height in inches of a text of one or more lines; 0 for no text."""
    return 1.35 * size * POINT * (text.count("\n") + 1) if text else 0.0
