"""safetensors files, indexes, configs and words from strangers: what they say, or a refusal that names the file.

safetensors has no checksum, so a flipped bit of a number is another number, and no loader can know. All else that a
file gets wrong is refused, before anything is allocated that its size does not justify.
"""

import json
import os
import shutil
import signal
import string
import struct
import subprocess
import sys

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file, save, save_file

from glassgpt.errors import DamagedFileError, GlassGPTError, NumericalError, TooLargeError, UnsupportedError
from glassgpt.loading import load, open_model
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.text.bpe import BYTE_SYMBOLS, SPLITTINGS, BPETokenizer
from glassgpt.weights import safetensors_file
from glassgpt.weights.hf_config import config_from_hf, config_to_hf
from glassgpt.weights.hf_folder import export_hf
from glassgpt.weights.safetensors_file import inside, read_json, read_safetensors, read_sharded
from glassgpt.weights.tensors import tensors_of

CONFIGS = {
    "gpt2": GPTConfig(262, 8, 2, 2, 8, mlp="gelu_tanh"),
    "llama": GPTConfig(262, 8, 2, 4, 8, False, 2, None, 12, position="rope", norm="rmsnorm", mlp="swiglu", tied=False),
}  # fmt: skip
CONFIG = CONFIGS["gpt2"]
PARAMS = {kind: tensors_of(GPT(config, seed=1)) for kind, config in CONFIGS.items()}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
WORDS = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)} | {"th": 256, "the": 257, "Ġa": 258, "Ġthe": 259}
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "a"), ("Ġ", "the")]


