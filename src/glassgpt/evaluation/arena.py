"""Models that play against each other: games judged in pairs, and the strengths that explain their results.

Bradley and Terry (1952): i beats j with probability 1 / (1 + exp(s_j - s_i)). The strengths s are those of greatest
likelihood, shown on Elo's scale, on which 400 points make odds of ten to one.

    games = play(prompts, {"sft": answers_of_sft, "dpo": answers_of_dpo}, judge)
    for player, elo in ratings(games, seed=0).items():
        print(f"{player}: {elo.value:.0f} [{elo.low:.0f}, {elo.high:.0f}]")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TypeVar

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.evaluation.intervals import LEVEL, Interval, percentile_interval

Prompt = TypeVar("Prompt")
Answer = TypeVar("Answer")

ELO_PER_NAT = 400 / math.log(10)
MEAN_RATING = 1000.0
PRIOR_DRAWS = 1.0  # games that each player draws against one of middling strength, so that no strength is infinite
RESAMPLES = 1000
CLOSE = 1e-10  # nats by which no strength moves any more
MOST_STEPS = 1000


@dataclass(frozen=True)
class Game:
    """What `first` got against `second`: 1 for a win, 1/2 for a draw, 0, or anything between (a judge's probability).

    Games of one `prompt` hang together, and are drawn together for intervals; without a prompt a game stands alone.
    """

    first: str
    second: str
    result: float
    prompt: int | None = None


def play(
    prompts: Sequence[Prompt],
    players: Mapping[str, Sequence[Answer]],
    judge: Callable[[Prompt, Answer, Answer], float],
) -> list[Game]:
    """Every player against every other on every prompt, in both orders, for judges prefer what they read first or last.

    players: name -> its answers, one for each prompt. judge(prompt, first answer, second answer): what the first gets,
    from 0 to 1. Raises UsageError for fewer than two players, another number of answers than of prompts, and results
    outside [0, 1].
    """
    if len(players) < 2:
        raise UsageError(f"a game has two players, and there are {len(players)}")
    for name, answers in players.items():
        if len(answers) != len(prompts):
            raise UsageError(f"{name!r} has {len(answers)} answers to {len(prompts)} prompts: one for each is needed")
    return _checked(
        [
            Game(one, other, judge(prompt, players[one][i], players[other][i]), i)
            for i, prompt in enumerate(prompts)
            for one, other in permutations(players, 2)
        ]
    )


def ratings(
    games: Sequence[Game],
    seed: int,
    anchor: str | None = None,
    prior_draws: float = PRIOR_DRAWS,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> dict[str, Interval]:
    """Elo ratings, the best first, with percentile intervals from resampling prompts with their games.

    Their mean is 1000; with `anchor`, that player has 1000 (and no interval of its own), and the others' intervals are
    of the distance to it. `prior_draws` above 0 draws the strengths together a little, most where there are few games.
    Raises UsageError for no games, an unknown anchor, a prior not above 0, no resamples, and results outside [0, 1].
    """
    if resamples < 1:
        raise UsageError(f"a bootstrap needs 1 or more resamples, got {resamples}")
    names = _players(_checked(games))
    if anchor is not None and anchor not in names:
        raise UsageError(f"the anchor must be one of the players {', '.join(names)}; got {anchor!r}")
    points = _points_by_prompt(games, names)
    rng, n = np.random.default_rng(seed), len(points)
    drawn = np.stack([np.tensordot(rng.multinomial(n, np.full(n, 1 / n)), points, axes=1) for _ in range(resamples)])
    measured = _elo(strengths(points.sum(axis=0), prior_draws), names, anchor)
    resampled = _elo(strengths(drawn, prior_draws), names, anchor)
    order = np.argsort(-measured, kind="stable")
    return {names[i]: percentile_interval(float(measured[i]), resampled[:, i], level) for i in order}


def strengths(points: np.ndarray, prior_draws: float = PRIOR_DRAWS) -> np.ndarray:
    """Bradley-Terry strengths in nats, float64 (..., K), of greatest likelihood given `points` (..., K, K).

    points[..., i, j]: what i got against j, draws being halves for both; leading dimensions are tables of their own,
    done at once. Beside these, each player draws `prior_draws` games against one of strength 0: this makes the maximum
    finite and unique even for one who has never lost, and for players who have never met.

    Newton's method, whose step d is taken by ln(1 + r) / r of its length, r being the most by which it changes any
    difference of strengths: this always goes uphill, without a line search, as the likelihood is self-concordant (Sun
    and Tran-Dinh, arXiv 1703.04599, there for a bound on r by the norm of d). Hunter's MM (2004) needs no such care but
    hundreds of times the steps. Raises UsageError for a prior not above 0.
    """
    if not (prior_draws > 0 and math.isfinite(prior_draws)):
        raise UsageError(
            f"the prior must be a number of draws above 0, so that strengths are finite; got {prior_draws}"
        )
    points = np.asarray(points, dtype=np.float64)
    played = points + np.swapaxes(points, -1, -2)
    s = np.zeros(points.shape[:-1])
    eye = np.eye(points.shape[-1])
    for _ in range(MOST_STEPS):
        p = _logistic(s[..., :, None] - s[..., None, :])  # that i beats j
        q = _logistic(s)  # that i beats the one of strength 0
        gradient = (points - played * p).sum(axis=-1) + prior_draws * (0.5 - q)
        curvature = -played * p * (1 - p)
        curvature += eye * (prior_draws * q * (1 - q) - curvature.sum(axis=-1))[..., None]
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        reach = np.maximum(step.max(axis=-1), 0) - np.minimum(step.min(axis=-1), 0)
        s = s + step * np.where(reach > 0, np.log1p(reach) / np.maximum(reach, 1e-300), 1.0)[..., None]
        if not reach.size or reach.max() < CLOSE:
            break
    return s


def win_matrix(games: Sequence[Game], names: Sequence[str] | None = None) -> tuple[list[str], np.ndarray]:
    """The players, and float64 (K, K): the share of points that each in a row got against each in a column.

    NaN where two have not met. `names`: the players in the order wanted, such as that of `ratings`; else as they come.
    """
    players = _players(_checked(games))
    chosen = players if names is None else list(names)
    if sorted(chosen) != sorted(players):
        raise UsageError(f"names must be the players {', '.join(players)}, each once; got {', '.join(chosen)}")
    points = _points_by_prompt(games, chosen).sum(axis=0)
    played = points + points.T
    return chosen, np.divide(points, played, out=np.full_like(points, np.nan), where=played > 0)


def _logistic(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _elo(nats: np.ndarray, names: Sequence[str], anchor: str | None) -> np.ndarray:
    """Strengths (..., K) on Elo's scale."""
    zero = nats.mean(axis=-1, keepdims=True) if anchor is None else nats[..., [names.index(anchor)]]
    return MEAN_RATING + ELO_PER_NAT * (nats - zero)


def _players(games: Sequence[Game]) -> list[str]:
    return list(dict.fromkeys(name for game in games for name in (game.first, game.second)))


def _points_by_prompt(games: Sequence[Game], names: Sequence[str]) -> np.ndarray:
    """What each got against each, of each prompt apart: float64 (prompts, K, K)."""
    place = {name: i for i, name in enumerate(names)}
    groups: dict[object, int] = {}
    group = [
        groups.setdefault(("alone", i) if g.prompt is None else g.prompt, len(groups)) for i, g in enumerate(games)
    ]
    first, second = ([place[name] for name in side] for side in zip(*((g.first, g.second) for g in games), strict=True))
    results = np.array([game.result for game in games])
    points = np.zeros((len(groups), len(names), len(names)))
    np.add.at(points, (group, first, second), results)
    np.add.at(points, (group, second, first), 1 - results)
    return points


def _checked(games: Sequence[Game]) -> list[Game]:
    if not games:
        raise UsageError("no game was played: strengths need one or more")
    for game in games:
        if not 0 <= game.result <= 1:
            raise UsageError(f"a game's result lies from 0 (lost) to 1 (won), got {game.result}")
        if game.first == game.second:
            raise UsageError(f"nobody plays against themselves, as {game.first!r} did here")
    return list(games)
