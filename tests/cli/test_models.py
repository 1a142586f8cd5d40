"""Every kind of model through the command line, from info to pull; and what is no model."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from glassgpt.cli.main import main
from glassgpt.loading import load
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.text.bpe import BYTE_SYMBOLS, SPLITTINGS, BPETokenizer
from glassgpt.weights import hub
from glassgpt.weights.hf_folder import export_hf
from glassgpt.weights.tensors import tensors_of

TF = Path(__file__).parents[1] / "data" / "tf_gpt2"
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIAL = {"<|endoftext|>": 258, "<|im_start|>": 259, "<|im_end|>": 260}
CONFIG = GPTConfig(261, 64, 2, 4, 16, False, 2, position="rope", norm="rmsnorm", mlp="swiglu", tied=True)


def refused(told, *words, code=None):
    """One line on standard error, nothing on standard output, and exit code 1 or 2."""
    got, out, err = told
    assert got == code if code is not None else got in (1, 2), told
    assert len(err.strip().splitlines()) == 1 and len(err) < 1000, err
    assert out == "" and "Traceback" not in err and "defect" not in err, err
    for word in words:
        assert word in err, err
    return True


@pytest.fixture(scope="module")
def refs(tmp_path_factory, baby_run):
    """One model of each kind by its name: a Hugging Face folder, a GGUF file made of it, a checkpoint, a run."""
    made = tmp_path_factory.mktemp("models")
    words = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)} | {"th": 256, "the": 257}
    tokenizer = BPETokenizer(words, [("t", "h"), ("th", "e")], SPLITTINGS["gpt-2"], SPECIAL, {}, made)
    params = tensors_of(GPT(CONFIG, seed=2))
    options = {"end_tokens": (260,), "chat_template": TEMPLATE, "roles": {"bos": "<|im_start|>"}}
    export_hf(made / "hf", CONFIG, params, tokenizer, **options)
    assert main(["export", str(made / "hf"), "--to", "gguf", "--out", str(made / "model.gguf")]) == 0
    return {"hf": made / "hf", "gguf": made / "model.gguf", "tf": TF, "run": baby_run.path}


KINDS = {"hf": "Hugging Face folder (llama)", "gguf": "GGUF file (llama)", "tf": "OpenAI's TensorFlow checkpoint",
         "run": "run folder"}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_info_tells_what_a_model_is(ask, ask_json, refs, name):
    told = ask_json("info", refs[name])
    model, tokenizer = load(refs[name])
    assert (told["kind"], told["place"]) == (KINDS[name], str(refs[name]))
    assert (told["vocab_size"], told["context_length"]) == (model.vocab_size, model.context_length)
    assert told["parameters"] == sum(told["stored_as"].values()) == model.config.n_parameters
    assert told["chat_template"] == (name in ("hf", "gguf")) and (tokenizer is None) == told["tokenizer"].startswith(
        "none"
    )
    assert told["end_tokens"] == ([260] if name in ("hf", "gguf") else [])
    code, out, err = ask("info", refs[name])
    assert code == 0 and err == ""
    for word in (KINDS[name], str(refs[name]), "parameters", "stored as ", "tokenizer", "chat template", "states"):
        assert word in out


def test_info_counts_states_that_no_number_holds(ask, refs):
    assert "261^64 = 10^155 states (full contexts)" in ask("info", refs["hf"])[1]
    assert "8 states (full contexts), 14 with the shorter contexts" in ask("info", refs["run"])[1]


@pytest.mark.parametrize("name", ["hf", "gguf"])
def test_red_of_any_model_is_estimated(ask_json, refs, name):
    told = ask_json("chain", refs[name], "--red-pattern", "the", "--prompt", "of", "--steps", 12, "--walks", 16)
    assert told["method"] == "estimate" and told["red_pattern_ids"] == [[257]] and told["walks"] == 16
    assert 0 < told["low"] < told["within"] < told["high"] < 1


@pytest.mark.parametrize("name", KINDS)
def test_generate_goes_on_greedily_as_the_model_says(ask, ask_json, refs, name):
    model, tokenizer = load(refs[name])
    prompt = {"hf": "the cat", "gguf": "the cat", "run": "111"}.get(name)
    start = [prompt] if prompt else ["--tokens", "1,2,3"]
    options = ("--max-new-tokens", 6, "--temperature", 0, "--ignore-end")
    told = ask_json("generate", refs[name], *start, *options)
    text = tokenizer.encode(prompt) if prompt else [1, 2, 3]
    for token, logprob in zip(told["tokens"], told["logprobs"], strict=True):
        logits = np.asarray(model.next_token_logits([text[-model.context_length :]]), dtype=np.float64)[0]
        assert token == logits.argmax()
        assert logprob == pytest.approx(logits[token] - np.log(np.exp(logits).sum()), abs=1e-4)
        text.append(token)
    assert len(told["tokens"]) == 6
    assert told["text"] == (tokenizer.decode(told["tokens"]) if prompt else None)
    code, out, err = ask("generate", refs[name], *start, *options)
    assert code == 0 and err == "" and out.startswith(prompt or "1,2,3,")


@pytest.mark.parametrize("name", KINDS)
def test_score_and_tokenize_read_a_text_or_ids(ask, ask_json, refs, name):
    tokenizer = load(refs[name])[1]
    prompt = {"hf": "the cat", "gguf": "the cat", "run": "101"}.get(name)
    start = [prompt] if prompt else ["--tokens", "1,2,3"]
    ids = tokenizer.encode(prompt) if prompt else [1, 2, 3]
    scored = ask_json("score", refs[name], *start)
    assert scored["tokens"] == ids and scored["logprobs"][0] is None
    assert all(logprob < 0 for logprob in scored["logprobs"][1:])
    if prompt:
        assert ask_json("tokenize", refs[name], prompt)["tokens"] == ids
    else:
        assert refused(ask("tokenize", refs[name], "text"), "tokenizer")
        assert refused(ask("score", refs[name], "text"), "--tokens", code=2)
        assert refused(ask("generate", refs[name], "text"), "--tokens", code=2)


def test_the_gguf_file_and_the_folder_are_one_model(ask_json, refs):
    one, other = (ask_json("score", refs[name], "the cat sat on the mat") for name in ("hf", "gguf"))
    assert one["tokens"] == other["tokens"]
    assert one["logprobs"][1:] == pytest.approx(other["logprobs"][1:], abs=1e-5)


# ---- export ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dtype"), [("hf", "bfloat16"), ("gguf", None), ("tf", "float32"), ("tf", "float16")])
def test_an_export_for_transformers_is_a_model_again(ask, ask_json, refs, tmp_path, name, dtype):
    options = ["--dtype", dtype] if dtype else []
    told = ask_json("export", refs[name], "--to", "hf", "--out", tmp_path / "out", *options)
    assert told["path"] == str(tmp_path / "out") and {"config.json", "model.safetensors"} <= told["files"].keys()
    assert told["tokenizer"] == (name != "tf") and ("tokenizer_note" in told) == (name == "tf")
    before, after = ask_json("info", refs[name]), ask_json("info", tmp_path / "out")
    same = ("parameters", "vocab_size", "n_layer", "end_tokens", "chat_template", "tokenizer")
    assert {key: before[key] for key in same} == {key: after[key] for key in same}
    assert after["stored_as"].keys() == {{"bfloat16": "BF16", "float16": "F16"}.get(dtype, "F32")}
    code, out, err = ask("export", refs[name], "--to", "hf", "--out", tmp_path / "two")
    assert code == 0 and "model.safetensors (" in out and ("no tokenizer was written" in err) == (name == "tf")


def test_the_end_of_text_of_openais_words_is_exported(ask_json, refs, tmp_path):
    folder = shutil.copytree(TF, tmp_path / "gpt2")
    words = {symbol: i for i, symbol in enumerate(BYTE_SYMBOLS)} | {"<|endoftext|>": 256}
    (folder / "encoder.json").write_text(json.dumps(words))
    (folder / "vocab.bpe").write_text("#version: 0.2\n")
    ask_json("export", folder, "--to", "hf", "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 256
    assert load(tmp_path / "out")[1].special == {"<|endoftext|>": 256}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("run", ["--to", "hf"], "transformers has no model of this shape"),
        ("run", ["--to", "gguf"], "it cannot be a GGUF file"),
        ("tf", ["--to", "gguf"], "byte-level BPE words, and the model has no tokenizer"),
        ("hf", ["--to", "hf", "--dtype", "int8"], "float32, bfloat16, float16; got 'int8'"),
        ("hf", ["--to", "gguf", "--dtype", "float32"], "got 'float32'"),
        ("hf", ["--to", "onnx"], "onnx"),
        ("hf", [], "--to"),
    ],
)
def test_an_export_that_cannot_be_is_refused_and_leaves_nothing(ask, refs, tmp_path, name, options, words):
    code, out, err = ask("export", refs[name], "--out", tmp_path / "a" / "b", *options)
    assert code == 2 and words in err and "Traceback" not in err and out == ""
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_while_it_is_written_leaves_nothing(ask, refs, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "model.gguf")

    monkeypatch.setattr("glassgpt.weights.gguf_export.export_gguf", full)
    monkeypatch.setattr("glassgpt.weights.hf_folder.write_atomically", full)
    for to in ("hf", "gguf"):
        told = ask("export", refs["hf"], "--to", to, "--out", tmp_path / "a" / "b")
        assert refused(told, "model.gguf: No space left on device", code=1)
        assert list(tmp_path.iterdir()) == []


def test_an_export_never_writes_over_anything(ask, refs, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.gguf").write_text("years of work")
    for to in ("hf", "gguf"):
        assert refused(
            ask("export", refs["hf"], "--to", to, "--out", tmp_path / "mine"), "choose another --out", code=2
        )
        assert refused(
            ask("export", refs["hf"], "--to", to, "--out", tmp_path / "mine" / "model.gguf"), "--out", code=2
        )
        assert refused(ask("export", refs["hf"], "--to", to, "--out", ""), "--out", code=2)
    assert (tmp_path / "mine" / "model.gguf").read_text() == "years of work"
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "model.gguf"]


def test_words_that_are_not_read_are_said_to_be_left_out(ask, ask_json, refs, tmp_path):
    folder = shutil.copytree(refs["hf"], tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content | {"normalizer": {"type": "Lowercase"}}))
    assert "normalizer" in ask_json("info", folder)["tokenizer"]
    told = ask_json("export", folder, "--to", "hf", "--out", tmp_path / "out")
    assert told["tokenizer"] is False and "copy the model's own tokenizer files" in told["tokenizer_note"]
    assert refused(ask("export", folder, "--to", "gguf", "--out", tmp_path / "b"), "normalizer", code=2)
    assert refused(ask("chat", folder, "hello"), "normalizer")
    assert ask_json("generate", folder, "--tokens", "1,2", "--max-new-tokens", 2)["text"] is None


# ---- chat --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hf", "gguf"])
def test_chat_answers_a_message_by_the_models_template(ask, ask_json, refs, name):
    tokenizer = load(refs[name])[1]
    options = ("--max-new-tokens", 5, "--seed", 3)
    told = ask_json("chat", refs[name], "the cat <|im_end|>", "--system", "Be brief.", *options)
    prompt = [259, *tokenizer.encode("system\nBe brief."), 260, *tokenizer.encode("\n"), 259,
              *tokenizer.encode("user\nthe cat <|im_end|>"), 260, *tokenizer.encode("\n"), 259,
              *tokenizer.encode("assistant\n")]  # fmt: skip
    assert told["prompt_tokens"] == prompt
    assert len(told["tokens"]) == len(told["logprobs"]) == 5 and told["finish_reason"] == "length"
    assert told["text"] == tokenizer.decode(told["tokens"])
    code, out, err = ask("chat", refs[name], "the cat <|im_end|>", "--system", "Be brief.", *options)
    assert code == 0 and out == told["text"] + "\n" and "--max-new-tokens" in err


def test_a_conversation_goes_on_until_an_empty_line(ask, refs, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\nand you?\n\nnot read\n"))
    code, out, err = ask("chat", refs["hf"], "--max-new-tokens", 3)
    assert code == 0 and out.count("\n") >= 2 and "ends the conversation" in err
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert ask("chat", refs["hf"])[0] == 0


def test_a_template_that_refuses_or_fails_is_one_line(ask, refs, tmp_path):
    folder = shutil.copytree(refs["hf"], tmp_path / "model")
    templates = {"{{ raise_exception('no system role') }}": "no system role"}
    templates |= dict.fromkeys(["{% for %}", "{{ missing.name }}", "{{ eos_token + nothing }}"], "chat template")
    for template, word in templates.items():
        (folder / "chat_template.jinja").write_text(template)
        assert refused(ask("chat", folder, "hello"), word)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("tf", ["hello"], "has no chat template"),
        ("run", ["hello"], "has no chat template"),
        ("hf", ["--json"], "MESSAGE"),
        ("hf", ["hello", "--max-new-tokens", "-1"], "max_new_tokens"),
        ("hf", ["hello", "--seed", "-1"], "seed"),
        ("hf", ["hello", "--temperature", "-1"], "temperature"),
        ("hf", ["hello", "--dtype", "int3"], "int3"),
        ("hf", ["\ud800"], "surrogate"),
    ],
)
def test_chat_refuses_what_cannot_be_meant(ask, refs, name, options, words):
    assert refused(ask("chat", refs[name], *options), words, code=2)


def test_a_message_longer_than_the_window_is_answered_or_refused_in_a_sentence(ask, refs):
    code, out, err = ask("chat", refs["hf"], "the cat " * 200, "--max-new-tokens", 2)
    assert code == 0 or refused((code, out, err), "context")


# ---- what is no model --------------------------------------------------------------------------------------------

COMMANDS = {
    "info": [],
    "generate": ["the", "--max-new-tokens", "1"],
    "score": ["the cat"],
    "tokenize": ["the cat"],
    "chat": ["hello"],
    "export": ["--to", "hf", "--out", "out"],
}


@pytest.fixture
def nothing(refs, tmp_path, monkeypatch):
    """A folder to stand in, with things that are no models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "pull_repo", lambda name: pytest.fail(f"the network was asked for {name}"))
    Path("empty").mkdir()
    Path("only_config").mkdir()
    shutil.copy(refs["hf"] / "config.json", "only_config")
    Path("letter.gguf").write_text("Dear Sir or Madam,\n")
    Path("empty.gguf").write_text("")
    Path("folder.gguf").mkdir()
    Path("letter.txt").write_text("Dear Sir or Madam,\n")
    shutil.copytree(refs["hf"], "other")
    content = json.loads(Path("other/config.json").read_text())
    Path("other/config.json").write_text(json.dumps(content | {"model_type": "mamba"}))
    shutil.copytree(refs["hf"], "truncated")
    weights = Path("truncated/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    shutil.copytree(refs["hf"], "pickled")
    Path("pickled/model.safetensors").rename("pickled/pytorch_model.bin")
    return tmp_path


NONE = {
    "nowhere": "there is no nowhere here: give a run folder",
    "./no/where": "no/where",
    "nowhere.gguf": "nowhere.gguf",
    "empty": "empty holds no model",
    "only_config": "has a config.json and no model.safetensors",
    "letter.gguf": "letter.gguf",
    "empty.gguf": "empty.gguf",
    "folder.gguf": "folder.gguf",
    "letter.txt": "letter.txt is a file",
    "other": "model_type is 'mamba'",
    "truncated": "is not a whole safetensors file",
    "pickled": "--allow-pickle",
    "": "empty",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_model_is_refused_in_one_line_by_every_command(ask, nothing, command):
    for ref, word in NONE.items():
        assert refused(ask(command, ref, *COMMANDS[command]), word), ref
    assert not (nothing / "out").exists()


def test_a_pickle_is_read_only_when_it_is_asked_for(ask, nothing):
    assert refused(ask("info", "pickled", "--allow-pickle"), "is not a pickle of plain tensors", code=1)


# ---- pull --------------------------------------------------------------------------------------------------------


def test_pull_says_where_the_model_lies(ask, ask_json, refs, monkeypatch):
    monkeypatch.setattr(hub, "pull", lambda name: refs["hf"])
    told = ask_json("pull", "owner/name")
    sizes = [path.stat().st_size for path in refs["hf"].iterdir()]
    assert told == {"name": "owner/name", "path": str(refs["hf"]), "bytes": sum(sizes)}
    code, out, _ = ask("pull", "owner/name")
    assert code == 0 and str(refs["hf"]) in out and "MB" in out
    monkeypatch.setattr(hub, "pull", lambda name: refs["gguf"])
    assert ask_json("pull", "smollm2")["bytes"] == refs["gguf"].stat().st_size


def test_pull_refuses_in_one_line(ask, monkeypatch):
    assert refused(ask("pull", "gpt3"), "is no model to pull: give gpt2", code=2)
    assert refused(ask("pull", ""), "is no model to pull", code=2)

    def offline(name):
        raise hub.FetchError("there is no folder a/b here, and the hub could not be asked")

    monkeypatch.setattr(hub, "pull_repo", offline)
    assert refused(ask("pull", "a/b"), "could not be asked", code=1)
