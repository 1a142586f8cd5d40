"""Trackers: what a run tells them arrives, and what isn't installed is said with its cure."""

import sys
from types import SimpleNamespace

import pytest

from glassgpt.errors import UnsupportedError
from glassgpt.training.trackers import Logger, tracker_for


@pytest.mark.parametrize("track", ["trackio", "wandb"])
def test_what_is_not_installed_is_said_with_how_to_install_it(track, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, track, None)
    with pytest.raises(UnsupportedError, match=rf"pip install 'glassgpt\[{track}\]'"):
        tracker_for(track, tmp_path, {})


def test_tensorboard_without_its_library_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UnsupportedError, match="tensorboard"):
        tracker_for("tensorboard", tmp_path, {})


def test_tensorboard_holds_scalars_and_samples_and_forgets_what_is_done_again(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = tracker_for("tensorboard", tmp_path, {})
    for step in (1, 2, 3):
        first.log(step, {"loss": 3.0 - step, "bits_per_byte": None}, "a text" if step == 2 else None)
    first.close()
    again = tracker_for("tensorboard", tmp_path, {}, step=2)
    again.log(3, {"loss": 7.0})
    again.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 2.0), (2, 1.0), (3, 7.0)]
    assert events.Tags()["scalars"] == ["loss"]
    assert events.Tags()["tensors"] == ["sample/text_summary"]


def test_a_logger_is_given_the_recipe_each_step_and_the_sample(tmp_path):
    calls = []
    library = SimpleNamespace(
        __name__="wandb",
        init=lambda **settings: calls.append(settings),
        log=lambda row, step: calls.append((step, row)),
        Table=lambda columns, data: (columns, data),
        finish=lambda: calls.append("finished"),
    )
    logger = Logger(library, tmp_path / "mine", {"train": {"steps": 2}})
    logger.log(1, {"loss": 2.5, "bits_per_byte": None}, "a text")
    logger.close()
    assert calls == [
        {"project": "glassgpt", "name": "mine", "config": {"train": {"steps": 2}}},
        (1, {"loss": 2.5, "sample": (["sample"], [["a text"]])}),
        "finished",
    ]


def test_nothing_is_tracked_unless_asked(tmp_path):
    tracker = tracker_for("none", tmp_path, {})
    tracker.log(1, {"loss": 1.0}, "text")
    tracker.close()
    assert list(tmp_path.iterdir()) == []
