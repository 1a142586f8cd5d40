"""Writes what the page's own arithmetic is held to: the same logits, the same numbers, to one part in a million.

Run it from the repository's root after a change of `decoding` or `chain`:

    .venv/bin/python page/golden/make.py

`baby.json` is the baby GPT of recipes/baby.toml after each of its fifty steps, as logits; the page's mock serves it.
`cases.json` holds inputs and what the package makes of them: samplers, stationary laws, hitting probabilities, what a
part that is switched off takes from the next token, where necklaces stand, and the page's random numbers and walks,
whose algorithm (PCG32) is repeated here.
`saved.json` holds a page as one file, which `glassgpt.serving.saved` writes for notebooks, and what it was made of.
`digits.json` is what the server says of the net that reads digits, and what the package makes of some of them;
`landscape.json` what it says of the baby's losses.
"""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from glassgpt.chain.hitting import hitting_probability
from glassgpt.chain.markov import Layer, MarkovChain
from glassgpt.chain.stationary import stationary_distribution
from glassgpt.chain.walk import Red
from glassgpt.decoding.processors import apply, processors
from glassgpt.evaluation.digits import DARKEST, blur, digit_map, digit_net
from glassgpt.evaluation.landscape import parameters_of, random_landscape, trajectory_landscape
from glassgpt.figures.ablation import likeliest_of_both
from glassgpt.figures.necklaces import necklace_layout, necklaces
from glassgpt.models.ablation import effects_of
from glassgpt.numerics import entropy, log_softmax
from glassgpt.serving.digits import digits_bytes
from glassgpt.serving.landscape import told
from glassgpt.serving.saved import content_of, live_page, tables_of_chain
from glassgpt.text.character import CharacterTokenizer
from glassgpt.training.landscape import windows_of
from glassgpt.training.loop import train
from glassgpt.training.recipe import read_recipe
from glassgpt.weights.run import Run

HERE = Path(__file__).parent
MASK = (1 << 64) - 1


class Pcg32:
    """O'Neill's PCG-XSH-RR 64/32 (2014), seeded as its reference code is; src/lib/random.ts is the same."""

    def __init__(self, seed: int, stream: int = 54) -> None:
        self.increment = (2 * stream + 1) & MASK
        self.state = 0
        self.next()
        self.state = (self.state + seed) & MASK
        self.next()

    def next(self) -> int:
        old = self.state
        self.state = (old * 6364136223846793005 + self.increment) & MASK
        mixed = (((old >> 18) ^ old) >> 27) & 0xFFFFFFFF
        turn = old >> 59
        return ((mixed >> turn) | (mixed << (-turn & 31))) & 0xFFFFFFFF

    def uniform(self) -> float:
        """53 bits in [0, 1): the upper 27 of one number and the upper 26 of the next."""
        high, low = self.next() >> 5, self.next() >> 6
        return float((high * 67108864 + low) / 9007199254740992)


def draw(probs: np.ndarray, uniform: float) -> int:
    """The token whose part of the cumulative sum holds `uniform`; one of probability 0 is never drawn."""
    allowed = np.flatnonzero(probs > 0)
    cumulative = np.cumsum(probs[allowed])
    place = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
    return int(allowed[min(place, len(allowed) - 1)])


def shaped(logits: np.ndarray, sampler: dict[str, Any]) -> np.ndarray:
    """What the project's processors make of logits (rows, V)."""
    chosen = processors(sampler["temperature"], sampler["top_k"] or None, sampler["top_p"])
    return np.asarray(apply(chosen, np.zeros((len(logits), 1), dtype=np.int64), logits, 1))


def sampler(temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> dict[str, Any]:
    return {"temperature": temperature, "top_k": top_k, "top_p": top_p}


def numbers(array: np.ndarray) -> Any:
    """A list of numbers as short as they are exact; minus infinity, which JSON lacks, as null."""
    if array.ndim:
        return [numbers(row) for row in array]
    return None if np.isneginf(array) else float(str(array))


def the_baby(run: Run) -> dict[str, Any]:
    config = run.config
    lengths = range(1, config.context_length + 1)
    models = [run.model(step) for step in run.steps]
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_parameters": config.n_parameters,
        "sequence": run.recipe["data"]["sequence"],
        "seed": run.recipe["run"]["seed"],
        "learning_rate": run.recipe["train"]["learning_rate"],
        "steps": list(run.steps),
        "losses": [row["loss"] for row in run.metrics()],
        "tables": {str(n): [numbers(model.context_table(n)) for model in models] for n in lengths},
    }