@pytest.fixture(autouse=True)
def no_hang():
    """Ten seconds for a test of a bad file: what waits for a pipe or a loop without end fails."""

    def late(*_):
        raise TimeoutError("this hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder for each kind, with words."""
    made = tmp_path_factory.mktemp("folders")
    special = {"<|endoftext|>": 260, "<think>": 261}
    words = BPETokenizer(WORDS, MERGES, SPLITTINGS["gpt-2"], {"<|endoftext|>": 260}, {"<think>": 261}, made)
    assert words.vocab_size == len(WORDS) + len(special)
    for kind, config in CONFIGS.items():
        export_hf(made / kind, config, PARAMS[kind], words, end_tokens=(260,), chat_template="{{ messages }}")
    return made


@pytest.fixture
def folder(folders, tmp_path):
    return shutil.copytree(folders / "gpt2", tmp_path / "model")


@pytest.fixture
def sharded(folder):
    """The same model in three files with an index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    where = {name: f"model-0000{i % 3 + 1}-of-00003.safetensors" for i, name in enumerate(tensors)}
    for shard in set(where.values()):
        save_file({name: value for name, value in tensors.items() if where[name] == shard}, folder / shard)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 3}, "weight_map": where}))
    return folder


def with_header(header, data=b""):
    """A safetensors file of any header: an object, or its bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def parts_of(content):
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def refused(folder, name, match=None, **options):
    """`load` fails in our words: one line that names the file and is no longer than a person reads."""
    with pytest.raises(GlassGPTError, match=match) as caught:
        load(folder, **options)
    message = str(caught.value)
    assert str(folder) in message and name in message and len(message) < 900 and "\n" not in message
    return message


# ---- safetensors -------------------------------------------------------------------------------------------------


def test_every_number_format_is_read_exactly_as_it_is_stored(tmp_path):
    rng = np.random.default_rng(0)
    f16 = rng.integers(0, 1 << 16, 500).astype(np.uint16)
    f16 = f16[np.isfinite(f16.view(np.float16))]
    bf16 = rng.integers(0, 1 << 16, 500).astype(np.uint16)
    exact = {
        "F16": (f16, f16.view(np.float16).astype(np.float32)),
        "BF16": (bf16, (bf16.astype(np.uint32) << 16).view(np.float32)),
        "F32": (x := rng.normal(size=9).astype(np.float32), x),
        "F64": (y := rng.normal(size=9), y),
    }
    for dtype, (raw, expected) in exact.items():
        entry = {"dtype": dtype, "shape": [raw.size], "data_offsets": [0, raw.nbytes]}
        (tmp_path / "a.safetensors").write_bytes(with_header({"a": entry}, raw.tobytes()))
        stored = read_safetensors(tmp_path / "a.safetensors")["a"]
        assert (stored.shape, stored.dtype) == ((raw.size,), dtype)
        assert stored.read().dtype == expected.dtype
        np.testing.assert_array_equal(stored.read(), expected)


def test_numbers_of_another_kind_are_refused_when_they_are_wanted(folder):
    tensors = load_file(folder / WEIGHTS)
    tensors["ln_f.bias"] = np.zeros(8, np.int8)
    save_file(tensors, folder / WEIGHTS)
    assert open_model(folder).dtypes()["I8"] == 8
    assert "F64, F32, F16, BF16" in refused(folder, WEIGHTS, "ln_f.bias is stored as I8")


def test_a_file_cut_anywhere_is_refused_with_its_size_and_a_cure(folder):
    whole = (folder / WEIGHTS).read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    rng = np.random.default_rng(1)
    for length in [*range(0, header, 7), header, *rng.integers(header, len(whole), 100), len(whole) - 1]:
        (folder / WEIGHTS).write_bytes(whole[:length])
        message = refused(folder, WEIGHTS, "not a whole safetensors file")
        assert f"it has {length:,} bytes" in message and "download it again" in message
    (folder / WEIGHTS).write_bytes(whole[: header - 1])
    assert f"truncated, or something else (it has {header - 1:,} bytes, and needs at least {header:,}" in refused(
        folder, WEIGHTS
    )
    (folder / WEIGHTS).write_bytes(whole + b"\0")
    refused(folder, WEIGHTS)


def lengths():
    n = len(save(PARAMS["gpt2"]))
    return [0, 1, 2, 7, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, n, 100_000_001]


@pytest.mark.parametrize("length", lengths())
def test_a_lie_about_the_headers_length_is_refused(folder, length):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", length) + whole[8:])
    refused(folder, WEIGHTS)


@pytest.mark.parametrize("by", [-1, 1])
def test_a_header_one_byte_too_short_or_too_long_is_refused(folder, by):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", struct.unpack("<Q", whole[:8])[0] + by) + whole[8:])
    refused(folder, WEIGHTS)


def test_the_length_in_the_wrong_byte_order_is_refused(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[7::-1] + whole[8:])
    refused(folder, WEIGHTS, "truncated")


def first(header):
    return next(name for name in header if name != "__metadata__")


def second(header):
    return [name for name in header if name != "__metadata__"][1]


def edit(**changes):
    def apply(header):
        header[first(header)] |= changes
        return header

    return apply


def overlap(header):
    header[second(header)]["data_offsets"] = header[first(header)]["data_offsets"]
    return header


def hole(header):
    for entry in (entry for name, entry in header.items() if name != "__metadata__"):
        entry["data_offsets"] = [at + 8 if at else 0 for at in entry["data_offsets"]]
    return header


HEADERS = {
    "negative dimension": edit(shape=[-1, 8]),
    "dimension that is no whole number": edit(shape=[8.5]),
    "dimension beyond 64 bits": edit(shape=[2**64]),
    "dimensions whose product overflows": edit(shape=[2**32, 2**32]),
    "dimensions whose product overflows to the right size": edit(shape=[2**61, 8, 262]),
    "a thousand dimensions": edit(shape=[1] * 1000),
    "shape that is no list": edit(shape=8),
    "dtype that is none": edit(dtype="F33"),
    "dtype of another size": edit(dtype="F64"),
    "dtype that is no text": edit(dtype=32),
    "offsets backwards": edit(data_offsets=[64, 0]),
    "offsets negative": edit(data_offsets=[-8, 0]),
    "offsets past the end": edit(data_offsets=[0, 2**40]),
    "offsets of 2^64 - 1": edit(data_offsets=[2**64 - 1, 2**64 - 1]),
    "three offsets": edit(data_offsets=[0, 8, 16]),
    "overlap": overlap,
    "hole": hole,
    "no tensors": lambda header: {},
    "a list": lambda header: [header],
    "a number": lambda header: 7,
    "nothing": lambda header: b"",
    "metadata that is no text": lambda header: header | {"__metadata__": {"a": 1}},
    "not JSON": lambda header: b"{" * 100,
    "deep JSON": lambda header: b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "not UTF-8": lambda header: json.dumps(header).encode()[:-1] + b', "\xff": 3}',
    "NaN": lambda header: json.dumps(header).encode().replace(b"8", b"NaN", 1),
    "a name twice": lambda header: json.dumps(header).encode()[:-1]
    + f', "{first(header)}": {json.dumps(header[first(header)])}}}'.encode(),
    "a name twice, of two tensors": lambda header: json.dumps(header).encode()[:-1]
    + f', "{first(header)}": {json.dumps(header[second(header)])}}}'.encode(),
    "half a surrogate pair": lambda header: json.dumps(header).encode()[:-1] + b', "\\ud800": 3}',
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_means_nothing_is_refused(folder, name):
    header, data = parts_of((folder / WEIGHTS).read_bytes())
    (folder / WEIGHTS).write_bytes(with_header(HEADERS[name](header), data))
    refused(folder, WEIGHTS)


def swap(header):
    """ln_1 and c_proj have other shapes: their names are exchanged."""
    header["h.0.mlp.c_proj.weight"], header["h.0.mlp.c_fc.weight"] = (
        header["h.0.mlp.c_fc.weight"], header["h.0.mlp.c_proj.weight"],
    )  # fmt: skip
    return header


def rename(header):
    header["h.0.ln_1.wieght"] = header.pop("h.0.ln_1.weight")
    return header


def as_integers(header):
    header["ln_f.bias"]["dtype"] = "I32"
    return header


def another_shape(header):
    header["wte.weight"]["shape"] = header["wte.weight"]["shape"][::-1]
    return header


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap, r"should be of shape \(8, 32\) by its config, and is \(32, 8\)"),
        (rename, r"lacks 1 of the \d+ tensors that its config asks for, h.0.ln_1.weight"),
        (as_integers, "ln_f.bias is stored as I32"),
        (another_shape, r"wte.weight should be of shape \(262, 8\)"),
    ],
)
def test_a_sound_header_of_another_model_is_refused_by_the_config(folder, change, message):
    header, data = parts_of((folder / WEIGHTS).read_bytes())
    (folder / WEIGHTS).write_bytes(with_header(change(header), data))
    refused(folder, WEIGHTS, message)


