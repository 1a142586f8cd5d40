"""`glassgpt generate REF PROMPT`: walk the chain from a prompt."""

from __future__ import annotations

import argparse

from glassgpt.cli.output import add_json, print_json
from glassgpt.cli.sampler import add_sampler, context_of, sampler_of, shaped, token_ids
from glassgpt.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF", help="a run folder, or RUN@STEP")
    parser.add_argument("prompt", metavar="PROMPT", nargs="?", help="the text to go on with")
    parser.add_argument("--tokens", metavar="IDS", help="the prompt as token ids, such as 1,0,1, in place of PROMPT")
    parser.add_argument("--max-new-tokens", type=int, default=20, metavar="N", help="how many tokens to draw (20)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same text (0)")
    add_sampler(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    import numpy as np

    from glassgpt.decoding.generate import stream
    from glassgpt.loading import load

    if (args.prompt is None) == (args.tokens is None):
        raise UsageError("give either a PROMPT or --tokens")
    if args.seed < 0:
        raise UsageError(f"--seed must be 0 or more, got {args.seed}")
    model, tokenizer = load(args.ref)
    given = token_ids(args.tokens) if args.tokens is not None else context_of(args.prompt, tokenizer, "the prompt")
    prompt = list(given)
    tokens = stream(shaped(model, args), prompt, args.max_new_tokens, rng=np.random.default_rng(args.seed))
    if args.json:
        new = list(tokens)
        print_json(
            {
                "prompt_tokens": prompt,
                "tokens": new,
                "pieces": [tokenizer.decode([token]) for token in new],
                "text": tokenizer.decode(new),
                "seed": args.seed,
                "sampler": sampler_of(args),
            }
        )
        return 0
    print(tokenizer.decode(prompt), end="", flush=True)
    for token in tokens:
        print(tokenizer.decode([token]), end="", flush=True)
    print()
    return 0