def landscapes_of(run: Run) -> dict[str, Any]:
    """As /api/v1/landscape ends, for both planes."""
    states = [parameters_of(run.model(step)) for step in run.steps]
    windows = windows_of(run)
    loss = windows.loss(run.model())
    path = trajectory_landscape(states, loss, run.steps)
    around = random_landscape(states[-1], loss, run.steps[-1])
    n = windows.n_predicted
    return {
        "path": {"plane": "path", "n_tokens": n} | told(path),
        "random": {"plane": "random", "n_tokens": n} | told(around),
    }


def the_digits() -> dict[str, Any]:
    """Digits held out, more and more blurred, and two pictures that are no digits."""
    net = digit_net()
    layout = digit_map(net)
    bar, noise = np.zeros((8, 8)), np.random.default_rng(2).integers(0, 17, (8, 8))
    bar[1:7, 3:5] = DARKEST
    images = [*(DARKEST * net.held_out.images[:12]).round(), bar, noise, np.zeros((8, 8))]
    cases = []
    for i, image in enumerate(images):
        width = 0.05 * (7 * i % 49)
        blurred = blur(image / DARKEST, width)
        hidden = net.hidden(blurred)
        cases.append(
            {
                "image": image.astype(int).ravel().tolist(),
                "width": width,
                "blurred": numbers(blurred.ravel()),
                "hidden": numbers(hidden[0]),
                "probs": numbers(net.probabilities(blurred)[0]),
                "place": numbers(layout.place(hidden)[0]),
            }
        )
    return {"reply": base64.b64encode(digits_bytes(0)).decode(), "cases": cases}


def sampler_cases(rng: np.random.Generator) -> list[dict[str, Any]]:
    ties = np.array([2.0, 1.0, 2.0, 0.5, 1.0, -3.0, 1.0], dtype=np.float32)
    some = rng.normal(0, 3, 50).astype(np.float32)
    chosen = [
        (ties, sampler()),
        (ties, sampler(0.7)),
        (ties, sampler(0.0)),
        (ties, sampler(1.0, 4)),
        (ties, sampler(1.0, 0, 0.5)),
        (ties, sampler(2.0, 5, 0.8)),
        (some, sampler(0.8)),
        (some, sampler(0.05)),
        (some, sampler(1.5, 10)),
        (some, sampler(1.5, 0, 0.9)),
        (some, sampler(0.9, 20, 0.95)),
        (some, sampler(3.0, 60, 0.999)),
        (some, sampler(1.0, 1, 0.3)),
    ]
    cases = []
    for logits, how in chosen:
        logprobs = log_softmax(shaped(logits[None], how))[0]
        probs = np.exp(logprobs)
        cases.append({"logits": numbers(logits), **how, "probs": numbers(probs), "entropy": float(entropy(logprobs))})
    return cases


def chain_case(logits: np.ndarray, how: dict[str, Any], start: int, red: list[int], horizon: int) -> dict[str, Any]:
    """The chain of logits (V**k, V) under a sampler, in figures."""
    logprobs = log_softmax(shaped(logits, how))
    context_length = round(np.log(len(logits)) / np.log(logits.shape[1]))
    # Not from_probabilities: at the lowest temperatures an entry is less than a float can hold.
    chain = MarkovChain((Layer(context_length, logprobs, ~np.isneginf(logprobs)),))
    marked = Red.of_contexts(chain, [chain.context(state) for state in red])
    passage = hitting_probability(chain, marked, horizon, start=chain.context(start))
    law = stationary_distribution(chain, chain.context(start))
    return {
        "logits": numbers(logits.reshape(-1)),
        "vocab_size": chain.vocab_size,
        "context_length": chain.context_length,
        **how,
        "start": start,
        "red": red,
        "horizon": horizon,
        "log_within": numbers(passage.within.log()),
        "stationary": numbers(law.probabilities),
    }


