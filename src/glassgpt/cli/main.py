"""The command line: a table of commands, each imported when it is used, so that `--help` costs what Python costs.

This is the only place that prints and exits. An error of ours becomes one line on standard error and an exit code:
0 fine, 1 the work failed, 2 wrong usage; 130, 143 or 129 stopped by Ctrl-C, SIGTERM or a terminal that was closed.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

COMMANDS = {
    "tour": "the whole story of the baby GPT: trained, sampled, and seen as a Markov chain",
    "train": "train a recipe into a run folder, or go on with the run that is there",
    "ladder": "n-grams, a perceptron, an MLP, recurrent nets and a GPT on one text, side by side",
    "rank": "several answers to each prompt, put in order: rows for a reward model or dpo",
    "evaluate": "what a model's answers are worth, or a reward model's judgement",
    "arena": "models answer the same prompts, and ratings say who wins",
    "estimate": "what training a recipe will cost: memory, disk, time",
    "generate": "let a model go on with a prompt",
    "score": "how surprised a model is by a text, token by token",
    "tokenize": "a text as a model's tokens, and the merges that led there",
    "chat": "talk with a model that was trained to",
    "chain": "a model as a Markov chain: its states, its long run, and how likely red is",
    "see": "draw a picture of a model",
    "serve": "the page in which to look at models, on this machine",
    "info": "a model's size, and the size of its state space",
    "pull": "fetch a model: gpt2, smollm2, or a hub's owner/name",
    "export": "write a model for transformers (hf) or llama.cpp (gguf)",
    "doctor": "what is safe and fast on this machine",
}


class Stopped(Exception):
    """A signal asked the program to stop, and what had to be saved has been. `code` is the exit code to end with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def entry() -> None:
    """What the `glassgpt` script calls."""
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:  # before or after a command runs, which has a handler of its own
        sys.exit(130)


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="glassgpt", description="A GPT you can see through.", epilog="glassgpt COMMAND --help tells more of each."
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, help_line in COMMANDS.items():
        command = commands.add_parser(name, help=help_line, description=f"{help_line[0].upper()}{help_line[1:]}.")
        if name == chosen:
            module = import_module(f"glassgpt.cli.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    args = parser.parse_args(arguments)
    if args.version:
        from glassgpt import __version__

        print(__version__)
        return 0
    if args.command is None:
        parser.print_help()
        return 2
    return _guarded(args)


def _guarded(args: argparse.Namespace) -> int:
    """Run the command; turn what it raises into one line and an exit code."""
    from glassgpt.errors import GlassGPTError, UsageError

    try:
        return args.run(args) or 0
    except Stopped as stop:
        return _fail(args, str(stop), stop.code)
    except UsageError as error:
        return _fail(args, "" if error.is_told else str(error), 2)
    except GlassGPTError as error:
        return _fail(args, "" if error.is_told else str(error), 1)
    except KeyboardInterrupt:
        return _fail(args, "stopped by Ctrl-C", 130)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(args, f"{error.filename or 'a file'}: {error.strerror or error}", 1)
    except MemoryError:
        return _fail(args, "there is not enough memory for this: choose a smaller model or a shorter context", 1)
    except Exception as error:
        if os.environ.get("GLASSGPT_TRACEBACK"):
            raise
        what = f"a defect in GlassGPT ({type(error).__name__}: {error})"
        return _fail(args, f"{what}: please report it, with what GLASSGPT_TRACEBACK=1 adds", 1)


def _fail(args: argparse.Namespace, message: str, code: int) -> int:
    if message:
        print(f"glassgpt {args.command}: {message}", file=sys.stderr)
    return code
