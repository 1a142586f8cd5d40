"""`glassgpt tour`: the whole story of the baby GPT, told, drawn and written down."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassgpt.cli.chain import divergences
from glassgpt.cli.info import comparison, state_space
from glassgpt.cli.output import LN2, add_json, console, print_json, print_table, probability, spell_probability
from glassgpt.cli.train import train_showing_progress

if TYPE_CHECKING:
    from glassgpt.chain.enforcement import Enforcement
    from glassgpt.chain.markov import MarkovChain
    from glassgpt.chain.structure import GreedyMachine
    from glassgpt.chain.trajectory import ChainSummary
    from glassgpt.weights.run import Run

PROMPT, RED, STEPS, SAMPLED = "111", "000", 100, 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", default="out/tour", metavar="DIR", help="where to put the run and the pictures (out/tour)"
    )
    parser.add_argument("--no-page", action="store_true", help="end with the last figure, without serving the page")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    import json

    from glassgpt.files import write_atomically
    from glassgpt.training.recipe import read_recipe

    out = Path(args.out)
    recipe = read_recipe("recipes/baby.toml")
    trained = train_showing_progress(recipe, str(out / "run"), quiet=args.json)
    findings = explore(trained, recipe.run.seed)
    content = report(trained, findings)
    content["pictures"] = draw(trained, out)
    write_atomically(out / "report.json", (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    if args.json:
        print_json(content)
    else:
        tell(trained, findings, content, out)
        if not args.no_page:
            show_page(out / "run")
    return 0


def show_page(run: Path) -> None:
    """The trained model in the page, until Ctrl-C: with that the story ends, so it is no failure."""
    from glassgpt.cli.serve import HOST, serve_at, sources_of

    try:
        serve_at(HOST, None, None, sources_of([str(run)]))
    except KeyboardInterrupt:
        return


class Findings:
    """What there is to know of the trained baby GPT."""

    def __init__(
        self,
        before: MarkovChain,
        after: MarkovChain,
        summary: ChainSummary,
        costs: Enforcement,
        machine: GreedyMachine,
        sample: str,
    ) -> None:
        self.before, self.after, self.summary = before, after, summary
        self.costs, self.machine, self.sample = costs, machine, sample


def explore(trained: Run, seed: int) -> Findings:
    from glassgpt.chain.enforcement import enforcement
    from glassgpt.chain.information import EmpiricalChain
    from glassgpt.chain.markov import MarkovChain
    from glassgpt.chain.structure import greedy_machine
    from glassgpt.chain.trajectory import summarise
    from glassgpt.chain.walk import Red
    from glassgpt.decoding.generate import generate

    tokenizer, model = trained.tokenizer, trained.model()
    before, after = MarkovChain.from_model(trained.model(0)), MarkovChain.from_model(model)
    prompt = tuple(tokenizer.encode(PROMPT))
    red = Red.of_contexts(after, [tokenizer.encode(RED)])
    data = EmpiricalChain.of_text(
        tokenizer.encode(trained.recipe["data"]["sequence"]), model.vocab_size, model.context_length
    )
    return Findings(
        before,
        after,
        summarise(after, start=prompt, data=data, red=red, steps=STEPS),
        enforcement(after, red, STEPS, prompt),
        greedy_machine(after),
        tokenizer.decode(generate(model, prompt, SAMPLED, seed=seed)),
    )


def report(trained: Run, found: Findings) -> dict[str, Any]:
    """Everything that the tour says, as one object."""
    tokenizer, summary = trained.tokenizer, found.summary
    labels = [tokenizer.decode(found.after.context(i)) for i in range(found.after.n_states)]
    assert summary.red is not None and summary.stationary is not None and summary.entropy_rate is not None
    risk = summary.red
    config = trained.config
    return {
        "parameters": config.n_parameters,
        "states": state_space(config.vocab_size, config.context_length),
        "initial_probabilities": dict(zip(labels, found.before.probs.tolist(), strict=True)),
        "losses": [row["loss"] for row in trained.metrics()],
        "final_probabilities": dict(zip(labels, found.after.probs.tolist(), strict=True)),
        "sample": found.sample,
        "stationary": dict(zip(labels, summary.stationary.probabilities.tolist(), strict=True)),
        "entropy_rate_bits": summary.entropy_rate / LN2,
        "kl_to_data_bits": None if summary.kl_to_data is None else summary.kl_to_data / LN2,
        "mass_outside_data": summary.mass_outside_data,
        "greedy_loops": [[labels[int(state)] for state in loop] for loop in summary.loops],
        "mixing_time": None if summary.mixing is None else summary.mixing.exact,
        "red": {
            "states": [RED],
            "prompt": PROMPT,
            "steps": STEPS,
            **probability("within", risk.passage.probability),
            **probability("hazard", risk.hazard.per_token, risk.hazard.note),
            **probability("expected_steps", risk.expected_steps.lower, risk.expected_steps.note),
            **probability("ever", risk.ever.probability),
        },
        "enforcement_nats": divergences(found.costs),
        "comparison": comparison(),
    }


def draw(trained: Run, out: Path) -> list[str]:
    """Write every picture of the story and return their paths."""
    from glassgpt.cli import pictures
    from glassgpt.figures.files import save, save_text
    from glassgpt.figures.states import to_dot

    tokenizer = trained.tokenizer
    prompt, red = tuple(tokenizer.encode(PROMPT)), (tuple(tokenizer.encode(RED)),)
    plain = pictures.Subject(trained, prompt=prompt, steps=STEPS)
    marked = pictures.Subject(trained, prompt=prompt, red=red, steps=STEPS)
    risk = pictures.Subject(trained, prompt=prompt, red=red, steps=STEPS, title=f"reaching {RED} from {PROMPT}")
    every_length = pictures.Subject(trained, every_length=True)
    files = [
        save(pictures.before_after(plain), out / "before-after.png"),
        save(pictures.before_after(plain), out / "before-after.svg"),
        save(pictures.state_graph(marked), out / "states.png"),
        save(pictures.state_graph(every_length), out / "states-every-length.png"),
        save(pictures.heat_map(marked), out / "heat-map.png"),
        save(pictures.greedy(plain), out / "greedy-machine.png"),
        save(pictures.loss(plain), out / "loss.png"),
        save(pictures.probabilities_over_training(plain), out / "probabilities-over-training.png"),
        save(pictures.red_over_steps(risk), out / "red-over-steps.png"),
        save(pictures.red_over_training(risk), out / "red-over-training.png"),
        save_text(to_dot(marked.graph()), out / "states.dot"),
    ]
    return [str(file) for file in files]


# ---- the story -----------------------------------------------------------------------------------------------


def tell(trained: Run, found: Findings, content: dict[str, Any], out: Path) -> None:
    say = console().print
    config, losses = trained.config, content["losses"]
    say("")
    say("1. A GPT is a function: tokens in, a distribution over the next token out.")
    say(
        f"   This one has {content['parameters']:,} parameters, {config.vocab_size} tokens and a context of "
        f"{config.context_length}, so it can only ever be in one of {content['states']['states']} states "
        f"({content['states']['states_of_every_length']} with the shorter contexts)."
    )
    say("")
    fell = f"the loss falls from {losses[0]:.4f} to {losses[-1]:.4f}"
    say(f"2. Fifty steps on {trained.recipe['data']['sequence']}: {fell}.")
    say("")
    print_table(("state", "then 1 before", "after", "in the long run"), _rows(content))
    say("")
    say("   101 was always followed by 1, and 111 by 1 or 0 equally often. 000 was never seen: what it does is the")
    say("   transformer's own inclination.")
    say("")
    say("3. Sampling is a walk over the states.")
    say(f"   from {PROMPT}: {found.sample}")
    say("")
    say("4. Its long run, exactly.")
    _tell_long_run(found, content, say)
    say("")
    say(f"5. Safety: mark {RED} red. How likely is it ever to get there from {PROMPT}?")
    _tell_red(found, say)
    say("")
    say("6. Large ones are the same, with more states.")
    for name, space in content["comparison"].items():
        size = f"10^{space['log10_states']:,.0f} states, each {space['bytes_per_state']:,} bytes"
        say(f"   {name}, context {space['context_length']:,}: {size}")
    say("")
    say(f"Pictures and report.json are in {out}; before-after.png is the one to open first.")
    program = sys.argv[0] if Path(sys.argv[0]).name == "glassgpt" else "glassgpt"
    command = [program, "chain", str(out / "run"), "--red", RED, "--prompt", PROMPT, "--temperature", "0.5"]
    say(f"Go on with: {shlex.join(command)}")


def _rows(content: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (state, f"{100 * row[1]:.1f} %", f"{100 * content['final_probabilities'][state][1]:.1f} %",
         f"{100 * content['stationary'][state]:.1f} %")
        for state, row in content["initial_probabilities"].items()
    ]  # fmt: skip


def _tell_long_run(found: Findings, content: dict[str, Any], say: Any) -> None:
    summary = found.summary
    say(f"   Entropy rate {content['entropy_rate_bits']:.4f} bits a token; it forgets where it began in about "
        f"{content['mixing_time']} tokens.")  # fmt: skip
    say(f"   {100 * (summary.mass_outside_data or 0):.1f} % of the time it is in contexts that the data never held.")
    for loop in content["greedy_loops"]:
        say(f"   At temperature 0 it is a deterministic machine, and ends in the loop {' > '.join(loop)} > {loop[0]}.")


def _tell_red(found: Findings, say: Any) -> None:
    risk = found.summary.red
    assert risk is not None and risk.hazard.per_token is not None and risk.expected_steps.lower is not None
    say(f"   Within {STEPS} tokens: {spell_probability(risk.passage.probability)}; "
        f"ever: {spell_probability(risk.ever.probability)} ({risk.ever.certificate}).")  # fmt: skip
    say(f"   In the long run {spell_probability(risk.hazard.per_token)} a token, after "
        f"{float(risk.expected_steps.lower):.1f} tokens on average.")  # fmt: skip
    mask, cond, apart = found.costs.kl_mask_base, found.costs.kl_cond_base, found.costs.kl_mask_cond
    say(f"   Forbidding it token by token makes that exactly 0, and costs {mask:.3f} nats in {STEPS} tokens;")
    say(f"   the cheapest law that avoids it costs {cond:.3f}. They differ by {apart:.3f} nats.")
