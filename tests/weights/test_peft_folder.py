"""LoRA in peft's format: theirs read by us, ours read by them, the same logits and the same gradients."""

import json

import numpy as np
import pytest
import torch

from glassgpt.errors import DamagedFileError, UnsupportedError, UsageError
from glassgpt.models.adaptation import adapt, merge
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.trainable import Trainable
from glassgpt.weights.hf_folder import export_hf
from glassgpt.weights.peft_folder import CONFIG, WEIGHTS, read_peft, write_peft
from glassgpt.weights.tensors import tensors_of

SIZES = {"vocab_size": 40, "context_length": 16, "n_layer": 2, "n_head": 4, "n_embd": 32}
MODERN = {"bias": False, "position": "rope", "norm": "rmsnorm", "mlp": "swiglu", "n_hidden": 48, "n_kv_head": 2}
SHAPES = {
    "gpt2": GPTConfig(**SIZES, mlp="gelu_tanh"),
    "llama": GPTConfig(**SIZES, **MODERN),
    "qwen3": GPTConfig(**SIZES, **MODERN, qk_norm=True),
}
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
TOKENS = torch.randint(0, 40, (3, 9), generator=torch.Generator().manual_seed(0))


def added(model):
    return {name: p for name, p in model.named_parameters() if "lora_" in name}


@pytest.fixture(params=SHAPES)
def made(request, tmp_path):
    """A GPT with LoRA that does something, the folder of its base, and the folder of its LoRA."""
    config = SHAPES[request.param]
    model = GPT(config, seed=1)
    export_hf(tmp_path / "base", config, tensors_of(model), None)
    trainable = Trainable("lora", rank=4, alpha=6.0)
    adapt(model, trainable, seed=2)
    with torch.no_grad():
        for name, p in added(model).items():
            p.copy_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))))
    write_peft(tmp_path / "lora", config, trainable, added(model), str(tmp_path / "base"))
    return model, tmp_path / "base", tmp_path / "lora"


def theirs(base, lora=None):
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    return peft.PeftModel.from_pretrained(model, lora, is_trainable=True).eval() if lora else model.eval()


def logits(model):
    with torch.no_grad():
        return model(TOKENS).logits


def test_peft_reads_ours_and_has_our_logits(made):
    model, base, lora = made
    peft_model = theirs(base, lora)
    assert torch.allclose(logits(peft_model), model(TOKENS).detach(), atol=1e-5)
    assert not torch.allclose(logits(peft_model), logits(theirs(base)), atol=1e-2)  # it does something


def test_gradients_of_both_are_the_same(made):
    model, base, lora = made
    peft_model = theirs(base, lora)
    targets = TOKENS.roll(-1, 1)
    torch.nn.functional.cross_entropy(model(TOKENS).flatten(0, 1), targets.flatten()).backward()
    torch.nn.functional.cross_entropy(peft_model(TOKENS).logits.flatten(0, 1), targets.flatten()).backward()
    found = {name: p.grad for name, p in peft_model.named_parameters() if "lora_" in name}
    assert all(grad is not None for grad in found.values())
    ours, other = (sum(float(grad.double().square().sum()) for grad in side) for side in
                   ((p.grad for p in added(model).values()), found.values()))  # fmt: skip
    assert np.isclose(ours, other, rtol=1e-4)
    last = f"h.1.mlp.c_proj.{'lora_B'}"
    name = next(
        name for name in found if ".1.mlp." in name and ("down_proj" in name or "c_proj" in name) and "lora_B" in name
    )
    assert torch.allclose(added(model)[last].grad, found[name], atol=1e-6)


