"""The arena: ratings against the likelihood's maximum found by brute force, and known strengths found again."""

import itertools
import math

import numpy as np
import pytest
from scipy import optimize

from glassgpt.errors import UsageError
from glassgpt.evaluation.arena import ELO_PER_NAT, Game, play, ratings, strengths, win_matrix


def drawn_games(true, n_prompts, seed):
    """Each pair once on each prompt, won as Bradley and Terry say."""
    rng = np.random.default_rng(seed)
    pairs = list(itertools.combinations(true, 2))
    return [
        Game(one, other, float(rng.random() < 1 / (1 + math.exp(true[other] - true[one]))), prompt)
        for prompt in range(n_prompts)
        for one, other in pairs
    ]


def loss(s, points, prior):
    differences = s[:, None] - s[None]
    return np.sum(points * np.logaddexp(0, -differences)) + prior / 2 * np.sum(np.logaddexp(0, s) + np.logaddexp(0, -s))


TABLES = {
    "even": np.array([[0, 7, 3], [5, 0, 9], [8, 2, 0]]),
    "unbeaten": np.array([[0, 30, 40], [0, 0, 9], [0, 2, 0]]),
    "drawn": np.array([[0, 2.5], [2.5, 0]]),
    "never met": np.array([[0, 4, 0, 0], [1, 0, 0, 0], [0, 0, 0, 3], [0, 0, 6, 0]]),
    "lopsided": np.array([[0, 1e6, 1], [1, 0, 1e6], [0, 1, 0]]),
    "no game": np.zeros((2, 2)),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("prior", [0.1, 1.0, 20.0])
def test_strengths_are_those_of_greatest_likelihood(name, prior):
    points = TABLES[name].astype(np.float64)
    found = optimize.minimize(loss, np.zeros(len(points)), (points, prior), method="BFGS", options={"gtol": 1e-9})
    ours = strengths(points, prior)
    assert ours == pytest.approx(found.x, abs=2e-3)
    assert loss(ours, points, prior) <= loss(found.x, points, prior) * (1 + 1e-12)


def test_hunters_mm_comes_to_the_same():
    points, prior = TABLES["unbeaten"].astype(np.float64), 1.0
    played, worth = points + points.T, np.ones(3)
    for _ in range(20_000):
        denominator = (played / (worth[:, None] + worth)).sum(axis=1) + prior / (worth + 1)
        worth = (points.sum(axis=1) + prior / 2) / denominator
    assert strengths(points, prior) == pytest.approx(np.log(worth), abs=1e-8)


def test_many_tables_at_once_are_as_each_alone():
    tables = np.random.default_rng(0).integers(0, 30, size=(5, 2, 4, 4)).astype(np.float64)
    at_once = strengths(tables)
    assert at_once.shape == (5, 2, 4)
    for i, j in np.ndindex(5, 2):
        assert at_once[i, j] == pytest.approx(strengths(tables[i, j]), abs=1e-9)


def test_two_players_have_the_worked_distance():
    """Nine wins in ten games are odds of nine: 382 points, if the prior is next to nothing."""
    games = [Game("a", "b", float(i < 9)) for i in range(10)]
    found = ratings(games, seed=0, prior_draws=1e-9)
    assert found["a"].value - found["b"].value == pytest.approx(400 * math.log10(9), abs=1e-3)
    assert found["a"].value + found["b"].value == pytest.approx(2000)
    assert list(found) == ["a", "b"]
    assert math.log(9) * ELO_PER_NAT == pytest.approx(400 * math.log10(9))


def test_known_strengths_are_found_again_and_intervals_hold_them():
    true = {"a": 1.2, "b": 0.4, "c": 0.0, "d": -0.8}
    mean = sum(true.values()) / 4
    found = ratings(drawn_games(true, 2000, seed=0), seed=1)
    for name, strength in true.items():
        assert found[name].value == pytest.approx(1000 + ELO_PER_NAT * (strength - mean), abs=20)
    held = []
    for seed in range(150):
        found = ratings(drawn_games(true, 60, seed), seed, level=0.9, resamples=200)
        held += [
            found[name].low <= 1000 + ELO_PER_NAT * (strength - mean) <= found[name].high
            for name, strength in true.items()
        ]
    assert 0.84 < np.mean(held) < 0.95


def test_games_of_one_prompt_are_resampled_together():
    """Ten copies of each game say no more than one: by prompt the interval stays, taken alone it shrinks."""
    games = drawn_games({"a": 0.5, "b": 0.0}, 50, seed=0)
    settings = {"prior_draws": 1e-6, "resamples": 300}
    once = ratings(games, 0, **settings)["a"]
    copies = ratings(games * 10, 0, **settings)["a"]
    alone = ratings([Game(g.first, g.second, g.result) for g in games * 10], 0, **settings)["a"]
    assert copies.low == pytest.approx(once.low, abs=1e-3) and copies.high == pytest.approx(once.high, abs=1e-3)
    assert alone.high - alone.low < 0.5 * (once.high - once.low)


def test_an_unbeaten_player_has_a_finite_rating_that_more_wins_raise():
    few, many = (ratings([Game("a", "b", 1.0)] * n, 0)["a"] for n in (5, 500))
    assert 1000 < few.value < many.value < 3000
    assert math.isfinite(many.low) and math.isfinite(many.high)


def test_an_anchor_has_1000_and_moves_nothing_else():
    games = drawn_games({"sft": 0.0, "ppo": 0.7, "dpo": 0.5}, 100, seed=0)
    free, tied = ratings(games, 0), ratings(games, 0, anchor="sft")
    assert (tied["sft"].value, tied["sft"].low, tied["sft"].high) == (1000, 1000, 1000)
    for name in free:
        assert tied[name].value - 1000 == pytest.approx(free[name].value - free["sft"].value)


def test_the_order_in_a_pair_and_of_the_games_makes_no_difference():
    games = drawn_games({"a": 1.0, "b": 0.0, "c": -0.5}, 40, seed=0)
    turned = [Game(g.second, g.first, 1 - g.result, g.prompt) for g in reversed(games)]
    ours, theirs = ratings(games, 0), ratings(turned, 0)
    assert {name: elo.value for name, elo in ours.items()} == pytest.approx({n: e.value for n, e in theirs.items()})
    assert ratings(games, 0) == ours and ratings(games, 1) != ours


def test_everyone_plays_everyone_in_both_orders():
    seen = []

    def judge(prompt, first, second):
        seen.append((prompt, first, second))
        return 1.0 if len(first) > len(second) else 0.0 if len(first) < len(second) else 0.5

    games = play(["p", "q"], {"short": ["a", "b"], "long": ["aaa", "bbb"], "too": ["ccc", "d"]}, judge)
    assert len(games) == 2 * 6
    assert {(g.first, g.second, g.prompt) for g in games} == {
        (a, b, i) for a, b in itertools.permutations(["short", "long", "too"], 2) for i in range(2)
    }
    assert ("p", "a", "aaa") in seen and ("p", "aaa", "a") in seen and ("q", "bbb", "d") in seen
    names, shares = win_matrix(games, ["long", "too", "short"])
    assert names == ["long", "too", "short"]
    np.testing.assert_array_equal(shares, [[np.nan, 0.75, 1], [0.25, np.nan, 0.75], [0, 0.25, np.nan]])


def test_a_judge_who_prefers_the_first_makes_nobody_stronger():
    games = play(range(20), {"a": ["x"] * 20, "b": ["y"] * 20}, lambda prompt, first, second: 1.0)
    found = ratings(games, 0)
    assert found["a"].value == pytest.approx(1000) and found["b"].value == pytest.approx(1000)


def test_who_has_not_met_has_no_share():
    names, shares = win_matrix([Game("a", "b", 1.0), Game("c", "a", 0.5)])
    assert names == ["a", "b", "c"]
    np.testing.assert_array_equal(shares, [[np.nan, 1, 0.5], [0, np.nan, np.nan], [0.5, np.nan, np.nan]])


GAMES = [Game("a", "b", 1.0)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ratings([], 0), "no game"),
        (lambda: ratings([Game("a", "b", 2.0)], 0), "got 2.0"),
        (lambda: ratings([Game("a", "b", math.nan)], 0), "got nan"),
        (lambda: ratings([Game("a", "a", 1.0)], 0), "against themselves"),
        (lambda: ratings(GAMES, 0, anchor="c"), "players a, b; got 'c'"),
        (lambda: ratings(GAMES, 0, prior_draws=0.0), "above 0"),
        (lambda: ratings(GAMES, 0, resamples=0), "1 or more resamples"),
        (lambda: win_matrix(GAMES, ["a"]), "each once; got a"),
        (lambda: play(["p"], {"a": ["x"]}, lambda *_: 1.0), "two players"),
        (lambda: play(["p"], {"a": ["x"], "b": []}, lambda *_: 1.0), "'b' has 0 answers to 1 prompts"),
        (lambda: play(["p"], {"a": ["x"], "b": ["y"]}, lambda *_: -1.0), "got -1.0"),
    ],
)
def test_impossible_games_are_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()
