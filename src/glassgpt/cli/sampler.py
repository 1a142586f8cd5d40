"""The options that shape a distribution, the same for every command that draws from one or analyses it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from glassgpt.errors import UsageError

if TYPE_CHECKING:
    from glassgpt.interface import LanguageModel, LogitsProcessor, Tokenizer


def add_sampler(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampler", "applied in this order")
    group.add_argument(
        "--repetition-penalty", type=float, metavar="R", help="make tokens that the context holds R times less likely"
    )
    group.add_argument("--temperature", type=float, default=1.0, metavar="T", help="divide logits by T; 0 is greedy")
    group.add_argument("--top-k", type=int, metavar="K", help="keep the K likeliest tokens")
    group.add_argument("--top-p", type=float, metavar="P", help="keep the likeliest tokens that hold P of the mass")
    group.add_argument(
        "--min-p", type=float, metavar="P", help="keep tokens at least P times as likely as the likeliest"
    )


def processors_of(args: argparse.Namespace) -> list[LogitsProcessor]:
    """The processors that the options ask for."""
    from glassgpt.decoding.processors import processors

    return processors(**sampler_of(args))


def shaped(model: LanguageModel, args: argparse.Namespace) -> LanguageModel:
    """The model under the sampler that the options ask for."""
    from glassgpt.decoding.shaped import Shaped

    return Shaped(model, processors_of(args))


def sampler_of(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "min_p": args.min_p,
        "repetition_penalty": args.repetition_penalty,
    }


def context_of(text: str, tokenizer: Tokenizer, what: str) -> tuple[int, ...]:
    """A context spelled in symbols as token ids. Raises UsageError, naming `what`, if it is empty or misspelled."""
    if not text:
        raise UsageError(f"{what} is empty: give at least one token")
    try:
        return tuple(tokenizer.encode(text))
    except UsageError as error:
        raise UsageError(f"{what} {text!r}: {error}") from None


def token_ids(text: str, option: str = "--tokens") -> list[int]:
    """The ids of `--tokens 1,2,3`."""
    try:
        ids = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} wants ids joined by commas, such as 1,0,1; got {text!r}") from None
    if any(abs(token) >= 1 << 63 for token in ids):
        raise UsageError(f"{option} wants ids of a vocabulary, and no such number is one: {text!r}")
    return ids
