"""`glassgpt score REF TEXT`: how surprised a model is by a text, token by token."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassgpt.cli.output import LN2, add_json, console, number, print_json
from glassgpt.cli.reference import add_ref, load_ref
from glassgpt.cli.sampler import context_of, token_ids
from glassgpt.errors import UsageError

if TYPE_CHECKING:
    from glassgpt.evaluation.score import Score
    from glassgpt.interface import Tokenizer

NO_TEXT = "there is no tokenizer beside the model"
FIRST = "null for the first token: nothing comes before it (--from-start puts the end-of-text token there)"
IMPOSSIBLE = "a token that the model gives no probability"
COLOURS = ((2.0, "green"), (6.0, "yellow"), (11.0, "dark_orange"))  # up to so many bits; red above
LISTED = 2000  # tokens for a person


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_ref(parser)
    parser.add_argument("text", metavar="TEXT", nargs="?", help="the text to score")
    parser.add_argument("--tokens", metavar="IDS", help="token ids, such as 1,0,1, in place of TEXT")
    parser.add_argument("--file", metavar="PATH", help="a UTF-8 file in place of TEXT")
    parser.add_argument(
        "--from-start", action="store_true", help="put the end-of-text token before it, to score the first token too"
    )
    parser.add_argument(
        "--stride", type=int, metavar="N",
        help="a longer text than the window is read N tokens at a time (half the window); 1 is exact and slow",
    )  # fmt: skip
    parser.add_argument("--prompt", metavar="TEXT", help="of a reward model: what TEXT answers")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.evaluation.score import score

    if [args.text, args.tokens, args.file].count(None) != 2:
        raise UsageError("give one of TEXT, --tokens and --file")
    text = read_text(args.file) if args.file is not None else args.text
    if text is not None and is_headed(args.ref):
        return of_head(args, text)
    model, tokenizer = load_ref(args)
    tokens = tokens_of(args, text, tokenizer)
    start = start_of(tokenizer) if args.from_start else None
    scored = score(model, tokens, stride=args.stride, start_token=start)
    told = report(scored, tokenizer)
    if args.json:
        print_json(told)
    else:
        show(scored, tokenizer, told)
    return 0


def is_headed(ref: str) -> bool:
    """Whether it is the run of a model that gives scores and no text."""
    from glassgpt.weights.run import Run, is_run

    return is_run(ref) and bool(Run(ref).head)


def of_head(args: argparse.Namespace, text: str) -> int:
    """What a classifier or a reward model makes of a text."""
    from glassgpt.training.scorers import judged

    told = judged(args.ref, text, args.prompt)
    if args.json:
        print_json(told)
    else:
        for label, value in told["scores"].items():
            console().print(f"{label}: {value:.4f}")
    return 0


def read_text(path: str) -> str:
    try:
        return Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from None


def tokens_of(args: argparse.Namespace, text: str, tokenizer: Tokenizer | None) -> list[int]:
    if args.tokens is not None:
        return token_ids(args.tokens)
    if tokenizer is None:
        raise UsageError(f"{NO_TEXT}: give --tokens")
    return list(context_of(text, tokenizer, "the text" if args.file is None else f"the text of {args.file}"))


def start_of(tokenizer: Tokenizer | None) -> int:
    end = getattr(tokenizer, "end_token", None)
    if end is None:
        raise UsageError("--from-start needs an end-of-text token, and this model's tokenizer has none")
    return int(end)


def report(scored: Score, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """The object that --json prints; `bits`, `bits_per_byte` and `perplexity` are of the tokens that are scored."""
    logprobs = [None if one is None else number("logprob", one, IMPOSSIBLE)["logprob"] for one in scored.logprobs]
    told: dict[str, Any] = {"tokens": scored.tokens}
    told |= (
        {"pieces": None, "pieces_note": NO_TEXT}
        if tokenizer is None
        else {"pieces": [tokenizer.decode([token]) for token in scored.tokens]}
    )
    told["logprobs"] = logprobs
    notes = [FIRST] if scored.logprobs[0] is None else []
    if len(scored.scored) > sum(one is not None for one in logprobs):
        notes.append(f"null for {IMPOSSIBLE}")
    if notes:
        told["logprobs_note"] = "; ".join(notes)
    return told | {"scored_tokens": len(scored.scored)} | totals(scored, tokenizer)


def totals(scored: Score, tokenizer: Tokenizer | None) -> dict[str, Any]:
    from glassgpt.evaluation.score import bits_per_byte

    if not scored.scored:
        note = "no token was scored: the first has no probability"
        return number("bits", None, note) | number("bits_per_byte", None, note) | number("perplexity", None, note)
    told = number("bits", scored.bits, f"infinite: the text holds {IMPOSSIBLE}")
    try:
        per_byte = None if tokenizer is None else bits_per_byte(scored, tokenizer)
        note = NO_TEXT if tokenizer is None else told.get("bits_note", "")
    except UsageError as error:
        per_byte, note = None, str(error)
    told |= number("bits_per_byte", per_byte, note)
    return told | number("perplexity", scored.perplexity, told.get("bits_note", "beyond a float"))


def show(scored: Score, tokenizer: Tokenizer | None, told: dict[str, Any]) -> None:
    """A line for each token, its surprise in bits and a bar of it, then the totals."""
    from rich.text import Text

    to = console()
    for token, logprob in list(zip(scored.tokens, scored.logprobs, strict=True))[:LISTED]:
        piece = "" if tokenizer is None else repr(tokenizer.decode([token]))
        if logprob is None:
            to.print(f"{token:>7}        -  {piece}")
            continue
        bits = -logprob / LN2 + 0.0
        line = Text(f"{token:>7} {bits:8.2f}  ")
        colour = next((name for most, name in COLOURS if bits <= most), "red")
        line.append(piece, style=colour)
        to.print(line)
    if len(scored.tokens) > LISTED:
        to.print(f"... and {len(scored.tokens) - LISTED} tokens more")
    to.print()
    if not scored.scored:
        to.print(f"{told['bits_note']}; --from-start gives it one")
        return
    for key, unit in (("bits", "bits in all"), ("bits_per_byte", "bits per byte"), ("perplexity", "perplexity")):
        value = told[key]
        to.print(f"{told[f'{key}_note']} ({unit})" if value is None else f"{value:.6g} {unit}")
