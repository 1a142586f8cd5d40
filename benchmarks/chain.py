"""How fast, and how much memory: the chain of a trained baby GPT beside the text's own way, one forward per state.

Run with `make bench`. Each size runs in a process of its own, so that its peak memory is its own. Aims are those of the
project's performance notes, for two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SEQUENCE_LENGTH = 512
TRAINING_STEPS = 200


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def train(context_length: int):
    """The baby GPT with a longer context, trained on a text of runs of ones parted by zeros."""
    from glassgpt.training.loop import train as train_recipe
    from glassgpt.training.recipe import read_recipe

    rng = np.random.default_rng(7)
    text = "".join("1" * int(run) + "0" for run in rng.integers(1, 6, SEQUENCE_LENGTH))[:SEQUENCE_LENGTH]
    overrides = [
        f"data.sequence={text}", f"model.context_length={context_length}", f"train.steps={TRAINING_STEPS}",
        "train.batch_size=32", "train.last_position_only=false", "train.save_every=1000",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        return train_recipe(read_recipe("recipes/baby.toml", overrides), Path(folder) / "run").model()


def one_forward_per_state(model) -> np.ndarray:
    """The text's own way: a Python loop, one forward of a batch of one for each state."""
    import torch

    V, T = model.vocab_size, model.context_length
    table = np.empty((V**T, V), dtype=np.float32)
    for code in range(V**T):
        context = [code // V**k % V for k in range(T - 1, -1, -1)]
        x = torch.tensor(context, dtype=torch.long)[None, ...]
        table[code] = torch.softmax(model(x)[0, -1], dim=-1).detach().numpy()
    return table


def enumeration(context_length: int) -> dict[str, Any]:
    """The table beside the text's loop, in one process, ours before and after theirs."""
    model = train(context_length)
    model.context_table(8)  # warm up
    ours, first = timed(model.context_table)
    theirs, loop = timed(lambda: one_forward_per_state(model))
    _, second = timed(model.context_table)
    probs = np.exp(ours - np.logaddexp.reduce(ours, axis=1, keepdims=True))
    return {
        "states": model.vocab_size**context_length,
        "loop_seconds": loop,
        "table_seconds": min(first, second),
        "ratio": loop / min(first, second),
        "largest_difference": float(np.abs(probs - theirs).max()),
    }


def analysis(context_length: int) -> dict[str, Any]:
    """Table, sweeps, stationary law, entropy rate and a 1,000-step red probability of one trained chain."""
    from glassgpt.chain.hitting import hitting_probability
    from glassgpt.chain.information import entropy_rate
    from glassgpt.chain.markov import MarkovChain
    from glassgpt.chain.stationary import stationary_distribution
    from glassgpt.chain.walk import Red, Walk

    model = train(context_length)
    chain, table = timed(lambda: MarkovChain.from_model(model))
    left, right = sweep_times(Walk(chain))
    (law, rate), stationary = timed(
        lambda: (found := stationary_distribution(chain), entropy_rate(chain, found.probabilities))
    )
    red = Red.of_contexts(chain, [[0] * context_length])
    passage, hitting = timed(lambda: hitting_probability(chain, red, 1000, start=[1] * context_length))
    return {
        "states": chain.n_states,
        "table_seconds": table,
        "left_seconds": left,
        "right_seconds": right,
        "stationary_seconds": stationary,
        "sweeps": law.sweeps,
        "certificate": law.certificate,
        "entropy_rate_bits": rate / np.log(2),
        "red_1000_steps_seconds": hitting,
        "log10_red": float(passage.probability.log10()),
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def sweep_times(walk) -> tuple[float, float]:
    """The best of five sweeps each way, after one that compiles them and touches the memory."""
    mass = walk.vector(np.full(walk.shape, 1 / walk.chain.n_states))
    walk.left(mass), walk.right(mass)
    left = min(timed(lambda: walk.left(mass))[1] for _ in range(5))
    right = min(timed(lambda: walk.right(mass))[1] for _ in range(5))
    return left, right


def in_a_process(task: str, context_length: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--task", task, "--context-length", str(context_length)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def report() -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, ", end=""
    )
    print(f"commit {commit.stdout.strip() or 'unknown'}\n")
    row("what", "measured", "aim")
    found = in_a_process("enumeration", 16)
    row("2^16 states, one forward each, as in the text", f"{found['loop_seconds']:.1f} s", "")
    row("2^16 states, shared prefixes", f"{found['table_seconds']:.2f} s", "")
    row("  ratio", f"{found['ratio']:.0f}x", ">= 100x")
    row("  largest difference of a probability", f"{found['largest_difference']:.0e}", "")
    for context_length, aims in ((20, {}), (24, AIMS_AT_2_24)):
        found = in_a_process("analysis", context_length)
        print()
        for key, label in LABELS.items():
            value = found[key]
            row(
                f"2^{context_length}: {label}",
                f"{value:.3g}" if isinstance(value, float) else str(value),
                aims.get(key, ""),
            )


LABELS = {
    "table_seconds": "table of a trained model (s)",
    "left_seconds": "left sweep (s)",
    "right_seconds": "right sweep (s)",
    "stationary_seconds": "stationary law and entropy rate (s)",
    "sweeps": "  in sweeps",
    "certificate": "  certificate",
    "entropy_rate_bits": "  entropy rate (bits a token)",
    "red_1000_steps_seconds": "red within 1,000 tokens (s)",
    "log10_red": "  log10 of it",
    "peak_gigabytes": "peak memory (GB)",
}
AIMS_AT_2_24 = {
    "table_seconds": "< 120",
    "left_seconds": "<= 0.1",
    "right_seconds": "<= 0.1",
    "stationary_seconds": "< 15",
    "red_1000_steps_seconds": "< 60",
    "peak_gigabytes": "< 2",
}


def row(what: str, measured: str, aim: str) -> None:
    print(f"{what:50} {measured:>14}   {aim}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=["enumeration", "analysis"], help=argparse.SUPPRESS)
    parser.add_argument("--context-length", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        task = {"enumeration": enumeration, "analysis": analysis}[arguments.task]
        print(json.dumps(task(arguments.context_length)))
    else:
        report()
