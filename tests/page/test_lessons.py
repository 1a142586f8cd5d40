"""The lessons that ask the server: a digit drawn by keyboard is read as Python reads it, and losses are Python's."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from tests.page.browsing import expect, rows_of, running, soon
from tests.page.written import agrees, bar, fixed, percent

from glassgpt.evaluation.landscape import parameters_of, trajectory_landscape
from glassgpt.serving import landscape
from glassgpt.serving.sources import source_of, untrained_baby
from glassgpt.training.landscape import windows_of

pytestmark = pytest.mark.slow
SIZE = 15  # of a landscape's grid: a quarter of the losses
SEVEN = ((1, 2), (1, 3), (1, 4), (1, 5), (2, 5), (3, 4), (4, 4), (5, 3), (6, 3))  # rows and columns, from 0
BARS = "main figure >> nth=0 >> svg:not([aria-hidden]) >> text.share"


@pytest.fixture(scope="module")
def site(browser, baby_run):
    run = replace(source_of(str(baby_run.path)), title="baby run")
    with pytest.MonkeyPatch.context() as patch, running([untrained_baby(), run]) as site:
        patch.setattr(landscape, "SIZE", SIZE)
        yield site


@pytest.fixture(scope="module")
def net():
    pytest.importorskip("sklearn")
    from glassgpt.evaluation.digits import digit_net

    return digit_net()


def expect_the_bars_of(page, probabilities):
    """Soon the ten bars say Python's probabilities, in percent, and the answer is told."""

    def check():
        shown = page.locator(BARS).all_text_contents()
        assert len(shown) == 10
        for text, p in zip(shown, probabilities, strict=True):
            assert agrees(f"{text}%", p, percent), (shown, probabilities)
        answer = int(np.argmax(probabilities))
        told = page.locator("main p[role=status]").first.inner_text()
        said = re.fullmatch(r"The likeliest answer is (\d) with (\S+)", told)
        assert said and int(said[1]) == answer and agrees(said[2], probabilities[answer], bar), told

    soon(page, check)


def cell(page, row, column):
    return page.locator("[role=row]").nth(row).locator("[role=gridcell]").nth(column)


def test_a_digit_drawn_by_keyboard_is_read_as_python_reads_it(open_page, site, net):
    from tests.page.browsing import Keyboard

    from glassgpt.evaluation.digits import blur

    page = open_page("#/lessons?lesson=digits")
    keyboard = Keyboard(page)
    expect_the_bars_of(page, net.probabilities(net.held_out.images[net.held_out.labels == 2][:1])[0])
    keyboard.use(page.get_by_role("button", name="Clear"))
    expect_the_bars_of(page, net.probabilities(np.zeros((1, 8, 8)))[0])
    keyboard.reach(page.locator("[role=gridcell][tabindex='0']"))
    keyboard.press("Home")
    at, ink = (0, 0), np.zeros((8, 8))
    for row, column in SEVEN:
        down, right = row - at[0], column - at[1]
        keyboard.press(*["ArrowDown"] * down, *(["ArrowRight"] * right if right > 0 else ["ArrowLeft"] * -right))
        expect(cell(page, row, column)).to_be_focused()
        keyboard.press("Space" if row % 2 else "Enter")
        at, ink[row, column] = (row, column), 16
    keyboard.press("Space")  # the last cell has half the ink
    ink[at] = 8
    expect(cell(page, *at)).to_have_attribute("aria-label", f"row {at[0] + 1}, column {at[1] + 1}: ink 8 of 16")
    assert int(np.argmax(net.probabilities(ink / 16))) == 7
    expect_the_bars_of(page, net.probabilities(ink / 16)[0])
    keyboard.reach(page.locator("#blur"))
    keyboard.press(*["ArrowRight"] * 14)  # of 0.05 pixels
    expect_the_bars_of(page, net.probabilities(blur(ink / 16, 0.7))[0])
    assert page.locator("rect.ghost").count() == 10  # the sharp drawing's answers
    drawn = "".join("0123456789abcdefg"[int(value)] for value in ink.ravel())
    soon(page, lambda: expect(page).to_have_url(re.compile(f"x.ink={drawn}&x.blur=0.7$"), timeout=500))
    page.reload()
    expect_the_bars_of(page, net.probabilities(blur(ink / 16, 0.7))[0])


def test_the_mouse_draws_and_rubs_out(open_page, site, net):
    page = open_page(f"#/lessons?lesson=digits&x.ink={'0' * 64}")
    expect(page.locator(BARS)).to_have_count(10)
    box = page.get_by_role("grid").bounding_box()

    def place(row, column):
        return box["x"] + box["width"] * (column + 0.5) / 8, box["y"] + box["height"] * (row + 0.5) / 8

    def stroke():
        page.mouse.move(*place(0, 4))
        page.mouse.down()
        page.mouse.move(*place(7, 4), steps=6)
        page.mouse.up()

    def inks():
        labels = page.locator("[role=gridcell]").evaluate_all("cells => cells.map((cell) => cell.ariaLabel)")
        return np.array([int(re.search(r"ink (\d+) of 16", label)[1]) for label in labels]).reshape(8, 8)

    stroke()
    soon(page, lambda: inks()[1:7, 4].min() == 16 or pytest.fail("no line"))
    drawn = inks()
    assert drawn[:, :3].sum() == drawn[:, 6:].sum() == 0 and (drawn[1:7, 3] == drawn[1, 3]).all()
    expect_the_bars_of(page, net.probabilities(drawn / 16)[0])
    page.get_by_role("button", name="Rub out").click()
    stroke()
    soon(page, lambda: expect(cell(page, 3, 4)).to_have_attribute("aria-label", re.compile("ink 0 of 16"), timeout=500))
    assert inks()[1:7, 4].sum() == 0


