"""From a run to the pictures of it: what `see` and `tour` draw."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glassgpt.cli.output import LN2
from glassgpt.cli.tokenize import piece_of
from glassgpt.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from glassgpt.chain.markov import MarkovChain
    from glassgpt.chain.trajectory import ChainSummary
    from glassgpt.figures.state_graph import Layout
    from glassgpt.figures.states import StateGraph
    from glassgpt.interface import LanguageModel, Tokenizer
    from glassgpt.weights.run import Run


MOST_LINES = 9  # of one picture's curves
LINES_OF_STEPS = 5


@dataclass(frozen=True)
class Subject:
    """What is drawn: a run, at a kept step or its end, under a sampler, with some contexts marked red."""

    run: Run
    step: int | None = None
    shape: Callable[[LanguageModel], LanguageModel] = lambda model: model
    every_length: bool = False
    red: tuple[tuple[int, ...], ...] = ()
    prompt: tuple[int, ...] | None = None
    steps: int = 100
    title: str | None = None
    layout: Layout = "ring"

    @property
    def tokenizer(self) -> Tokenizer:
        return self.run.tokenizer

    @property
    def symbols(self) -> list[str]:
        return [self.tokenizer.decode([token]) for token in range(self.tokenizer.vocab_size)]

    def chain(self, step: int | None = None) -> MarkovChain:
        from glassgpt.chain.markov import MarkovChain

        model = self.shape(self.run.model(self.step if step is None else step))
        return MarkovChain.from_model(model, every_length=self.every_length)

    def graph(self, step: int | None = None) -> StateGraph:
        from glassgpt.figures.states import graph_from_tables

        chain = self.chain(step)
        red = [chain.index(context) for context in self.red]
        return graph_from_tables([layer.probs for layer in chain.layers], self.symbols, red)

    def labels(self, chain: MarkovChain) -> list[str]:
        return [self.tokenizer.decode(chain.context(i)) for i in range(chain.n_states)]

    def need_red(self, figure: str) -> tuple[tuple[int, ...], ...]:
        if not self.red:
            raise UsageError(f"{figure} shows the probability of red: mark some with --red, as in --red 000")
        return self.red

    @property
    def sequence(self) -> str | None:
        """What the run was trained on, if it was not files."""
        return self.run.recipe["data"].get("sequence")

    def summaries(self) -> list[tuple[int, ChainSummary]]:
        """The chain in figures at every kept step."""
        from glassgpt.chain.information import EmpiricalChain
        from glassgpt.chain.trajectory import trajectory
        from glassgpt.chain.walk import Red

        models = ((step, self.shape(self.run.model(step))) for step in self.run.steps)
        if (sequence := self.sequence) is None:
            raise UsageError(f"{self.run.path} was trained on files, and this picture is of a run on one sequence")
        config, tokens = self.run.config, self.tokenizer.encode(sequence)
        return list(
            trajectory(
                models,
                start=self.prompt,
                data=EmpiricalChain.of_text(tokens, config.vocab_size, config.context_length),
                red_of=(lambda chain: Red.of_contexts(chain, self.red)) if self.red else None,
                steps=self.steps,
            )
        )


def state_graph(subject: Subject) -> Figure:
    from glassgpt.figures.state_graph import draw_state_graph

    return draw_state_graph(subject.graph(), subject.title, subject.layout)


def before_after(subject: Subject) -> Figure:
    from glassgpt.figures.state_graph import draw_before_after

    return draw_before_after(subject.graph(subject.run.steps[0]), subject.graph(), layout=subject.layout)


def heat_map(subject: Subject) -> Figure:
    from glassgpt.figures.heat_map import draw_transition_heat_map

    chain = subject.chain()
    red = [chain.index(context) for context in subject.red]
    return draw_transition_heat_map(chain.probs, subject.labels(chain), subject.symbols, title=subject.title, red=red)


def loss(subject: Subject) -> Figure:
    """The loss; of a sequence with what it can't fall below, the entropy of its own next tokens."""
    import numpy as np

    from glassgpt.chain.information import EmpiricalChain
    from glassgpt.figures.curves import draw_loss_curve

    run, config = subject.run, subject.run.config
    yardsticks = {"uniform": float(np.log(config.vocab_size))}
    if subject.sequence is not None and run.recipe["train"]["last_position_only"]:
        tokens = subject.tokenizer.encode(subject.sequence)
        data = EmpiricalChain.of_text(tokens, config.vocab_size, config.context_length)
        yardsticks["entropy of the data"] = data.conditional_entropy
    return draw_loss_curve([row["loss"] for row in run.metrics()], yardsticks, title=subject.title)


