"""What a notebook is given of a figure: pictures that are whole, small, of the right size, and need nothing else."""

import ast
import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure as PlainFigure
from PIL import Image

import glassgpt.figures
from glassgpt.figures.figure import COLOURS, MOST_PIXELS, Figure, bundle, png_of, svg_of
from glassgpt.figures.files import rendered
from glassgpt.figures.heat_map import draw_transition_heat_map
from glassgpt.figures.state_graph import draw_state_graph, graph_from_tables

SVG = "{http://www.w3.org/2000/svg}"


def ring(n_tokens=2):
    table = np.random.default_rng(0).dirichlet(np.ones(n_tokens), n_tokens)
    return draw_state_graph(graph_from_tables([table], "012"[:n_tokens]))


def colours():
    table = np.random.default_rng(0).dirichlet(np.ones(2), 1024)
    return draw_transition_heat_map(table, [format(i, "010b") for i in range(1024)], "01")


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_a_figure_at_the_end_of_a_cell_is_a_png_of_its_own_size_and_a_text():
    figure = ring()
    data, about = figure._repr_mimebundle_()
    assert data.keys() == {"text/plain", "image/png"} and data["text/plain"] == repr(figure)
    assert about == {"image/png": {"width": round(96 * figure.get_figwidth())}}
    image = Image.open(io.BytesIO(data["image/png"]))
    assert image.size == pytest.approx(160 * figure.get_size_inches(), abs=1)


@pytest.mark.parametrize("draw", [ring, colours])
def test_fewer_colours_are_nearly_the_same_picture_and_take_half_the_room(draw):
    whole, small = rendered(draw(), ".png"), png_of([draw()])
    assert np.abs(pixels(whole) - pixels(small)).max() <= 3
    assert len(small) < 0.5 * len(whole)
    assert len(Image.open(io.BytesIO(small)).getcolors()) <= COLOURS


def test_the_same_figure_gives_the_same_bytes():
    assert png_of([ring(), colours()]) == png_of([ring(), colours()])
    assert svg_of([ring(), colours()]) == svg_of([ring(), colours()])


def test_figures_stand_one_below_the_other():
    first, second = ring(), ring(3)
    both, parts = pixels(png_of([first, second])), [pixels(rendered(figure, ".png")) for figure in (first, second)]
    assert both.shape[0] == parts[0].shape[0] + parts[1].shape[0]
    assert both.shape[1] == max(part.shape[1] for part in parts)
    top = 0
    for part in parts:
        height, width = part.shape[:2]
        assert np.abs(both[top : top + height, :width] - part).max() <= 4
        assert (both[top : top + height, width:] > 250).all()
        top += height


def test_a_large_figure_has_fewer_dots():
    figure = Figure(figsize=(30, 20))
    image = Image.open(io.BytesIO(png_of([figure])))
    assert image.width * image.height == pytest.approx(MOST_PIXELS, rel=0.01)


def test_an_svg_comes_if_it_is_asked_for_and_nothing_that_is_excluded():
    figure = ring()
    assert figure._repr_mimebundle_(include={"image/svg+xml"})[0].keys() == {"image/svg+xml"}
    assert figure._repr_mimebundle_(include={"image/svg+xml"})[1] == {}
    assert figure._repr_mimebundle_(exclude={"image/png"}) == ({"text/plain": repr(figure)}, {})
    assert bundle("a", []) == ({"text/plain": "a"}, {})
    assert bundle("a", [], include=["image/png"]) == ({}, {})


def test_an_svg_stands_within_a_page_and_names_nothing_to_fetch():
    first, second = ring(), colours()
    root = ElementTree.fromstring(svg_of([first, second]))
    assert root.tag == f"{SVG}svg"
    inner = root.findall(f"{SVG}svg")
    assert [float(part.get("y")) for part in inner] == [0.0, pytest.approx(72 * first.get_figheight(), abs=1e-3)]
    height = float(root.get("height").removesuffix("pt"))
    assert height == pytest.approx(72 * (first.get_figheight() + second.get_figheight()), abs=1e-3)
    assert not root.findall(f".//{SVG}script")
    links = [value for part in root.iter() for name, value in part.attrib.items() if name.endswith("href")]
    assert links and all(link.startswith(("#", "data:image/png;base64,")) for link in links)


def test_every_drawing_function_makes_a_figure_that_notebooks_show():
    folder = Path(glassgpt.figures.__file__).parent
    for path in sorted(folder.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        made = any(isinstance(node, ast.Call) and ast.unparse(node.func) == "Figure" for node in ast.walk(tree))
        if made:
            homes = [node.module for node in tree.body if isinstance(node, ast.ImportFrom) and names(node) & {"Figure"}]
            assert homes == ["glassgpt.figures.figure"], path.name
    assert issubclass(Figure, PlainFigure)


def names(node):
    return {alias.asname or alias.name for alias in node.names}