def test_what_we_wrote_we_read_again(made):
    model, _, lora = made
    trainable, tensors = read_peft(lora, model.config)
    assert trainable == Trainable("lora", rank=4, alpha=6.0)
    for name, p in added(model).items():
        assert torch.equal(tensors[name], p)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_peft_has_trained_we_read_and_have_its_logits(shape, tmp_path):
    """On some of the maps alone: what stands beside them in one of ours is left as it was."""
    peft = pytest.importorskip("peft")
    config = SHAPES[shape]
    model = GPT(config, seed=1)
    export_hf(tmp_path / "base", config, tensors_of(model), None)
    targets = ["attn.c_attn", "mlp.c_fc"] if shape == "gpt2" else ["q_proj", "v_proj", "up_proj", "down_proj"]
    settings = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=targets, fan_in_fan_out=shape == "gpt2", init_lora_weights=False
    )
    torch.manual_seed(0)
    peft_model = peft.get_peft_model(theirs(tmp_path / "base"), settings).eval()
    peft_model.save_pretrained(tmp_path / "lora")
    trainable, tensors = read_peft(tmp_path / "lora", config)
    adapt(model, trainable)
    with torch.no_grad():
        for name, p in added(model).items():
            p.copy_(tensors[name])
    assert torch.allclose(logits(peft_model), model(TOKENS).detach(), atol=1e-5)
    merge(model)
    assert torch.allclose(logits(peft_model), model(TOKENS).detach(), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"peft_type": "IA3"}, UnsupportedError, "is of type 'IA3'"),
        ({"use_dora": True}, UnsupportedError, "use_dora = True"),
        ({"use_rslora": True}, UnsupportedError, "use_rslora = True"),
        ({"bias": "all"}, UnsupportedError, "bias = 'all'"),
        ({"modules_to_save": ["lm_head"]}, UnsupportedError, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, UnsupportedError, "rank_pattern"),
        ({"init_lora_weights": "pissa"}, UnsupportedError, "init_lora_weights = 'pissa'"),
        ({"use_qalora": True}, UnsupportedError, "use_qalora = True"),
        ({"a_setting_to_come": [1]}, UnsupportedError, "a_setting_to_come"),
        ({"target_modules": ".*"}, UnsupportedError, "has the pattern"),
        ({"target_modules": []}, DamagedFileError, "target_modules should be a list of names"),
        ({"r": 0}, DamagedFileError, "r should be a positive number, got 0"),
        ({"r": 5}, DamagedFileError, r"should be of shape \(5, 32\)"),
        ({"lora_alpha": "6"}, DamagedFileError, "lora_alpha should be a positive number"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(made, settings, error, message):
    model, _, lora = made
    content = json.loads((lora / CONFIG).read_text())
    (lora / CONFIG).write_text(json.dumps(content | settings))
    with pytest.raises(error, match=message):
        read_peft(lora, model.config)


def test_damaged_files_are_refused(made):
    model, _, lora = made
    whole = (lora / WEIGHTS).read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        (lora / WEIGHTS).write_bytes(whole[:length])
        with pytest.raises(DamagedFileError, match=WEIGHTS):
            read_peft(lora, model.config)
    (lora / WEIGHTS).unlink()
    with pytest.raises(DamagedFileError, match=WEIGHTS):
        read_peft(lora, model.config)


def test_a_tensor_that_target_modules_asks_for_is_not_made_up(made):
    from safetensors.torch import load_file, save_file

    model, _, lora = made
    tensors = load_file(lora / WEIGHTS)
    gone = max(name for name in tensors if name.endswith("lora_A.weight"))
    save_file({name: value for name, value in tensors.items() if name != gone}, lora / WEIGHTS)
    with pytest.raises(DamagedFileError, match="which target_modules asks for"):
        read_peft(lora, model.config)


def test_adapters_are_not_written_as_lora(tmp_path):
    model = GPT(SHAPES["llama"])
    adapt(model, Trainable("adapters"))
    tensors = {name: p for name, p in model.named_parameters() if "adapter_" in name}
    with pytest.raises(UsageError, match=r"is for trainable\.what = 'lora'"):
        write_peft(tmp_path / "lora", model.config, Trainable("adapters"), tensors, "")
    assert not (tmp_path / "lora").exists()


def test_another_shape_is_refused(made):
    model, _, lora = made
    other = SHAPES["gpt2" if model.config.position == "rope" else "llama"]
    with pytest.raises(DamagedFileError, match="which a model of this shape does not have"):
        read_peft(lora, other)


def test_a_shape_that_transformers_lacks_is_refused(tmp_path):
    config = GPTConfig(**SIZES, position="alibi")
    model = GPT(config)
    adapt(model, Trainable("lora"))
    with pytest.raises(UsageError, match="none of theirs"):
        write_peft(tmp_path / "lora", config, Trainable("lora"), added(model), "")
