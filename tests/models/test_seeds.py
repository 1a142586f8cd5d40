"""Weights come from their seed alone, whoever draws beside."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from glassgpt.models.seeds import drawn_from


def drawn(seed: int) -> list[float]:
    with drawn_from(seed):
        return [float(torch.randn(())) for _ in range(200)]


def test_threads_that_draw_at_once_draw_what_each_draws_alone():
    alone = [drawn(seed) for seed in range(8)]
    assert alone[0] != alone[1]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(drawn, range(8))) == alone


def test_the_global_generator_is_left_as_it_was():
    before = torch.random.get_rng_state()
    drawn(3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_may_draw_within_another():
    with drawn_from(1):
        first = float(torch.randn(()))
        inner = drawn(2)
        second = float(torch.randn(()))
    assert [first, second] == drawn(1)[:2] and inner == drawn(2)
