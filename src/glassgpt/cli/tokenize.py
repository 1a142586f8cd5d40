"""`glassgpt tokenize REF TEXT`: a text as the tokens that a model reads."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from glassgpt.cli.output import add_json, console, print_json, print_table
from glassgpt.errors import UsageError

if TYPE_CHECKING:
    from glassgpt.interface import Tokenizer
    from glassgpt.text.bpe import Merging

SHOWN = {" ": "·", "\n": "↵", "\t": "⇥"}
BACKGROUNDS = ("black on bright_cyan", "black on bright_yellow")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF", help="a run folder, or another model")
    parser.add_argument("text", metavar="TEXT", help="the text to cut into tokens")
    parser.add_argument("--merges", action="store_true", help="show how the bytes of each word were merged")
    parser.add_argument(
        "--special", action="store_true", help="read names of special tokens as these tokens, not as the text they are"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.loading import load_tokenizer
    from glassgpt.text.bpe import BPETokenizer

    tokenizer = load_tokenizer(args.ref)
    bpe = tokenizer if isinstance(tokenizer, BPETokenizer) else None
    if bpe is None and args.merges:
        raise UsageError("--merges needs a model whose tokens are made by merges, and this one's are not")
    parts = bpe.split_at_special(args.text) if bpe and args.special else [args.text]
    ids = [token for part in parts for token in ([part] if isinstance(part, int) else tokenizer.encode(part))]
    words = None
    if bpe and args.merges:
        words = [word for part in parts if isinstance(part, str) for word in bpe.merges_of(part)]
    if args.json:
        print_json(_content(args.text, ids, tokenizer, words))
        return 0
    pieces = [_shown(piece_of(tokenizer, token)) for token in ids]
    _print_line(pieces)
    sizes = [len(tokenizer.token_bytes(token)) for token in ids]
    rows = zip(map(str, ids), pieces, map(str, sizes), strict=True)
    if ids:
        print()
        print_table(["id", "piece", "bytes"], rows)
    print()
    print(_count(ids, sum(sizes)))
    for word in words or ():
        _print_merges(word)
    return 0


def piece_of(tokenizer: Tokenizer, token: int) -> str:
    """A token as a person wants to see it: special ones by name, parts of a character by their bytes."""
    from glassgpt.text.bpe import BPETokenizer

    if isinstance(tokenizer, BPETokenizer):
        return tokenizer.text_of(token)
    names = {i: name for name, i in tokenizer.special.items()}
    return names.get(token) or tokenizer.token_bytes(token).decode("utf-8", errors="backslashreplace")


def _content(text: str, ids: list[int], tokenizer: Tokenizer, words: list[Merging] | None) -> dict[str, Any]:
    content: dict[str, Any] = {
        "text": text,
        "tokens": ids,
        "pieces": [piece_of(tokenizer, token) for token in ids],
        "bytes": [len(tokenizer.token_bytes(token)) for token in ids],
    }
    if words is not None:
        content["merges"] = [{"word": word.word, "steps": word.steps, "tokens": word.tokens} for word in words]
    return content


def _shown(piece: str) -> str:
    """A piece with what cannot be seen made visible; nothing in it can move a terminal's cursor."""
    return "".join(SHOWN.get(sign) or (sign if sign.isprintable() else ascii(sign)[1:-1]) for sign in piece)


def _print_line(pieces: Sequence[str]) -> None:
    """The pieces beside each other, on backgrounds that alternate, or with | between them where there is no colour."""
    from rich.text import Text

    out = console()
    if not out.is_terminal or out.no_color:
        out.print("|".join(pieces))
        return
    line = Text()
    for i, piece in enumerate(pieces):
        line.append(piece, style=BACKGROUNDS[i % 2])
    out.print(line)


def _count(ids: Sequence[int], size: int) -> str:
    tokens, text = f"{len(ids):,} token{'s' * (len(ids) != 1)}", f"{size:,} byte{'s' * (size != 1)}"
    return f"{tokens}, {text}" + (f", {size / len(ids):.2f} bytes per token" if ids else "")


def _print_merges(word: Merging) -> None:
    out = console()
    out.print(f"\n{_shown(word.word)}")
    for i, pieces in enumerate(word.steps):
        out.print(f"  {i:>3}  " + "|".join(map(_shown, pieces)))
