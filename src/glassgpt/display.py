"""What an object shows at the end of a notebook's cell, for objects of rooms that know no picture.

Imports run one way, so that neither a chain nor a trace can import what draws it. Their pictures are made in the one
room that knows all others, `notebook`; it is asked by its name, here and nowhere else, once something is displayed.
"""

from __future__ import annotations

from collections.abc import Container
from importlib import import_module
from typing import Any

PICTURES = "glassgpt.notebook"


class Displayed:
    """What a notebook shows as a picture: Jupyter asks an object for `_repr_mimebundle_`, and needs no setup for it.

    The text beside the picture is the object's `repr`.
    """

    def _repr_mimebundle_(self, include: Container[str] | None = None, exclude: Container[str] | None = None) -> Any:
        return import_module(PICTURES).show(self)._repr_mimebundle_(include, exclude)
