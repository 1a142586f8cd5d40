"""What is displayed asks the one room that draws, with what Jupyter asked for."""

import sys
from types import SimpleNamespace

from glassgpt import display, notebook
from glassgpt.display import Displayed


def test_an_object_is_shown_by_the_room_that_knows_all_others(monkeypatch):
    asked = []

    class Shown:
        def _repr_mimebundle_(self, include, exclude):
            asked.append((include, exclude))
            return {"text/plain": "shown"}

    thing = Displayed()
    monkeypatch.setitem(sys.modules, display.PICTURES, SimpleNamespace(show=lambda it: asked.append(it) or Shown()))
    assert thing._repr_mimebundle_(include={"text/plain"}) == {"text/plain": "shown"}
    assert thing._repr_mimebundle_() == {"text/plain": "shown"}
    assert asked == [thing, ({"text/plain"}, None), thing, (None, None)]


def test_everything_that_is_displayed_has_a_view():
    import glassgpt.chain.hitting
    import glassgpt.models.trace
    import glassgpt.weights.run  # noqa: F401

    kinds = {kind.__name__ for kind in Displayed.__subclasses__() if kind.__module__.startswith("glassgpt.")}
    assert kinds == notebook.VIEWS.keys()
