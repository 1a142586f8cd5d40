"""Figures and texts to disk: whole or not at all, and the same bytes for the same figure."""

import io
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from glassgpt.errors import UsageError
from glassgpt.files import write_atomically

# None leaves an entry out: dates and version strings would make equal figures differ.
_METADATA = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None, "Producer": None}}
DOTS_PER_INCH = 160


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, SVG or PDF, by the path's suffix, and return the path.

    Folders that are missing are created. The file appears only when it is complete, and the same figure gives the same
    bytes. Raises UsageError for any other suffix.
    """
    path = Path(path)
    suffix = checked_suffix(path)
    return _write(path, rendered(figure, suffix))


def rendered(figure: Figure, suffix: str, dots_per_inch: float = DOTS_PER_INCH) -> bytes:
    """A figure as the bytes of a file: ".png", ".svg" or ".pdf"."""
    drawn = io.BytesIO()
    with rc_context({"svg.hashsalt": "glassgpt", "svg.fonttype": "path", "pdf.fonttype": 42, "path.simplify": True}):
        figure.savefig(drawn, format=suffix[1:], dpi=dots_per_inch, metadata=_METADATA[suffix])
    return drawn.getvalue()


def checked_suffix(path: Path) -> str:
    """The suffix in small letters. Raises UsageError for what is no kind of picture."""
    suffix = path.suffix.lower()
    if suffix not in _METADATA:
        raise UsageError(
            f"a figure can be saved as .png, .svg or .pdf; got {path.name!r} (only a state graph can be .dot)"
        )
    return suffix


def save_text(text: str, path: str | Path) -> Path:
    """Write a text such as Graphviz's (.dot) as UTF-8, whole or not at all, and return the path."""
    return _write(Path(path), text.encode())


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path
