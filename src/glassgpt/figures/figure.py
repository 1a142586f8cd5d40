"""The figure that every drawing function returns: matplotlib's own, with what notebooks ask of an object.

IPython shows a plain matplotlib figure only after pyplot was imported, which nothing here does.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Container, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure as PlainFigure
from PIL import Image

from glassgpt.figures.files import DOTS_PER_INCH, rendered

COLOURS = 256  # of a picture in a notebook, which is then a third as large, each within 3 parts in 255 of what it was
MOST_PIXELS = 2_000_000  # of what is shown together; what is larger has fewer dots an inch
PIXELS_PER_INCH = 96  # of a notebook, which shows figures at their size in inches
USUAL = ("text/plain", "image/png")

Bundle = tuple[dict[str, Any], dict[str, Any]]  # what is shown, by kind, and how large


class Figure(PlainFigure):
    def _repr_mimebundle_(self, include: Container[str] | None = None, exclude: Container[str] | None = None) -> Bundle:
        return bundle(repr(self), [self], include, exclude)


def bundle(
    text: str,
    figures: Sequence[PlainFigure],
    include: Container[str] | None = None,
    exclude: Container[str] | None = None,
) -> Bundle:
    """A text and figures, one below the other, for Jupyter's display protocol (`_repr_mimebundle_`).

    A PNG, which every front end shows, GitHub's and one without trust in the notebook too; an SVG if `include` asks for
    it, since both would double the size of a stored notebook.
    """
    drawing: dict[str, Callable[[], Any]] = {
        "text/plain": lambda: text,
        "image/png": lambda: png_of(figures),
        "image/svg+xml": lambda: svg_of(figures),
    }
    if not figures:
        drawing = {"text/plain": drawing["text/plain"]}
    wanted = [kind for kind in drawing if kind in (include or USUAL) and kind not in (exclude or ())]
    width = max((figure.get_figwidth() for figure in figures), default=0.0)
    sizes = {"image/png": {"width": round(width * PIXELS_PER_INCH)}} if "image/png" in wanted else {}
    return {kind: drawing[kind]() for kind in wanted}, sizes


def png_of(figures: Sequence[PlainFigure]) -> bytes:
    """Figures one below the other as one PNG, whose colours are the `COLOURS` that are nearest."""
    area = float(sum(np.prod(figure.get_size_inches()) for figure in figures))  # square inches
    dots = min(DOTS_PER_INCH, (MOST_PIXELS / area) ** 0.5)
    images = [Image.open(io.BytesIO(rendered(figure, ".png", dots))).convert("RGB") for figure in figures]
    whole = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), "white")
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    written = io.BytesIO()
    few = whole.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(written, "png", optimize=True, dpi=(dots, dots))
    return written.getvalue()


def svg_of(figures: Sequence[PlainFigure]) -> str:
    """Figures one below the other as one SVG, without the head of a file, which has no place within a page."""
    sizes = [figure.get_size_inches() * 72 for figure in figures]  # points, in which matplotlib writes SVG
    width, height = max(size[0] for size in sizes), sum(size[1] for size in sizes)
    parts, top = [], 0.0
    for figure, size in zip(figures, sizes, strict=True):
        text = rendered(figure, ".svg").decode()
        parts.append(re.sub(r"^.*?<svg ", f'<svg y="{top:g}" ', text, count=1, flags=re.DOTALL))
        top += size[1]
    box = f'width="{width:g}pt" height="{height:g}pt" viewBox="0 0 {width:g} {height:g}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} version="1.1">\n{"".join(parts)}</svg>\n'
