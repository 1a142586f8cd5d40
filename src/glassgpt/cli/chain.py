"""`glassgpt chain REF`: a model as a Markov chain, and how likely it is ever to be red."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from glassgpt.cli.output import (
    LN2,
    add_json,
    console,
    number,
    print_json,
    print_table,
    probability,
    progress_to_stderr,
    spell_number,
    spell_probability,
)
from glassgpt.cli.red import add_estimate, estimate
from glassgpt.cli.reference import add_ref
from glassgpt.cli.sampler import add_sampler, context_of, sampler_of, shaped
from glassgpt.errors import GlassGPTError, TooLargeError, UsageError

if TYPE_CHECKING:
    from glassgpt.chain.enforcement import Enforcement
    from glassgpt.chain.information import EmpiricalChain
    from glassgpt.chain.markov import End, MarkovChain
    from glassgpt.chain.trajectory import ChainSummary, RedRisk
    from glassgpt.chain.walk import Red
    from glassgpt.interface import LanguageModel, Tokenizer
    from glassgpt.weights.run import Run

STATES_LISTED = 64  # in text; --json lists up to STATES_IN_JSON
STATES_IN_JSON = 4096
ENFORCED_UP_TO = 1 << 22  # states times steps for which masking and conditioning are compared unasked


class RedIsUnreachable(GlassGPTError):
    """The question has an exact answer, zero, which is printed; but it may not be the question that was meant."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_ref(parser, runs_it=False)
    add_red(parser)
    parser.add_argument("--prompt", metavar="CONTEXT", help="where the text starts; without it, the stationary law")
    parser.add_argument("--through-training", action="store_true", help="the same figures at every step that is kept")
    parser.add_argument("--every-length", action="store_true", help="count the shorter contexts as states too")
    parser.add_argument("--end", metavar="TOKEN", help="a token that ends the text (otherwise none does)")
    parser.add_argument("--restart", metavar="CONTEXT", help="after --end the text starts over from here")
    add_estimate(parser)
    add_sampler(parser)
    add_json(parser)


def add_red(parser: argparse.ArgumentParser) -> None:
    red = parser.add_mutually_exclusive_group()
    red.add_argument("--red", metavar="CONTEXTS", help="red contexts, joined by commas: 000,001")
    red.add_argument(
        "--red-pattern", metavar="PATTERNS", help="red sequences of tokens of any length, joined by commas"
    )
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="ask for red within N tokens (100)")


def run(args: argparse.Namespace) -> int:
    from glassgpt.chain.structure import red_is_reachable
    from glassgpt.chain.trajectory import summarise

    opened, model, tokenizer = opened_model(args)
    start = None if args.prompt is None else context_of(args.prompt, tokenizer, "--prompt")
    if args.through_training:
        assert opened is not None
        return through_training(opened, tokenizer, args, start)
    if args.red_pattern is not None and is_too_large(model):
        return estimate(shaped(model, args), tokenizer, end_of(tokenizer, args), args)
    with working(args, f"evaluating every context of {args.ref}, and what follows from it"):
        try:
            chain = build_chain(model, tokenizer, args, start)
        except TooLargeError as error:
            raise TooLargeError(f"{error}. Red can be estimated: give --red-pattern and --prompt") from None
        red = build_red(chain, tokenizer, args)
        data = data_of(opened, tokenizer, chain)
        summary = summarise(chain, start=start, data=data, red=red, steps=args.steps)
        costs = enforcement_report(chain, red, args.steps, start)
    if args.json:
        print_json(report(chain, tokenizer, summary, data, args) | costs)
    else:
        print_chain(chain, tokenizer, summary, data, args)
        print_enforcement(costs)
    if red is not None and not red_is_reachable(chain, red, start):
        whence = "from anywhere" if start is None else f"from {args.prompt}"
        raise RedIsUnreachable(
            f"{spell_red(args)} cannot be reached {whence} by this sampler: its probability is exactly 0, "
            "whatever the number of tokens; check that it is the red that you meant"
        )
    return 0


