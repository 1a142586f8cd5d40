"""`glassgpt arena REF REF...`: models answer the same prompts, a judge compares, and ratings explain the results."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from glassgpt.cli.output import add_json, console, print_json, print_table
from glassgpt.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("refs", metavar="REF", nargs="+", help="the models that play")
    parser.add_argument(
        "--judge",
        default="toy-world",
        metavar="WHO",
        help="toy-world (gold), toy-rater, a reward model's run, or person",
    )
    parser.add_argument("--prompts", default="toy-world", metavar="FILE", help=".jsonl rows of prompts (toy-world)")
    parser.add_argument("--n", type=int, default=100, metavar="N", help="prompts to play on (100)")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="how answers are drawn (1)")
    parser.add_argument("--max-new-tokens", type=int, default=96, metavar="N", help="the longest answer (96)")
    parser.add_argument("--seed", type=int, default=0, help="of answers and intervals (0)")
    parser.add_argument("--out", metavar="FILE", help="write the result there too, as JSON")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.evaluation.arena import play, ratings, win_matrix
    from glassgpt.training.players import Answers, Player, prompts_named

    if len(set(args.refs)) < 2 or len(set(args.refs)) < len(args.refs):
        raise UsageError("an arena wants two models or more, each named once")
    if args.n < 1:
        raise UsageError(f"--n must be 1 or more, got {args.n}")
    asked = prompts_named(args.prompts, args.n, args.seed, held_out=True)
    drawn = {}
    for ref in args.refs:
        if not args.json:
            console(error=True).print(f"{ref} answers {args.n} prompts")
        drawn[ref] = Answers.of(
            Player.open(ref).answer(asked, args.max_new_tokens, args.seed, temperature=args.temperature)
        )
    judge, scores = judge_of(args, drawn)
    numbered = list(range(len(asked)))
    games = play(numbered, {ref: [(ref, i) for i in numbered] for ref in args.refs}, judge)
    alike = {repr(one): i for i, one in reversed(list(enumerate(asked)))}  # what was asked twice hangs together
    games = [replace(game, prompt=alike[repr(asked[game.prompt or 0])]) for game in games]
    rated = ratings(games, args.seed)
    names, wins = win_matrix(games, args.refs)
    result: dict[str, Any] = {
        "judge": args.judge,
        "prompts": len(asked),
        "different_prompts": len(alike),
        "ratings": {ref: {"elo": one.value, "low": one.low, "high": one.high} for ref, one in rated.items()},
        "wins": {one: dict(zip(names, map(float, row), strict=True)) for one, row in zip(names, wins, strict=True)},
        "mean_score": {ref: float(values.mean()) for ref, values in scores.items()},
    }
    result["samples"] = [
        {"prompt": prompt.text, "answers": {ref: drawn[ref].texts[i] for ref in args.refs}}
        for i, prompt in enumerate(drawn[args.refs[0]].prompts[:SAMPLES])
    ]
    result["wins"] = {
        one: {other: (None if one == other else value) for other, value in row.items()}
        for one, row in result["wins"].items()
    }
    if args.out:
        write_json(Path(args.out), result)
    if args.json:
        print_json(result)
    else:
        rows = [[ref, f"{one.value:.0f}", f"{one.low:.0f} to {one.high:.0f}"] for ref, one in rated.items()]
        print_table(["model", "Elo", "95 %"], rows)
    return 0


SAMPLES = 2  # prompts of which the answers are kept


Judge = Callable[[int, tuple[str, int], tuple[str, int]], float]


def judge_of(args: argparse.Namespace, drawn: dict[str, Any]) -> tuple[Judge, dict[str, Any]]:
    """What compares two answers, and if it has a scale, every answer's place on it."""
    if args.judge == "person":
        return _person(drawn), {}
    from glassgpt.training.scorers import reward_of

    scorer = reward_of(args.judge)
    scores = {ref: scorer(answers.prompts, answers.texts, answers.ended) for ref, answers in drawn.items()}

    def judge(prompt: int, one: tuple[str, int], other: tuple[str, int]) -> float:
        mine, theirs = scores[one[0]][prompt], scores[other[0]][prompt]
        return 0.5 if mine == theirs else float(mine > theirs)

    return judge, scores


def _person(drawn: dict[str, Any]) -> Judge:
    """Asked once for each pair, without the names: the other order is answered by the same word."""
    from glassgpt.cli.rank import _ask

    known: dict[tuple[int, frozenset[str]], dict[str, float]] = {}

    def judge(prompt: int, one: tuple[str, int], other: tuple[str, int]) -> float:
        key = (prompt, frozenset((one[0], other[0])))
        if key not in known:
            texts = [drawn[ref].texts[prompt] for ref in (one[0], other[0])]
            scores = [1.0, 1.0] if texts[0] == texts[1] else _ask(drawn[one[0]].prompts[prompt].text, texts)
            known[key] = dict(zip((one[0], other[0]), scores, strict=True))
        mine, theirs = known[key][one[0]], known[key][other[0]]
        return 0.5 if mine == theirs else float(mine > theirs)

    return judge


def write_json(path: Path, content: dict[str, Any]) -> None:
    import json

    from glassgpt.files import write_atomically

    write_atomically(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
