"""`glassgpt ladder`: one table of all the models, its figure and texts; and what attention was needed for."""

import pytest

TEXT = "the cat sat on the mat and the dog sat on the log. " * 30


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def test_every_model_is_measured_in_bits_per_byte_and_writes(ask_json, file, tmp_path):
    told = ask_json("ladder", file, "--steps", 2, "--out", tmp_path / "out")
    names = [rung["name"] for rung in told["rungs"]]
    n_grams = [f"{unit} {n}-gram" for unit in ("letter", "word") for n in range(1, 7)]
    assert names == [*n_grams, "perceptron", "MLP", "RNN", "GRU", "GPT"]
    bits = {rung["name"]: rung["bits_per_byte"] for rung in told["rungs"]}
    assert bits["letter 6-gram"] < bits["letter 2-gram"] < bits["letter 1-gram"]
    assert {"gzip", "xz"} <= told["yardsticks"].keys()
    texts = (tmp_path / "out" / "texts.txt").read_bytes().decode()
    assert all(rung["sample"] in texts for rung in told["rungs"])
    assert (tmp_path / "out" / "ladder.png").read_bytes().startswith(b"\x89PNG")


def test_attention_is_shown_by_length(ask, tmp_path):
    code, out, _ = ask("ladder", "seq2seq", "--steps", 2, "--out", tmp_path)
    assert code == 0 and "with attention" in out and "symbols to reverse" in out
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--steps", "0"], "--steps"), (["--seed", "-1"], "--seed")],
)
def test_what_makes_no_sense_is_refused(ask, file, arguments, said):
    code, _, err = ask("ladder", file, *arguments)
    assert code == 2 and said in err


def test_a_text_that_is_not_there_or_too_short_is_refused(ask, tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    for name in ("absent.txt", "short.txt"):
        code, out, err = ask("ladder", tmp_path / name)
        assert code == 2 and name.split(".")[0] in err + "short" and out.count("gram") == 0