def test_tensors_that_are_missing_or_too_many_are_named(folder):
    tensors = load_file(folder / WEIGHTS)
    save_file({name: value for name, value in tensors.items() if "h.1.mlp" not in name}, folder / WEIGHTS)
    refused(folder, WEIGHTS, r"lacks 4 of the \d+ tensors that its config asks for, h.1.mlp.c_fc.weight first")
    save_file(tensors | {"h.2.ln_1.weight": np.ones(8, np.float32)}, folder / WEIGHTS)
    refused(folder, WEIGHTS, "holds h.2.ln_1.weight, which a model of its config does not have")
    save_file(tensors | {"transformer.wte.weight": tensors["wte.weight"].copy()}, folder / WEIGHTS)
    refused(folder, WEIGHTS, "holds transformer.wte.weight")


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused_by_its_tensors_name(folder, number):
    tensors = load_file(folder / WEIGHTS)
    tensors["h.1.mlp.c_fc.bias"][3] = number
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(NumericalError, match=r"h\.1\.mlp\.c_fc\.bias holds NaN or infinity"):
        load(folder)


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_parameter_of_a_model_is_anything_but_the_files(folders, kind):
    tensors = load_file(folders / kind / WEIGHTS)
    assert sum(value.size for value in tensors.values()) == CONFIGS[kind].n_parameters
    model, _ = load(folders / kind)
    state = dict(model.named_parameters())
    assert not any(value.is_meta for value in [*state.values(), *model.buffers()])
    assert sum(value.numel() for value in state.values()) == CONFIGS[kind].n_parameters
    for name, value in tensors_of(model).items():
        np.testing.assert_array_equal(value, PARAMS[kind][name])
    changed = {name: value + np.float32(1) for name, value in PARAMS[kind].items()}
    assert all((changed[name] != value).all() for name, value in tensors_of(model).items())


