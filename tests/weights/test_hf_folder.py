"""Hugging Face folders against transformers itself: read as it reads them, and written so that it reads them."""

import json
import pickle
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from glassgpt.decoding.generate import generate
from glassgpt.errors import DamagedFileError, GlassGPTError, NumericalError, UnsupportedError, UsageError
from glassgpt.loading import load, open_model
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.text.bpe import BPETokenizer
from glassgpt.text.character import CharacterTokenizer
from glassgpt.weights import hf_folder
from glassgpt.weights.hf_folder import export_hf, read_hf_folder, refuse_unexportable
from glassgpt.weights.tensors import read_parameters, tensors_of

V, T = 300, 24
GPT2 = {
    "vocab_size": V,
    "n_positions": T,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
LLAMA = {"vocab_size": V, "max_position_embeddings": T, "hidden_size": 16, "intermediate_size": 24, "head_dim": 4,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 0,
         "eos_token_id": 0}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 12, "rope_theta": 500.0}  # fmt: skip
KINDS = {
    "gpt2": ("GPT2", GPT2),
    "gpt2 untied": ("GPT2", GPT2 | {"tie_word_embeddings": False}),
    "gpt1": ("OpenAIGPT", {key: value for key, value in GPT2.items() if "token" not in key}),
    "llama": ("Llama", LLAMA),
    "llama tied": ("Llama", LLAMA | {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama biases": ("Llama", LLAMA | {"attention_bias": True, "mlp_bias": True}),
    "llama3": ("Llama", LLAMA | {"rope_parameters": LLAMA3, "eos_token_id": [3, 0]}),
    "qwen3": ("Qwen3", LLAMA | {"head_dim": 6}),
    "qwen3 tied": ("Qwen3", LLAMA | {"tie_word_embeddings": True}),
}


def their_model(kind):
    transformers = pytest.importorskip("transformers")
    name, settings = KINDS[kind]
    causal = (
        "GPT2LMHeadModel" if name == "GPT2" else f"{name}LMHeadModel" if name == "OpenAIGPT" else f"{name}ForCausalLM"
    )
    torch.manual_seed(7)
    model = getattr(transformers, causal)(getattr(transformers, f"{name}Config")(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.25)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder that transformers writes for a kind, and its model. Copy a folder before changing it."""
    made = {}

    def of(kind):
        if kind not in made:
            folder, model = tmp_path_factory.mktemp("theirs") / "model", their_model(kind)
            model.save_pretrained(folder)
            made[kind] = folder, model
        return made[kind]

    return of


@pytest.fixture
def copied(saved, tmp_path):
    def of(kind):
        folder, model = saved(kind)
        return shutil.copytree(folder, tmp_path / "model"), model

    return of


def same_state(folder, model, **options):
    """Every parameter of what is loaded is, bit for bit, the one that transformers has: none was forgotten."""
    bundle = open_model(folder, **options)
    read = read_parameters(bundle)
    ours = load(folder, **options)[0]
    state = tensors_of(ours)
    names = hf_folder.hf_tensors(read, bundle.config, json.loads((folder / "config.json").read_text())["model_type"])
    there = {name.removeprefix("transformer."): value for name, value in model.state_dict().items()}
    if bundle.config.tied:
        there.pop("lm_head.weight")
    assert names.keys() == there.keys()
    for name, value in there.items():
        assert torch.equal(torch.from_numpy(np.array(names[name])), value.float()), name
    assert state.keys() == read.keys() == {name for name in bundle.parameters}
    for name, value in read.items():
        np.testing.assert_array_equal(state[name], value)
    return ours


def same_answers(ours, model):
    tokens = np.random.default_rng(1).integers(0, V, (2, T))
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens)).logits.numpy()
    assert np.max(np.abs(ours.sequence_logits(tokens) - expected) / np.maximum(1, np.abs(expected))) < 1e-5
    prompt = tokens[:1, :3]
    theirs = model.generate(
        torch.from_numpy(prompt), attention_mask=torch.ones(1, 3), do_sample=False,
        max_new_tokens=20, min_new_tokens=20, eos_token_id=-1, pad_token_id=0,
    )  # fmt: skip
    assert generate(ours, prompt[0].tolist(), 20, temperature=0) == theirs[0, 3:].tolist()


# ---- as transformers reads it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_transformers_gives_its_parameters_its_logits_and_its_greedy_text(saved, kind):
    folder, model = saved(kind)
    same_answers(same_state(folder, model), model)


@pytest.mark.parametrize("kind", ["gpt2", "llama tied"])
def test_a_model_in_several_files_is_the_model_in_one_and_all_are_needed(saved, tmp_path, kind):
    _, model = saved(kind)
    model.save_pretrained(tmp_path / "parts", max_shard_size="8KB")
    assert len(list((tmp_path / "parts").glob("model-*.safetensors"))) > 2
    same_state(tmp_path / "parts", model)
    sorted((tmp_path / "parts").glob("model-*.safetensors"))[1].unlink()
    with pytest.raises(DamagedFileError, match=r"names the shard .*, which is not there: download the rest"):
        load(tmp_path / "parts")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_other_number_formats_are_read_exactly(tmp_path, kind, dtype):
    model = their_model(kind).to(dtype)
    model.save_pretrained(tmp_path / "model")
    word = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}[dtype]
    assert open_model(tmp_path / "model").dtypes().keys() == {word}
    if dtype == torch.float64:
        read = read_parameters(open_model(tmp_path / "model"))
        assert {value.dtype for value in read.values()} == {np.dtype("float64")}
    else:
        same_state(tmp_path / "model", model)


def test_a_config_in_the_old_spelling_is_the_same_model(copied):
    folder, model = copied("llama3")
    content = json.loads((folder / "config.json").read_text())
    scaling = content.pop("rope_parameters")
    content["rope_theta"] = scaling.pop("rope_theta")
    content |= {"rope_scaling": scaling, "torch_dtype": content.pop("dtype"), "transformers_version": "4.40.0"}
    (folder / "config.json").write_text(json.dumps(content))
    same_answers(same_state(folder, model), model)


@pytest.mark.parametrize("prefixed", [True, False])
def test_names_with_a_prefix_and_without_and_old_buffers_are_read(copied, prefixed):
    folder, model = copied("gpt2")
    tensors = {
        name.removeprefix("transformer."): value for name, value in load_file(folder / "model.safetensors").items()
    }
    for layer in (0, 1):
        tensors[f"h.{layer}.attn.bias"] = torch.tril(torch.ones(T, T, dtype=torch.uint8))[None, None]
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    if prefixed:
        tensors = {f"transformer.{name}": value for name, value in tensors.items()}
        tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    same_state(folder, model)


def test_old_rotary_frequencies_and_a_tied_head_that_is_there_too_are_read(copied):
    folder, model = copied("llama tied")
    tensors = load_file(folder / "model.safetensors")
    tensors |= {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(2) for i in (0, 1)}
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    same_state(folder, model)


def test_a_head_that_contradicts_its_tie_is_refused(copied):
    folder, _ = copied("llama tied")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 2
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(DamagedFileError, match="tie_word_embeddings"):
        load(folder)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"][1:].clone()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(DamagedFileError, match="tie_word_embeddings"):
        open_model(folder)


def test_a_tie_that_the_file_does_not_keep_is_refused(copied):
    folder, _ = copied("gpt2")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"tie_word_embeddings": False}))
    with pytest.raises(DamagedFileError, match=r"lacks 1 of the \d+ tensors that its config asks for, lm_head\.weight"):
        open_model(folder)


# ---- pickles -----------------------------------------------------------------------------------------------------


class Evil:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.fixture
def pickled(copied):
    """A folder whose weights are a pytorch_model.bin, and its model."""
    folder, model = copied("gpt2")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder, model


def test_a_pickle_is_refused_unless_it_is_asked_for(pickled):
    folder, model = pickled
    with pytest.raises(UnsupportedError, match=r"pytorch_model\.bin, a pickle.*--allow-pickle"):
        load(folder)
    same_state(folder, model, allow_pickle=True)


def test_a_pickle_of_old_torch_and_one_of_parameters_are_read(pickled):
    folder, model = pickled
    torch.save(model.state_dict(), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    same_state(folder, model, allow_pickle=True)
    parameters = {name: torch.nn.Parameter(value) for name, value in model.state_dict().items()}
    torch.save(parameters | {"transformer.h.0.attn.bias": torch.ones(1, 1, T, T) > 0}, folder / "pytorch_model.bin")
    same_state(folder, model, allow_pickle=True)


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(pickled, tmp_path):
    folder, model = pickled
    path, canary = folder / "pytorch_model.bin", tmp_path / "canary"
    for write in (
        lambda: torch.save({"x": Evil(canary)}, path),
        lambda: torch.save(model.state_dict() | {"x": Evil(canary)}, path, _use_new_zipfile_serialization=False),
        lambda: path.write_bytes(pickle.dumps(Evil(canary))),
        lambda: path.write_bytes(pickle.dumps({"wte.weight": Evil(canary)}, protocol=0)),
    ):
        write()
        with pytest.raises(DamagedFileError, match="is not a pickle of plain tensors") as caught:
            load(folder, allow_pickle=True)
        assert not canary.exists() and "weights_only" not in str(caught.value)


def wide(value):
    """A tensor that claims many numbers and holds one."""
    return torch.ones(1).expand(value.shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {"model": state}, "named tensors"),
        (lambda state: [*state.values()], "named tensors"),
        (lambda state: state | {3: torch.ones(1)}, "named tensors"),
        (lambda state: state | {"step": 3}, "named tensors"),
        (lambda state: {name: wide(value) for name, value in state.items()}, "no plain tensor"),
        (lambda state: state | {"transformer.wpe.weight": torch.eye(T, 16).to_sparse()}, "no plain tensor"),
        (lambda state: state | {"transformer.wpe.weight": torch.ones(T, 16, dtype=torch.int8)}, "torch.int8"),
        (lambda state: state | {"transformer.wpe.weight": torch.ones(T, 17)}, "should be of shape"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_pickle_of_anything_but_a_models_tensors_is_refused(pickled, change, message):
    folder, model = pickled
    torch.save(change(dict(model.state_dict())), folder / "pytorch_model.bin")
    with pytest.raises((DamagedFileError, UnsupportedError), match=message):
        load(folder, allow_pickle=True)


def test_a_pickle_that_unpacks_to_more_than_it_is_is_refused_before_it_is_unpacked(pickled):
    folder, _ = pickled
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"\0" * (8 << 20))
        archive.writestr("model/version", b"3")
    with pytest.raises(DamagedFileError, match="is compressed"):
        load(folder, allow_pickle=True)


def test_a_pickle_cut_or_flipped_anywhere_is_refused_or_a_model(pickled):
    folder, _ = pickled
    path = folder / "pytorch_model.bin"
    whole, rng = path.read_bytes(), np.random.default_rng(5)
    for i in range(60):
        content = bytearray(whole)
        if i % 3 == 0:
            content = content[: int(rng.integers(len(whole)))]
        else:
            content[int(rng.integers(min(4000, len(whole)) if i % 3 == 1 else len(whole)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        try:
            load(folder, allow_pickle=True)
        except GlassGPTError as error:
            assert str(folder) in str(error)


# ---- words -------------------------------------------------------------------------------------------------------


TEXTS = ["Hello, world! It's 12 o'clock.", "  two  spaces\n", "naïve 日本 🙂", ""]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A byte-level BPE trained by the tokenizers library, as tokenizer.json and as vocab.json with merges.txt."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=V, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([*TEXTS, "the cat sat on the mat " * 20, "hello world " * 9], trainer)
    folder = tmp_path_factory.mktemp("words")
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    return folder


@pytest.mark.parametrize("files", [["tokenizer.json"], ["vocab.json", "merges.txt"], ["tokenizer.json", "vocab.json"]])
def test_words_are_those_of_transformers_and_the_end_of_text_is_known(copied, words, files):
    transformers = pytest.importorskip("transformers")
    folder, model = copied("gpt2")
    for name in files:
        shutil.copy(words / name, folder)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(words / "tokenizer.json"))
    ours = load(folder)[1]
    assert isinstance(ours, BPETokenizer)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == text
    assert ours.end_token == 0 == model.config.eos_token_id


def test_the_end_is_that_of_generation_config_then_config_then_the_tokenizers_name(copied, words):
    folder, _ = copied("llama3")
    shutil.copy(words / "tokenizer.json", folder)
    assert open_model(folder).end_tokens == (3, 0) and load(folder)[1].end_token == 3
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    assert open_model(folder).end_tokens == (2,) and load(folder)[1].end_token == 2
    (folder / "generation_config.json").unlink()
    content = json.loads((folder / "config.json").read_text()) | {"eos_token_id": None}
    (folder / "config.json").write_text(json.dumps(content))
    assert open_model(folder).end_tokens == () and load(folder)[1].end_token is None
    (folder / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|im_end|>"}}')
    assert load(folder)[1].end_token == 2
    for nonsense in (50256, -1, True, "2", [70000, -3], [[2]]):
        (folder / "config.json").write_text(json.dumps(content | {"eos_token_id": nonsense}))
        assert open_model(folder).end_tokens == ()


def test_gpt1s_words_are_another_kind_and_its_model_still_loads(copied, words):
    folder, _ = copied("gpt1")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(words / name, folder)
    assert load(folder)[1] is None
    with pytest.raises(UnsupportedError, match="GPT-1's words"):
        open_model(folder).read_tokenizer()


TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", TEMPLATE),
        ("tokenizer_config.json", json.dumps({"chat_template": TEMPLATE})),
        (
            "tokenizer_config.json",
            json.dumps({"chat_template": [{"name": "a"}, {"name": "default", "template": TEMPLATE}]}),
        ),
    ],
)  # fmt: skip
def test_the_chat_template_is_found_in_either_place(copied, name, content):
    folder, _ = copied("gpt2")
    assert open_model(folder).chat_template is None
    (folder / name).write_text(content)
    assert open_model(folder).chat_template == TEMPLATE


@pytest.mark.parametrize("stated", ["3", '[1, {"name": ["default"]}, {}]', "{}", '[{"name": "default"}]', "null"])
def test_a_chat_template_that_is_none_is_none(copied, stated):
    folder, _ = copied("gpt2")
    (folder / "tokenizer_config.json").write_text(f'{{"chat_template": {stated}, "bos_token": 3, "eos_token": null}}')
    bundle = open_model(folder)
    assert bundle.chat_template is None and not bundle.roles


# ---- as transformers reads what is written -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_an_export_whole_and_gives_its_logits(saved, words, tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    folder, model = saved(kind)
    bundle = open_model(folder)
    tokenizer = BPETokenizer.from_tokenizer_json((words / "tokenizer.json").read_bytes(), words / "tokenizer.json")
    out = tmp_path / "out"
    params = read_parameters(bundle)
    export_hf(
        out, bundle.config, params, tokenizer, end_tokens=(2,), chat_template=TEMPLATE, roles={"bos": "<|im_start|>"}
    )
    again, told = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True, dtype="auto")
    assert {key: list(value) for key, value in told.items() if value} == {}
    tokens = torch.randint(0, V, (2, T), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(again.eval()(tokens).logits, model(tokens).logits)
    assert again.generation_config.eos_token_id == again.config.eos_token_id == 2
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    assert [theirs.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
    assert (theirs.eos_token, theirs.bos_token, theirs.chat_template) == ("<|im_end|>", "<|im_start|>", TEMPLATE)
    own = open_model(out)
    assert own.config == bundle.config and own.end_tokens == (2,) and own.chat_template == TEMPLATE
    assert own.roles == {"bos": "<|im_start|>", "eos": "<|im_end|>"} and load(out)[1].end_token == 2
    for name, value in read_parameters(own).items():
        np.testing.assert_array_equal(value, params[name])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_export_in_fewer_bits_holds_the_rounded_numbers(saved, tmp_path, dtype):
    transformers = pytest.importorskip("transformers")
    bundle = open_model(saved("llama")[0])
    params = read_parameters(bundle)
    export_hf(tmp_path / "out", bundle.config, params, None, dtype=dtype)
    for name, value in read_parameters(open_model(tmp_path / "out")).items():
        np.testing.assert_array_equal(value, torch.tensor(params[name]).to(getattr(torch, dtype)).float().numpy())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert theirs.dtype == getattr(torch, dtype)
    assert theirs.generation_config.eos_token_id is None and theirs.config.eos_token_id is None


SMALL = GPTConfig(5, 4, 1, 2, 8, mlp="gelu_tanh")


def params_of(config):
    return tensors_of(GPT(config, seed=3))


@pytest.mark.parametrize(
    "change",
    [{"bias": False, "mlp_bias": False}, {"position": "sinusoidal"}, {"position": "alibi"},
     {"post_norm": True, "mlp": "relu2"},
     {"position": "rope"}, {"norm": "rmsnorm"}, {"qk_norm": True}, {"mlp": "swiglu"}, {"mlp_bias": False}],
)  # fmt: skip
def test_a_shape_that_transformers_does_not_know_is_refused_and_nothing_is_written(tmp_path, change):
    config = replace(SMALL, **change)
    with pytest.raises(UsageError, match="transformers has no model of this shape"):
        refuse_unexportable(config)
    with pytest.raises(UsageError, match="transformers has no model of this shape"):
        export_hf(tmp_path / "a" / "out", config, params_of(config), None)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    out, params = tmp_path / "a" / "b", params_of(SMALL)
    large = {name: value + np.float32(1e6) for name, value in params.items()}
    less = {name: value for name, value in params.items() if name != "wpe.weight"}
    for given, options, error, message in (
        (params, {"dtype": "int8"}, UsageError, "float32, bfloat16, float16; got 'int8'"),
        (large, {"dtype": "float16"}, NumericalError, "too large for float16"),
        (less, {}, DamagedFileError, r"lacks 1 of \d+ tensors, wpe\.weight"),
    ):
        with pytest.raises(error, match=message):
            export_hf(out, SMALL, given, None, **options)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="object can't be written as tokenizer"):
        export_hf(out, SMALL, params, object())
    assert list(tmp_path.iterdir()) == []
    real = hf_folder.write_atomically

    def full(path, content):
        if path.name == "config.json":
            raise OSError(28, "No space left on device", str(path))
        real(path, content)

    monkeypatch.setattr(hf_folder, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        export_hf(out, SMALL, params, CharacterTokenizer("abcde"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(OSError, match="No space left"):
        export_hf(tmp_path / "mine", SMALL, params, None)
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_an_export_never_touches_what_is_there(tmp_path):
    params = params_of(SMALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for out in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt", tmp_path / "mine" / "thesis.txt" / "x"):
        with pytest.raises(UsageError, match=r"is not an empty folder|is a file, not a folder"):
            export_hf(out, SMALL, params, None)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_characters_are_exported_as_transformers_reads_them(tmp_path):
    transformers = pytest.importorskip("transformers")
    export_hf(tmp_path / "out", SMALL, params_of(SMALL), CharacterTokenizer("abcde"))
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").encode("badce") == [1, 0, 3, 2, 4]
    assert read_hf_folder(tmp_path / "out").tokenizer().encode("badce") == [1, 0, 3, 2, 4]
