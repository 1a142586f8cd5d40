"""`glassgpt see FIGURE REF --out FILE`: a picture of a model, as PNG, SVG, PDF or DOT."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from glassgpt.cli.chain import add_red
from glassgpt.cli.inside import add_inside
from glassgpt.cli.output import add_json, print_json
from glassgpt.cli.sampler import add_sampler, context_of, shaped
from glassgpt.errors import UsageError

if TYPE_CHECKING:
    from glassgpt.cli.pictures import Subject


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("figure", metavar="FIGURE", nargs="?", help="which picture (--list names them)")
    parser.add_argument("ref", metavar="REF", nargs="?", help="a run folder, or RUN@STEP; of some pictures a text")
    parser.add_argument("--out", metavar="FILE", help="where to write it: .png, .svg or .pdf; .dot for state-graph")
    parser.add_argument("--list", action="store_true", help="list the pictures and exit")
    parser.add_argument("--title", help="a title above the picture")
    parser.add_argument("--prompt", metavar="CONTEXT", help="where the text starts; without it, the stationary law")
    parser.add_argument("--every-length", action="store_true", help="count the shorter contexts as states too")
    parser.add_argument(
        "--layout",
        choices=["ring", "necklace"],
        default="ring",
        help="of state-graph and before-after: one ring, or one for each class of rotations of a context (ring)",
    )
    add_red(parser)
    add_inside(parser)
    add_sampler(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.cli.inside import INSIDE
    from glassgpt.cli.lessons import OF_TEXTS
    from glassgpt.cli.pictures import FIGURES, OF_FOLDERS

    listed = meanings()
    if args.list:
        if args.json:
            print_json({"figures": listed})
        else:
            print("\n".join(f"{name:28} {meaning}" for name, meaning in listed.items()))
        return 0
    if args.figure is None:
        raise UsageError("say which figure, as in: glassgpt see state-graph RUN --out graph.png (--list names them)")
    if args.figure not in listed:
        raise UsageError(f"there is no figure {args.figure!r}: choose one of {', '.join(FIGURES)} (--list names all)")
    needs = {"a model": {*FIGURES, *INSIDE}, "a folder of runs": set(OF_FOLDERS), "a text": set(OF_TEXTS)}
    for what, names in needs.items():
        if args.figure in names and (args.ref is None or args.out is None):
            raise UsageError(
                f"give {what} and a file to write, as in: glassgpt see {args.figure} REF --out picture.png"
            )
    if args.out is None:
        raise UsageError(f"give a file to write, as in: glassgpt see {args.figure} --out picture.png")
    draw(args)
    if args.json:
        print_json({"figure": args.figure, "file": args.out})
    else:
        print(args.out)
    return 0


def meanings() -> dict[str, str]:
    """Every figure, and what is to be seen in it: what --list says, and docs/gallery.md."""
    from glassgpt.cli.inside import INSIDE
    from glassgpt.cli.lessons import LESSONS, OF_TEXTS
    from glassgpt.cli.pictures import FIGURES, OF_FOLDERS

    tables = (FIGURES, INSIDE, OF_TEXTS, LESSONS, OF_FOLDERS)
    return {name: meaning for table in tables for name, (_, meaning) in table.items()}


def draw(args: argparse.Namespace) -> None:
    from glassgpt.cli.inside import INSIDE, Inside
    from glassgpt.cli.lessons import LESSONS, OF_TEXTS, text_of
    from glassgpt.cli.pictures import FIGURES, OF_FOLDERS
    from glassgpt.figures.files import checked_suffix, save

    path = Path(args.out)
    if path.suffix != ".dot" or args.figure not in FIGURES:
        checked_suffix(path)  # before the work, not after it
    if args.figure in LESSONS:
        save(LESSONS[args.figure][0](args.title), path)
    elif args.figure in INSIDE:
        save(INSIDE[args.figure][0](Inside.open(args)), path)
    elif args.figure in OF_TEXTS:
        save(OF_TEXTS[args.figure][0](text_of(args.ref), args.title), path)
    elif args.figure in OF_FOLDERS:
        save(OF_FOLDERS[args.figure][0](Path(args.ref), args.title), path)
    elif args.red_pattern is not None:
        raise UsageError("pictures mark red contexts, not patterns: use --red")
    elif path.suffix == ".dot":
        write_dot(subject_of(args), args.figure, path)
    else:
        save(FIGURES[args.figure][0](subject_of(args)), path)


def subject_of(args: argparse.Namespace) -> Subject:
    from glassgpt.cli.pictures import Subject
    from glassgpt.loading import open_run

    run, step = open_run(args.ref)
    tokenizer = run.tokenizer
    prompt = None if args.prompt is None else context_of(args.prompt, tokenizer, "--prompt")
    red = () if args.red is None else tuple(context_of(part, tokenizer, "--red") for part in args.red.split(","))
    short = any(len(context) < run.config.context_length for context in (*red, *([prompt] if prompt else [])))
    return Subject(
        run=run,
        step=step,
        shape=lambda model: shaped(model, args),
        every_length=args.every_length or short,
        red=red,
        prompt=prompt,
        steps=args.steps,
        title=args.title,
        layout=args.layout,
    )


def write_dot(subject: Subject, figure: str, path: Path) -> None:
    from glassgpt.figures.files import save_text
    from glassgpt.figures.states import to_dot

    if figure != "state-graph":
        raise UsageError(f"{figure} is no graph for Graphviz: write it as .png, .svg or .pdf")
    save_text(to_dot(subject.graph()), path)