# ---- memory ------------------------------------------------------------------------------------------------------

BOMBS = """
import json, sys
from pathlib import Path
from glassgpt.errors import GlassGPTError
from glassgpt.loading import load

def memory(word):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(word)).split()[1]) // 1024

for folder in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory("VmRSS")
    try:
        load(folder)
        print("null")
    except GlassGPTError as error:
        told = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(told | {"grew": memory("VmHWM") - before}))
"""


def one_terabyte(folder):
    entry = {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}
    (folder / WEIGHTS).write_bytes(with_header({"wte.weight": entry}, b"\0" * 2000))
    return 50


def long_header(folder):
    (folder / WEIGHTS).write_bytes(with_header(b"{" + b" " * (99 << 20) + b"}"))
    return 50


def many_tensors(folder, n_layer=16_000):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    (folder / WEIGHTS).write_bytes(with_header({f"{i:x}": entry for i in range(100_000)}))
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"n_layer": n_layer}))
    return 200


def many_layers(folder):
    return many_tensors(folder, 99_000)


def dense_words(folder):
    (folder / "tokenizer.json").write_bytes(b"[" + b"[]," * (20 << 20) + b"0]")
    return 200


def wide_json(folder):
    (folder / "config.json").write_bytes(b"[" + b"[]," * (20 << 20) + b"0]")
    return 50


