"""`glassgpt evaluate REF`: what a model that answers is worth, or how far a reward model is to be trusted."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from glassgpt.cli.arena import write_json
from glassgpt.cli.output import add_json, print_json, print_table
from glassgpt.errors import UsageError

BEST_OF = (1, 2, 4, 8, 16)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF", help="a model that answers, or the run of a reward model")
    parser.add_argument("--rows", metavar="FILE", help="of a reward model: .jsonl preferences to judge it by")
    parser.add_argument("--n", type=int, default=200, metavar="N", help="questions, and prompts, to answer (200)")
    parser.add_argument("--reference", metavar="REF", help="the model it came from: how far it has gone, and gained")
    parser.add_argument("--reward", metavar="RUN", help="a reward model: tells what it thinks of the answers")
    parser.add_argument("--best-of", type=int, metavar="N", help="with --reward: the best of 1, 2, 4, ... N answers")
    parser.add_argument("--max-new-tokens", type=int, default=96, metavar="N", help="the longest answer (96)")
    parser.add_argument("--seed", type=int, default=0, help="of answers and intervals (0)")
    parser.add_argument("--out", metavar="FILE", help="write the result there too, as JSON")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.weights.run import Run, is_run

    if args.n < 1 or (args.best_of or 1) < 1:
        raise UsageError(f"--n and --best-of must be 1 or more, got {args.n} and {args.best_of}")
    if args.best_of and not args.reward:
        raise UsageError("--best-of chooses by a reward model: give --reward RUN")
    if is_run(args.ref) and Run(args.ref).head.get("kind") == "reward":
        result = of_reward_model(args)
    else:
        result = of_player(args)
    if args.out:
        write_json(Path(args.out), result)
    if args.json:
        print_json(result)
    else:
        print_result(result)
    return 0


def of_player(args: argparse.Namespace) -> dict[str, Any]:
    """Exact match on the toy world's held-out questions, and gold and the rest of its tellings."""
    from glassgpt.training.players import Player

    player = Player.open(args.ref)
    result = questions_of(player, args) | tellings_of(player, args)
    if args.best_of:
        result["best_of"] = best_of(player, args)
    return result


