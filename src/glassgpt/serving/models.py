"""What is served: each model with its words, its kept steps and the thread that it runs in.

Nothing large is read until a model is first asked something. Its weights are then read in its own worker, tensor by
tensor, so that `state()` can say how far that is.
"""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from glassgpt.chain.information import EmpiricalChain
from glassgpt.errors import GlassGPTError, UnsupportedError
from glassgpt.interface import LanguageModel
from glassgpt.models.change import Change, changed
from glassgpt.serving.asked import Asked
from glassgpt.serving.names import MOST_SYMBOLS, Names
from glassgpt.serving.refusals import Refusal, refusal_of
from glassgpt.serving.sources import Source
from glassgpt.serving.worker import Job, Worker

MAX_STATES = 65_536
MAX_NUMBERS = 1 << 24  # in the table of all states' logits
NUMBERS_KEPT = 100_000_000  # in the parameters of a model's steps that stay in memory; at least one step does
LARGEST_WEIGHT = 1e6  # that one may be changed to: float32 has room for sums of them
MAX_CHANGEABLE = 1_000_000  # parameters of a model of which one may be changed: each question copies them


class Served:
    """One model, whose work is done in a thread of its own."""

    def __init__(self, name: str, source: Source) -> None:
        self.id, self.source = name, source
        self.change: Change | None = None
        self.worker = Worker(source.title)
        self._models: OrderedDict[int | None, LanguageModel] = OrderedDict()
        self._names: Names | None = None
        self._progress: tuple[int, int] | None = None  # while weights are read
        self._failure = ""

    @property
    def n_states(self) -> int | None:
        """How many contexts there are, if they can be listed."""
        return states_of(self.source.vocab_size, self.source.context_length)

    @property
    def names(self) -> Names:
        if self._names is None:
            self._names = Names(self.source.read_tokenizer(), self.source.vocab_size)
        return self._names

    def model(self, step: int | None = None) -> LanguageModel:
        """The model, its weights read if they aren't yet. Only its worker may call this."""
        step = self.source.step if step is None else step
        if step not in self._models:
            self._models[step] = self._read(step)
            size = self.source.config.n_parameters if self.source.config else NUMBERS_KEPT
            while len(self._models) > max(1, NUMBERS_KEPT // size):
                self._models.popitem(last=False)
        self._models.move_to_end(step)
        return self._models[step] if self.change is None else changed(self._models[step], self.change)

    def refuse_unless_changeable(self) -> None:
        """Raise Refusal for a model whose weights are too many to be shown and changed by hand, UnsupportedError for
        one that is no GPT."""
        if self.source.config is None:
            raise UnsupportedError("only a GPT has weights that can be changed, and this model is none")
        if (size := self.source.config.n_parameters) > MAX_CHANGEABLE:
            what = f"{self.id} has {size:,} parameters, and by hand they are changed of models with up to"
            raise Refusal("too_big", f"{what} {MAX_CHANGEABLE:,}", "change a weight of a smaller model")

    def with_change(self, change: Change) -> Served:
        """The same in the same worker, its model with one weight changed. Raises as `refuse_unless_changeable`."""
        self.refuse_unless_changeable()
        twin = copy.copy(self)
        twin.change = change
        return twin

    def _read(self, step: int | None) -> LanguageModel:
        def progress(done: int, total: int) -> None:
            self._progress = (done, total)

        self._progress, self._failure = (0, self.source.config.n_parameters if self.source.config else 0), ""
        try:
            return self.source.read(step, progress)
        except (GlassGPTError, MemoryError, OSError) as error:
            self._failure = str(refusal_of(error))
            raise
        finally:
            self._progress = None

    def submit(self, work: Callable[[], Any]) -> Job:
        return self.worker.submit(work)

    def counts(self) -> np.ndarray | None:
        """How often each token followed each context in the sequence it was trained on: int32 (N, V), or None."""
        source = self.source
        if source.sequence is None or len(source.sequence) <= source.context_length:
            return None
        tokens = self.names.encode(source.sequence)
        return EmpiricalChain.of_text(tokens, source.vocab_size, source.context_length).counts.astype(np.int32)

    def state(self) -> tuple[str, str]:
        """ "ready" to be asked, "loading" weights or "error", and what a person should know of it."""
        if self._failure:
            return "error", self._failure
        progress = self._progress
        if progress is not None:
            return "loading", f"{progress[0]:,} of {progress[1]:,} parameters are read"
        return "ready", "" if self._models else "its weights are read when it is first asked"

    def about(self) -> dict[str, Any]:
        """What /info says of it."""
        source, (state, message) = self.source, self.state()
        shape = source.config
        sizes = ("n_layer", "n_head", "n_embd", "n_parameters")
        return {
            "id": self.id,
            "ref": source.ref,
            "title": source.title,
            "kind": source.kind,
            "vocab_size": source.vocab_size,
            "context_length": source.context_length,
            **{name: None if shape is None else getattr(shape, name) for name in sizes},
            "n_states": self.n_states,
            "steps": list(source.steps),
            "sequence": source.sequence,
            "symbols": self.names.all_of_them() if source.vocab_size <= MOST_SYMBOLS else None,
            "state": state,
            "message": message,
        }


def change_asked(asked: Asked) -> Change:
    name, value = asked.text("name"), asked.number("value", -LARGEST_WEIGHT, LARGEST_WEIGHT)
    at = tuple(asked.ids("at", MAX_CHANGEABLE, most=2))
    asked.nothing_else()
    return Change(name, at, value)


def states_of(vocab_size: int, context_length: int) -> int | None:
    """vocab_size ** context_length, or None where so many can't be listed, or their logits can't.

    >>> states_of(2, 3), states_of(2, 17), states_of(50257, 1024), states_of(50257, 1)
    (8, None, None, None)
    """
    n = 1
    for _ in range(context_length):
        n *= vocab_size
        if n > MAX_STATES:  # before it is far too large to be computed
            return None
    return n if n * vocab_size <= MAX_NUMBERS else None


class Models:
    """All that is served, by id."""

    def __init__(self, sources: Sequence[Source] = ()) -> None:
        self._served: dict[str, Served] = {}
        self._is_closed = False
        for source in sources:
            self.add(source)

    def add(self, source: Source, name: str | None = None) -> Served:
        """Serve one more, under `name` or one made of its title."""
        base = name or re.sub(r"[^a-z0-9]+", "-", source.title.lower()).strip("-") or "model"
        name, n = base, 1
        while name in self._served:
            n += 1
            name = f"{base}-{n}"
        self._served[name] = Served(name, source)
        if self._is_closed:  # a training may end last
            self._served[name].worker.close()
        return self._served[name]

    def remove(self, name: str) -> None:
        if (served := self._served.pop(name, None)) is not None:
            served.worker.close()

    def all_of_them(self) -> list[Served]:
        return list(self._served.values())

    def meant(self, asked: Asked) -> tuple[Served, int | None]:
        """The model that a request names, and the kept step. Raises Refusal if there is none.

        With "change": {"name", "at", "value"} it is that model with one weight changed.
        """
        name, step = asked.text("model"), asked.take("step", None)
        served = self._served.get(name)
        if served is None:
            known = ", ".join(self._served) or "none"
            raise Refusal("missing", f"no model is called {name[:60]!a}; there is: {known}")
        if asked.has("change"):
            served = served.with_change(change_asked(asked.part("change")))
        if step is None:
            return served, None
        if type(step) is not int:
            raise Refusal("usage", f"step must be a whole number or null, got {ascii(step)[:60]}")
        if step not in served.source.steps:
            kept = served.source.steps
            has = f"keeps {len(kept)} steps from {kept[0]} to {kept[-1]}" if kept else "keeps no training steps"
            raise Refusal("missing", f"{served.id} has no step {step}: it {has}", "ask for one of /info's steps")
        return served, step

    def close(self) -> None:
        """Give up all that is under way. It is not waited for."""
        self._is_closed = True
        for served in self.all_of_them():
            served.worker.close()

    def wait_until_closed(self) -> None:
        for served in self.all_of_them():
            served.worker.wait_until_closed()