def working(args: argparse.Namespace, what: str) -> AbstractContextManager[Any]:
    """A moving line on a terminal's standard error while something long goes on."""
    return console(error=True).status(what) if progress_to_stderr(args.json) else nullcontext()


# ---- from options to a chain ---------------------------------------------------------------------------------


def opened_model(args: argparse.Namespace) -> tuple[Run | None, LanguageModel, Tokenizer]:
    """A run with its model and tokenizer; or, since red patterns are for every model, any other that is named."""
    from glassgpt.loading import load, open_model, open_run

    if args.red_pattern is not None and not args.through_training:
        bundle = open_model(args.ref, allow_pickle=args.allow_pickle)
        if bundle.kind != "run folder":
            model, tokenizer = load(args.ref, allow_pickle=args.allow_pickle)
            if tokenizer is None:
                raise UsageError(f"{args.ref} has no tokenizer, by which a pattern and a prompt could be read")
            return None, model, tokenizer
    opened, step = open_run(args.ref)
    return opened, opened.model(step), opened.tokenizer


def is_too_large(model: LanguageModel) -> bool:
    """Whether there are more contexts than memory could list."""
    from glassgpt.chain.markov import refuse_if_too_large

    try:
        refuse_if_too_large(model.vocab_size, model.context_length)
    except TooLargeError:
        return True
    return False


def build_chain(
    model: LanguageModel, tokenizer: Tokenizer, args: argparse.Namespace, start: tuple[int, ...] | None
) -> MarkovChain:
    """The chain of a model under the sampler; with the shorter contexts where the prompt or red is one."""
    from glassgpt.chain.markov import MarkovChain

    model = shaped(model, args)
    end = end_of(tokenizer, args)
    contexts = [*red_contexts(tokenizer, args), start, None if end is None else end.restart]
    short = any(context is not None and len(context) < model.context_length for context in contexts)
    return MarkovChain.from_model(model, every_length=args.every_length or short, end=end)


def end_of(tokenizer: Tokenizer, args: argparse.Namespace) -> End | None:
    from glassgpt.chain.markov import End

    if args.end is None:
        if args.restart is not None:
            raise UsageError("--restart says where a text starts over after --end: give --end too")
        return None
    token = context_of(args.end, tokenizer, "--end")
    if len(token) != 1:
        raise UsageError(f"--end wants one token, got {args.end!r}")
    return End(token[0], None if args.restart is None else context_of(args.restart, tokenizer, "--restart"))


def red_contexts(tokenizer: Tokenizer, args: argparse.Namespace) -> list[tuple[int, ...]]:
    return [] if args.red is None else [context_of(part, tokenizer, "--red") for part in args.red.split(",")]


def build_red(chain: MarkovChain, tokenizer: Tokenizer, args: argparse.Namespace) -> Red | None:
    from glassgpt.chain.walk import Red

    if args.red is not None:
        return Red.of_contexts(chain, red_contexts(tokenizer, args))
    if args.red_pattern is not None:
        parts = [context_of(part, tokenizer, "--red-pattern") for part in args.red_pattern.split(",")]
        return Red.of_patterns(chain, parts)
    return None


def spell_red(args: argparse.Namespace) -> str:
    return f"red {args.red}" if args.red is not None else f"the red pattern {args.red_pattern}"


def data_of(opened: Run | None, tokenizer: Tokenizer, chain: MarkovChain) -> EmpiricalChain | None:
    """The text that the run was trained on, as a chain."""
    from glassgpt.chain.information import EmpiricalChain

    sequence = None if opened is None else opened.recipe.get("data", {}).get("sequence")
    if sequence is None:
        return None
    return EmpiricalChain.of_text(tokenizer.encode(sequence), chain.vocab_size, chain.context_length)


def label(chain: MarkovChain, tokenizer: Tokenizer, index: int) -> str:
    return tokenizer.decode(chain.context(index))