def dense_json(folder):
    (folder / "config.json").write_bytes(b"[" + b"[]," * (2 << 20) + b"0]")
    return 200


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read from /proc")
def test_small_files_that_claim_much_are_refused_before_anything_is_allocated(folder, tmp_path):
    bombs = [one_terabyte, long_header, many_tensors, many_layers, wide_json, dense_json, dense_words]
    places = [shutil.copytree(folder, tmp_path / bomb.__name__) for bomb in bombs]
    allowed = [bomb(place) for bomb, place in zip(bombs, places, strict=True)]
    signal.alarm(60)  # another Python is started
    command = [sys.executable, "-c", BOMBS, str(folder), *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first_line, *lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert first_line is None
    for told, place, most in zip(lines, places, allowed, strict=True):
        assert told["error"] == "DamagedFileError" and str(place) in told["message"]
        assert told["grew"] < most, told


def test_a_model_larger_than_the_memory_is_refused_before_anything_is_read(folder, monkeypatch):
    monkeypatch.setattr(safetensors_file, "_read", lambda *_: pytest.fail("a tensor was read"))
    free = psutil.virtual_memory()._replace(available=CONFIG.n_parameters * 4 - 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(
        TooLargeError, match=r"parameters, which need 0\.0 GB, and 0\.0 GB are free: load it as bfloat16"
    ):
        load(folder)


# ---- index and paths -----------------------------------------------------------------------------------------------


def test_several_files_are_the_model_in_one(sharded):
    for name, value in tensors_of(load(sharded)[0]).items():
        np.testing.assert_array_equal(value, PARAMS["gpt2"][name])


def point_at(folder, shard, count=1):
    content = json.loads((folder / INDEX).read_text())
    for name in list(content["weight_map"])[:count]:
        content["weight_map"][name] = shard
    (folder / INDEX).write_text(json.dumps(content))


@pytest.fixture
def secret(sharded):
    """A sound safetensors file outside the folder, with the first tensor of the index."""
    first_name = next(iter(json.loads((sharded / INDEX).read_text())["weight_map"]))
    save_file({first_name: PARAMS["gpt2"][first_name] * 2}, sharded.parent / "secret.safetensors")
    return sharded.parent / "secret.safetensors"


@pytest.mark.parametrize(
    "shard",
    ["../secret.safetensors", "./../secret.safetensors", "ABSOLUTE", "x/../../secret.safetensors",
     "..\\secret.safetensors",
     "a\0b", "", ".", "..", "/", "/dev/zero", "a/", "model-00001-of-00003.safetensors/", "C:\\secret.safetensors",
     "./model-00001-of-00003.safetensors"],
)  # fmt: skip
def test_an_index_that_names_a_path_is_refused_unopened(sharded, secret, monkeypatch, shard):
    point_at(sharded, str(secret) if shard == "ABSOLUTE" else shard)
    opened = []
    monkeypatch.setattr(safetensors_file, "read_safetensors", lambda path: opened.append(path) or {})
    refused(sharded, INDEX, "which is no file beside it: do not use it")
    assert {path.parent for path in opened} <= {sharded}


@pytest.mark.parametrize("shard", ["\ud800.safetensors", "x" * 300, "x" * 5000, "nowhere.safetensors",
                                   "MODEL-00001-of-00003.safetensors", "~", "$HOME", "%2e%2e", " "])  # fmt: skip
def test_an_index_that_names_what_is_not_there_is_refused(sharded, shard):
    point_at(sharded, shard)
    with pytest.raises(DamagedFileError):
        open_model(sharded)


@pytest.mark.parametrize("shard", ["config.json", INDEX])
def test_an_index_that_names_another_file_of_the_folder_is_refused(sharded, shard):
    point_at(sharded, shard)
    refused(sharded, "", r"not a whole safetensors file|does not say that")


def link(path, secret):
    path.symlink_to(secret)


def relative_link(path, secret):
    path.symlink_to("../secret.safetensors")


def link_to_link(path, secret):
    (path.parent / "between").symlink_to(secret)
    path.symlink_to("between")


PLACES = {
    "link": link,
    "relative link": relative_link,
    "link to a link": link_to_link,
    "link to /dev/zero": lambda path, _: path.symlink_to("/dev/zero"),
    "link to itself": lambda path, _: path.symlink_to(path.name),
    "link to nowhere": lambda path, _: path.symlink_to("nowhere"),
    "pipe": lambda path, _: os.mkfifo(path),
    "folder": lambda path, _: path.mkdir(),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_shard_that_is_no_plain_file_of_the_folder_is_refused(sharded, secret, place):
    shard = "model-00002-of-00003.safetensors"
    (sharded / shard).replace(secret)  # all that is wrong with it is where it lies
    PLACES[place](sharded / shard, secret)
    refused(sharded, shard)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "generation_config.json", "tokenizer.json", INDEX,
                                  "tokenizer_config.json", "chat_template.jinja", "pytorch_model.bin"])  # fmt: skip
@pytest.mark.parametrize("place", ["link", "link to /dev/zero", "pipe", "folder"])
def test_no_file_of_a_folder_may_be_a_pipe_a_device_or_lie_elsewhere(folder, tmp_path, name, place):
    if name in (INDEX, "pytorch_model.bin"):
        (folder / WEIGHTS).unlink()
    (tmp_path / "secret").write_text("{}")
    (folder / name).unlink(missing_ok=True)
    PLACES[place](folder / name, tmp_path / "secret")
    refused(folder, name, allow_pickle=True)


def test_a_link_within_the_folder_and_the_blobs_of_a_hub_cache_are_followed(folder, tmp_path):
    (folder / WEIGHTS).rename(folder / "numbers")
    (folder / WEIGHTS).symlink_to("numbers")
    load(folder)
    cache = tmp_path / "models--a--b"
    (cache / "snapshots").mkdir(parents=True)
    shutil.copytree(folder, cache / "snapshots" / "rev")
    (cache / "blobs").mkdir()
    (cache / "snapshots" / "rev" / WEIGHTS).replace(cache / "blobs" / "abc")
    (cache / "snapshots" / "rev" / WEIGHTS).symlink_to("../../blobs/abc")
    load(cache / "snapshots" / "rev")
    (cache / "snapshots").rename(cache / "mine")  # then `blobs` is any folder
    with pytest.raises(DamagedFileError, match="outside its folder"):
        inside(cache / "mine" / "rev", WEIGHTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["weight_map"].popitem(), "does not say that"),
        (lambda content: content["weight_map"].update({"h.7": "model-00001-of-00003.safetensors"}), "it is not"),
        (lambda content: content.pop("weight_map"), "has no weight_map"),
        (lambda content: content.update(weight_map={}), "too few for 2 layers"),
        (lambda content: content.update(weight_map=[1]), "has no weight_map"),
        (lambda content: content["weight_map"].update({"wte.weight": 3}), "has no weight_map"),
        (lambda content: content["weight_map"].update({"wte.weight": None}), "has no weight_map"),
    ],
)  # fmt: skip
def test_an_index_that_is_wrong_about_its_tensors_is_refused(sharded, change, message):
    content = json.loads((sharded / INDEX).read_text())
    change(content)
    (sharded / INDEX).write_text(json.dumps(content))
    refused(sharded, INDEX, message)


