"""Recipes: read, overridden, and refused in words that name the key."""

from pathlib import Path

import pytest

from glassgpt.errors import UsageError
from glassgpt.models.config import GPTConfig
from glassgpt.training.recipe import VOCAB_SIZE, find_recipe, read_recipe, recipe_from_dict
from glassgpt.weights.hf_config import model_type_of

BABY = Path(__file__).parents[2] / "recipes" / "baby.toml"
CONTENT = {
    "data": {"sequence": "0101"},
    "model": {"vocab_size": 2, "context_length": 3, "n_layer": 1, "n_head": 1, "n_embd": 4},
    "train": {"steps": 3},
}


def test_the_baby_recipe_is_the_texts():
    recipe = read_recipe(BABY)
    assert recipe.run.seed == 1337
    assert recipe.data.sequence == "111101111011110"
    assert recipe.model == GPTConfig(2, 3, n_layer=4, n_head=4, n_embd=16, bias=False)
    assert (recipe.train.steps, recipe.train.learning_rate, recipe.train.weight_decay) == (50, 1e-3, 0.1)


@pytest.mark.parametrize("name", ["baby", "baby.toml", "recipes/baby", "recipes/baby.toml"])
def test_a_shipped_recipe_is_found_by_name_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe(Path(name)).samefile(BABY)


@pytest.mark.parametrize(
    "name", ["adult", "elsewhere/baby.toml", "elsewhere/recipes/baby.toml", "baby.json", "/baby.toml"]
)
def test_a_recipe_that_is_not_there_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="there is no recipe"):
        read_recipe(name)


def test_a_folder_of_a_recipes_name_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "baby").mkdir()
    assert find_recipe(Path("baby")).samefile(BABY)


def test_a_recipe_of_ones_own_comes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "baby.toml").write_text(BABY.read_text().replace("1337", "5"))
    assert read_recipe("baby.toml").run.seed == 5


@pytest.mark.parametrize(
    ("content", "message"), [(b"[run", "is not TOML"), (b"a = \xff", "UTF-8"), (b"a = 1\na = 2", "is not TOML")]
)
def test_a_file_that_is_no_toml_is_refused(tmp_path, content, message):
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_recipe(tmp_path / "a.toml")


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_recipe(tmp_path)


def test_overrides_are_read_as_their_keys_type():
    recipe = read_recipe(
        BABY,
        [
            "data.sequence=0120120",  # digits, and still a string
            "model.vocab_size=3",
            "model.context_length=2",
            "model.bias=true",
            "train.learning_rate=1",
            "train.batch_size=4",
            "train.last_position_only=False",
            " run.seed =7",
        ],
    )
    assert recipe.data.sequence == "0120120"
    assert (recipe.model.vocab_size, recipe.model.context_length, recipe.model.bias) == (3, 2, True)
    assert recipe.train.learning_rate == 1.0
    assert type(recipe.train.learning_rate) is float
    assert (recipe.train.batch_size, recipe.train.last_position_only, recipe.run.seed) == (4, False, 7)


def test_an_empty_override_leaves_an_optional_key_open():
    recipe = read_recipe(BABY, ["train.batch_size=4", "data.symbols=", "train.batch_size="])
    assert recipe.train.batch_size is None
    assert "symbols" not in recipe.to_dict()["data"]


def test_an_empty_override_leaves_any_key_out_but_a_string_that_may_be_empty():
    recipe = read_recipe(BABY, ["model.bias=", "train.weight_decay=", "data.between="])
    assert recipe.model.bias is True
    assert recipe.train.weight_decay == 0.1
    assert recipe.data.between == ""


def test_the_recipe_for_a_text_of_ones_own_has_a_shape_that_others_load():
    recipe = read_recipe("my-text", ["data.files=a.txt"])
    assert recipe.data.files == ("a.txt",)
    assert model_type_of(recipe.model) == "qwen3"
    assert 2e6 < recipe.model.n_parameters < 4e6
    assert recipe.model.vocab_size == VOCAB_SIZE


def test_the_last_override_counts_and_a_value_may_hold_equals_signs():
    recipe = recipe_from_dict(CONTENT, ["run.seed=1", "run.seed=2", "data.symbols==x"])
    assert recipe.run.seed == 2
    assert recipe.data.symbols == "=x"


def test_the_resolved_recipe_reads_back_as_itself():
    recipe = read_recipe(BABY, ["train.batch_size=4"])
    assert recipe_from_dict(recipe.to_dict()) == recipe
    assert recipe_from_dict(recipe_from_dict(CONTENT).to_dict()) == recipe_from_dict(CONTENT)


