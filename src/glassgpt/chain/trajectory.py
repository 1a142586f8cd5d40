"""A chain in figures, and how training moves them: the same summary at every kept step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.chain.hitting import (
    EverHit,
    ExpectedSteps,
    FirstPassage,
    Hazard,
    ever_hit,
    expected_steps,
    hazard,
    hitting_probability,
)
from glassgpt.chain.information import EmpiricalChain, entropy_rate, exposure, kl_rate
from glassgpt.chain.markov import MarkovChain
from glassgpt.chain.mixing import MixingTime, mixing_time, second_eigenvalue
from glassgpt.chain.stationary import StationaryLaw, stationary_distribution
from glassgpt.chain.structure import communicating_classes, greedy_machine, period
from glassgpt.chain.walk import Red
from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel


@dataclass(frozen=True, eq=False)
class RedRisk:
    """All that is asked of a red event: within `steps` tokens, ever, per token in the long run, and how soon."""

    steps: int
    passage: FirstPassage
    ever: EverHit
    hazard: Hazard
    expected_steps: ExpectedSteps


def red_risk(chain: MarkovChain, red: Red, steps: int, start: Sequence[int] | None = None) -> RedRisk:
    """The red event's probabilities from `start`, or else from the stationary law."""
    return RedRisk(
        steps,
        hitting_probability(chain, red, steps, start),
        ever_hit(chain, red, start),
        hazard(chain, red, start),
        expected_steps(chain, red, start),
    )


@dataclass(frozen=True, eq=False)
class ChainSummary:
    """What a chain is like. Entropies and divergences in nats a token; `None` where there is nothing to measure.

    `stationary` and what rests on it are None if texts stop, or if several classes are closed and no start was given;
    `note` then says so.
    `kl_to_data`: of the data's rows from the model's. `escape_hazard`, `mass_outside_data`: see `Exposure`.
    `loops`: the cycles of the greedy machine, as states; `loop_basins`: the share of states that falls into each.
    """

    stationary: StationaryLaw | None
    entropy_rate: float | None
    n_classes: int
    closed_classes: list[np.ndarray]
    periods: list[int]
    mixing: MixingTime | None
    second_eigenvalue: float | None
    loops: list[np.ndarray]
    loop_basins: list[float]
    kl_to_data: float | None = None
    escape_hazard: Hazard | None = None
    mass_outside_data: float | None = None
    red: RedRisk | None = None
    note: str = ""


def summarise(
    chain: MarkovChain,
    *,
    start: Sequence[int] | None = None,
    data: EmpiricalChain | None = None,
    red: Red | None = None,
    steps: int = 100,
) -> ChainSummary:
    """Every figure of a chain. `start` is the prompt that red and escapes are measured from."""
    law, note = _law_or_why_not(chain, start)
    classes = communicating_classes(chain)
    closed = classes.closed_classes()
    machine = greedy_machine(chain)
    outside = None
    if law is not None and data is not None and start is not None:
        outside = exposure(chain, law.probabilities, data, start, steps)
    return ChainSummary(
        stationary=law,
        entropy_rate=None if law is None else entropy_rate(chain, law.probabilities),
        n_classes=classes.n_classes,
        closed_classes=closed,
        periods=[period(chain, states) for states in closed],
        mixing=None if law is None else mixing_time(chain, law.probabilities),
        second_eigenvalue=None if law is None else second_eigenvalue(chain),
        loops=machine.cycles,
        loop_basins=(np.bincount(machine.basins, minlength=len(machine.cycles)) / chain.n_states).tolist(),
        kl_to_data=None if data is None else kl_rate(data, chain),
        escape_hazard=None if outside is None else outside.escape_hazard,
        mass_outside_data=None if outside is None else outside.stationary_mass_outside,
        red=None if red is None else red_risk(chain, red, steps, start),
        note=note,
    )


def _law_or_why_not(chain: MarkovChain, start: Sequence[int] | None) -> tuple[StationaryLaw | None, str]:
    try:
        return stationary_distribution(chain, start), ""
    except UsageError as error:
        return None, str(error)


def trajectory(
    models: Iterable[tuple[int, LanguageModel]],
    *,
    start: Sequence[int] | None = None,
    data: EmpiricalChain | None = None,
    red_of: Callable[[MarkovChain], Red] | None = None,
    steps: int = 100,
) -> Iterator[tuple[int, ChainSummary]]:
    """(training step, summary of the chain as it was then) for each of a run's kept models.

    `red_of` marks red on a chain, since a mark belongs to one.
    """
    for step, model in models:
        chain = MarkovChain.from_model(model)
        red = None if red_of is None else red_of(chain)
        yield step, summarise(chain, start=start, data=data, red=red, steps=steps)