def chain_cases(baby: np.ndarray, rng: np.random.Generator) -> list[dict[str, Any]]:
    three = rng.normal(0, 2, (27, 3)).astype(np.float32)
    return [
        chain_case(baby, sampler(), 7, [0], 100),
        chain_case(baby, sampler(0.5), 7, [0, 4], 40),
        chain_case(baby, sampler(0.0005), 7, [0], 20),
        chain_case(baby, sampler(1.0, 1), 5, [0], 10),
        chain_case(three, sampler(1.3, 2, 0.97), 4, [3], 30),
        chain_case(three, sampler(0.05), 4, [13, 26], 25),
        chain_case(three, sampler(1.0, 1), 4, [13], 12),
    ]


def random_cases(baby: np.ndarray) -> dict[str, Any]:
    numbers32, uniforms, walk = Pcg32(42), Pcg32(7), Pcg32(1)
    probs = np.exp(log_softmax(baby.astype(np.float64)))
    state, tokens = 7, []
    for _ in range(60):
        token = draw(probs[state], walk.uniform())
        state = (state * 2 + token) % 8
        tokens.append(token)
    return {
        "seed_42": [numbers32.next() for _ in range(8)],
        "uniforms_of_seed_7": [uniforms.uniform() for _ in range(5)],
        "walk_of_seed_1_from_111": tokens,
    }


def ablation_cases(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Logits of a model and of what is left of it: how far they are apart, and the likeliest tokens of both."""
    whole = rng.normal(0, 2, 30).astype(np.float32)
    cases = []
    for change in (0.0, 1e-4, 0.3, 3.0):
        ablated = (whole + change * rng.normal(0, 1, 30)).astype(np.float32)
        js, _ = effects_of(whole, ablated)
        p, q = np.exp(log_softmax(whole)), np.exp(log_softmax(ablated))
        top = likeliest_of_both(p, q).tolist()
        cases.append({"whole": numbers(whole), "ablated": numbers(ablated), "js_nats": float(js), "likeliest": top})
    return cases


def saved_case() -> dict[str, Any]:
    """A chain of two states whose words, program and style all try to end the script that they stand in."""
    hostile = "</script><script>alert(1)</script><!-- <img src=http://x.test/a> ]]> \"'& 红"
    chain = MarkovChain.from_probabilities(np.array([[0.25, 0.75], [1.0, 0.0]]))
    tables = tables_of_chain(chain, CharacterTokenizer("<&"), hostile)
    made_of: dict[str, Any] = {
        "title": hostile,
        "language": "zh",
        "style": "p::after { content: '</style>' }",
        "script": """globalThis.said = ["</script>", "</SCRIPT >", "<script>", '<!--', `<!--`, 1 < 2];""",
        "saved": content_of(tables, [1], "zh", "2025-01-02") | {"info": {"version": "1", "models": [tables.about]}},
    }
    return {**made_of, "page": live_page(**made_of)}


def necklace_cases() -> list[dict[str, Any]]:
    """Contexts by rotation class, and where they stand."""
    cases = []
    for vocab_size, length in ((2, 3), (2, 4), (2, 6), (3, 2), (3, 3), (8, 2), (20, 1)):
        positions, _ = necklace_layout(vocab_size, length)
        rings = necklaces(vocab_size, length)
        places = positions.round(9).tolist()
        cases.append({"vocab_size": vocab_size, "context_length": length, "rings": rings, "positions": places})
    return cases


def write(name: str, content: Any) -> None:
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    (HERE / name).write_text(text.replace("},{", "},\n{").replace(',"', ',\n"') + "\n")


def main() -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        run = train(read_recipe("recipes/baby.toml"), Path(folder) / "run")
        baby, landscapes = the_baby(run), landscapes_of(run)
    last = np.array(baby["tables"]["3"][-1], dtype=np.float32)
    write("baby.json", baby)
    write("landscape.json", landscapes)
    write("digits.json", the_digits())
    cases = {"samplers": sampler_cases(rng), "chains": chain_cases(last, rng), "random": random_cases(last)}
    cases |= {"ablations": ablation_cases(np.random.default_rng(1)), "necklaces": necklace_cases()}
    write("cases.json", cases)
    write("saved.json", saved_case())


if __name__ == "__main__":
    main()
