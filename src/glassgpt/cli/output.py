"""What commands print: text for a person, or with --json exactly one object on standard output.

JSON here never holds NaN or Infinity: where there is no finite number the value is null, and KEY_note says why.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from glassgpt.chain.wide import Wide


LN2 = math.log(2)  # nats in a bit
WIDTH_OF_FILES = 160  # columns, where the output is no terminal


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def print_json(content: dict[str, Any]) -> None:
    """Print one object. Raises ValueError, ours to mend, if it holds NaN or Infinity."""
    print(json.dumps(content, allow_nan=False, ensure_ascii=False))


def console(*, error: bool = False) -> Console:
    """Where text for a person goes; plain where the output is no terminal."""
    from rich.console import Console

    width = None if (sys.stderr if error else sys.stdout).isatty() else WIDTH_OF_FILES
    return Console(stderr=error, width=width, highlight=False, soft_wrap=True, emoji=False, markup=False)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A small table on standard output, columns of numbers to the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console().print(table)


def number(key: str, value: float | None, note: str) -> dict[str, Any]:
    """`value` under `key`, or null with `note` under `key`_note if there is no finite number."""
    if value is None or not math.isfinite(value):
        return {key: None, f"{key}_note": note}
    return {key: float(value)}


def probability(key: str, value: Wide | None, note: str = "") -> dict[str, Any]:
    """A number of any size: `key` as a float where it fits one, and log10_`key` always; null with a note otherwise."""
    if value is None:
        return {key: None, f"{key}_note": note, f"log10_{key}": None, f"log10_{key}_note": note}
    if value.is_zero():
        reason = note or "exactly zero"
        return {key: 0.0, f"log10_{key}": None, f"log10_{key}_note": f"the logarithm of 0: {reason}"}
    log10 = float(value.log10())
    as_float = float(value)
    if as_float == 0.0 or math.isinf(as_float) or log10 < -307:
        return {key: None, f"{key}_note": f"beyond a float: see log10_{key}", f"log10_{key}": log10}
    return {key: as_float, f"log10_{key}": log10}


def spell_probability(value: Wide) -> str:
    """A probability for a person: 79.3 %, 1.2e-30, exactly 0, 10^-3000.2."""
    if value.is_zero():
        return "exactly 0"
    as_float, log10 = float(value), float(value.log10())
    if as_float == 1.0:
        return "1"
    if as_float >= 0.0005:
        return f"{100 * as_float:.4g} %"
    return f"{as_float:.4g}" if log10 > -300 else f"10^{log10:.6g}"


def spell_number(value: Wide) -> str:
    """A positive number of any size for a person: 72.4, 3.1e+30, 10^3000."""
    as_float = float(value)
    return f"{as_float:.4g}" if as_float < 1e300 else f"10^{float(value.log10()):.6g}"


def progress_to_stderr(quiet: bool) -> bool:
    """Whether to draw a progress bar: only on a terminal, and never into the output of --json."""
    return not quiet and sys.stderr.isatty()
