"""The command line as users and scripts meet it: one object with --json, one sentence for an error, exit codes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from glassgpt.cli.main import COMMANDS, main
from glassgpt.decoding.processors import Temperature
from glassgpt.decoding.shaped import Shaped
from glassgpt.evaluation.red import estimate_red
from glassgpt.weights.run import Run

ROOT = Path(__file__).parents[2]
RECIPE = str(ROOT / "recipes" / "baby.toml")


@pytest.fixture
def baby(baby_run):
    return baby_run.path


def in_a_process(*arguments, **options):
    command = [sys.executable, "-m", "glassgpt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(code, out, err, *words):
    """One sentence of ours on standard error, nothing of a foreign library, and exit code 1 or 2."""
    assert code in (1, 2)
    assert len(err.strip().splitlines()) == 1, err
    assert "Traceback" not in err and "defect" not in err
    for word in words:
        assert word in err
    return True


# ---- the story -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    out = tmp_path_factory.mktemp("tour") / "out"
    done = in_a_process("tour", "--out", out, "--json", cwd=tmp_path_factory.mktemp("elsewhere"))
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def test_the_tour_prints_one_object_with_every_figure_of_the_story(tour):
    _, told = tour
    assert told["parameters"] == 12656
    assert len(told["losses"]) == 50
    assert set(told["initial_probabilities"]) == {f"{i:03b}" for i in range(8)}
    assert told["initial_probabilities"]["000"] == pytest.approx([0.4963349997997284, 0.5036649107933044], abs=1e-6)
    assert [round(100 * told["final_probabilities"][s][1]) for s in ("101", "111", "000")] == [79, 45, 73]
    assert len(told["sample"]) == 20 and set(told["sample"]) <= {"0", "1"}
    assert sum(told["stationary"].values()) == pytest.approx(1.0, abs=1e-12)
    assert 0 < told["entropy_rate_bits"] < 1
    red = told["red"]
    assert (red["states"], red["prompt"], red["steps"]) == (["000"], "111", 100)
    assert red["log10_within"] == pytest.approx(math.log10(red["within"]), abs=1e-12)
    assert 0 < red["hazard"] < red["within"] < 1


def test_the_tour_agrees_with_a_plain_matrix(tour):
    _, told = tour
    P = np.zeros((8, 8))
    for state, row in told["final_probabilities"].items():
        for token, p in enumerate(row):
            P[int(state, 2), int(state[1:] + str(token), 2)] = p
    law = np.array([told["stationary"][f"{i:03b}"] for i in range(8)])
    assert law @ P == pytest.approx(law, abs=1e-15)
    Q = P[1:, 1:]
    assert told["red"]["within"] == pytest.approx(1 - np.linalg.matrix_power(Q, 100)[6].sum(), rel=1e-12)
    assert told["red"]["hazard"] == pytest.approx(1 - max(abs(np.linalg.eigvals(Q))), rel=1e-9)


def test_the_tour_leaves_its_pictures_and_its_report(tour):
    out, told = tour
    assert json.loads((out / "report.json").read_text()) == told
    for picture in told["pictures"]:
        assert Path(picture).stat().st_size > 500
    assert (out / "before-after.png") in map(Path, told["pictures"])


@pytest.mark.slow
def test_the_tour_told_again_says_the_same(tour):
    out, told = tour
    again = in_a_process("tour", "--out", out, "--json")
    assert json.loads(again.stdout) == told


# ---- chain ---------------------------------------------------------------------------------------------------


def test_chain_answers_for_a_red_context_under_a_sampler(ask_json, baby):
    told = ask_json("chain", baby, "--red", "000", "--steps", 100, "--prompt", "111", "--temperature", 0.5)
    rows = ask_json("chain", baby, "--temperature", 0.5)["probabilities"]
    P = np.zeros((8, 8))
    for state, row in rows.items():
        for token, p in enumerate(row):
            P[int(state, 2), int(state[1:] + str(token), 2)] = p
    Q = P[1:, 1:]
    assert told["within"] == pytest.approx(1 - np.linalg.matrix_power(Q, 100)[6].sum(), rel=1e-12)
    assert told["log10_within"] == pytest.approx(math.log10(told["within"]), abs=1e-12)
    assert told["ever"] == 1
    assert told["hazard"] == pytest.approx(1 - max(abs(np.linalg.eigvals(Q))), rel=1e-9)
    assert told["expected_steps"] == pytest.approx(np.linalg.solve(np.eye(7) - Q, np.ones(7))[6], rel=1e-10)


def test_a_red_pattern_as_long_as_the_context_is_the_red_context(ask_json, baby):
    options = ("--steps", 60, "--prompt", "111")
    context = ask_json("chain", baby, "--red", "010", *options)
    pattern = ask_json("chain", baby, "--red-pattern", "010", *options)
    for key in ("within", "log10_within", "ever", "hazard", "expected_steps"):
        assert pattern[key] == pytest.approx(context[key], rel=1e-12)


def test_a_probability_below_every_float_is_given_as_its_logarithm(ask_json, baby):
    told = ask_json("chain", baby, "--red-pattern", "0" * 400, "--prompt", "111", "--steps", 400, "--temperature", 0.1)
    assert told["within"] is None and "log10_within" in told["within_note"]
    assert told["log10_within"] < -400


def test_a_short_prompt_brings_in_the_shorter_contexts(ask_json, baby):
    told = ask_json("chain", baby, "--red", "000", "--prompt", "1")
    assert told["states"] == 14 and told["every_length"]
    assert 0 < told["within"] < 1


def test_at_temperature_0_the_chain_is_a_machine_with_one_loop(ask_json, baby):
    told = ask_json("chain", baby, "--temperature", 0)
    assert [loop["states"] for loop in told["greedy_loops"]] == [["011", "111", "110", "101"]]
    assert told["closed_classes"] == [{"states": 4, "first": "011", "period": 4}]
    assert told["entropy_rate_bits"] == 0
    assert told["mixing_time"] is None and told["mixing_time_note"]


def test_a_text_that_ends_may_never_be_red(ask_json, baby):
    told = ask_json("chain", baby, "--red", "111", "--prompt", "110", "--end", "0")
    row = ask_json("chain", baby)["probabilities"]
    assert told["ever"] == pytest.approx(row["110"][1] * row["101"][1] * row["011"][1], rel=1e-12)
    assert told["expected_steps"] is None and "never" in told["expected_steps_note"]


def test_chain_without_json_speaks_to_a_person(ask, baby):
    code, out, _ = ask("chain", baby, "--red", "000", "--prompt", "111")
    assert code == 0
    assert "8 states" in out and "within 100 tokens" in out and "hazard" in out


# ---- train, generate, see, info ------------------------------------------------------------------------------


def test_the_exercise_of_the_text_three_tokens_and_a_context_of_two(ask_json, tmp_path):
    overrides = ("data.sequence=0120120", "model.vocab_size=3", "model.context_length=2")
    options = [part for override in overrides for part in ("--set", override)]
    told = ask_json("train", RECIPE, "--out", tmp_path / "three", *options)
    assert told["losses"][-1] < told["losses"][0]
    chain = ask_json("chain", tmp_path / "three")
    assert chain["states"] == 9 and chain["probabilities"]["01"][2] > 0.5


def test_training_a_finished_run_again_changes_nothing(ask_json, baby_run, tmp_path):
    shutil.copytree(baby_run.path, tmp_path / "run")
    before = fingerprint(tmp_path / "run")
    ask_json("train", RECIPE, "--out", tmp_path / "run")
    assert fingerprint(tmp_path / "run") == before


def test_generate_follows_the_seed_and_the_sampler(ask_json, ask, baby):
    one = ask_json("generate", baby, "111", "--seed", 3)
    assert one == ask_json("generate", baby, "--tokens", "1,1,1", "--seed", 3)
    assert len(one["tokens"]) == 20 and "".join(one["pieces"]) == one["text"]
    greedy = ask_json("generate", baby, "111", "--temperature", 0, "--max-new-tokens", 8)
    assert greedy["text"] == "01110111"
    _, out, _ = ask("generate", baby, "111", "--temperature", 0, "--max-new-tokens", 8)
    assert out == "11101110111\n"


@pytest.mark.parametrize("figure", ["state-graph", "before-after", "heat-map", "greedy-machine", "loss",
                                    "probabilities-over-training", "red-over-steps", "red-over-training"])  # fmt: skip
def test_see_draws_every_figure(ask, baby, tmp_path, figure):
    code, _out, err = ask("see", figure, baby, "--red", "000", "--prompt", "111", "--out", tmp_path / "a.png")
    assert code == 0, err
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_the_states_can_stand_on_necklaces(ask, baby, tmp_path):
    one, other = tmp_path / "a.svg", tmp_path / "b.svg"
    assert ask("see", "before-after", baby, "--layout", "necklace", "--out", one)[0] == 0
    assert ask("see", "before-after", baby, "--out", other)[0] == 0
    assert one.read_text().startswith("<?xml") and one.read_text() != other.read_text()
    code, _, err = ask(
        "see", "state-graph", baby, "--layout", "necklace", "--every-length", "--out", tmp_path / "c.png"
    )
    assert code != 0 and "leave out --every-length" in err and not (tmp_path / "c.png").exists()


def test_see_writes_graphviz_text_and_lists_its_pictures(ask, baby, tmp_path):
    assert ask("see", "state-graph", baby, "--out", tmp_path / "a.dot")[0] == 0
    assert (tmp_path / "a.dot").read_text().startswith("digraph")
    code, out, _ = ask("see", "--list")
    assert code == 0 and "before-after" in out


def test_info_counts_parameters_and_states(ask_json, ask, baby):
    told = ask_json("info", baby)
    assert (told["parameters"], told["states"], told["states_of_every_length"]) == (12656, 8, 14)
    assert (told["bits_per_state"], told["bytes_per_state"]) == (3, 1)
    gpt2 = told["comparison"]["GPT-2"]
    assert round(gpt2["bits_per_state"]) == 31984 and gpt2["bytes_per_state"] == 3998
    assert ask("info", baby)[0] == 0


def test_a_model_midway_through_training_is_named_by_its_step(ask_json, baby):
    assert ask_json("chain", f"{baby}@0")["probabilities"]["000"][1] == pytest.approx(0.5036649, abs=1e-6)


# ---- wrong usage and damaged files ---------------------------------------------------------------------------


def test_a_sequence_not_longer_than_the_context_is_refused(ask, tmp_path):
    assert refused(*ask("train", RECIPE, "--out", tmp_path / "r", "--set", "data.sequence=111"), "longer")
    assert not (tmp_path / "r").exists()


def test_symbols_outside_the_vocabulary_are_refused(ask, tmp_path):
    assert refused(*ask("train", RECIPE, "--out", tmp_path / "r", "--set", "data.sequence=11210"), "'2'")
    assert not (tmp_path / "r").exists()


def test_a_misspelt_key_is_refused_with_the_one_that_was_meant(ask, tmp_path):
    assert refused(*ask("train", RECIPE, "--out", tmp_path / "r", "--set", "model.n_layers=2"), "n_layer")
    assert refused(*ask("train", RECIPE, "--out", tmp_path / "r", "--set", "train.steps=many"), "train.steps", "int")
    assert refused(*ask("train", "nowhere.toml", "--out", tmp_path / "r"), "nowhere.toml")
    assert not (tmp_path / "r").exists()


def test_a_chain_too_large_for_memory_is_refused_before_it_is_built(ask, tmp_path):
    options = ["--set", "model.context_length=60", "--set", f"data.sequence={'110' * 30}", "--set", "train.steps=0"]
    assert ask("train", RECIPE, "--out", tmp_path / "r", *options)[0] == 0
    assert refused(*ask("chain", tmp_path / "r"), "2^60", "longest context whose chain fits is")


@pytest.fixture(scope="module")
def tall(tmp_path_factory):
    """An untrained run of 2^60 states."""
    out = tmp_path_factory.mktemp("tall") / "run"
    options = ["--set", "model.context_length=60", "--set", f"data.sequence={'110' * 30}", "--set", "train.steps=0"]
    assert main(["train", RECIPE, "--out", str(out), *options]) == 0
    return out


def test_red_of_a_chain_too_large_is_estimated_and_said_to_be(ask, ask_json, tall):
    asked = ["chain", tall, "--red-pattern", "101,0000", "--prompt", "11", "--steps", 30, "--temperature", 0.8]
    told = ask_json(*asked, "--walks", 40, "--seed", 7)
    model = Shaped(Run(tall).model(), [Temperature(0.8)])
    *_, found = estimate_red(model, [[1, 0, 1], [0, 0, 0, 0]], [1, 1], 30, walks=40, seed=7)
    assert (told["method"], told["walks"], told["trusted"], told["states"]) == ("estimate", 40, found.is_trusted, None)
    assert told["effective_walks"] == found.effective_walks and told["largest_share"] == found.largest_share
    for key, log in [("within", found.log_within), ("low", found.log_low), ("high", found.log_high)]:
        assert told[key] == pytest.approx(math.exp(log[-1]), rel=1e-12)
        assert told[f"log10_{key}"] == pytest.approx(log[-1] / math.log(10), rel=1e-12)
    code, out, _ = ask(*asked, "--walks", 40, "--seed", 7)
    assert code == 0 and "estimated from 40 walks: " in out and "95 % interval" in out and "tokens 1 0 1" in out
    assert out.count(f"{100 * told['within']:.4g} %") == 1
    ended = ask_json(*asked, "--end", "0")
    assert (ended["method"], ended["within"]) == ("exact", 0)  # a 0 ends the text, and both patterns go on after one


def test_an_estimate_says_what_it_lacks(ask, tall):
    assert refused(*ask("chain", tall, "--red-pattern", "101"), "--prompt")
    assert refused(*ask("chain", tall, "--red", "1", "--prompt", "1"), "--red-pattern")
    assert refused(
        *ask("chain", tall, "--red-pattern", "1", "--prompt", "1", "--end", "0", "--restart", "1"), "--restart"
    )
    assert refused(*ask("chain", tall, "--red-pattern", "1", "--prompt", "1", "--walks", "0"), "walks")
    code, out, _ = ask("chain", tall, "--red-pattern", "111", "--prompt", "0", "--steps", 50, "--seconds", 0)
    assert code == 0 and "no walk was ended in time" in out
    code, out, _ = ask("chain", tall, "--red-pattern", "101", "--prompt", "0", "--steps", 50, "--walks", 3)
    assert code == 0 and "not to be relied on yet" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--red", ""], "empty"),
        (["--red", "000,001,010,011,100,101,110,111"], "every state"),
        (["--red", "0000"], "red pattern"),
        (["--red", "002"], "'2'"),
        (["--red-pattern", ""], "empty"),
        (["--red-pattern", "01,"], "empty"),
        (["--red", "000", "--steps", "-1"], "steps"),
        (["--temperature", "-1"], "temperature"),
        (["--temperature", "nan"], "temperature"),
        (["--top-p", "0"], "top-p"),
        (["--top-p", "1.5"], "top-p"),
        (["--top-k", "0"], "top-k"),
        (["--prompt", "12"], "'2'"),
        (["--restart", "111"], "--end"),
        (["--end", "0"], None),
    ],
)
def test_chain_refuses_what_cannot_be_meant(ask, baby, options, words):
    code, out, err = ask("chain", baby, *options)
    if words is None:
        assert code == 0
    else:
        assert refused(code, out, err, words) and code == 2


def test_red_that_cannot_be_reached_is_exactly_zero_and_said_to_be(ask, baby):
    code, out, err = ask("chain", baby, "--red", "000", "--prompt", "111", "--temperature", 0, "--json")
    assert code == 1 and "cannot be reached" in err and len(err.strip().splitlines()) == 1
    told = json.loads(out)
    assert told["within"] == told["ever"] == told["hazard"] == 0
    assert told["log10_within"] is None and told["expected_steps"] is None


def test_nan_weights_are_refused(ask, baby_run, tmp_path):
    shutil.copytree(baby_run.path, tmp_path / "run")
    tensors = load_file(tmp_path / "run" / "model.safetensors")
    tensors["wte.weight"][0, 0] = np.nan
    run = Run(tmp_path / "run")
    run._write({"model.safetensors": save(tensors)})
    assert refused(*ask("chain", tmp_path / "run"), "wte.weight", "NaN")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "run.toml", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_a_damaged_run_is_refused_and_left_as_it_was(ask, baby_run, tmp_path, name, damage):
    folder = tmp_path / "run"
    shutil.copytree(baby_run.path, folder)
    content = (folder / name).read_bytes()
    middle = len(content) // 2
    if damage == "missing":
        (folder / name).unlink()
    else:
        flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
        (folder / name).write_bytes(content[:middle] if damage == "truncated" else flipped)
    before = fingerprint(folder)
    assert refused(*ask("chain", folder), name)
    assert fingerprint(folder) == before


def test_a_folder_that_is_no_run_is_neither_read_nor_written(ask, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert refused(*ask("chain", tmp_path / "mine"), "not a run folder")
    assert refused(*ask("train", RECIPE, "--out", tmp_path / "mine"), "not a run folder")
    assert refused(*ask("chain", tmp_path / "nothing"), "no run folder")
    assert fingerprint(tmp_path / "mine").keys() == {"thesis.txt"}


def test_another_recipe_for_the_same_run_is_refused_by_the_key_that_differs(ask, baby):
    assert refused(*ask("train", RECIPE, "--out", baby, "--set", "run.seed=1"), "run.seed")


def test_pictures_refuse_what_they_cannot_draw(ask, baby, tmp_path):
    assert refused(*ask("see", "portrait", baby, "--out", tmp_path / "a.png"), "state-graph")
    assert refused(*ask("see", "state-graph", baby, "--out", tmp_path / "a.bmp"), ".png")
    assert refused(*ask("see", "red-over-steps", baby, "--out", tmp_path / "a.png"), "--red")
    assert refused(*ask("see", "heat-map", baby, "--out", tmp_path / "a.dot"), ".png")
    assert refused(*ask("see", "state-graph", baby), "--out")
    assert list(tmp_path.iterdir()) == []


def test_generate_refuses_a_prompt_it_cannot_read(ask, baby):
    assert refused(*ask("generate", baby), "PROMPT")
    assert refused(*ask("generate", baby, "12"), "'2'")
    assert refused(*ask("generate", baby, ""), "empty")
    assert refused(*ask("generate", baby, "--tokens", "1,x"), "--tokens")
    assert refused(*ask("generate", baby, "--tokens", "1,7"), "7")


def test_an_unforeseen_failure_is_one_line_too(ask, baby, monkeypatch):
    import glassgpt.cli.generate

    monkeypatch.setattr(glassgpt.cli.generate, "run", lambda args: 1 / 0)
    code, _, err = ask("generate", baby, "111")
    assert code == 1 and "ZeroDivisionError" in err and "Traceback" not in err


# ---- start, stop ---------------------------------------------------------------------------------------------


def test_help_of_every_command_is_light(tmp_path):
    heavy = "{'torch', 'scipy', 'matplotlib', 'numpy', 'jax', 'numba'}"
    for command in [[], *([name] for name in COMMANDS)]:
        program = (
            "import sys; from glassgpt.cli.main import main\n"
            f"try: main({[*command, '--help']!r})\nexcept SystemExit: pass\n"
            f"sys.exit(repr(sorted({heavy} & set(sys.modules))) if {heavy} & set(sys.modules) else 0)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_training_after_a_save_and_the_same_command_goes_on(tmp_path, number, code):
    plain = ["--set", "train.precision=float32", "--set", "train.compile=no"]  # or what is fast is measured first
    options = ["--out", str(tmp_path / "run"), "--set", "train.steps=100000", "--set", "train.save_every=50", *plain]
    process = subprocess.Popen(
        [sys.executable, "-m", "glassgpt", "train", RECIPE, *options], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while not (tmp_path / "run" / "checkpoints" / "step-000050.safetensors").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "saved" in err.strip().splitlines()[-1] and "Traceback" not in err
    run = Run(tmp_path / "run")
    assert not run.is_finished and len(run.metrics()) == run.steps[-1] >= 50


def test_output_to_a_reader_that_has_gone_is_no_traceback(baby):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "glassgpt", "chain", str(baby), "--json"],
        stdout=write, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(write)
    assert done.returncode == 1 and "Traceback" not in done.stderr


def test_a_restart_shorter_than_the_context_brings_in_the_shorter_contexts(ask_json, baby):
    told = ask_json("chain", baby, "--prompt", "111", "--red-pattern", "1111", "--end", "0", "--restart", "1")
    assert told["states"] == 14 and told["ever"] == 1


def test_the_list_of_pictures_is_an_object_too(ask_json, ask):
    assert "before-after" in ask_json("see", "--list")["figures"]
    assert refused(*ask("see"), "say which figure")


def test_empty_names_are_refused(ask, tmp_path):
    assert refused(*ask("train", "", "--out", tmp_path / "r"), "empty")
    assert refused(*ask("train", RECIPE, "--out", ""), "empty")
    assert refused(*ask("chain", ""), "empty")
    assert refused(*ask("chain", RECIPE), "is a file")


def test_a_temperature_too_small_to_divide_by_is_refused(ask, baby):
    assert refused(*ask("chain", baby, "--temperature", "1e-320"), "greedy")