def test_an_example_is_chosen_among_all_and_lies_on_the_map_where_python_puts_it(open_page, site, net):
    from glassgpt.evaluation.digits import digit_map

    page = open_page("#/lessons?lesson=digits&x.of=124")
    expect_the_bars_of(page, net.held_out.probabilities[123])
    layout = digit_map(net)
    x, y = (fixed(value, 2).replace("-", "−") for value in layout.places[123])
    expect(page.get_by_role("img", name=f"this picture lies at ({x}, {y})")).to_be_visible()
    page.get_by_role("button", name=re.compile(r"^Number \d+: a 7, read as 7")).click()
    seven = int(np.argmax(net.held_out.labels == 7))
    expect_the_bars_of(page, net.held_out.probabilities[seven])
    expect(page.locator("#example")).to_have_value(str(seven + 1))
    units = page.locator("figure", has_text="Inside: 32 units").locator("+ details")
    units.locator("summary").click()
    hidden = net.hidden(net.held_out.images[seven])[0]

    def check():
        rows = rows_of(page, "main details[open] tbody tr")
        for (name, value), expected in zip(rows, hidden, strict=True):
            assert float(value.replace("−", "-")) == pytest.approx(expected, rel=1e-3, abs=1e-12), (name, value)

    soon(page, check)


def test_the_losses_on_the_plane_of_a_path_are_pythons_and_the_path_leads_to_its_steps(open_page, baby_run):
    page = open_page("#/lessons?lesson=landscape&m=baby-run@50")
    expect(page.get_by_role("progressbar")).to_be_visible()
    picture = page.get_by_role("img", name=re.compile("^Loss of baby run over the plane of its path"))
    expect(picture).to_be_visible()
    models = [baby_run.model(step) for step in baby_run.steps]
    states = [parameters_of(model) for model in models]
    land = trajectory_landscape(states, windows_of(baby_run).loss(models[-1]), baby_run.steps, SIZE)
    caption = page.locator("main figcaption").first.inner_text()
    assert f"The plane holds {percent(land.explained.sum())} of the path's variance" in caption
    assert f"it would hold {percent(land.random_walk)}" in caption

    # By keyboard: the cursor begins where the model is, and goes over the grid.
    picture.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    column = int(np.argmin(np.abs(land.across - land.path[-1, 0]))) - 2  # the first key only shows the cursor
    row = int(np.argmin(np.abs(land.up - land.path[-1, 1]))) + 1
    told = picture.get_attribute("aria-label")
    found = re.search(r"at \((\S+), (\S+)\) the loss is (\S+); step (\d+) is nearest", told)
    x, y, loss = (float(text.replace("−", "-")) for text in found.groups()[:3])
    assert x == pytest.approx(land.across[column], abs=0.006) and y == pytest.approx(land.up[row], abs=0.006)
    assert loss == pytest.approx(land.losses[row, column], rel=1e-3)
    away = np.linalg.norm(land.path - [land.across[column], land.up[row]], axis=1)
    assert int(found[4]) == int(np.argmin(away))

    # By mouse: the path's first step is where the slider goes to.
    first = picture.locator("circle.step").first.bounding_box()
    page.mouse.click(first["x"] + first["width"] / 2, first["y"] + first["height"] / 2)
    expect(page.locator("output")).to_contain_text("step 0 of 50")
    page.keyboard.press(".")
    expect(page.locator("output")).to_contain_text("step 1 of 50")
    page.keyboard.press(",")
    expect(page.locator("output")).to_contain_text("step 0 of 50")

    page.locator("figure", has_text="The path's own losses").locator("+ details").locator("summary").click()

    def check():
        rows = rows_of(page, "main details[open] tbody tr")
        assert len(rows) == 51
        for step, cells in enumerate(rows):
            expected = [land.path_losses[step], land.shadow_losses[step], *land.path[step], land.off_plane[step]]
            shown = [float(text.replace("−", "-")) for text in cells]
            assert shown[0] == step and shown[1:] == pytest.approx(expected, rel=1e-3, abs=1e-6)

    soon(page, check)


def test_a_model_that_is_no_run_is_told_what_it_lacks_and_a_run_is_offered(open_page):
    page = open_page("#/lessons?lesson=landscape&m=baby-gpt-untrained")
    expect(page.get_by_text("baby GPT, untrained has no path to draw")).to_be_visible()
    page.get_by_role("button", name="Look at baby run").click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("progressbar")).to_have_count(0)
    page.get_by_role("button", name="Measure the losses").click()
    expect(page.locator("main figure").first).to_be_visible()


def test_around_a_step_the_picture_is_of_two_random_directions(open_page, baby_run):
    page = open_page("#/lessons?lesson=landscape&m=baby-run@7&x.plane=random&x.seed=2")
    picture = page.get_by_role("img", name=re.compile("^Loss of baby run in two random directions"))
    expect(picture).to_be_visible()
    picture.focus()
    page.keyboard.press("ArrowRight")  # where the cursor begins: the middle, which is the model itself
    own = windows_of(baby_run).loss(baby_run.model(7))(parameters_of(baby_run.model(7)))
    assert f"at (0.00, 0.00) the loss is {own:.4f}".rstrip("0") in picture.get_attribute("aria-label")
    expect(page.get_by_text("There the seed is 0.")).to_be_visible()
    assert "glassgpt see landscape-around" in page.locator("main code").first.inner_text()