def curves(subject: Subject) -> Figure:
    """Training, validation and yardsticks in bits per byte; of a run that kept nothing back, the loss."""
    from glassgpt.figures.curves import draw_training_curves

    measured = [row for row in subject.run.evaluations() if row["validation_loss"]]
    if not measured:
        return loss(subject)
    return draw_training_curves(
        [row["loss"] for row in subject.run.metrics()],
        {row["step"]: row["bits_per_byte"] for row in measured},
        subject.run.yardsticks(),
        bytes_per_token=measured[-1]["validation_loss"] / measured[-1]["bits_per_byte"] / LN2,
        title=subject.title,
    )


def parentheses(subject: Subject) -> Figure:
    """At some kept steps, the probability of one close too many after nests of each depth."""
    from glassgpt.evaluation.parentheses import Alphabet, wrong_close_by_depth
    from glassgpt.figures.parentheses import draw_wrong_close
    from glassgpt.text.parentheses import Parentheses

    tokenizer, run = subject.tokenizer, subject.run
    if sorted(subject.symbols) != ["\n", "(", ")"]:
        raise UsageError(f"{run.path} doesn't write parentheses and newlines: train recipes/parentheses.toml")
    ids = [tokenizer.encode(sign)[0] for sign in "()\n"]
    deepest = Parentheses().deepest
    depths = range(1, min(2 * deepest, (run.config.context_length - 1) // 2) + 1)
    series = {
        f"step {step}": wrong_close_by_depth(subject.shape(run.model(step)), depths, Alphabet(*ids)).tolist()
        for step in some_of(run.steps)
    }
    return draw_wrong_close(depths, series, "depth of the nest, as ((( ))) is 3 deep", deepest, subject.title)


def some_of(steps: list[int]) -> list[int]:
    """At most LINES_OF_STEPS of a run's steps, the first and the last among them, ever further apart.

    >>> some_of([0, 10, 20, 30, 40, 50, 60, 70, 80])
    [0, 10, 20, 40, 80]
    """
    if len(steps) <= LINES_OF_STEPS:
        return steps
    last = len(steps) - 1
    places = {0, *(max(1, round(last * 0.5**i)) for i in range(LINES_OF_STEPS - 1))}
    return [steps[i] for i in sorted(places)]


def samples(subject: Subject) -> Figure:
    """What the model wrote at some evaluations, and how good it was then."""
    from glassgpt.figures.samples import TrainingSample, draw_samples

    rows = {row["step"]: row for row in subject.run.evaluations() if row.get("sample") is not None}
    if not rows:
        raise UsageError(
            f"{subject.run.path} kept no samples of its training: train it on files, with evaluate.sample_tokens"
        )
    found = [TrainingSample(step, rows[step]["sample"], rows[step]["bits_per_byte"]) for step in some_of(list(rows))]
    return draw_samples(found, subject.title)


def batch(subject: Subject) -> Figure:
    """The first rows that training read."""
    from glassgpt.figures.batch import MOST_COLUMNS, MOST_ROWS, BatchRows, draw_batch
    from glassgpt.training.data import prepared_data, training_data
    from glassgpt.training.recipe import STAGES, recipe_from_dict

    run = subject.run
    if any(stage in run.recipe for stage in STAGES):
        raise UsageError(f"{run.path} was trained on rows of answers, and this picture is of a run on a text")
    resolved = {key: value for key, value in run.recipe["data"].items() if key != "sha256"}
    recipe = recipe_from_dict(run.recipe | {"data": resolved})
    folder = Path(run.recipe["data"].get("tokens") or run.path / "tokens")
    data = training_data(recipe, folder) if subject.sequence is not None else prepared_data(recipe, folder)
    rows = data.rows(0)
    inputs, targets = (
        [[piece_of(subject.tokenizer, int(token)) for token in row[:MOST_COLUMNS]] for row in rows[part][:MOST_ROWS]]
        for part in ("inputs", "targets")
    )
    last_only = run.recipe["train"]["last_position_only"]
    return draw_batch(BatchRows(rows["inputs"].shape, inputs, targets, last_only), subject.title)


def red_over_steps(subject: Subject) -> Figure:
    from glassgpt.chain.hitting import hitting_probability
    from glassgpt.chain.walk import Red
    from glassgpt.figures.curves import draw_red_over_steps

    chain = subject.chain()
    red = Red.of_contexts(chain, subject.need_red("red-over-steps"))
    passage = hitting_probability(chain, red, subject.steps, subject.prompt)
    return draw_red_over_steps(
        list(range(subject.steps + 1)),
        passage.within.log10().tolist(),
        passage.survival.log10().tolist(),
        title=subject.title,
    )


def red_over_training(subject: Subject) -> Figure:
    from glassgpt.figures.curves import draw_red_over_training

    subject.need_red("red-over-training")
    points = [(step, summary.red) for step, summary in subject.summaries() if summary.red is not None]
    series = {
        f"within {subject.steps} tokens": [float(red.passage.probability.log10()) for _, red in points],
        "hazard per token": [
            float("-inf") if red.hazard.per_token is None else float(red.hazard.per_token.log10()) for _, red in points
        ],
    }
    return draw_red_over_training([step for step, _ in points], series, title=subject.title)


def probabilities_over_training(subject: Subject) -> Figure:
    """The likeliest token's probability at each full context, through training; of many contexts, the most visited."""
    import numpy as np

    from glassgpt.chain.stationary import stationary_distribution
    from glassgpt.figures.curves import draw_probabilities_over_training

    final = subject.chain()
    first = final.n_states - final.full.n_states
    rows, title = np.arange(final.full.n_states), subject.title
    if len(rows) > MOST_LINES:
        law = stationary_distribution(final, subject.prompt).probabilities[first:]
        rows = np.sort(np.argsort(-law, kind="stable")[:MOST_LINES])
        title = title or f"the {MOST_LINES} most visited of {len(law)} contexts"
    chosen = np.argmax(final.full.logprobs[rows], axis=1)
    values = np.array([subject.chain(step).full.probs[rows, chosen] for step in subject.run.steps])
    names = [subject.tokenizer.decode(final.context(first + int(i))) for i in rows]
    labels = [f"{name} → {subject.symbols[int(token)]}" for name, token in zip(names, chosen, strict=True)]
    return draw_probabilities_over_training(subject.run.steps, values, labels, title=title)


def greedy(subject: Subject) -> Figure:
    from glassgpt.chain.structure import greedy_machine
    from glassgpt.figures.greedy import draw_greedy_machine

    chain = subject.chain()
    return draw_greedy_machine(greedy_machine(chain).successors.tolist(), subject.labels(chain), title=subject.title)


def landscape(subject: Subject) -> Figure:
    """The loss over the plane in which training moved most, with its path."""
    from glassgpt.evaluation.landscape import parameters_of, trajectory_landscape
    from glassgpt.figures.landscape import draw_landscape
    from glassgpt.training.landscape import steps_of_path, windows_of

    steps = steps_of_path(subject.run)
    models = [subject.run.model(step) for step in steps]
    states, loss = [parameters_of(model) for model in models], windows_of(subject.run).loss(models[-1])
    return draw_landscape(trajectory_landscape(states, loss, steps), subject.title)


def landscape_around(subject: Subject) -> Figure:
    """The loss in two random directions from where training ended."""
    from glassgpt.evaluation.landscape import parameters_of, random_landscape
    from glassgpt.figures.landscape import draw_landscape
    from glassgpt.training.landscape import windows_of

    model = subject.run.model(subject.step)
    step = subject.run.steps[-1] if subject.step is None else subject.step
    land = random_landscape(parameters_of(model), windows_of(subject.run).loss(model), step)
    return draw_landscape(land, subject.title)


FIGURES: dict[str, tuple[Callable[[Subject], Figure], str]] = {
    "state-graph": (state_graph, "the states and the tokens that lead from one to the next (also as .dot)"),
    "before-after": (before_after, "the state graph before and after training, side by side"),
    "heat-map": (heat_map, "every state's next-token probabilities as a map, for any number of states"),
    "greedy-machine": (greedy, "temperature 0: the deterministic machine, its loops and what falls into them"),
    "loss": (loss, "the training loss, step by step"),
    "curves": (curves, "training and validation in bits per byte, beside compressors and counting"),
    "landscape": (landscape, "the loss over the plane in which training moved most, and its path there"),
    "landscape-around": (landscape_around, "the loss in two random directions from the trained model"),
    "parentheses": (parentheses, "the probability of a wrong close against depth, at several steps of training"),
    "samples": (samples, "what the model wrote after the same beginning, at some steps of training"),
    "batch": (batch, "the first rows that training reads, and below each token the one to be predicted"),
    "probabilities-over-training": (probabilities_over_training, "transition probabilities, step by step"),
    "red-over-steps": (red_over_steps, "the probability of having met red after 1, 2, 3... tokens"),
    "red-over-training": (red_over_training, "the probability of red at every kept step of training"),
}


def alignment(folder: Path, title: str | None = None) -> Figure:
    """What a story came to, from the runs and results in its folder: the stage of each run says what it is."""
    from glassgpt.figures.alignment import (
        AlignmentData,
        EntropyCurve,
        PlayerRating,
        ReliabilityBins,
        RewardCurve,
        Sample,
        alignment_page,
    )
    from glassgpt.training.recipe import REINFORCED
    from glassgpt.weights.run import Run, is_run

    runs = {path.name: Run(path) for path in sorted(folder.iterdir()) if is_run(path)} if folder.is_dir() else {}
    policies = {name: run.metrics() for name, run in runs.items() if any(stage in run.recipe for stage in REINFORCED)}
    curves = [
        RewardCurve(name, *([row[key] for row in rows] for key in ("kl", "reward", "gold")))
        for name, rows in policies.items()
        if rows and "gold" in rows[0]
    ]
    results = {name: json.loads(path.read_text()) for name in RESULTS if (path := folder / name).exists()}
    if best := results.get("best-of.json", {}).get("best_of"):
        curves.append(RewardCurve("best-of-n", *([row[key] for row in best] for key in ("kl", "reward", "gold"))))
    if not curves:
        raise UsageError(f"{folder} holds no run of [ppo] or [grpo] on the toy world: run recipes/assistant.toml there")
    entropies = [
        EntropyCurve(name, [row["step"] for row in rows], [row["entropy"] for row in rows])
        for name, rows in policies.items()
        if rows
    ]
    judged = results.get("reward.json")
    bins = None
    if judged:
        note = f"accuracy {judged['accuracy']:.2f} ({judged['accuracy_low']:.2f} to {judged['accuracy_high']:.2f})"
        bins = ReliabilityBins(**judged["reliability"], note=note)
    played = results.get("arena.json", {})
    rated = played.get("ratings", {})
    samples = [Sample(**sample) for sample in played.get("samples", [])]
    ratings = [PlayerRating(name, one["elo"], one["low"], one["high"]) for name, one in rated.items()] or None
    return alignment_page(AlignmentData(curves, entropies, bins, ratings, samples), title)


RESULTS = ("reward.json", "best-of.json", "arena.json")
OF_FOLDERS = {
    "alignment": (alignment, "reward and gold against distance, entropy, calibration, ratings: a story's end")
}
