"""Metrics to where people look at them besides the run folder: TensorBoard, Trackio, Weights & Biases.

Each is imported when a recipe asks for it. metrics.jsonl stays what the run itself reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from glassgpt.errors import UnsupportedError

PROJECT = "glassgpt"
MODULES = {"tensorboard": "torch.utils.tensorboard", "trackio": "trackio", "wandb": "wandb"}


class Tracker(Protocol):
    """Where scalars and texts of a run go, each with the step that they are of."""

    def log(self, step: int, scalars: Mapping[str, float | None], text: str | None = None) -> None:
        """`scalars` by name, those that are None left out; `text`: what the model wrote."""
        ...

    def close(self) -> None: ...


def tracker_for(track: str, run: Path, recipe: Mapping[str, Any], step: int = 0) -> Tracker:
    """What `evaluate.track` names, for the run folder `run` that goes on from `step`; "none" swallows all.

    Raises UnsupportedError, with what to install, where the library is missing.
    """
    if track == "none":
        return Nowhere()
    library = library_of(track)
    return TensorBoard(library, run, step) if track == "tensorboard" else Logger(library, run, recipe)


def library_of(track: str) -> Any:
    """The module that `track` needs, or UnsupportedError."""
    try:
        return import_module(MODULES[track])
    except ImportError:
        raise UnsupportedError(
            f"evaluate.track = \"{track}\" needs a library that is not installed: pip install 'glassgpt[{track}]', or "
            "leave evaluate.track out (RUN/metrics.jsonl holds the same numbers)"
        ) from None


class Nowhere:
    def log(self, step: int, scalars: Mapping[str, float | None], text: str | None = None) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoard:
    """Event files in RUN/tensorboard. What was written of steps after the one that the run goes on from is purged."""

    def __init__(self, library: Any, run: Path, step: int) -> None:
        self._writer = library.SummaryWriter(str(run / "tensorboard"), purge_step=step + 1 if step else None)

    def log(self, step: int, scalars: Mapping[str, float | None], text: str | None = None) -> None:
        for name, value in scalars.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)
        if text is not None:
            self._writer.add_text("sample", text, step)

    def close(self) -> None:
        self._writer.close()


class Logger:
    """Weights & Biases, and Trackio, which has its interface: init, log, finish."""

    def __init__(self, library: Any, run: Path, recipe: Mapping[str, Any]) -> None:
        self._library = library
        library.init(project=PROJECT, name=run.name, config=dict(recipe))

    def log(self, step: int, scalars: Mapping[str, float | None], text: str | None = None) -> None:
        told: dict[str, Any] = {name: value for name, value in scalars.items() if value is not None}
        if text is not None:
            told["sample"] = self._library.Table(**self._as_table(text))
        self._library.log(told, step=step)

    def _as_table(self, text: str) -> dict[str, Any]:
        if self._library.__name__ == "wandb":
            return {"columns": ["sample"], "data": [[text]]}
        return {"dataframe": import_module("pandas").DataFrame({"sample": [text]})}

    def close(self) -> None:
        self._library.finish()
