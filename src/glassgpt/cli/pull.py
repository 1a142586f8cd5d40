"""`glassgpt pull NAME`: fetch a model and say where it lies."""

from __future__ import annotations

import argparse

from glassgpt.cli.output import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="gpt2, gpt2-medium, gpt2-large, gpt2-xl, smollm2, or owner/name")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.weights.hub import pull

    path = pull(args.name)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    size = sum(file.stat().st_size for file in files)
    if args.json:
        print_json({"name": args.name, "path": str(path), "bytes": size})
    else:
        print(f"{args.name}: {size / 1e6:,.0f} MB in {path}")
    return 0
