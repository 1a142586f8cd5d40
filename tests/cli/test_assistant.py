"""From the command line after pretraining: train a stage, rank, evaluate, arena, and a story that does them all."""

import json

import pytest
from tests.small_stages import NAMES, asked, write_rows

from glassgpt.cli.main import main
from glassgpt.cli.rank import scores_of_order
from glassgpt.errors import UsageError
from glassgpt.training.scorers import GoldScorer

FEW = ["--n", "4", "--max-new-tokens", "6"]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- train -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(base, rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "sft.toml"
    path.write_text(
        f'[run]\nbase = "{base}"\n[data]\nfiles = "{rows["sft"]}"\nvalidation = 0.2\n[sft]\nanswers = 2\n'
        "[train]\nsteps = 3\nbatch_size = 4\n[evaluate]\nevery = 3\n"
    )
    return path


def test_a_stage_shows_its_first_row_with_what_is_trained_marked(recipe, tmp_path, capsys):
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert "the first row, [trained] in brackets" in said.err
    assert "<|im_start|>assistant↵\n[A " in said.err and "<|im_end|>]" in said.err
    assert "exact_match" in said.out and "glassgpt chat" in said.out


def test_a_stage_answers_in_json(recipe, tmp_path, capsys):
    assert main(["train", str(recipe), "--out", str(tmp_path / "run"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["losses"]) == 3 and told["evaluations"][-1]["stop_rate"] >= 0
    assert told["recipe"]["sft"]["answers"] == 2
    assert main(["info", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chat_template"] is True


def test_a_fine_tuned_run_chats(tuned, capsys):
    assert main(["chat", str(tuned), "What has Mira?", "--temperature", "0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["finish_reason"] in ("stop", "end", "length") and told["tokens"]


def test_wrong_rows_are_one_message_and_exit_code_2(recipe, tmp_path, capsys):
    wrong = write_rows(tmp_path / "wrong.jsonl", [{"messages": []}, {"chosen": "a"}])
    command = ["train", str(recipe), "--out", str(tmp_path / "run"), "--set", f"data.files={wrong}"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "line 1" in said and "line 2" in said and "Traceback" not in said


# ---- rank ------------------------------------------------------------------------------------------------------------


def rank(tuned, out, *more):
    return main(["rank", str(tuned), "--out", str(out), "--judge", "toy-world", "--k", "4", *FEW, "--json", *more])


def sign(text):
    """A score that tells nearly all texts apart."""
    return sum(map(ord, text)) % 1009 + len(text) / 100


@pytest.fixture
def by_sign(monkeypatch):
    monkeypatch.setattr(GoldScorer, "__call__", lambda self, prompts, answers, ended: [sign(a) for a in answers])


def test_the_judge_ranks_answers_from_best_to_worst(tuned, by_sign, tmp_path, capsys):
    assert rank(tuned, tmp_path / "rows.jsonl") == 0
    for row in lines(tmp_path / "rows.jsonl"):
        signs = [sign(text) for _, text in sorted(zip(row["ranks"], row["completions"], strict=True))]
        assert signs == sorted(signs, reverse=True) and min(row["ranks"]) == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == 4


def test_flips_turn_about_that_share_of_pairs_round(tuned, by_sign, tmp_path):
    more = ["--n", "60", "--max-new-tokens", "4", "--json", "--flips", "0.25"]
    command = ["rank", str(tuned), "--judge", "toy-world", "--k", "4", *more]
    assert main([*command, "--out", str(tmp_path / "rows.jsonl")]) == 0
    rows = lines(tmp_path / "rows.jsonl")
    wrong = [sign(row["chosen"]) < sign(row["rejected"]) for row in rows]
    assert len(rows) > 60 and 0.1 < sum(wrong) / len(wrong) < 0.4


def test_pairs_that_are_closer_than_the_margin_are_left_out(tuned, by_sign, tmp_path):
    more = ["--n", "20", "--max-new-tokens", "4", "--json"]
    command = ["rank", str(tuned), "--judge", "toy-world", "--k", "4", *more]
    kept = {}
    for margin in ("1e-9", "300"):
        assert main([*command, "--margin", margin, "--out", str(tmp_path / f"{margin}.jsonl")]) == 0
        kept[margin] = lines(tmp_path / f"{margin}.jsonl")
    far = [row for row in kept["1e-9"] if abs(sign(row["chosen"]) - sign(row["rejected"])) >= 300]
    assert kept["300"] == far and 0 < len(far) < len(kept["1e-9"])
    assert main([*command, "--margin", "-1", "--out", str(tmp_path / "no.jsonl")]) == 2


def test_what_was_stopped_goes_on_to_the_same_file(tuned, by_sign, tmp_path, monkeypatch, capsys):
    import glassgpt.cli.rank as ranking

    monkeypatch.setattr(ranking, "PROMPTS_AT_ONCE", 2)
    assert rank(tuned, tmp_path / "whole.jsonl") == 0
    real, calls = ranking.ranked, []

    def stopping(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(ranking, "ranked", stopping)
    assert rank(tuned, tmp_path / "rows.jsonl") == 130
    assert "keeps 2 rows: the same command goes on" in capsys.readouterr().err
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"prompt": "half a li')  # as a power cut leaves it
    assert rank(tuned, tmp_path / "rows.jsonl") == 0
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_person_ranks_by_typing_an_order(tuned, tmp_path, monkeypatch, capsys):
    typed = iter(["nonsense", "2 1", "1=2"])
    monkeypatch.setattr("builtins.input", lambda *_: next(typed))
    prompts = write_rows(tmp_path / "prompts.jsonl", [{"prompt": asked(name)} for name in NAMES[:2]])
    command = ["rank", str(tuned), "--out", str(tmp_path / "rows.jsonl"), "--prompts", str(prompts)]
    assert main([*command, "--k", "2", "--n", "2", "--max-new-tokens", "6"]) == 0
    assert [row["ranks"] for row in lines(tmp_path / "rows.jsonl")] == [[1, 0]]
    assert "name each of 1 to 2 once, got 'nonsense'" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["", "1", "1 1", "1 2 3 4", "1 2 x", "0 1 2", "1=2"])
def test_an_order_that_is_none_is_refused(line):
    with pytest.raises(UsageError, match="name each of 1 to 3 once"):
        scores_of_order(line, 3)


@pytest.mark.parametrize("flips", ["0", "0.1"])
def test_ranked_rows_are_what_the_next_stages_train_on(tuned, by_sign, tmp_path, flips):
    from glassgpt.training.examples import preferences

    assert rank(tuned, tmp_path / "rows.jsonl", "--flips", flips) == 0
    assert len(preferences([str(tmp_path / "rows.jsonl")])) == len(lines(tmp_path / "rows.jsonl")) > 0


def test_a_file_of_something_else_is_not_written_into(tuned, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text('{"text": "mine"}\n')
    assert rank(tuned, tmp_path / "rows.jsonl") == 1
    assert "was not written by `glassgpt rank`" in capsys.readouterr().err
    assert (tmp_path / "rows.jsonl").read_text() == '{"text": "mine"}\n'


# ---- evaluate and arena ----------------------------------------------------------------------------------------------


def test_evaluate_measures_answers_and_their_distance_from_where_they_came(tuned, judge, tmp_path, capsys):
    command = ["evaluate", str(tuned), *FEW, "--reference", str(tuned), "--reward", str(judge), "--best-of", "4"]
    assert main([*command, "--json", "--out", str(tmp_path / "found.json")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "found.json").read_text())
    assert told["kl"] == pytest.approx(0, abs=1e-6)
    assert told["gold_gain"] == told["gold_gain_low"] == told["gold_gain_high"] == 0  # it came from itself
    assert told["exact_match_low"] <= told["exact_match"] <= told["exact_match_high"]
    best = told["best_of"]
    assert [one["n"] for one in best] == [1, 2, 4] and best[0]["kl"] == 0
    assert best[0]["reward"] <= best[1]["reward"] <= best[2]["reward"]  # of the same answers


def test_a_reward_model_is_judged_by_preferences_that_it_was_not_trained_on(judge, rows, capsys):
    assert main(["evaluate", str(judge), "--rows", str(rows["reward"]), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 < told["pairs"] < 24 and told["accuracy"] == 1.0  # one answer in three prompts' rows is held out
    assert set(told["reliability"]) == {"predicted", "observed", "low", "high", "counts"}
    assert main(["evaluate", str(judge)]) == 2
    assert "give --rows FILE" in capsys.readouterr().err


def test_in_the_arena_the_one_that_the_judge_likes_wins(base, tuned, tmp_path, monkeypatch, capsys):
    """It likes answers that come to an end, which the base was never taught."""
    monkeypatch.setattr(GoldScorer, "__call__", lambda self, prompts, answers, ended: ended.astype(float))
    prompts = write_rows(tmp_path / "prompts.jsonl", [{"prompt": asked(name)} for name in NAMES])
    command = ["arena", str(base), str(tuned), "--n", "12", "--max-new-tokens", "30", "--out", str(tmp_path / "a.json")]
    assert main([*command, "--prompts", str(prompts), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "a.json").read_text()) and told["different_prompts"] == 6
    ratings = told["ratings"]
    assert ratings[str(tuned)]["elo"] > ratings[str(base)]["elo"]
    assert sum(one["elo"] for one in ratings.values()) == pytest.approx(2000)
    assert told["wins"][str(tuned)][str(tuned)] is None
    assert [set(sample["answers"]) for sample in told["samples"]] == [{str(base), str(tuned)}] * 2
    assert main(["arena", str(tuned), str(tuned)]) == 2
    assert "each named once" in capsys.readouterr().err


# ---- a story ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def story(recipe, tmp_path):
    path = tmp_path / "story.toml"
    steps = [
        f"train {recipe} --out sft",
        "evaluate sft --n 2 --max-new-tokens 3 --out found.json",
        f"train {recipe} --out again --set train.steps=2",
    ]
    listed = ",\n".join(f'{{ minutes = 1, command = "{step}" }}' for step in steps)
    path.write_text(f"[story]\nsteps = [{listed}]\n")
    return path


def test_a_story_runs_its_steps_in_its_folder_and_not_twice(story, tmp_path, capsys, monkeypatch):
    command = ["train", str(story), "--out", str(tmp_path / "out"), "--set", "run.seed=3"]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "1 of 3, about 3 minutes left: glassgpt train" in said
    assert (tmp_path / "out" / "found.json").exists()
    assert "seed = 3" in (tmp_path / "out" / "again" / "run.toml").read_text()
    made = (tmp_path / "out" / "found.json").stat().st_mtime_ns
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"][1].startswith("evaluate sft")
    assert (tmp_path / "out" / "found.json").stat().st_mtime_ns == made


def test_a_story_that_is_stopped_goes_on_at_that_step(story, tmp_path, capsys, monkeypatch):
    import glassgpt.cli.evaluate as evaluating

    command = ["train", str(story), "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        patched.setattr(evaluating, "of_player", lambda args: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(command) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    assert not (tmp_path / "out" / "found.json").exists()
    assert main(command) == 0 and (tmp_path / "out" / "again" / "model.safetensors").exists()


def test_a_step_that_fails_ends_the_story_by_name(story, tmp_path, capsys):
    story.write_text('[story]\nsteps = [{ minutes = 1, command = "train nowhere.toml --out x" }]\n')
    assert main(["train", str(story), "--out", str(tmp_path / "out")]) == 1
    assert "the story ended at `glassgpt train nowhere.toml --out x`" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["steps = []", "steps = 3", 'steps = [{command = "x"}]', "", "steps = [{minutes = 1}]"]
)
def test_a_story_without_steps_is_refused(tmp_path, capsys, content):
    (tmp_path / "story.toml").write_text(f"[story]\n{content}\n")
    assert main(["train", str(tmp_path / "story.toml"), "--out", str(tmp_path / "out")]) == 2
    assert "a story has steps = [{command =" in capsys.readouterr().err