# ---- JSON ----------------------------------------------------------------------------------------------------


def report(
    chain: MarkovChain,
    tokenizer: Tokenizer,
    summary: ChainSummary,
    data: EmpiricalChain | None,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Everything known of the chain; the answers about red stand at the top level."""
    return {
        "vocab_size": chain.vocab_size,
        "context_length": chain.context_length,
        "states": chain.n_states,
        "every_length": chain.every_length,
        "sampler": sampler_of(args),
        **by_state(chain, tokenizer, summary),
        **({} if data is None or chain.n_states > STATES_IN_JSON else {"data_counts": counts(chain, tokenizer, data)}),
        **long_run(chain, tokenizer, summary),
        **({} if summary.red is None else red_report(summary.red, args)),
    }


def by_state(chain: MarkovChain, tokenizer: Tokenizer, summary: ChainSummary) -> dict[str, Any]:
    if chain.n_states > STATES_IN_JSON:
        note = f"listed for up to {STATES_IN_JSON} states"
        return {"probabilities": None, "probabilities_note": note, "stationary": None, "stationary_note": note}
    labels = [label(chain, tokenizer, i) for i in range(chain.n_states)]
    rows = {"probabilities": dict(zip(labels, chain.probs.tolist(), strict=True))}
    if summary.stationary is None:
        return rows | {"stationary": None, "stationary_note": summary.note}
    return rows | {"stationary": dict(zip(labels, summary.stationary.probabilities.tolist(), strict=True))}


def counts(chain: MarkovChain, tokenizer: Tokenizer, data: EmpiricalChain) -> dict[str, list[float]]:
    """What the data did after each full context: a model's rows where these are zero are its own inclination."""
    first = chain.n_states - chain.full.n_states
    return {label(chain, tokenizer, first + i): row for i, row in enumerate(data.counts.tolist())}


def long_run(chain: MarkovChain, tokenizer: Tokenizer, summary: ChainSummary) -> dict[str, Any]:
    in_bits = None if summary.entropy_rate is None else summary.entropy_rate / LN2
    kl_bits = None if summary.kl_to_data is None else summary.kl_to_data / LN2
    law, mixing, escape = summary.stationary, summary.mixing, summary.escape_hazard
    content: dict[str, Any] = {
        "certificate": summary.note if law is None else law.certificate,
        **number("entropy_rate_bits", in_bits, summary.note),
        **number(
            "kl_to_data_bits", kl_bits, "no data" if kl_bits is None else "the sampler excludes what the data does"
        ),
        "classes": summary.n_classes,
        "closed_classes": [
            {"states": len(states), "first": label(chain, tokenizer, int(states[0])), "period": period}
            for states, period in zip(summary.closed_classes, summary.periods, strict=True)
        ],
        "greedy_loops": [
            {"states": [label(chain, tokenizer, int(s)) for s in loop[:STATES_IN_JSON]], "basin": share}
            for loop, share in zip(summary.loops, summary.loop_basins, strict=True)
        ],
        **number("second_eigenvalue", summary.second_eigenvalue, summary.note or "too many states"),
        "mixing_time": None if mixing is None else mixing.exact,
        "mixing_time_bound": None if mixing is None else mixing.upper_bound,
        **number(
            "mass_outside_data", summary.mass_outside_data, "measured from a prompt, where the data lacks contexts"
        ),
    }
    if mixing is None or mixing.exact is None:
        content["mixing_time_note"] = summary.note if mixing is None else mixing.note
    if escape is not None:
        content |= probability("escape_hazard", escape.per_token, escape.note)
    return content


def red_report(risk: RedRisk, args: argparse.Namespace) -> dict[str, Any]:
    steps = risk.expected_steps
    is_bracket = steps.lower is not None and (steps.upper is None or steps.upper.log10() > steps.lower.log10())
    bracket = probability("expected_steps_upper", steps.upper, steps.note) if is_bracket else {}
    return {
        "red": args.red.split(",") if args.red is not None else None,
        "red_pattern": args.red_pattern.split(",") if args.red_pattern is not None else None,
        "prompt": args.prompt,
        "steps": risk.steps,
        **probability("within", risk.passage.probability),
        **probability("survival", risk.passage.survival[-1]),
        **probability("stopped", risk.passage.stopped[-1]),
        **probability("ever", risk.ever.probability),
        **probability("never", risk.ever.complement),
        **probability("hazard", risk.hazard.per_token, risk.hazard.note),
        **probability("expected_steps", steps.lower, steps.note),
        **bracket,
        "certificates": {
            "ever": risk.ever.certificate,
            "hazard": risk.hazard.certificate,
            "expected_steps": steps.certificate,
        },
    }


def enforcement_report(
    chain: MarkovChain, red: Red | None, steps: int, start: tuple[int, ...] | None
) -> dict[str, dict[str, Any]]:
    """What avoiding red costs, for a chain small enough to tell at once; empty if it isn't asked."""
    from glassgpt.chain.enforcement import enforcement

    if red is None or start is None or chain.n_states * red.automaton.n_states * (steps + 1) > ENFORCED_UP_TO:
        return {}
    try:
        costs = enforcement(chain, red, steps, start)
    except UsageError as error:
        return {"enforcement_nats": {"note": str(error)}}
    return {"enforcement_nats": divergences(costs)}


def divergences(costs: Enforcement) -> dict[str, Any]:
    """The four divergences between the model, its masked sampler and its conditioned law."""
    never = "conditioning still walks into dead ends, which the mask forbids"
    return {
        "mask_from_model": costs.kl_mask_base,
        "conditioned_from_model": costs.kl_cond_base,
        "mask_from_conditioned": costs.kl_mask_cond,
        **number("conditioned_from_mask", costs.kl_cond_mask, never),
    }


# ---- text ----------------------------------------------------------------------------------------------------


def print_chain(
    chain: MarkovChain,
    tokenizer: Tokenizer,
    summary: ChainSummary,
    data: EmpiricalChain | None,
    args: argparse.Namespace,
) -> None:
    out = console()
    lengths = "contexts of every length" if chain.every_length else f"contexts of {chain.context_length} tokens"
    out.print(f"{chain.n_states:,} states ({lengths}), {chain.vocab_size} tokens")
    out.print("")
    if chain.n_states <= STATES_LISTED:
        print_rows(chain, tokenizer, summary, data)
        out.print("")
    print_long_run(chain, tokenizer, summary)
    if summary.red is not None:
        out.print("")
        print_red(summary.red, args)


def print_rows(chain: MarkovChain, tokenizer: Tokenizer, summary: ChainSummary, data: EmpiricalChain | None) -> None:
    symbols = [tokenizer.decode([token]) for token in range(chain.vocab_size)]
    law = None if summary.stationary is None else summary.stationary.probabilities
    seen = {} if data is None else counts(chain, tokenizer, data)
    rows = []
    for i in range(chain.n_states):
        share = "" if law is None else f"{100 * law[i]:.2f} %"
        times = " + ".join(f"{count:.0f}" for count in seen.get(label(chain, tokenizer, i), []))
        rows.append((label(chain, tokenizer, i), *(f"{100 * p:.2f} %" for p in chain.probs[i]), share, times))
    print_table(("state", *(f"then {symbol}" for symbol in symbols), "in the long run", "in the data"), rows)


def print_long_run(chain: MarkovChain, tokenizer: Tokenizer, summary: ChainSummary) -> None:
    out = console()
    if summary.stationary is None:
        out.print(f"no stationary law: {summary.note}")
    else:
        out.print(f"stationary law: {summary.stationary.certificate}")
    if summary.entropy_rate is not None:
        out.print(f"entropy rate: {summary.entropy_rate / LN2:.4f} bits a token")
    if summary.kl_to_data is not None:
        out.print(
            f"distance of the data's rows from the model's (KL rate): {summary.kl_to_data / LN2:.4f} bits a token"
        )
    sizes = ", ".join(
        f"{len(states):,} states of period {p}"
        for states, p in zip(summary.closed_classes, summary.periods, strict=True)
    )
    out.print(f"communicating classes: {summary.n_classes:,}, of which closed: {sizes or 'none'}")
    for loop, share in zip(summary.loops[:8], summary.loop_basins, strict=False):
        states = " > ".join(label(chain, tokenizer, int(s)) for s in loop[:12])
        tail = " > ..." if len(loop) > 12 else ""
        out.print(f"at temperature 0: {100 * share:.0f} % of the states fall into the loop {states}{tail}")
    if summary.mixing is not None:
        exact = "unknown" if summary.mixing.exact is None else f"{summary.mixing.exact:,}"
        bound = "" if summary.mixing.upper_bound is None else f", proven to be at most {summary.mixing.upper_bound:,}"
        note = f" ({summary.mixing.note})" if summary.mixing.note else ""
        out.print(f"mixing time (to 1/4 of total variation): {exact} tokens{bound}{note}")
    if summary.mass_outside_data is not None:
        out.print(f"contexts that the data never held: {100 * summary.mass_outside_data:.1f} % of the long run")


def print_red(risk: RedRisk, args: argparse.Namespace) -> None:
    out = console()
    whence = "the stationary law" if args.prompt is None else args.prompt
    out.print(f"{spell_red(args)}, from {whence}:")
    within, survival = risk.passage.probability, risk.passage.survival[-1]
    out.print(f"  within {risk.steps:,} tokens   {spell_probability(within)} (not: {spell_probability(survival)})")
    out.print(f"  ever                {spell_probability(risk.ever.probability)} ({risk.ever.certificate})")
    hazard = risk.hazard
    value = hazard.note if hazard.per_token is None else spell_probability(hazard.per_token)
    out.print(f"  hazard per token    {value} ({hazard.certificate})")
    steps = risk.expected_steps
    mean = steps.note if steps.lower is None else f"{spell_number(steps.lower)} tokens"
    out.print(f"  expected time       {mean} ({steps.certificate})")


def print_enforcement(costs: dict[str, dict[str, Any]]) -> None:
    nats = costs.get("enforcement_nats", {})
    if "note" in nats:
        console().print(f"  avoiding it         {nats['note']}")
    elif nats:
        mask, least = nats["mask_from_model"], nats["conditioned_from_model"]
        console().print(f"  avoiding it         by a mask {mask:.4g} nats, by the cheapest law {least:.4g}")


# ---- through training ----------------------------------------------------------------------------------------


def through_training(opened: Run, tokenizer: Tokenizer, args: argparse.Namespace, start: tuple[int, ...] | None) -> int:
    """One row of figures for each kept step."""
    from glassgpt.chain.trajectory import summarise

    rows = []
    for step in opened.steps:
        chain = build_chain(opened.model(step), tokenizer, args, start)
        red = build_red(chain, tokenizer, args)
        summary = summarise(chain, start=start, data=data_of(opened, tokenizer, chain), red=red, steps=args.steps)
        risk = {} if summary.red is None else red_report(summary.red, args)
        rows.append({"step": step, **long_run(chain, tokenizer, summary), **risk})
    if args.json:
        print_json({"steps_kept": opened.steps, "trajectory": rows})
        return 0
    shown = {key: heading for key, heading in TRAJECTORY_COLUMNS.items() if rows and key in rows[0]}
    lines = [(str(row["step"]), *(_short(row[key]) for key in shown)) for row in rows]
    print_table(("step", *shown.values()), lines)
    return 0


TRAJECTORY_COLUMNS = {
    "entropy_rate_bits": "bits/token",
    "kl_to_data_bits": "KL to data",
    "mass_outside_data": "outside data",
    "mixing_time": "mixing",
    "log10_within": "log10 red",
    "hazard": "hazard",
    "expected_steps": "mean time",
}


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