def test_a_tensor_in_two_files_is_refused(sharded):
    shard = sharded / "model-00001-of-00003.safetensors"
    save_file(load_file(shard) | load_file(sharded / "model-00002-of-00003.safetensors"), shard)
    refused(sharded, INDEX, "does not say that")


# ---- JSON --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[" * 100_000, b'{"a":' * 100_000, b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1, "a": 2}',
     b"\xff\xfe",
     b'{"a": ' + b"9" * 5000 + b"}", b"{'a': 1}", b'{"a": 1,}', b"\0" * 50, b'{"' + b"k" * 9000 + b'": NaN}'],
)  # fmt: skip
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_what_is_not_strictly_json_is_refused(folder, name, content):
    (folder / name).write_bytes(content)
    refused(folder, name)


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b'"text"', b"true"])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_json_of_another_kind_is_refused(folder, name, content):
    (folder / name).write_bytes(content)
    refused(folder, name)


def test_nesting_that_is_read_and_cannot_be_shown_is_refused_in_our_words(folder):
    content = json.loads((folder / "config.json").read_text())
    for depth in (100, 400, 700, *range(850, 1000, 10)):
        nested = json.dumps("@")
        for key in ("n_layer", "model_type", "pruned_heads", "layer_types", "unknown"):
            text = json.dumps(content | {key: "@"}).replace(nested, "[" * depth + "]" * depth)
            (folder / "config.json").write_text(text)
            refused(folder, "config.json")
    nested = []
    for _ in range(100_000):
        nested = [nested]
    for key in ("n_layer", "model_type", "pruned_heads"):
        with pytest.raises(GlassGPTError, match="something deeply nested"):
            config_from_hf(content | {key: nested}, folder / "config.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layer": 10**9}, "too few for 1000000000 layers"),
        ({"n_layer": 3}, "lacks 12 of the 40 tensors"),
        ({"n_layer": 1}, "holds h.1."),
        ({"n_layer": 2**31 + 1}, "n_layer is 2147483649, and no model's is beyond"),
        ({"vocab_size": 2**31 - 1}, r"should be of shape \(2147483647, 8\)"),
        ({"n_positions": 2**31 - 1}, r"wpe.weight should be of shape \(2147483647, 8\)"),
        ({"n_embd": 2**30}, "should be of shape"),
        ({"n_embd": 16}, "should be of shape"),
        ({"n_inner": 2**30}, "should be of shape"),
        ({"n_head": 3}, "multiple of model.n_head"),
        ({"n_head": 0}, "n_head must be at least 1"),
        ({"tie_word_embeddings": False}, "lacks 1 of the 29 tensors that its config asks for, lm_head.weight"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings should be of type bool"),
        ({"layer_norm_epsilon": -1e-5}, "norm_epsilon must be a positive number"),
        ({"trust_remote_code": True}, "does not know the key 'trust_remote_code'"),
        ({"auto_map": {"AutoModel": "evil.Evil"}}, "does not know the key 'auto_map'"),
        ({"model_type": "mamba"}, "model_type is 'mamba'"),
        ({"model_type": "x" * 9999}, "model_type is 'xxx"),
        ({"activation_function": "y" * 9999}, "the activation 'yyy"),
        ({"k" * 9999: 1}, "does not know the key 'kkk"),
        ({"pruned_heads": {"0": list(range(9999))}}, "pruned_heads is"),
        ({"model_type": "llama"}, "lacks the key"),
    ],
)  # fmt: skip
def test_a_config_that_lies_is_refused_at_once(folder, change, message):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | change))
    refused(folder, "", message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 10**9}, "too few"),
        ({"head_dim": 2**31 - 2}, "should be of shape"),
        ({"num_key_value_heads": 4}, "should be of shape"),
        ({"intermediate_size": 2**31 - 1}, "should be of shape"),
        ({"attention_bias": True}, "self_attn.q_proj.bias"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"layer_types": 3}, "layer_types should be of type list"),
        ({"layer_types": [[]]}, "layer_types"),
        ({"rope_parameters": {"rope_type": "llama3", "type": "default"}}, "which is meant"),
        ({"rope_parameters": {"rope_theta": 1e4, "attention_factor": 2.0}}, "attention_factor"),
        ({"rope_parameters": {"rope_theta": 5.0}}, "rope_theta is 10000.0 and, in rope_parameters, 5.0"),
        ({"rope_parameters": []}, "rope_parameters should be of type dict"),
        ({"rope_theta": 0}, "rope_theta is 0.0"),
    ],
)  # fmt: skip
def test_a_llama_config_that_lies_is_refused_at_once(folders, tmp_path, change, message):
    folder = shutil.copytree(folders / "llama", tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | change))
    refused(folder, "", message)


