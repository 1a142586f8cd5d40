"""Every stage after pretraining, in the one loop: it learns, it goes on bit for bit, and it refuses what can't be."""

import json
import shutil

import numpy as np
import pytest
import torch
from tests.small_stages import NAMES, asked, stage_recipe, write_rows

from glassgpt.errors import DamagedFileError, UsageError
from glassgpt.loading import load, open_model
from glassgpt.training.loop import Interrupted, Watch, train
from glassgpt.training.recipe import STAGES, recipe_from_dict
from glassgpt.weights.run import Run

LEARNT = ("sft", "classify", "reward", "dpo")
WITH_A_JUDGE = ("ppo", "grpo")


def contents(folder):
    """All but the timing and the lock, which no two runs share."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.name not in ("timing.jsonl", ".lock")}


@pytest.fixture
def recipe_of(base, tuned, judge, rows):
    def made(stage, **options):
        if stage in WITH_A_JUDGE:
            options = {"judge": judge} | options
        return stage_recipe(stage, base if stage in ("sft", "classify") else tuned, rows, **options)

    return made


# ---- each of them learns ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", LEARNT)
def test_a_stage_learns_from_a_file_of_rows(recipe_of, tmp_path, stage):
    run = train(recipe_of(stage, steps=30), tmp_path / "run")
    losses = [row["loss"] for row in run.metrics()]
    assert run.is_finished and np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    held_out = [row["validation_loss"] for row in run.evaluations()]
    assert held_out[-1] < held_out[0]


@pytest.mark.parametrize("stage", ["grpo", pytest.param("ppo", marks=pytest.mark.slow)])
def test_a_policy_comes_to_earn_what_is_rewarded(recipe_of, tmp_path, monkeypatch, stage):
    """The reward here is how many times "lamp" is said, which the base says of a quarter of all."""

    class Lamps:
        sha256 = "lamps"

        def __call__(self, prompts, answers, ended):
            return np.array([float("lamp" in answer) for answer in answers])

    monkeypatch.setattr("glassgpt.training.reinforced.reward_of", lambda ref: Lamps())
    section = {"beta": 0.0, "missing_end": 0.0}
    run = train(recipe_of(stage, steps=40, section=section, batch_size=32, learning_rate=2e-3), tmp_path / "run")
    rewards = [row["reward"] for row in run.metrics()]
    assert np.mean(rewards[:3]) < 0.5 < 0.8 < np.mean(rewards[-3:])
    kl = [row["kl"] for row in run.metrics()]
    assert abs(kl[0]) < 1e-6 < kl[-1]  # it begins as the base, and leaves it


@pytest.mark.parametrize("stage", WITH_A_JUDGE)
def test_a_step_of_reinforcement_learning_tells_what_people_ask_for(recipe_of, tmp_path, stage):
    run = train(recipe_of(stage, steps=2), tmp_path / "run")
    expected = {"reward", "kl", "entropy", "length", "stop_rate", "clip_fraction", "approximate_kl"}
    expected |= {"value_error"} if stage == "ppo" else {"groups_alike", "reference_kl"}
    for row in run.metrics():
        assert expected <= row.keys() and all(np.isfinite(row[key]) for key in expected)


def test_grpo_has_no_loss_to_speak_of_at_its_first_update(recipe_of, tmp_path):
    """Advantages of a group sum to nothing: the loss of a policy that has not moved is 0, whatever it earns."""
    run = train(recipe_of("grpo", steps=1, section={"beta": 0.0}), tmp_path / "run")
    assert abs(run.metrics()[0]["loss"]) < 1e-6 < run.metrics()[0]["grad_norm"]


def test_the_scores_of_a_reward_model_are_about_zero_on_what_it_was_trained_on(judge, rows):
    from glassgpt.training.examples import completed, encode_prompt
    from glassgpt.training.scorers import RewardModel

    scorer = RewardModel(judge)
    lines = [json.loads(line) for line in rows["reward"].read_text().splitlines()]
    pairs = [
        (encode_prompt(tuple(line["prompt"]), scorer.base), completed(line[key], scorer.base))
        for line in lines
        for key in ("chosen", "rejected")
    ]
    scores = scorer.score(pairs)
    assert abs(scores.mean()) < 0.3 * scores.std()  # a fifth of them was held out
    assert (scores[::2] > scores[1::2]).mean() > 0.9


def test_a_score_does_not_depend_on_what_stands_beside_it(judge):
    from glassgpt.training.scorers import RewardModel

    scorer = RewardModel(judge)
    rows = [([5, 6, 7], [8] * n) for n in (1, 9, 4)]
    assert np.allclose(scorer.score(rows), [scorer.score([row])[0] for row in rows], atol=1e-6)


# ---- going on --------------------------------------------------------------------------------------------------------


def some(*quick):
    """All stages, of which the `quick` ones are in the default run."""
    return [stage if stage in quick else pytest.param(stage, marks=pytest.mark.slow) for stage in STAGES]


@pytest.mark.parametrize("stage", some("sft", "ppo"))
def test_a_stage_stopped_anywhere_goes_on_bit_for_bit(recipe_of, tmp_path, stage):
    recipe = recipe_of(stage)
    whole = train(recipe, tmp_path / "whole").path
    for at in (1, 4):
        seen = []
        with pytest.raises(Interrupted):
            watch = Watch(on_step=lambda *_, seen=seen: seen.append(1), should_stop=lambda: len(seen) >= at)  # noqa: B023
            train(recipe, tmp_path / f"stopped-{at}", watch=watch)
        train(recipe, tmp_path / f"stopped-{at}")
        ours, theirs = contents(tmp_path / f"stopped-{at}"), contents(whole)
        for name in ("model.safetensors", "metrics.jsonl", "config.json", "run.toml"):
            assert ours[name] == theirs[name], (at, name)
        assert ours.get("added.safetensors") == theirs.get("added.safetensors")


@pytest.mark.parametrize("stage", some("sft", "grpo"))
def test_the_same_seed_gives_the_same_model_and_another_seed_another(recipe_of, tmp_path, stage):
    recipe = recipe_of(stage, steps=2)
    one, two = (train(recipe, tmp_path / name).path / "model.safetensors" for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    other = recipe_from_dict(recipe.to_dict(), ["run.seed=1"])
    assert train(other, tmp_path / "c").path.joinpath("model.safetensors").read_bytes() != one.read_bytes()


def test_a_stage_does_not_go_on_from_another_base(tuned, judge, rows, tmp_path):
    copy = shutil.copytree(tuned, tmp_path / "base")
    recipe = stage_recipe("dpo", copy, rows)
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "run", watch=Watch(should_stop=lambda: True))
    shutil.rmtree(copy)
    shutil.copytree(judge, copy)
    with pytest.raises(UsageError, match=r"was begun with data\.sha256"):
        train(recipe, tmp_path / "run")


# ---- what comes out --------------------------------------------------------------------------------------------------


def test_a_fine_tuned_run_converses_by_its_own_template_and_ends(tuned):
    bundle = open_model(tuned)
    tokenizer = bundle.read_tokenizer()
    assert bundle.chat_template and bundle.end_tokens == (tokenizer.special["<|im_end|>"],)
    assert bundle.config.vocab_size == tokenizer.vocab_size == tokenizer.special["<|im_end|>"] + 1


def test_transformers_converses_as_we_do(tuned):
    transformers = pytest.importorskip("transformers")
    from glassgpt.text.chat import ChatTemplate

    theirs = transformers.AutoTokenizer.from_pretrained(str(tuned))
    model = transformers.AutoModelForCausalLM.from_pretrained(str(tuned))
    ours, tokenizer = load(tuned)
    messages = asked("Mira")
    ids = ChatTemplate(open_model(tuned).chat_template).encode(messages, tokenizer)
    said = theirs.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert list(said) == ids
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].numpy()
    assert np.allclose(logits, ours.next_token_logits([ids])[0], atol=1e-4)
    assert model.generation_config.eos_token_id == tokenizer.special["<|im_end|>"]


def test_the_loss_is_of_what_the_assistant_says_alone(base, rows, tmp_path):
    """Whatever is asked in another way, a row of the same length has the same trained tokens."""
    from glassgpt.training.objective import IGNORED
    from glassgpt.training.sft import SupervisedFineTuning

    stage = SupervisedFineTuning(stage_recipe("sft", base, rows, section={"replay": 0.0}))
    batch = stage.rows(0)
    end = stage.base.end_tokens[0]
    for inputs, targets in zip(batch["inputs"], batch["targets"], strict=True):
        said = targets[targets != IGNORED]
        assert said[-1] == end and end not in said[:-1]
        assert stage.tokenizer.decode(said[:-1]).startswith("A ")
        first = int(np.argmax(targets != IGNORED))
        assert "has" in stage.tokenizer.decode(inputs[: first + 1])


def test_replay_takes_its_share_of_the_rows_from_the_text_of_the_base(base, rows):
    from glassgpt.training.objective import IGNORED
    from glassgpt.training.sft import SupervisedFineTuning

    stage = SupervisedFineTuning(stage_recipe("sft", base, rows, section={"replay": 0.25}))
    targets = stage.rows(0)["targets"]
    assert len(targets) == 8 and (targets != IGNORED).all(axis=1).sum() == 2


def test_rows_of_like_length_are_neighbours_and_parts_of_a_step_have_no_padding_of_others(base, tmp_path):
    from glassgpt.models.gpt_torch import GPT
    from glassgpt.training.objective import IGNORED, NextToken, without_padding
    from glassgpt.training.recipe import TrainSection
    from glassgpt.training.sft import SupervisedFineTuning
    from glassgpt.training.trainer import Trainer

    said = [{"prompt": asked(name), "completion": " ".join(["A lamp."] * n)} for n, name in enumerate(NAMES * 4, 1)]
    files = {"sft": write_rows(tmp_path / "rows.jsonl", said)}
    stage = SupervisedFineTuning(stage_recipe("sft", base, files, section={"replay": 0.0}, batch_size=12))
    taken = stage.rows(0)
    lengths = (taken["targets"] != IGNORED).shape[1] - (taken["targets"][:, ::-1] != IGNORED).argmax(axis=1)
    assert (np.diff(lengths[:6]) >= 0).all() and (np.diff(lengths[6:]) >= 0).all() and len(set(lengths)) > 1
    part = without_padding({name: value[:2] for name, value in taken.items()})
    assert part["inputs"].shape == part["targets"].shape == (2, lengths[:2].max())
    whole, apart = (
        Trainer(GPT(stage.config), TrainSection(steps=1, micro_batch_size=size), NextToken()) for size in (12, 1)
    )
    assert whole.add_gradients(0, taken) == pytest.approx(apart.add_gradients(0, taken), rel=1e-6)
    for one, other in zip(whole.model.parameters(), apart.model.parameters(), strict=True):
        np.testing.assert_allclose(one.grad, other.grad, atol=1e-6)


def test_padding_is_taken_off_arrays_of_the_targets_shape_alone():
    from glassgpt.training.objective import without_padding

    targets = np.array([[[1, 2, -100, -100], [3, -100, -100, -100]], [[-100, 4, -100, -100], [5, 6, -100, -100]]])
    rows = {"inputs": targets + 200, "targets": targets, "reference": np.zeros((2, 2)), "weights": np.zeros(4)}
    cut = without_padding(rows)
    assert {name: value.shape for name, value in cut.items()} == {
        "inputs": (2, 2, 2),
        "targets": (2, 2, 2),
        "reference": (2, 2),
        "weights": (4,),
    }
    assert (cut["targets"] == targets[..., :2]).all()
    labels = {"inputs": np.zeros((3, 5)), "targets": np.array([1, 0, 2])}
    assert without_padding(labels) is labels


@pytest.mark.parametrize("stage", ["reward", "classify"])
def test_a_model_with_a_head_says_what_it_is(recipe_of, tmp_path, stage):
    run = train(recipe_of(stage, steps=1), tmp_path / "run")
    kind, labels = {"reward": ("reward", ["reward"]), "classify": ("classifier", ["coat", "drum", "kite", "lamp"])}[
        stage
    ]
    assert run.head == {"kind": kind, "labels": labels}
    assert set(run.added()) == {"head.weight", "head.bias"}
    assert run.added()["head.weight"].shape == (len(labels), 16)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sft": {}}, r"\[sft\] begins from a model: give run\.base"),
        ({"sft": {}, "dpo": {}, "run": {"base": "x"}}, r"a recipe is of one stage, and this has \[sft\] and \[dpo\]"),
        ({"run": {"base": "x"}}, r"the recipe says no stage: add one of sft, classify"),
        ({"trainable": {"what": "last"}}, r"\[trainable\] is a choice of stages"),
        ({"ppo": {}, "run": {"base": "x"}}, r"the recipe lacks ppo\.reward"),
        ({"dpo": {"beta": 0.0}, "run": {"base": "x"}}, r"dpo\.beta must be above 0, got 0"),
        ({"grpo": {"reward": "x", "group": 1}, "run": {"base": "x"}}, r"grpo\.group must be 2 or more, got 1"),
        (
            {"sft": {"prompt": "x"}, "run": {"base": "x"}},
            r"sft\.prompt and sft\.completion are templates that go together",
        ),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(content, message):
    plain = {"data": {"files": ["x.jsonl"]}, "model": {"context_length": 8}, "train": {"steps": 1, "batch_size": 1}}
    with pytest.raises(UsageError, match=message):
        recipe_from_dict(plain | content)


@pytest.mark.parametrize("stage", STAGES)
def test_wrong_rows_are_told_by_line(recipe_of, rows, tmp_path, stage):
    lines = rows[stage].read_text().splitlines()
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text("\n".join([lines[0], '{"nothing": 1}', lines[1], "no json"]) + "\n")
    recipe = recipe_of(stage)
    recipe = recipe_from_dict(recipe.to_dict(), [f"data.files={wrong}"])
    with pytest.raises(UsageError, match=r"(?s)wrong\.jsonl.*line 2.*line 4"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_base_that_is_not_there_is_refused_by_name(rows, tmp_path):
    with pytest.raises(DamagedFileError, match=r"there is no .*nowhere"):
        stage_recipe("sft", tmp_path / "nowhere", rows)


def test_messages_for_a_base_without_a_template_are_refused_where_none_is_taught(base, rows, tmp_path):
    with pytest.raises(UsageError, match=r"has no chat template, and prompts are messages: fine-tune it"):
        train(stage_recipe("dpo", base, rows), tmp_path / "run")


def test_a_reward_that_is_no_reward_model_is_refused(tuned, rows, tmp_path):
    for wrong in (tuned, tmp_path):
        with pytest.raises(UsageError, match=r"is no (finished reward model|run folder)"):
            train(stage_recipe("ppo", tuned, rows, judge=wrong), tmp_path / "run")


def test_replay_without_the_text_of_the_base_is_refused(tuned, rows, tmp_path):
    with pytest.raises(UsageError, match=r"sft\.replay repeats what the base was pretrained on, and .* has no tokens"):
        train(stage_recipe("sft", tuned, rows), tmp_path / "run")


def test_groups_must_fill_the_step(tuned, judge, rows, tmp_path):
    with pytest.raises(UsageError, match=r"in groups of grpo\.group = 3: give a multiple of it, got 8"):
        train(stage_recipe("grpo", tuned, rows, judge=judge, section={"group": 3}), tmp_path / "run")


def test_several_labels_need_multi_label(base, tmp_path):
    rows = [{"text": f"{name} sleeps.", "labels": ["a", "b"] if i % 2 else []} for i, name in enumerate(NAMES * 2)]
    files = {"classify": write_rows(tmp_path / "rows.jsonl", rows)}
    with pytest.raises(UsageError, match=r"has \d labels: set classify\.multi_label"):
        train(stage_recipe("classify", base, files), tmp_path / "run")
    run = train(stage_recipe("classify", base, files, section={"multi_label": True}), tmp_path / "run")
    assert run.head["kind"] == "multi-label" and 0 <= run.evaluations()[-1]["accuracy"] <= 1


def test_classification_stands_beside_tfidf_and_logistic_regression(recipe_of, tmp_path):
    pytest.importorskip("sklearn")
    run = train(recipe_of("classify", steps=40, learning_rate=1e-2), tmp_path / "run")
    last = run.evaluations()[-1]
    assert last["accuracy"] == 1.0 == last["tfidf_accuracy"]  # the word for the thing is in the text


def test_templates_make_prompts_and_completions_of_any_fields(base, tmp_path):
    rows = [{"article": f"{name} has a lamp and sleeps.", "summary": f"{name} sleeps."} for name in NAMES * 2]
    files = {"sft": write_rows(tmp_path / "rows.jsonl", rows)}
    section = {"prompt": "{article}\nIn short:", "completion": " {summary}", "replay": 0.0}
    run = train(stage_recipe("sft", base, files, section=section), tmp_path / "run")
    assert run.is_finished and open_model(run.path).chat_template is None
    assert Run(run.path).recipe["sft"]["prompt"] == "{article}\nIn short:"


# ---- what is trainable -----------------------------------------------------------------------------------------------

CHOICES = [
    {"what": "last"},
    {"what": "lora", "rank": 2},
    {"what": "lora", "rank": 2, "base": "int8"},
    {"what": "adapters", "width": 3},
]


SLOW_CHOICES = [pytest.param(one, marks=pytest.mark.slow) for i, one in enumerate(CHOICES) if i != 1]


@pytest.mark.parametrize("trainable", [CHOICES[1], *SLOW_CHOICES])
def test_what_is_frozen_stays_bit_for_bit_and_the_run_goes_on(base, rows, tmp_path, trainable):
    """A stage with LoRA, adapters or frozen layers is resumed like any other; checkpoints hold what is trained."""
    recipe = stage_recipe("sft", base, rows, trainable=trainable)
    whole = train(recipe, tmp_path / "whole")
    seen = []
    with pytest.raises(Interrupted):
        train(
            recipe, tmp_path / "run", watch=Watch(on_step=lambda *_: seen.append(1), should_stop=lambda: len(seen) > 2)
        )
    stopped = Run(tmp_path / "run")
    at_stop, _ = load(f"{stopped.path}@{stopped.steps[-1]}")
    assert np.isfinite(at_stop.next_token_logits([[5, 6, 7]])).all()
    again = train(recipe, tmp_path / "run")
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()
    sizes = [path.stat().st_size for path in (whole.path / "checkpoints").iterdir()]
    assert max(sizes) < 1.5 * (base / "model.safetensors").stat().st_size + 60_000


@pytest.mark.parametrize("trainable", CHOICES[1:])
def test_the_last_checkpoint_and_the_finished_model_are_the_same_model(base, rows, tmp_path, trainable):
    run = train(stage_recipe("sft", base, rows, trainable=trainable, learning_rate=3e-2), tmp_path / "run")
    finished, _ = load(run.path)
    kept, _ = load(f"{run.path}@{run.steps[-1]}")
    began, _ = load(f"{run.path}@{run.steps[0]}")
    contexts = [[5, 6, 7], [9, 9, 1]]
    assert np.allclose(finished.next_token_logits(contexts), kept.next_token_logits(contexts), atol=1e-4)
    assert not np.allclose(finished.next_token_logits(contexts), began.next_token_logits(contexts), atol=1e-3)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_lora_is_left_beside_the_merged_model_as_peft_reads_it(tuned, rows, tmp_path):
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    run = train(stage_recipe("dpo", tuned, rows, trainable={"what": "lora"}, learning_rate=3e-2), tmp_path / "run")
    base = transformers.AutoModelForCausalLM.from_pretrained(str(tuned))
    theirs = peft.PeftModel.from_pretrained(base, run.path / "adapter").eval()
    ours, _ = load(run.path)
    with torch.no_grad():
        logits = theirs(torch.tensor([[5, 6, 7]])).logits[0, -1].numpy()
    assert np.allclose(logits, ours.next_token_logits([[5, 6, 7]])[0], atol=1e-4)


def test_adapters_are_never_left_out_in_silence(base, rows, tmp_path):
    from glassgpt.errors import UnsupportedError
    from glassgpt.weights.tensors import read_parameters

    run = train(stage_recipe("sft", base, rows, trainable={"what": "adapters"}), tmp_path / "run")
    with pytest.raises(UnsupportedError, match="has adapters inside"):
        read_parameters(open_model(run.path))
    with pytest.raises(UsageError, match="has adapters inside, and a stage begins from plain weights"):
        train(stage_recipe("dpo", run.path, rows), tmp_path / "next")


@pytest.mark.parametrize("stage", ["ppo", pytest.param("reward", marks=pytest.mark.slow)])
def test_lora_serves_stages_with_a_head_or_a_critic_too(recipe_of, tmp_path, stage):
    run = train(recipe_of(stage, trainable={"what": "lora"}), tmp_path / "run")
    assert run.is_finished and not any("lora_" in name for name in run.added())


def test_a_model_with_a_head_writes_no_text(judge):
    with pytest.raises(UsageError, match="is a reward: it gives scores and writes no text"):
        load(judge)


def test_a_classifier_and_a_reward_model_say_what_they_make_of_a_text(recipe_of, judge, tmp_path, capsys):
    from glassgpt.cli.main import main

    run = train(recipe_of("classify", steps=40, learning_rate=1e-2), tmp_path / "run").path
    assert main(["score", str(run), "Mira has a kite.", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "classifier" and sum(told["scores"].values()) == pytest.approx(1)
    assert max(told["scores"], key=told["scores"].get) == "kite"
    scores = []
    for answer in ("A lamp.", "A lamp lamp lamp"):
        assert main(["score", str(judge), answer, "--prompt", "What has Mira?", "--json"]) == 0
        scores.append(json.loads(capsys.readouterr().out)["scores"]["reward"])
    assert scores[0] > scores[1]
    assert main(["score", str(judge), "A lamp."]) == 2
    assert "give --prompt" in capsys.readouterr().err