def questions_of(player: Any, args: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from glassgpt.evaluation.intervals import wilson
    from glassgpt.text.toy_tasks import TELLING, conversations
    from glassgpt.text.toy_world import ToyWorld
    from glassgpt.training.players import Answers

    made = conversations(ToyWorld(), args.seed + 1, 8 * args.n, held_out=True)
    different = {row["messages"][0]["content"]: row for row in made if row["kind"] != TELLING}
    rows = list(different.values())[: args.n]
    asked = [tuple(row["messages"][:1]) for row in rows]
    answers = Answers.of(player.answer(asked, args.max_new_tokens, args.seed, temperature=0.0))
    right = np.array([text == row["messages"][1]["content"] for text, row in zip(answers.texts, rows, strict=True)])
    kinds = [row["kind"] for row in rows]
    by_kind = {kind: float(right[[k == kind for k in kinds]].mean()) for kind in dict.fromkeys(kinds)}
    share = wilson(int(right.sum()), len(right))
    return {
        "questions": len(rows),
        "exact_match": share.value,
        "exact_match_low": share.low,
        "exact_match_high": share.high,
        "exact_match_by_kind": by_kind,
        "stop_rate": float(answers.ended.mean()),
    }


def tellings_of(player: Any, args: argparse.Namespace) -> dict[str, Any]:

    from glassgpt.evaluation.intervals import bootstrap_mean
    from glassgpt.training.players import Answers, Player, prompts_named
    from glassgpt.training.rollout import say
    from glassgpt.training.scorers import reward_of

    asked = prompts_named("toy-world", args.n, args.seed, held_out=True)
    rollouts = player.answer(asked, args.max_new_tokens, args.seed)
    answers = Answers.of(rollouts)
    came_from = Player.open(args.reference) if args.reference else None
    reference = came_from.model if came_from else None
    said = [say(player.model, part.inputs, part.targets, reference) for part in rollouts]
    by_prompt = gold_by_prompt(answers)
    gold = bootstrap_mean(list(by_prompt.values()), args.seed)
    tokens = sum(int(part.mask.sum()) for part in rollouts)
    result = {
        "prompts": len(answers.texts),
        "different_prompts": len(by_prompt),
        "gold": gold.value,
        "gold_low": gold.low,
        "gold_high": gold.high,
        "tellings_stop_rate": float(answers.ended.mean()),
        "length": tokens / len(answers.texts),
        "entropy": sum(float(one.entropy.sum()) for one in said) / max(1, tokens),
    }
    if came_from is not None:
        before = gold_by_prompt(Answers.of(came_from.answer(asked, args.max_new_tokens, args.seed)))
        gain = bootstrap_mean([value - before[prompt] for prompt, value in by_prompt.items()], args.seed)
        result |= {"gold_gain": gain.value, "gold_gain_low": gain.low, "gold_gain_high": gain.high}
        result["kl"] = sum(float(one.kl.sum()) for one in said if one.kl is not None) / len(answers.texts)
    if args.reward:
        result["reward"] = float(reward_of(args.reward)(answers.prompts, answers.texts, answers.ended).mean())
    return result


def gold_by_prompt(answers: Any) -> dict[str, float]:
    """The mean gold of the answers to each different prompt."""
    import numpy as np

    from glassgpt.training.scorers import GoldScorer

    scores = GoldScorer()(answers.prompts, answers.texts, answers.ended)
    by_prompt: dict[str, list[float]] = {}
    for prompt, score in zip(answers.prompts, scores, strict=True):
        by_prompt.setdefault(prompt.text, []).append(float(score))
    return {prompt: float(np.mean(of_one)) for prompt, of_one in by_prompt.items()}


def best_of(player: Any, args: argparse.Namespace) -> list[dict[str, float]]:
    """Draw several answers and keep the one that the reward model likes best: what any training has to beat.

    The divergence of the best of n from one draw is at most log n - (n - 1) / n nats (arXiv 2401.01879)."""
    import numpy as np

    from glassgpt.training.players import Answers, prompts_named
    from glassgpt.training.scorers import GoldScorer, reward_of

    asked = prompts_named("toy-world", args.n, args.seed, held_out=True)
    every = [one for one in asked for _ in range(args.best_of)]
    answers = Answers.of(player.answer(every, args.max_new_tokens, args.seed + 7))
    learned = reward_of(args.reward)(answers.prompts, answers.texts, answers.ended).reshape(len(asked), -1)
    gold = GoldScorer()(answers.prompts, answers.texts, answers.ended).reshape(len(asked), -1)
    found = []
    for n in sorted({*(n for n in BEST_OF if n <= args.best_of), args.best_of}):
        best = learned[:, :n].argmax(axis=1)
        rows = np.arange(len(asked))
        kl = float(np.log(n) - (n - 1) / n)
        found.append(
            {"n": n, "kl": kl, "reward": float(learned[rows, best].mean()), "gold": float(gold[rows, best].mean())}
        )
    return found


def of_reward_model(args: argparse.Namespace) -> dict[str, Any]:
    """How often it prefers what was preferred, and whether its probabilities mean what they say."""
    import numpy as np

    from glassgpt.evaluation.calibration import brier, expected_calibration_error, reliability
    from glassgpt.evaluation.intervals import wilson
    from glassgpt.training.examples import asked_of, preferences, ranked_of, split_by_hash
    from glassgpt.training.reward import margins_of
    from glassgpt.training.scorers import RewardModel

    if not args.rows:
        raise UsageError("a reward model is judged by preferences: give --rows FILE, as `glassgpt rank` writes them")
    scorer = RewardModel(args.ref)
    rows = preferences([args.rows])
    data = scorer.run.recipe["data"]
    if data["files"] == [args.rows]:  # only what it was not trained on
        _, rows = split_by_hash(rows, data["validation"], asked_of)
    margins = margins_of(scorer.model, [ranked_of(row, scorer.base) for row in rows], scorer.base.config.context_length)
    stated = 1 / (1 + np.exp(-margins))
    both = np.concatenate([stated, 1 - stated]), np.concatenate([np.ones(len(stated)), np.zeros(len(stated))])
    share = wilson(int((margins > 0).sum()), len(margins))
    bins = reliability(*both)
    return {
        "pairs": len(margins),
        "accuracy": share.value,
        "accuracy_low": share.low,
        "accuracy_high": share.high,
        "brier": brier(*both),
        "calibration_error": expected_calibration_error(*both),
        "reliability": {name: np.asarray(getattr(bins, name)).tolist() for name in vars(bins)},
    }


def print_result(result: dict[str, Any]) -> None:
    plain = {name: value for name, value in result.items() if isinstance(value, (int, float))}
    print_table(["", ""], [[name, f"{value:.4g}"] for name, value in plain.items()])
    for name in ("exact_match_by_kind",):
        if name in result:
            print_table([name, ""], [[kind, f"{share:.3f}"] for kind, share in result[name].items()])
    if "best_of" in result:
        rows = [[str(one["n"]), *(f"{one[key]:.3f}" for key in ("kl", "reward", "gold"))] for one in result["best_of"]]
        print_table(["best of", "KL at most", "reward", "gold"], rows)
