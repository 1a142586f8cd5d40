"""From a run to the pictures of it: what `see` and `tour` draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassgpt.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from glassgpt.chain.markov import MarkovChain
    from glassgpt.chain.trajectory import ChainSummary
    from glassgpt.figures.states import StateGraph
    from glassgpt.interface import LanguageModel, Tokenizer
    from glassgpt.weights.run import Run


MOST_LINES = 9  # of one picture's curves


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

    def summaries(self) -> list[tuple[int, ChainSummary]]:
        """The chain in figures at every kept step."""
        from glassgpt.chain.information import EmpiricalChain
        from glassgpt.chain.trajectory import trajectory
        from glassgpt.chain.walk import Red

        models = ((step, self.shape(self.run.model(step))) for step in self.run.steps)
        config, tokens = self.run.config, self.tokenizer.encode(self.run.recipe["data"]["sequence"])
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

    return draw_state_graph(subject.graph(), title=subject.title)


def before_after(subject: Subject) -> Figure:
    from glassgpt.figures.state_graph import draw_before_after

    return draw_before_after(subject.graph(subject.run.steps[0]), subject.graph())


def heat_map(subject: Subject) -> Figure:
    from glassgpt.figures.heat_map import draw_transition_heat_map

    chain = subject.chain()
    red = [chain.index(context) for context in subject.red]
    return draw_transition_heat_map(chain.probs, subject.labels(chain), subject.symbols, title=subject.title, red=red)


def loss(subject: Subject) -> Figure:
    """The loss, with what it can't fall below: the entropy of the data's own next tokens."""
    import numpy as np

    from glassgpt.chain.information import EmpiricalChain
    from glassgpt.figures.curves import draw_loss_curve

    config = subject.run.config
    tokens = subject.tokenizer.encode(subject.run.recipe["data"]["sequence"])
    data = EmpiricalChain.of_text(tokens, config.vocab_size, config.context_length)
    yardsticks = {"uniform": float(np.log(config.vocab_size))}
    if subject.run.recipe["train"]["last_position_only"]:
        yardsticks["entropy of the data"] = data.conditional_entropy
    return draw_loss_curve([row["loss"] for row in subject.run.metrics()], yardsticks, title=subject.title)


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


FIGURES: dict[str, tuple[Callable[[Subject], Figure], str]] = {
    "state-graph": (state_graph, "the states and the tokens that lead from one to the next (also as .dot)"),
    "before-after": (before_after, "the state graph before and after training, side by side"),
    "heat-map": (heat_map, "every state's next-token probabilities as a map, for any number of states"),
    "greedy-machine": (greedy, "temperature 0: the deterministic machine, its loops and what falls into them"),
    "loss": (loss, "the training loss, step by step"),
    "probabilities-over-training": (probabilities_over_training, "transition probabilities, step by step"),
    "red-over-steps": (red_over_steps, "the probability of having met red after 1, 2, 3... tokens"),
    "red-over-training": (red_over_training, "the probability of red at every kept step of training"),
}
