"""How fast one text grows through the C engine, beside what memory allows: GPT-2's 124M shape with random weights.

    python benchmarks/native.py [--formats int8,int4] [--threads 1,2] [--rounds 5]

For each format: bytes that a step reads, tokens a second after a prompt of 16 and of 512 tokens, and the limit: passes
a second of a plain look at as many bytes in memory of the same kind. All are the best of several rounds, taken in turn,
for other programs make a machine slower and never faster. What a shared cache keeps counts for both.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from glassgpt.models.config import GPTConfig, parameter_shapes
from glassgpt.models.native import FORMATS, Cache, Weights, pack, why_not
from glassgpt.models.native.engine import default_threads, zeros

SHAPE = GPTConfig(vocab_size=50257, context_length=1024, n_layer=12, n_head=12, n_embd=768, mlp="gelu_tanh")
PROMPTS = (16, 512)
TOKENS = 24  # grown in each round


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def random_params(config: GPTConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        name: np.ones(shape, np.float32) if name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight"))
        else rng.standard_normal(shape, np.float32) * np.float32(0.02)
        for name, shape in parameter_shapes(config).items()
    }  # fmt: skip


def prompted(weights: Weights, length: int) -> Cache:
    """A text of `length` tokens whose keys and values are random: what they are doesn't change the time."""
    cache = weights.cache()
    shape = (SHAPE.n_layer, SHAPE.kv_heads, length, SHAPE.head_width)
    keys, values = np.random.default_rng(1).standard_normal((2, *shape), np.float32)
    cache.extend(keys, values)
    return cache


def grow(cache: Cache) -> None:
    """Greedy, one token at a time."""
    token = 0
    for _ in range(TOKENS):
        token = int(cache.step([token])[0].argmax())
    cache.rewind(TOKENS)


def a_pass(memory: np.ndarray, pool: ThreadPoolExecutor, threads: int) -> None:
    """Read it all once: NumPy's maximum of bytes is a vector instruction a load."""
    list(pool.map(np.max, np.array_split(memory, threads)))


def measure(weights: Weights, threads: int, rounds: int) -> list[float]:
    """Tokens a second after each prompt, then passes a second."""
    weights.threads = threads
    caches = [prompted(weights, length) for length in PROMPTS]
    memory = zeros(weights.n_bytes)
    memory[:] = 1
    best = np.full(len(caches) + 1, np.inf)
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            times = [seconds(lambda cache=cache: grow(cache)) / TOKENS for cache in caches]  # type: ignore[misc]
            times.append(min(seconds(lambda: a_pass(memory, pool, threads)) for _ in range(TOKENS // 2)))
            best = np.minimum(best, times)
    return list(1 / best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--threads", default=",".join(str(n) for n in sorted({1, default_threads()})))
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    if reason := why_not():
        raise SystemExit(f"no native engine here: {reason}")
    params = random_params(SHAPE)
    print(f"{'format':10}{'threads':>8}{'MB a step':>11}{'after 16':>10}{'after 512':>11}{'limit':>8}{'share':>8}")
    for format in chosen.formats.split(","):
        weights = pack(SHAPE, params, format)
        for threads in map(int, chosen.threads.split(",")):
            short, long, limit = measure(weights, threads, chosen.rounds)
            megabytes = weights.n_bytes / 1e6
            print(
                f"{format:10}{threads:8}{megabytes:11.0f}{short:10.1f}{long:11.1f}{limit:8.1f}{short / limit:8.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
