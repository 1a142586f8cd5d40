"""`glassgpt see FIGURE REF --out FILE`: a picture of a model, as PNG, SVG, PDF or DOT."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from glassgpt.cli.chain import add_red
from glassgpt.cli.output import add_json, print_json
from glassgpt.cli.sampler import add_sampler, context_of, shaped
from glassgpt.errors import UsageError

if TYPE_CHECKING:
    from glassgpt.cli.pictures import Subject


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("figure", metavar="FIGURE", nargs="?", help="which picture (--list names them)")
    parser.add_argument("ref", metavar="REF", nargs="?", help="a run folder, or RUN@STEP")
    parser.add_argument("--out", metavar="FILE", help="where to write it: .png, .svg or .pdf; .dot for state-graph")
    parser.add_argument("--list", action="store_true", help="list the pictures and exit")
    parser.add_argument("--title", help="a title above the picture")
    parser.add_argument("--prompt", metavar="CONTEXT", help="where the text starts; without it, the stationary law")
    parser.add_argument("--every-length", action="store_true", help="count the shorter contexts as states too")
    add_red(parser)
    add_sampler(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.cli.pictures import FIGURES, OF_FOLDERS

    if args.list:
        meanings = {name: meaning for name, (_, meaning) in [*FIGURES.items(), *OF_FOLDERS.items()]}
        if args.json:
            print_json({"figures": meanings})
        else:
            print("\n".join(f"{name:28} {meaning}" for name, meaning in meanings.items()))
        return 0
    if args.figure is None:
        raise UsageError(f"say which figure: one of {', '.join(FIGURES)}")
    if args.figure in OF_FOLDERS and args.ref is not None and args.out is not None:
        return of_folder(args)
    if args.figure not in FIGURES and args.figure not in OF_FOLDERS:
        raise UsageError(f"there is no figure {args.figure!r}: choose one of {', '.join(FIGURES)}")
    if args.ref is None or args.out is None:
        raise UsageError("give a model and a file to write, as in: glassgpt see state-graph RUN --out graph.png")
    if args.red_pattern is not None:
        raise UsageError("pictures mark red contexts, not patterns: use --red")
    subject = subject_of(args)
    path = Path(args.out)
    if path.suffix == ".dot":
        write_dot(subject, args.figure, path)
    else:
        from glassgpt.figures.files import save

        save(FIGURES[args.figure][0](subject), path)
    if args.json:
        print_json({"figure": args.figure, "file": str(path)})
    else:
        print(path)
    return 0


def of_folder(args: argparse.Namespace) -> int:
    """A picture of several runs that lie side by side."""
    from glassgpt.cli.pictures import OF_FOLDERS
    from glassgpt.figures.files import save

    save(OF_FOLDERS[args.figure][0](Path(args.ref), args.title), Path(args.out))
    print_json({"figure": args.figure, "file": args.out}) if args.json else print(args.out)
    return 0


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
    )


def write_dot(subject: Subject, figure: str, path: Path) -> None:
    from glassgpt.figures.files import save_text
    from glassgpt.figures.states import to_dot

    if figure != "state-graph":
        raise UsageError(f"{figure} is no graph for Graphviz: write it as .png, .svg or .pdf")
    save_text(to_dot(subject.graph()), path)
