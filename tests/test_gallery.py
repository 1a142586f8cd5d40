"""docs/gallery.md: it shows every picture that `see` lists, and what it shows was made by the commands beside it.

Two pictures that need no model are drawn again and compared by their size and, roughly, by their pixels: other versions
of matplotlib draw the edges of letters otherwise, so bytes would not be equal everywhere.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from glassgpt.cli.main import main
from glassgpt.cli.see import meanings
from glassgpt.training.recipe import find_recipe


def _gallery() -> ModuleType:
    """docs/gallery.py, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("gallery", Path(__file__).parents[1] / "docs" / "gallery.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gallery = _gallery()
CURE = "run `make gallery` (a figure that is new in `see` needs a place in docs/gallery.py first)"
TEXT = gallery.PAGE.read_text() if gallery.PAGE.exists() else ""
COMMANDS = re.findall(r"^glassgpt (.*)$", TEXT, flags=re.MULTILINE)
SHOWN = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", TEXT)


def test_every_figure_has_its_place_and_no_other():
    assert not gallery.unplaced(), CURE
    assert sorted(re.findall(r"^### (.*)$", TEXT, flags=re.MULTILINE)) == sorted(meanings()), CURE


def test_the_page_says_what_see_says_and_shows_the_commands_that_make_gallery_runs():
    assert gallery.page() == TEXT, CURE


def test_every_picture_that_is_shown_is_there_and_small_and_no_other_is():
    paths = [gallery.PAGE.parent / path for path in SHOWN]
    for path in paths:
        assert path.is_file(), f"{path.name}: {CURE}"
        with Image.open(path) as picture:
            assert picture.format == "PNG" and min(picture.size) > 200, f"{path.name}: {CURE}"
        assert path.stat().st_size <= gallery.MOST_BYTES, f"{path.name}: {CURE}"
    assert sorted(gallery.PICTURES.iterdir()) == sorted(paths), CURE
    assert sum(path.stat().st_size for path in paths) < 3_000_000


def test_a_smaller_picture_keeps_its_colours():
    """What is drawn flat stays exactly as it was; shades in between go to a colour that is near."""
    house = np.array([[0, 114, 178], [230, 159, 0], [213, 94, 0], [255, 255, 255], [27, 39, 51]])
    dots = np.repeat(np.repeat(house, 40, axis=0)[None], 50, axis=0)
    shades = np.linspace(house[3], house[4], 200)[None].repeat(2, axis=0)
    picture = np.concatenate([dots, shades]).round().astype(np.uint8)
    small = np.asarray(gallery.in_few_colours(picture, near=20).convert("RGB")).astype(int)
    np.testing.assert_array_equal(small[:50], picture[:50])
    assert np.linalg.norm(small - picture.astype(int), axis=-1).max() < 20
    assert len(np.unique(small.reshape(-1, 3), axis=0)) < 40


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command):
    name, *arguments = shlex.split(command)
    parser = argparse.ArgumentParser(exit_on_error=False)
    import_module(f"glassgpt.cli.{name}").add_arguments(parser)
    args = parser.parse_args(arguments)
    if name == "train":
        find_recipe(Path(args.recipe))


def test_what_a_command_reads_was_made_by_one_above_it():
    made = {"."}
    for command in COMMANDS:
        name, *arguments = shlex.split(command)
        out = arguments[arguments.index("--out") + 1]
        figure, ref = (arguments[0], arguments[1]) if name == "see" else ("", arguments[0])
        if name != "train" and not ref.startswith("--") and ref != "python-docs":
            assert ref in made, command
        assert not figure or out == f"{figure}.png", command
        made.add(out)


@pytest.mark.parametrize("figure", ["fits", "activations"])
def test_what_can_be_drawn_at_once_is_drawn_as_it_is_shown(figure, tmp_path):
    assert (gallery.PICTURES / f"{figure}.png").is_file(), CURE
    drawn = tmp_path / f"{figure}.png"
    assert main(["see", figure, "--out", str(drawn)]) == 0
    drawn.write_bytes(gallery.reduced(drawn.read_bytes()))
    new, old = (
        np.asarray(Image.open(path).convert("L"), dtype=float) for path in (drawn, gallery.PICTURES / drawn.name)
    )
    assert np.abs(np.subtract(new.shape, old.shape)).max() <= 8, CURE
    rows, columns = np.minimum(new.shape, old.shape)
    assert np.abs(new[:rows, :columns] - old[:rows, :columns]).mean() < 5, CURE  # of 255; another picture is 20 off
