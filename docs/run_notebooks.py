"""Runs the notebooks here and stores what their cells show, so that GitHub shows it too:

    .venv/bin/python docs/run_notebooks.py

Jupyter isn't needed: a cell is run as Python, and what its last expression shows is asked for by Jupyter's display
protocol. tests/test_notebooks.py does the same, and compares.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its cells, run in order in one namespace and the present folder."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            outputs = outputs_of("".join(cell["source"]), namespace, count)
            cell = cell | {"execution_count": count, "outputs": outputs}
        cells.append(cell)
    return notebook | {"cells": cells}


def outputs_of(source: str, namespace: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What was printed, then what the last expression shows."""
    program = ast.parse(source)
    last = program.body.pop() if program.body and isinstance(program.body[-1], ast.Expr) else None
    value, printed = None, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, f"cell {count}", "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), namespace)
    text = printed.getvalue()
    outputs: list[dict[str, Any]] = [{"output_type": "stream", "name": "stdout", "text": lines(text)}] if text else []
    if value is not None:
        data, metadata = shown(value)
        outputs.append({"output_type": "execute_result", "execution_count": count, "data": data, "metadata": metadata})
    return outputs


def shown(value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    if not hasattr(value, "_repr_mimebundle_"):
        return {"text/plain": lines(repr(value))}, {}
    data, metadata = value._repr_mimebundle_()
    return {
        kind: base64.b64encode(content).decode() if isinstance(content, bytes) else lines(content)
        for kind, content in data.items()
    }, metadata


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main() -> None:
    for path in sorted(HERE.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        with tempfile.TemporaryDirectory() as folder:
            before = Path.cwd()
            os.chdir(folder)
            try:
                notebook = executed(notebook)
            finally:
                os.chdir(before)
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {len(text.encode()) / 1000:.0f} KB")


if __name__ == "__main__":
    main()
