"""The gallery: every picture that `glassgpt see --list` names, each made by the command that stands below it.

`make gallery` trains the models and draws the pictures in out/gallery, and writes docs/gallery.md with smaller copies
of them. What is trained already is not trained again: take out/gallery away to begin anew. A figure that is new in
`see` needs a place in GROUPS.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from glassgpt.cli.main import main
from glassgpt.cli.see import meanings
from glassgpt.cli.story import Scene
from glassgpt.files import write_atomically

ROOT = Path(__file__).parents[1]
PAGE, PICTURES, WORK = ROOT / "docs" / "gallery.md", ROOT / "docs" / "gallery", ROOT / "out" / "gallery"
AIM, MOST_BYTES = 80_000, 120_000  # of a picture; long texts miss the aim, since fewer colours would blot them
NEAR = (12, 20, 28, 36, 48)  # how far, in steps of 255, a dot may be from its own colour: nearer first

# Minutes are those on two cores that do nothing else.
# PLAIN: else `train` takes what a short measurement finds faster, and that may be something else the next time.
PLAIN = "--set train.precision=float32 --set train.compile=no"
MODELS = {
    "the baby GPT, of 8 states": [Scene("train baby --out baby", 0.1)],
    "a GPT that counts parentheses": [Scene(f"train parentheses --out parentheses {PLAIN}", 0.7)],
    "a GPT of the toy world, where people have names, towns, pets and trades": [
        Scene(f"train toy-world --out base {PLAIN}", 2.5)
    ],
    "from there to an assistant, with few steps of each stage (recipes/assistant.toml has the whole way)": [
        Scene("train assistant-sft --out sft --set train.steps=200 --set evaluate.every=200", 1),
        Scene("rank sft --judge toy-rater --k 4 --n 400 --flips 0.1 --margin 2 --out preferences.jsonl", 0.5),
        Scene("train assistant-reward --out reward --set train.steps=40", 1),
        Scene("evaluate reward --rows preferences.jsonl --out reward.json", 0.2),
        Scene("train assistant-ppo --out ppo --set train.steps=8", 0.5),
        Scene(
            "train assistant-ppo --out pushed --set ppo.beta=0 --set train.learning_rate=3e-4 --set train.steps=14", 0.8
        ),
        Scene("arena base sft ppo --judge toy-world --n 100 --out arena.json", 0.3),
    ],
}

_SO_FAR = '--text "Corina lives in Oakwick. Corina has a"'
_READ = '--text "Corina lives in Oakwick. Corina has a goat. The goat of Corina is called"'
_WRITES = '--text "Corina lives in" --max-new-tokens 10'
_WORDS = (
    "goat,dog,rabbit,hen,cat,Blackton,Goldton,Oakwick,Riverbridge,Elmfield,bread,cheese,honey,nuts,smith,singer,"
    "teacher,carpenter,lamp,mirror,rope,basket"
)
GROUPS = {
    "The chain": {
        "state-graph": "baby --red 000",
        "before-after": "baby",
        "heat-map": "baby",
        "greedy-machine": "baby",
    },
    "Training": {
        "loss": "baby",
        "curves": "base",
        "probabilities-over-training": "baby",
        "landscape": "baby",
        "landscape-around": "baby",
        "parentheses": "parentheses",
        "samples": "base",
        "batch": "base",
        "alignment": ".",
    },
    "Decoding": {
        "next-token": f"base {_SO_FAR}",
        "samplers": f"base {_SO_FAR}",
    },
    "Inside a model": {
        "parameters": "base",
        "weights": "baby",
        "embedding-sum": "baby --text 101",
        "attention": f"base {_READ}",
        "attention-head": f"base {_READ} --layer 1 --head 2",
        "head": "baby --text 101 --layer 1 --head 2",
        "ablation": f"base {_READ}",
        "lens": 'base --text "Corina lives in Oakwick. Corina has a goat."',
    },
    "Meaning space": {
        "embedding-map": f"base --words {_WORDS}",
        "neighbours": "base --words goat,Oakwick,bread,smith",
        "meaning-path": f"base {_WRITES}",
        "meaning-fans": f"base {_WRITES}",
        "meaning-3d": f"base {_WRITES}",
    },
    "How nets learn": {
        name: "" for name in ("fits", "attractors", "activations", "digits", "digits-blurred", "digit-map")
    },
    "Texts": {name: "python-docs" for name in ("letters", "words", "letter-pairs", "ngram-texts")},
    "Red": {
        "red-over-steps": "baby --red 000 --prompt 111",
        "red-over-training": "baby --red 000 --prompt 111",
    },
}


def commands() -> dict[str, str]:
    """Of each figure the command that draws it, without `glassgpt`."""
    drawn = {name: arguments for group in GROUPS.values() for name, arguments in group.items()}
    return {name: " ".join(f"see {name} {arguments} --out {name}.png".split()) for name, arguments in drawn.items()}


def unplaced() -> set[str]:
    """Figures that `see` lists and GROUPS doesn't, and the other way round."""
    return set(meanings()) ^ set(commands())


