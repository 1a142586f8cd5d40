"""Saving: suffixes, the same bytes twice, nothing half written."""

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.figures.files import save, save_text
from glassgpt.figures.state_graph import draw_state_graph, graph_from_tables


def small_figure():
    return draw_state_graph(graph_from_tables([np.array([[0.25, 0.75], [0.5, 0.5]])], "01"))


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_a_figure_saved_twice_has_the_same_bytes(tmp_path, suffix, start):
    one = save(small_figure(), tmp_path / f"one{suffix}").read_bytes()
    other = save(small_figure(), tmp_path / f"other{suffix}").read_bytes()
    assert one == other
    assert one.startswith(start)


def test_missing_folders_are_created_and_nothing_else_is_left(tmp_path):
    path = save(small_figure(), str(tmp_path / "new" / "folder" / "graph.svg"))
    assert list(path.parent.iterdir()) == [path]


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\.png, \.svg or \.pdf; got 'graph\.jpg'"):
        save(small_figure(), tmp_path / "graph.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_figure_that_fails_leaves_the_old_file_whole(tmp_path):
    path = save_text("old", tmp_path / "graph.svg")
    figure = small_figure()
    figure.savefig = lambda *args, **kwargs: 1 / 0
    with pytest.raises(ZeroDivisionError):
        save(figure, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_written_as_utf8(tmp_path):
    assert save_text("digraph → {}\n", tmp_path / "a" / "graph.dot").read_bytes() == "digraph → {}\n".encode()
