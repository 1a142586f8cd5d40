"""Beam search, told as it goes: after each token the beams that go on and those that were given up."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from glassgpt.decoding.beam import LARGEST_LENGTH_PENALTY, Beam, BeamStep, beam_steps
from glassgpt.serving.asked import Asked
from glassgpt.serving.events import Event
from glassgpt.serving.generation import ends_of
from glassgpt.serving.models import Served
from glassgpt.serving.names import Names

MOST_BEAMS = 32
MOST_TOKENS = 256  # of a beam


@dataclass(frozen=True)
class Search:
    """The `n_beams` likeliest texts that follow `ids`, by the model itself: no sampler has a say."""

    ids: list[int]
    max_new_tokens: int
    n_beams: int
    length_penalty: float

    @classmethod
    def asked(cls, asked: Asked, vocab_size: int) -> Search:
        return cls(
            asked.ids("ids", vocab_size),
            asked.whole("max_new_tokens", 1, MOST_TOKENS, 20),
            asked.whole("n_beams", 1, MOST_BEAMS, 4),
            asked.number("length_penalty", -LARGEST_LENGTH_PENALTY, LARGEST_LENGTH_PENALTY, 1),
        )

    def found(self, served: Served, step: int | None) -> Generator[Event, None, dict[str, Any]]:
        """An event for each token that the beams grow by, then the beams, best first, and why each of them ended."""
        names, ends = served.names, ends_of(served)
        last: tuple[Beam, ...] = ()
        for taken in beam_steps(
            served.model(step),
            self.ids,
            self.max_new_tokens,
            self.n_beams,
            length_penalty=self.length_penalty,
            end_token=ends,
        ):
            last = taken.finished
            yield Event("step", _told_step(taken, names))
        beams = [_told(beam, names) | {"reason": "stop" if beam.tokens[-1] in ends else "length"} for beam in last]
        return {"beams": beams}


def _told_step(step: BeamStep, names: Names) -> dict[str, Any]:
    parts = {"running": step.running, "dropped": step.dropped, "finished": step.finished}
    return {name: [_told(beam, names) for beam in beams] for name, beams in parts.items()}


def _told(beam: Beam, names: Names) -> dict[str, Any]:
    """A beam's new ids, what they are called, each one's log-probability, their sum, and what it is ranked by."""
    return {
        "ids": list(beam.tokens),
        "pieces": [names[token] for token in beam.tokens],
        "logprobs": list(beam.logprobs),
        "logprob": beam.logprob,
        "score": beam.score,
    }