def test_a_claimed_context_that_no_tensor_bears_out_costs_nothing(folders, tmp_path):
    folder = shutil.copytree(folders / "llama", tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"max_position_embeddings": 2**31 - 1}))
    before = psutil.Process().memory_info().rss
    model, _ = load(folder)
    assert model.context_length == 2**31 - 1
    text = model.session()
    text.feed([[1, 2, 3]])
    assert psutil.Process().memory_info().rss - before < 50 << 20


def test_a_chat_template_that_is_no_text_is_refused(folder):
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe{{")
    refused(folder, "chat_template.jinja", "is not text in UTF-8")


# ---- mutations ---------------------------------------------------------------------------------------------------

NASTY = [None, True, False, 0, -1, 1, 2, 3, 8, 2**31, 2**63, 2**64, 10**30, 0.5, 1e308, -0.0, "", "8", "gelu", "relu2",
         "llama", "x" * 300, "\ud800", [], [1], {}, {"a": 1}, [[[[]]]]]  # fmt: skip


def flipped(rng, content):
    """One small accident: a bit, a byte, a cut, a piece left out, doubled or moved."""
    at, length = int(rng.integers(len(content))), int(rng.integers(1, 9))
    kind = rng.integers(6)
    if kind == 0:
        return content[:at] + bytes([content[at] ^ 1 << int(rng.integers(8))]) + content[at + 1 :]
    if kind == 1:
        return content[:at] + bytes([int(rng.integers(256))]) + content[at + 1 :]
    if kind == 2:
        return content[:at]
    if kind == 3:
        return content[:at] + content[at + length :]
    if kind == 4:
        return content[:at] + content[at : at + length] + content[at:]
    return content[:at] + bytes(rng.choice(list(string.printable.encode()), length).tolist()) + content[at:]


def changed_value(rng, value, depth=0):
    """A JSON value with one of its members replaced, removed, doubled under another name, or exchanged."""
    if isinstance(value, dict) and value and (depth < 3 or rng.random() < 0.3):
        members = dict(value)
        key, other = (list(members)[int(rng.integers(len(members)))] for _ in range(2))
        kind = rng.integers(5)
        if kind == 0:
            del members[key]
        elif kind == 1:
            members[key], members[other] = members[other], members[key]
        elif kind == 2:
            members[f"{key}{rng.integers(3)}"] = members.pop(key)
        else:
            members[key] = changed_value(rng, members[key], depth + 1)
        return members
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = int(rng.integers(len(value)))
        return [*value[:at], *([changed_value(rng, value[at], depth + 1)] * int(rng.integers(3))), *value[at + 1 :]]
    if type(value) is int and rng.random() < 0.5:
        return value + int(rng.integers(-3, 4))
    return NASTY[int(rng.integers(len(NASTY)))]


def changed_json(rng, content):
    return flipped(rng, content) if rng.random() < 0.4 else json.dumps(changed_value(rng, json.loads(content))).encode()


def changed_header(rng, content):
    header, data = parts_of(content)
    if rng.random() < 0.3:
        text = flipped(rng, json.dumps(header).encode())
        return with_header(text, data) if rng.random() < 0.5 else content[:8] + text + data
    return with_header(changed_value(rng, header), data)


FIELDS = {
    "gpt2": {"n_head": "n_head", "layer_norm_epsilon": "norm_epsilon", "activation_function": "mlp"},
    "llama": {"num_attention_heads": "n_head", "num_key_value_heads": "n_kv_head", "head_dim": "head_size",
              "max_position_embeddings": "context_length", "rms_norm_eps": "norm_epsilon", "rope_theta": "rope_theta"},
}  # fmt: skip


def as_the_file_says(folder, kind):
    """`load` refuses the folder in our words, or gives the shape and the numbers that other readers find there."""
    try:
        model, tokenizer = load(folder)
    except GlassGPTError as error:
        message = str(error)
        assert str(folder) in message and len(message) < 900 and "\n" not in message, message
        return False
    stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key, field in FIELDS[kind].items():
        if stated.get(key) is not None:
            words = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
            assert getattr(model.config, field) == (
                words.get(stated[key], stated[key]) if field == "mlp" else stated[key]
            )
    shards = [WEIGHTS]
    if not (folder / WEIGHTS).exists():
        shards = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
    found = {name: value for shard in shards for name, value in load_file(folder / shard).items()}
    if kind == "gpt2":
        ours = tensors_of(model)
        for name, value in ours.items():
            there = found.get(name, found.get(f"transformer.{name}"))
            np.testing.assert_array_equal(value, np.asarray(there, np.float32))
    if tokenizer is not None:
        for text in ("the cat\n", "  a the é日", ""):
            assert tokenizer.decode(tokenizer.encode(text)) == text
    return True


MUTATED = {
    "header": ("gpt2", WEIGHTS, changed_header),
    "weights": ("gpt2", WEIGHTS, flipped),
    "llama's header": ("llama", WEIGHTS, changed_header),
    "index": ("sharded", INDEX, changed_json),
    "config": ("gpt2", "config.json", changed_json),
    "llama's config": ("llama", "config.json", changed_json),
    "generation_config": ("gpt2", "generation_config.json", changed_json),
    "words": ("gpt2", "tokenizer.json", changed_json),
    "settings of the words": ("gpt2", "tokenizer_config.json", changed_json),
}

QUICK = ("header", "llama's header", "config", "llama's config", "weights")  # the others read the words each time


def mutate(request, folders, tmp_path, name, count, seed):
    kind, file, change = MUTATED[name]
    if kind == "sharded":
        folder, kind = request.getfixturevalue("sharded"), "gpt2"
    else:
        folder = shutil.copytree(folders / kind, tmp_path / "mutated")
    before, rng = (folder / file).read_bytes(), np.random.default_rng(seed)
    others = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != file}
    rss = psutil.Process().memory_info().rss
    loaded = 0
    for _ in range(count):
        (folder / file).write_bytes(change(rng, before))
        loaded += as_the_file_says(folder, kind)
    assert loaded < count
    assert psutil.Process().memory_info().rss - rss < 200 << 20
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name != file} == others


@pytest.mark.parametrize("name", MUTATED)
def test_a_mutated_file_is_refused_or_means_what_it_says(request, folders, tmp_path, name):
    mutate(request, folders, tmp_path, name, 300 if name in QUICK else 150, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATED)
def test_a_file_mutated_many_times_is_refused_or_means_what_it_says(request, folders, tmp_path, name):
    signal.alarm(600)
    mutate(request, folders, tmp_path, name, 5000 if name in QUICK else 2000, seed=1)


def test_read_json_gives_what_is_there(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": [1, 2.5, "\xc3\xa9", null]}')
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, "é", None]}
    with pytest.raises(DamagedFileError, match="cannot be read: No such file"):
        read_json(tmp_path / "b.json")
    with pytest.raises(DamagedFileError, match="cannot be read: No such file"):
        read_sharded(tmp_path / "b.json")
    assert config_to_hf(CONFIG)["model_type"] == "gpt2" and issubclass(UnsupportedError, GlassGPTError)
