"""The notebooks of docs/, run as written: what they store is what their cells show today."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from docs.run_notebooks import executed

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted(DOCS.glob("*.ipynb"))
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def outputs(notebook):
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def text_of(output):
    return "".join(output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"])


def test_there_is_one():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_as_written_and_shows_what_it_stores(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored, found = outputs(read(path)), outputs(executed(read(path)))
    assert len(stored) == len(found) > 5
    for old, new in zip(stored, found, strict=True):
        assert NUMBER.sub("#", text_of(old)) == NUMBER.sub("#", text_of(new))
        numbers = [[float(number) for number in NUMBER.findall(text_of(output))] for output in (old, new)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.01, abs=0)
        assert old.get("data", {}).keys() == new.get("data", {}).keys()
        assert old.get("metadata") == new.get("metadata")
    assert sum("image/png" in output.get("data", {}) for output in found) > 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_small_and_of_the_format_that_github_shows(path):
    assert path.stat().st_size < 400_000
    notebook = read(path)
    assert notebook.keys() == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[\w-]{1,64}", name) for name in names)
    for cell in notebook["cells"]:
        code = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert cell["cell_type"] in ("code", "markdown")
        assert cell.keys() == {"cell_type", "id", "metadata", "source"} | code
    for output in outputs(notebook):
        data = output.get("data", {})
        assert data.keys() <= {"text/plain", "image/png"}  # no script, nothing that would be fetched
        assert "image/png" not in data or base64.b64decode(data["image/png"]).startswith(b"\x89PNG")


def test_a_cell_that_ends_in_no_expression_shows_what_it_prints_alone():
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# A"]},
        {"cell_type": "code", "id": "b", "metadata": {}, "source": ["x = 2\n", "print(x)"], "outputs": ["old"]},
        {"cell_type": "code", "id": "c", "metadata": {}, "source": ["y = x\n", "y + 1"], "outputs": []},
        {"cell_type": "code", "id": "d", "metadata": {}, "source": [], "outputs": []},
    ]
    found = executed({"cells": cells})["cells"]
    assert found[0] == cells[0]
    assert found[1]["outputs"] == [{"output_type": "stream", "name": "stdout", "text": ["2\n"]}]
    assert [output["data"] for output in found[2]["outputs"]] == [{"text/plain": ["3"]}]
    assert found[3]["outputs"] == [] and found[3]["execution_count"] == 3