# ---- The page --------------------------------------------------------------------------------------------------------


def page() -> str:
    """docs/gallery.md."""
    parts = [HEAD]
    for what, steps in MODELS.items():
        parts.append(
            f"{_sentence(what)[:-1]}:\n\n```\n" + "".join(f"glassgpt {one.command}\n" for one in steps) + "```\n"
        )
    told, drawn = meanings(), commands()
    for group, figures in GROUPS.items():
        parts.append(f"## {group}\n")
        parts += [_entry(name, told[name], drawn[name]) for name in figures]
    return "\n".join(parts)


HEAD = """# Gallery

Every picture that `glassgpt see --list` names, and below each the command that made it. `make gallery` trains the
models, draws the pictures in `out/gallery`, and writes this page: 909 s of processor time (`time make gallery`). Here
they have fewer colours, to be small; the commands write them whole, as .png, .svg or .pdf. Precision and compiling are
set for two of the models, since `train` else takes what it measures to be faster. On another machine the last digits of
a training may differ, and so may `python-docs`, which is the documentation of the Python that reads it.

## The models
"""


def _entry(name: str, meaning: str, command: str) -> str:
    sentence = _sentence(meaning)
    alt = sentence.replace("[", "(").replace("]", ")")
    return f"### {name}\n\n{sentence}\n\n![{alt}](gallery/{name}.png)\n\n```\nglassgpt {command}\n```\n"


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


# ---- The pictures ----------------------------------------------------------------------------------------------------


def scenes() -> list[Scene]:
    return [scene for steps in MODELS.values() for scene in steps]


def make() -> None:
    """Train what isn't trained, draw every picture, write the page."""
    if lost := unplaced():
        sys.exit(f"GROUPS in docs/gallery.py and `glassgpt see --list` must name the same figures; not in both: {lost}")
    WORK.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(WORK):
        for scene in scenes():
            if not scene.is_done():
                run(scene.command)
        for command in commands().values():
            run(command)
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.glob("*.png"):
        if old.stem not in commands():
            old.unlink()
    for name in commands():
        write_atomically(PICTURES / f"{name}.png", reduced((WORK / f"{name}.png").read_bytes()))
    write_atomically(PAGE, page().encode())
    sizes = [path.stat().st_size for path in PICTURES.glob("*.png")]
    print(f"{PAGE}: {len(sizes)} pictures, {sum(sizes) / 1e6:.1f} MB, the largest {max(sizes) / 1e3:.0f} kB")


def run(command: str) -> None:
    print(f"glassgpt {command}", flush=True)
    if code := main(shlex.split(command)):
        sys.exit(code)


def reduced(picture: bytes) -> bytes:
    """The same picture in few colours: those with the most dots, each further from the others than the first of NEAR
    that leaves the file smaller than AIM. What a curve is drawn in stays as it is; only the edges of letters change."""
    dots = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    small = b""
    for near in NEAR:
        written = io.BytesIO()
        in_few_colours(dots, near).save(written, "png", optimize=True)
        small = written.getvalue()
        if len(small) <= AIM:
            break
    return small


def in_few_colours(dots: np.ndarray, near: float) -> Image.Image:
    """dots: uint8 (height, width, 3). Of colours nearer to each other than `near` the one with the most dots stands for
    all; of more than 256 such colours the rarest go to the nearest that is left."""
    packed = dots.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    found, places, counts = np.unique(packed, return_inverse=True, return_counts=True)
    colours = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1).astype(np.float64)
    left = np.argsort(-counts, kind="stable")
    chosen = list[int]()
    while len(left) and len(chosen) < 256:
        chosen.append(int(left[0]))
        left = left[np.linalg.norm(colours[left] - colours[left[0]], axis=1) >= near]
    nearest = np.argmin([np.linalg.norm(colours - colours[one], axis=1) for one in chosen], axis=0)
    image = Image.fromarray(nearest[places].reshape(packed.shape).astype(np.uint8))
    image.putpalette(colours[chosen].astype(np.uint8).tobytes())
    return image


if __name__ == "__main__":
    make()