def test_a_whole_number_is_a_learning_rate_too():
    assert recipe_from_dict(CONTENT | {"train": {"steps": 3, "learning_rate": 1}}).train.learning_rate == 1.0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.n_layers=2", r"\[model\] has no 'n_layers': did you mean 'n_layer'\?"),
        ("trian.steps=2", r"no 'trian': did you mean 'train'\?"),
        ("train.step=2", r"did you mean 'steps'\?"),
        ("train.zzz=2", r"no 'zzz': it has steps, batch_size"),
        ("zzz.steps=2", r"no 'zzz': it has data, model, train, evaluate, run"),
        ("model.vocab_size=two", r"model\.vocab_size must be of type int, got 'two'"),
        ("model.vocab_size=2.0", r"must be of type int"),
        ("model.vocab_size=", r"the recipe lacks model\.vocab_size"),
        ("train.learning_rate=fast", r"must be of type float"),
        ("model.bias=1", r"model\.bias must be true or false"),
        ("train.batch_size=x", r"must be of type int"),
        ("train.steps", r"section\.key=value.*got 'train.steps'"),
        ("steps=3", r"section\.key=value"),
        ("", r"section\.key=value"),
        ("=3", r"section\.key=value"),
        ("train.steps=-1", r"train\.steps must be 0 or more"),
        ("train.save_every=0", r"train\.save_every must be 1 or more"),
        ("train.learning_rate=-1", r"train\.learning_rate"),
        ("train.learning_rate=nan", r"train\.learning_rate must be between 0 and 1e\+30, got nan"),
        ("train.weight_decay=-0.1", r"train\.weight_decay"),
        ("train.batch_size=0", r"train\.batch_size must be 1 or more"),
        ("run.seed=-1", r"run\.seed"),
        (f"run.seed={2**64}", r"run\.seed must be at least 0 and below 2\*\*64"),
        ("model.n_head=3", r"multiple of model\.n_head"),
        ("model.context_length=0", r"model\.context_length must be at least 1"),
    ],
)
def test_an_override_that_cannot_be_is_refused_by_its_name(override, message):
    with pytest.raises(UsageError, match=message):
        read_recipe(BABY, [override])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"n_layers": 2}}, r"did you mean 'n_layer'\?"),
        ({"trian": {}}, r"did you mean 'train'\?"),
        ({"steps": 3}, r"a recipe has no 'steps'"),
        ({"train": 3}, r"train must be a section of the recipe, \[train\], got 3"),
        ({"train": [{"steps": 3}]}, r"train must be a section"),
        ({"train": {"steps": "3"}}, r"train\.steps must be of type int, got '3'"),
        ({"train": {"steps": 3.0}}, r"must be of type int"),
        ({"train": {"steps": True}}, r"must be of type int, got True"),
        ({"train": {"steps": 3, "learning_rate": "x"}}, r"must be of type float"),
        ({"train": {"steps": 3, "learning_rate": True}}, r"must be of type float"),
        ({"train": {"steps": 3, "last_position_only": 1}}, r"must be of type bool"),
        ({"data": {"sequence": 101}}, r"data\.sequence must be of type str, got 101"),
        ({"data": {"sequence": "01", "symbols": ["0"]}}, r"data\.symbols must be of type str"),
        ({"train": {}}, r"lacks train\.steps: add it, or give --set train\.steps=\.\.\."),
        ({"data": {}}, r"data\.files or on data\.sequence, and this has neither"),
        ({"data": {"sequence": "01", "files": "a.txt"}}, r"this has both"),
        ({"data": {"files": []}}, r"data\.files must have at least one entry"),
        ({"data": {"files": ["a", 3]}}, r"data\.files must be of type str, got 3"),
        ({"data": {"files": "a"}}, r"needs train\.batch_size"),
        ({"train": {"steps": 3, "schedule": "steep"}}, r"train\.schedule must be one of constant, linear, cosine, wsd"),
        ({"model": {"vocab_size": 2}}, r"lacks model\.context_length"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_by_its_key(change, message):
    with pytest.raises(UsageError, match=message):
        recipe_from_dict(CONTENT | change)


def test_a_missing_key_may_come_from_an_override():
    assert recipe_from_dict(CONTENT | {"train": {}}, ["train.steps=9"]).train.steps == 9


@pytest.mark.parametrize("value", ["-1", "1e31", "inf", "nan"])
@pytest.mark.parametrize("key", ["learning_rate", "weight_decay"])
def test_a_rate_that_no_float32_update_can_hold_is_refused(key, value):
    with pytest.raises(UsageError, match=rf"train\.{key} must be between 0 and 1e\+30"):
        read_recipe(BABY, [f"train.{key}={value}"])
