"""`glassgpt rank REF --out FILE`: several answers to each prompt, put in order by a person, the gold scorer or a model.

What is written are rows for [reward] and [dpo]. A file that is there already is gone on with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassgpt.cli.main import Stopped
from glassgpt.cli.output import add_json, console, print_json
from glassgpt.errors import DamagedFileError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from glassgpt.text.rows import Said
    from glassgpt.training.players import Player

PROMPTS_AT_ONCE = 16
NOTHING = " "  # how an answer is written that is only an end: rows refuse empty ones, and it is judged all the same


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF", help="the model that answers")
    parser.add_argument("--out", required=True, metavar="FILE", help="the .jsonl file to write, or to go on with")
    parser.add_argument("--prompts", default="toy-world", metavar="FILE", help=".jsonl rows of prompts (toy-world)")
    parser.add_argument(
        "--judge",
        default="person",
        metavar="WHO",
        help="person, toy-rater (who can't look facts up), toy-world (gold), or a reward model's run",
    )
    parser.add_argument("--k", type=int, default=4, metavar="K", help="answers to each prompt (4)")
    parser.add_argument("--n", type=int, default=100, metavar="N", help="prompts to ask (100)")
    parser.add_argument(
        "--flips", type=float, default=0.0, metavar="SHARE", help="write pairs, so many of them the wrong way round"
    )
    parser.add_argument(
        "--margin", type=float, default=0.0, metavar="X", help="write pairs, but for those whose scores are closer"
    )
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="how the answers are drawn (1)")
    parser.add_argument("--max-new-tokens", type=int, default=96, metavar="N", help="the longest answer (96)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same answers (0)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.files import Log
    from glassgpt.training.players import Player, prompts_named

    _check(args)
    path = Path(args.out)
    done = _done(path)
    asked = prompts_named(args.prompts, args.n, args.seed, held_out=False)
    player = Player.open(args.ref)
    log, written = Log(path, done.length), done.rows
    try:
        for first in range(done.prompts, len(asked), PROMPTS_AT_ONCE):
            for row in ranked(args, player, asked[first : first + PROMPTS_AT_ONCE], first):
                log.add((json.dumps(row, ensure_ascii=False) + "\n").encode())
                written += 1
            log.force_to_disk()
            if not args.json and args.judge != "person":
                console(error=True).print(f"{min(first + PROMPTS_AT_ONCE, len(asked))} of {len(asked)} prompts")
    except (KeyboardInterrupt, EOFError):
        raise Stopped(f"{path} keeps {written} rows: the same command goes on", 130) from None
    finally:
        log.close()
    if args.json:
        print_json({"file": str(path), "rows": written, "prompts": len(asked)})
    else:
        print(f"{path}: {written} rows of {len(asked)} prompts")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.k < 2 or args.n < 1:
        raise UsageError(f"--k must be 2 or more and --n 1 or more, got {args.k} and {args.n}")
    if not 0 <= args.flips <= 0.5:
        raise UsageError(f"--flips is a share from 0 to 0.5, got {args.flips}")
    if not args.margin >= 0:
        raise UsageError(f"--margin is 0 or more, got {args.margin}")
    if args.judge == "person" and (args.flips or args.margin):
        raise UsageError("--flips and --margin make of a program's scores what people do by themselves: leave them out")


class _Done:
    """What of the file is whole: `length` bytes, `rows`, and the prompts that they are of."""

    def __init__(self, length: int = 0, rows: int = 0, prompts: int = 0) -> None:
        self.length, self.rows, self.prompts = length, rows, prompts


def _done(path: Path) -> _Done:
    if not path.exists():
        return _Done()
    content = path.read_bytes()
    content = content[: content.rfind(b"\n") + 1]
    try:
        places = [json.loads(line)["place"] for line in content.splitlines()]
    except (ValueError, KeyError, TypeError):
        raise DamagedFileError(f"{path} was not written by `glassgpt rank`: choose another --out") from None
    return _Done(len(content), len(places), max(places, default=-1) + 1)


def ranked(args: argparse.Namespace, player: Player, asked: Sequence[Said], first: int) -> list[dict[str, Any]]:
    """The rows of some prompts; `first`: the number of the first of them."""
    from glassgpt.training.players import Answers

    every = [one for one in asked for _ in range(args.k)]
    seed = args.seed * 1_000_003 + first * args.k
    answers = Answers.of(player.answer(every, args.max_new_tokens, seed, temperature=args.temperature))
    rows: list[dict[str, Any]] = []
    for i, one in enumerate(asked):
        span = range(i * args.k, (i + 1) * args.k)
        scores = _scores(args, answers, span)
        place = {"place": first + i}
        prompt = one if isinstance(one, str) else list(one)
        texts = [answers.texts[j] or NOTHING for j in span]
        if args.flips or args.margin:
            rows += [row | place for row in _pairs(args, prompt, texts, scores, first + i)]
        elif len(set(scores)) > 1:  # what is all alike teaches nothing
            best_first = sorted(set(scores), reverse=True)
            ranks = [best_first.index(score) for score in scores]
            rows.append({"prompt": prompt, "completions": texts, "ranks": ranks} | place)
    return rows


def _pairs(args: argparse.Namespace, prompt: Any, texts: list[str], scores: list[float], number: int) -> list[dict]:
    """All pairs of the answers, each with that chance the wrong way round; ties, and what is as good as one, are left
    out."""
    from glassgpt.text.draws import Draws

    draws = Draws("flips", args.seed, number)
    rows = []
    for a, b in combinations(range(len(texts)), 2):
        flipped = draws.random() < args.flips
        if scores[a] == scores[b] or abs(scores[a] - scores[b]) < args.margin or texts[a] == texts[b]:
            continue
        better, worse = (a, b) if (scores[a] > scores[b]) != flipped else (b, a)
        rows.append({"prompt": prompt, "chosen": texts[better], "rejected": texts[worse]})
    return rows


def _scores(args: argparse.Namespace, answers: Any, span: range) -> list[float]:
    if args.judge == "person":
        return _ask(answers.prompts[span.start].text, [answers.texts[j] for j in span])
    scores: np.ndarray = scorer_of(args)([answers.prompts[j] for j in span], [answers.texts[j] for j in span],
                                         answers.ended[span.start : span.stop])  # fmt: skip
    return [float(score) for score in scores]


_scorers: dict[str, Any] = {}


def scorer_of(args: argparse.Namespace) -> Any:
    from glassgpt.training.scorers import reward_of

    if args.judge not in _scorers:
        _scorers[args.judge] = reward_of(args.judge)
    return _scorers[args.judge]


def _ask(prompt: str, texts: list[str]) -> list[float]:
    """A person's order, as scores: higher is better."""
    from glassgpt.cli.train import printable

    say = console(error=True).print
    say(f"\n{printable(prompt)}", style="bold")
    for number, text in enumerate(texts, 1):
        say(f"  {number}. {printable(text)}")
    while True:
        say("best first, equal ones joined by =, such as 2 1=3 4 (Ctrl-D stops): ", end="")
        line = input()
        try:
            return scores_of_order(line, len(texts))
        except UsageError as error:
            say(str(error), style="red")


def scores_of_order(line: str, n: int) -> list[float]:
    """An order such as "2 1=3 4" as a score for each of n answers.

    >>> scores_of_order("2 1=3", 3)
    [1.0, 2.0, 1.0]
    """
    groups = [group.split("=") for group in line.split()]
    named = [part for group in groups for part in group]
    if sorted(named) != sorted(str(i) for i in range(1, n + 1)):
        raise UsageError(f"name each of 1 to {n} once, got {line!r}")
    scores = [0.0] * n
    for place, group in enumerate(groups):
        for part in group:
            scores[int(part) - 1] = float(len(groups) - place)
    return scores
