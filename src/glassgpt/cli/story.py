"""A story: a recipe that is a list of commands, run one after another in one folder, from a tokenizer to an assistant.

Every step is a `glassgpt` command that a person could type in that folder. `train` and `rank` go on where they were; of
the others a step whose --out is there already is done.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glassgpt.cli.main import Stopped, main
from glassgpt.cli.output import console, print_json
from glassgpt.errors import GlassGPTError, UsageError
from glassgpt.files import make_folder

GOES_ON = ("train", "rank")


@dataclass(frozen=True)
class Scene:
    """A command without `glassgpt`, and about how many minutes it takes on two cores."""

    command: str
    minutes: float

    @property
    def words(self) -> list[str]:
        return shlex.split(self.command)

    def is_done(self) -> bool:
        words = self.words
        return words[0] not in GOES_ON and "--out" in words and Path(words[words.index("--out") + 1]).exists()


def story_of(recipe: str) -> list[Scene] | None:
    """The steps of a recipe that is a story; None for one that is a recipe of its own. Raises UsageError."""
    from glassgpt.training.recipe import find_recipe

    path = find_recipe(Path(recipe))
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError):
        return None  # `read_recipe` says what is wrong
    if "story" not in content:
        return None
    steps: Any = content["story"].get("steps") if isinstance(content["story"], dict) else None
    try:
        scenes = [Scene(step["command"], float(step["minutes"])) for step in steps]
        if not scenes or any(not scene.words for scene in scenes):
            raise ValueError
        return scenes
    except (TypeError, KeyError, ValueError):
        raise UsageError(
            f'{path}: a story has steps = [{{command = "train RECIPE --out FOLDER", minutes = 5}}, ...]'
        ) from None


def run_story(scenes: list[Scene], args: argparse.Namespace) -> int:
    """Run the steps in the folder --out; --set goes to each training in it."""
    make_folder(Path(args.out))
    say = console(error=True).print
    pace: list[tuple[float, float]] = []  # minutes as planned, and as they were
    with contextlib.chdir(args.out):
        for number, scene in enumerate(scenes, 1):
            if scene.is_done():
                continue
            left = sum(one.minutes for one in scenes[number - 1 :] if not one.is_done()) * _slowness(pace)
            if not args.json:
                say(
                    f"\n{number} of {len(scenes)}, about {left:.0f} minutes left: glassgpt {scene.command}",
                    style="bold",
                )
            began = time.perf_counter()
            code = _run(scene, args)
            if code:
                raise (Stopped if code > 2 else GlassGPTError)(*_why(scene, args, code))
            pace.append((scene.minutes, (time.perf_counter() - began) / 60))
    if args.json:
        print_json({"run": args.out, "steps": [scene.command for scene in scenes]})
    return 0


def _slowness(pace: list[tuple[float, float]]) -> float:
    """How many times as long as planned the steps took that were not done already."""
    real = [(planned, took) for planned, took in pace if took > planned / 10]
    return sum(took for _, took in real) / sum(planned for planned, _ in real) if real else 1.0


def _run(scene: Scene, args: argparse.Namespace) -> int:
    words = scene.words
    if words[0] == "train":
        words += [word for override in args.set for word in ("--set", override)]
        words += ["--device", args.device] if args.device else []
    if not args.json:
        return main(words)
    with contextlib.redirect_stdout(io.StringIO()):
        return main(words)


def _why(scene: Scene, args: argparse.Namespace, code: int) -> tuple[Any, ...]:
    what = f"at `glassgpt {scene.command}`, in {args.out}: the same command goes on from there"
    return (what, code) if code > 2 else (f"the story ended {what}",)
