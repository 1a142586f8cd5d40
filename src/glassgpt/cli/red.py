"""Red of a model whose states can't be listed, for `glassgpt chain`: estimated from walks, and said to be."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from glassgpt.cli.output import console, print_json, probability, progress_to_stderr, spell_probability
from glassgpt.cli.sampler import context_of, sampler_of
from glassgpt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassgpt.chain.markov import End
    from glassgpt.chain.wide import Wide
    from glassgpt.evaluation.red import RedEstimate
    from glassgpt.interface import LanguageModel, Tokenizer


def add_estimate(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("estimate", "of --red-pattern after --prompt, where states are too many to list")
    group.add_argument("--walks", type=int, default=256, metavar="N", help="estimate from N walks (256)")
    group.add_argument(
        "--seconds", type=float, default=math.inf, metavar="S", help="or from those that S seconds allow"
    )
    group.add_argument("--seed", type=int, default=0, help="the same seed takes the same walks (0)")


def estimate(model: LanguageModel, tokenizer: Tokenizer, end: End | None, args: argparse.Namespace) -> int:
    """Print how likely red is, with its interval. Raises UsageError where that can't be estimated."""
    from glassgpt.evaluation.red import estimate_red

    if args.prompt is None:
        raise UsageError("a model with so many states has no stationary law to begin from: give --prompt too")
    if end is not None and end.restart is not None:
        raise UsageError("red is estimated up to where a text ends, and not beyond: leave --restart out")
    prompt = context_of(args.prompt, tokenizer, "--prompt")
    patterns = [context_of(part, tokenizer, "--red-pattern") for part in args.red_pattern.split(",")]
    found = _last(
        estimate_red(
            model,
            patterns,
            prompt,
            args.steps,
            walks=args.walks,
            seconds=args.seconds,
            seed=args.seed,
            end_token=None if end is None else end.token,
            pulse_seconds=0.2,
        ),
        args,
    )
    if args.json:
        print_json(report(model, patterns, found, args))
    else:
        print_estimate(model, patterns, found, args)
    return 0


def _last(estimates: Any, args: argparse.Namespace) -> RedEstimate:
    """The last of them, with a moving line on a terminal's standard error until it comes."""
    found: RedEstimate | None = None
    with console(error=True).status("reading the prompt") as status:
        if not progress_to_stderr(args.json):
            status.stop()
        for found in estimates:
            walks, drawn = found.underway
            value = spell_probability(_wide(found.log_within))
            status.update(f"{found.n_walks} walks: {value}; {walks} more are {drawn} of {args.steps} tokens long")
    assert found is not None
    return found


def report(
    model: LanguageModel, patterns: Sequence[Sequence[int]], found: RedEstimate, args: argparse.Namespace
) -> dict[str, Any]:
    """As JSON. `method` says whether `within` is an estimate: then `low` and `high` enclose it."""
    return {
        "vocab_size": model.vocab_size,
        "context_length": model.context_length,
        "states": None,
        "states_note": f"{_states(model)}, too many to be listed",
        "sampler": sampler_of(args),
        "red_pattern": args.red_pattern.split(","),
        "red_pattern_ids": [list(pattern) for pattern in patterns],
        "prompt": args.prompt,
        "steps": args.steps,
        "method": "exact" if found.is_exact else "estimate",
        **probability("within", _wide(found.log_within)),
        **probability("low", _wide(found.log_low)),
        **probability("high", _wide(found.log_high)),
        "walks": found.n_walks,
        "effective_walks": found.effective_walks,
        "largest_share": found.largest_share,
        "trusted": found.is_trusted,
        "seed": args.seed,
    }


def print_estimate(
    model: LanguageModel, patterns: Sequence[Sequence[int]], found: RedEstimate, args: argparse.Namespace
) -> None:
    out = console()
    out.print(f"{_states(model)} states, {model.vocab_size:,} tokens: too many to be listed, so red is estimated")
    out.print("")
    ids = ", ".join("tokens " + " ".join(map(str, pattern)) for pattern in patterns)
    out.print(f"the red pattern {args.red_pattern!r} ({ids}), from {args.prompt!r}:")
    out.print(f"  {f'within {args.steps:,} tokens':<19} {spell_estimate(found)}")
    if not found.is_exact:
        share = f"the heaviest makes up {100 * found.largest_share:.3g} %"
        out.print(f"  effective walks     {found.effective_walks:.1f} of {found.n_walks} ({share})")
        if not found.is_trusted:
            out.print("  not to be relied on yet: too few walks carry it, and others may carry more. Give more --walks")
    out.print("  counted are these tokens: other ways to spell the same text are not in it")


def spell_estimate(found: RedEstimate) -> str:
    """An estimate for a person, who must see that it is one: "estimated from 256 walks: 3.1e-07, 95 % interval ..."."""
    value, low, high = (spell_probability(_wide(log)) for log in (found.log_within, found.log_low, found.log_high))
    if found.is_exact:
        return f"{value} (nothing was left to chance)"
    if found.n_walks == 0:
        return f"no walk was ended in time: from {low} to {high}"
    if found.log_within[-1] == -math.inf:
        return f"estimated from {found.n_walks} walks: never met, and less than {high} at 97.5 % confidence"
    return f"estimated from {found.n_walks} walks: {value}, 95 % interval {low} to {high}"


def _wide(log: Any) -> Wide:
    from glassgpt.chain.wide import Wide

    return Wide.from_log(log[-1])


def _states(model: LanguageModel) -> str:
    return f"{model.vocab_size:,}^{model.context_length:,}"
