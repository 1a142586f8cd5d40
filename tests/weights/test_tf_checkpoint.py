"""OpenAI's checkpoints without TensorFlow: equal to what TensorFlow wrote, or refused in our words.

tests/data/make_tf_gpt2.py made the files that TensorFlow wrote. The other files are written here, by `write_bundle`, so
that each of their claims can be false while every checksum is true.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from glassgpt.errors import DamagedFileError, GlassGPTError
from glassgpt.models.config import GPTConfig, parameter_shapes
from glassgpt.weights.tensors import array_gpt
from glassgpt.weights.tf_checkpoint import gpt2_parameters, read_hparams, read_tf_checkpoint, tf_name

FIXTURE = Path(__file__).parents[1] / "data" / "tf_gpt2"
TINY = {"n_vocab": 2, "n_ctx": 1, "n_embd": 2, "n_head": 1, "n_layer": 1}
DATA, INDEX = "model.ckpt.data-00000-of-00001", "model.ckpt.index"
CURES = ("restore it", "download", "move ", "copy the file", "take it out", "correct hparams", "name another")


# ---- a writer of bundles -----------------------------------------------------------------------------------------


def varint(number):
    number %= 2**64
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


def number_field(place, number):
    return varint(place << 3) + varint(number)


def bytes_field(place, content):
    return varint(place << 3 | 2) + varint(len(content)) + content


def mask(checksum):
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) % 2**32


def crc(content):
    return mask(google_crc32c.value(content)).to_bytes(4, "little")


def sealed(block, compression=0):
    content = block + bytes([compression])
    return content + crc(content)


def block_of(pairs, restart_every=16):
    content, restarts, before = b"", [], b""
    for i, (key, value) in enumerate(pairs):
        if i % restart_every == 0:
            restarts.append(len(content))
            before = b""
        shared = next((at for at in range(len(before)) if before[: at + 1] != key[: at + 1]), len(before))
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    restarts = restarts or [0]
    return content + b"".join(at.to_bytes(4, "little") for at in [*restarts, len(restarts)])


def table_of(blocks, compression=0, change_index=lambda content: content):
    content, handles = b"", []
    for block, last in blocks:
        handles.append((last, varint(len(content)) + varint(len(block))))
        content += sealed(block, compression)
    footer = b""
    for block in (block_of([]), change_index(block_of(handles, restart_every=1))):
        footer += varint(len(content)) + varint(len(block))
        content += sealed(block)
    return content + footer.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def shape_of(sizes):
    return b"".join(bytes_field(2, number_field(1, size)) for size in sizes)


def entry_of(dtype, shape, shard, offset, size, checksum):
    places = number_field(3, shard) + number_field(4, offset) + number_field(5, size)
    return number_field(1, dtype) + bytes_field(2, shape_of(shape)) + places + varint(6 << 3 | 5) + checksum


@dataclass
class Bundle:
    """What `write_bundle` writes: pairs of the index by name, and the bytes of each shard."""

    pairs: dict[bytes, bytes]
    shards: list[bytearray] = field(default_factory=list)


def bundle_of(tensors, n_shards=1):
    header = number_field(1, n_shards) + bytes_field(3, number_field(1, 1))
    bundle = Bundle({b"": header}, [bytearray() for _ in range(n_shards)])
    types = {"float32": 1, "float64": 2, "int64": 9, "float16": 19}
    for i, (name, value) in enumerate(sorted(tensors.items())):
        shard, content = i % n_shards, value.tobytes()
        place = (shard, len(bundle.shards[shard]), len(content), crc(content))
        bundle.pairs[name.encode()] = entry_of(types[value.dtype.name], value.shape, *place)
        bundle.shards[shard] += content
    return bundle


def write_bundle(folder, bundle, per_block=5, **table):
    folder.mkdir(exist_ok=True)
    pairs = sorted(bundle.pairs.items())
    cut = [pairs[at : at + per_block] for at in range(0, len(pairs), per_block)]
    (folder / INDEX).write_bytes(table_of([(block_of(part), part[-1][0]) for part in cut], **table))
    for i, content in enumerate(bundle.shards):
        (folder / f"model.ckpt.data-{i:05d}-of-{len(bundle.shards):05d}").write_bytes(content)
    return folder


def tiny_tensors(hparams=TINY):
    config = GPTConfig(hparams["n_vocab"], hparams["n_ctx"], hparams["n_layer"], hparams["n_head"], hparams["n_embd"])
    rng = np.random.default_rng(0)
    there = {tf_name(name): shape for name, shape in parameter_shapes(config).items()}
    return {
        name: rng.normal(size=(1, *shape) if name.endswith("/w") else shape).astype(np.float32)
        for name, shape in there.items()
    }


@pytest.fixture
def tiny(tmp_path):
    """A GPT-2 of 84 numbers, whole."""
    write_bundle(tmp_path / "tiny", bundle_of(tiny_tensors()))
    (tmp_path / "tiny" / "hparams.json").write_text(json.dumps(TINY))
    return tmp_path / "tiny"


def arrays(folder):
    return {name: stored.read() for name, stored in gpt2_parameters(folder)[1].items()}


def refused(folder, message, read=arrays):
    """Refused in our words: with the file, and with what can be done."""
    with pytest.raises(DamagedFileError, match=message) as caught:
        read(folder)
    assert str(folder) in str(caught.value)
    assert any(cure in str(caught.value) for cure in CURES), caught.value


def read_all(folder):
    return {name: stored.read() for name, stored in read_tf_checkpoint(folder).items()}


# ---- what TensorFlow wrote ---------------------------------------------------------------------------------------


def test_the_checkpoint_of_tensorflow_has_the_shape_and_the_parameters_of_a_gpt2():
    config, parameters = gpt2_parameters(FIXTURE)
    assert config == GPTConfig(32, 8, n_layer=2, n_head=2, n_embd=8, mlp="gelu_tanh")
    assert {name: stored.shape for name, stored in parameters.items()} == parameter_shapes(config)
    assert all(stored.read().dtype == np.float32 for stored in parameters.values())
    assert all(stored.read().shape == stored.shape for stored in parameters.values())


def test_the_optimizers_state_is_listed_and_is_no_parameter():
    stored = read_tf_checkpoint(FIXTURE)
    assert stored["global_step"].dtype == "int64"
    assert stored["model/h0/mlp/c_fc/w/Adam_1"].shape == (1, 8, 32)
    assert stored["beta1_power"].read() == np.float32(0.9) ** 4
    with pytest.raises(DamagedFileError, match="'global_step' is int64"):
        stored["global_step"].read()


def test_our_gpt_gives_the_logits_that_tensorflow_gave():
    config, parameters = gpt2_parameters(FIXTURE)
    answer = json.loads((FIXTURE / "logits.json").read_text())
    model = array_gpt({name: stored.read().astype(np.float64) for name, stored in parameters.items()}, config)
    assert_close_as_float32(model.sequence_logits(np.array(answer["tokens"])), np.array(answer["logits"]))


def test_transformers_gives_the_logits_that_tensorflow_gave_and_ours_to_float64():
    transformers = pytest.importorskip("transformers")
    import torch

    config, parameters = gpt2_parameters(FIXTURE)
    answer = json.loads((FIXTURE / "logits.json").read_text())
    wide = {name: stored.read().astype(np.float64) for name, stored in parameters.items()}
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=config.vocab_size, n_positions=config.context_length, n_embd=config.n_embd,
            n_layer=config.n_layer, n_head=config.n_head, bos_token_id=None, eos_token_id=None,
        )
    ).double().eval()  # fmt: skip
    state = {f"transformer.{name}": torch.from_numpy(value) for name, value in wide.items()}
    theirs.load_state_dict(state | {"lm_head.weight": state["transformer.wte.weight"]})
    with torch.no_grad():
        logits = theirs(torch.tensor(answer["tokens"])).logits.numpy()
    assert_close_as_float32(logits, np.array(answer["logits"]))
    ours = array_gpt(wide, config).sequence_logits(np.array(answer["tokens"]))
    np.testing.assert_allclose(ours, logits, rtol=1e-9, atol=1e-9)


def assert_close_as_float32(ours, theirs):
    assert np.all(np.abs(ours - theirs) <= 1e-5 * np.maximum(1, np.abs(theirs)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_odd_shapes_in_two_shards_are_what_tensorflow_wrote(dtype):
    stored = read_tf_checkpoint(FIXTURE / "odd")
    shapes = {"scalar": (), "one": (1,), "empty": (0,), "hollow": (3, 0, 2), "row": (5,), "box": (2, 3, 1, 4)}
    for name, shape in shapes.items():
        expected = ((np.arange(math.prod(shape)) * 37 % 101 - 50) / 8).reshape(shape)
        tensor = stored[f"{dtype}/{name}"]
        assert (tensor.dtype, tensor.shape) == (dtype, shape)
        assert tensor.read().dtype == (np.float64 if dtype == "float64" else np.float32)
        np.testing.assert_array_equal(tensor.read(), expected)


@pytest.mark.parametrize("name", ["int64/step", "bool/flags", "string/words"])
def test_what_is_no_float_is_listed_and_not_read(name):
    kind = name.split("/")[0]
    stored = read_tf_checkpoint(FIXTURE / "odd")[name]
    assert stored.dtype == kind
    with pytest.raises(DamagedFileError, match=rf"'{name}' is {kind}"):
        stored.read()


# ---- laws --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_shards", "per_block"), [(1, 1), (1, 1000), (2, 5), (7, 3)])
def test_shards_and_blocks_change_nothing(tmp_path, n_shards, per_block):
    tensors = tiny_tensors(TINY | {"n_layer": 3})
    folder = write_bundle(tmp_path / "b", bundle_of(tensors, n_shards), per_block)
    for name, value in read_all(folder).items():
        np.testing.assert_array_equal(value, tensors[name])


def test_every_float16_and_every_bfloat16_is_exact(tmp_path):
    bits = np.arange(65536).astype(np.uint16)
    bundle = bundle_of({"half": bits.view(np.float16), "brain": bits.view(np.float16)})
    bundle.pairs[b"brain"] = number_field(1, 14) + bundle.pairs[b"brain"][2:]
    found = read_all(write_bundle(tmp_path / "b", bundle))
    np.testing.assert_array_equal(found["half"], bits.view(np.float16).astype(np.float32))
    assert (found["brain"].view(np.uint32) == bits.astype(np.uint32) << 16).all()


def test_what_is_read_can_be_written_to(tiny):
    assert all(value.flags.writeable and value.flags.c_contiguous for value in arrays(tiny).values())


def test_a_float64_checkpoint_stays_float64(tiny):
    write_bundle(tiny, bundle_of({name: value.astype(np.float64) for name, value in tiny_tensors().items()}))
    assert all(value.dtype == np.float64 for value in arrays(tiny).values())


def test_only_the_tensor_that_is_wanted_is_read(tiny):
    content = bytearray((tiny / DATA).read_bytes())
    content[-1] ^= 1  # the last in order is model/wte
    (tiny / DATA).write_bytes(content)
    _, parameters = gpt2_parameters(tiny)
    for name in parameters.keys() - {"wte.weight"}:
        parameters[name].read()
    with pytest.raises(DamagedFileError, match="the bytes of 'model/wte'"):
        parameters["wte.weight"].read()


# ---- files that are missing, left over, cut or flipped -----------------------------------------------------------


def test_a_missing_shard_is_named(tmp_path):
    folder = write_bundle(tmp_path / "b", bundle_of(tiny_tensors(), n_shards=3))
    (folder / "model.ckpt.data-00001-of-00003").unlink()
    refused(folder, r"lacks model\.ckpt\.data-00001-of-00003", read_all)


@pytest.mark.parametrize("extra", ["model.ckpt.data-00001-of-00002", "model.ckpt.data-00001-of-00001"])
def test_a_shard_of_another_checkpoint_is_named(tiny, extra):
    (tiny / extra).write_bytes(b"")
    refused(tiny, rf"holds {extra}, which model\.ckpt\.index does not know")


def test_a_shard_that_is_still_being_downloaded_is_no_shard(tiny):
    (tiny / f"{DATA}.part").write_bytes(b"")
    assert arrays(tiny)


def test_more_shards_than_could_be_are_refused_at_once(tiny):
    bundle = bundle_of(tiny_tensors())
    bundle.pairs[b""] = number_field(1, 2**63 - 1)
    refused(write_bundle(tiny, bundle), "lacks model.ckpt.data-00000-of-9223372036854775807")


def test_an_index_cut_anywhere_is_refused(tiny):
    content = (tiny / INDEX).read_bytes()
    for length in range(len(content)):
        (tiny / INDEX).write_bytes(content[:length])
        refused(tiny, "model.ckpt.index")


def test_data_cut_anywhere_is_refused_before_it_is_read(tiny):
    content = (tiny / DATA).read_bytes()
    for length in range(len(content)):
        (tiny / DATA).write_bytes(content[:length])
        refused(tiny, "data-00000-of-00001 is truncated", gpt2_parameters)


@pytest.mark.parametrize("name", [DATA, INDEX])
def test_every_flipped_byte_is_noticed(tiny, name):
    content = (tiny / name).read_bytes()
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        (tiny / name).write_bytes(flipped)
        refused(tiny, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [DATA, INDEX])
def test_every_flipped_bit_is_noticed(tiny, name):
    content = (tiny / name).read_bytes()
    for at in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[at // 8] ^= 1 << at % 8
        (tiny / name).write_bytes(flipped)
        refused(tiny, name)


def test_data_that_is_cut_after_the_checkpoint_was_opened_is_noticed(tiny):
    parameters = gpt2_parameters(tiny)[1]
    (tiny / DATA).write_bytes(b"")
    with pytest.raises(DamagedFileError, match="do not have the checksum"):
        parameters["wte.weight"].read()
    (tiny / DATA).unlink()
    with pytest.raises(DamagedFileError, match="cannot be read"):
        parameters["wte.weight"].read()


def test_a_folder_without_a_checkpoint_says_so(tmp_path):
    refused(tmp_path / "nothing", "cannot be read as a folder", read_all)
    (tmp_path / "file").write_bytes(b"")
    refused(tmp_path / "file", "cannot be read as a folder", read_all)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DamagedFileError, match=r"empty holds no TensorFlow checkpoint: .* \.index was expected"):
        read_tf_checkpoint(tmp_path / "empty")


# ---- where files are ---------------------------------------------------------------------------------------------


def with_two_checkpoints(folder):
    for suffix in (DATA, INDEX):
        shutil.copy(folder / suffix, folder / suffix.replace("model.ckpt", "other"))
    return folder


@pytest.mark.parametrize(
    "path", ["model.ckpt", "/model.ckpt", "/etc/model.ckpt", "../../model.ckpt", r"C:\\a\\model.ckpt"]
)
def test_of_a_path_in_checkpoint_only_the_name_counts(tiny, path):
    (with_two_checkpoints(tiny) / "checkpoint").write_text(
        f'model_checkpoint_path: "{path}"\nall_model_checkpoint_paths: "other"\n'
    )
    (tiny / "other.index").write_bytes(b"never read")
    assert arrays(tiny)


def test_a_path_in_checkpoint_is_never_followed(tiny, tmp_path):
    with_two_checkpoints(tiny)
    outside = write_bundle(tmp_path / "outside", bundle_of(tiny_tensors()))
    (outside / INDEX).rename(outside / "third.index")
    for path in (outside / "third", "../outside/third", "..", "", ".", "a/..", "model.ckpt\\", "third\0"):
        (tiny / "checkpoint").write_text(f'model_checkpoint_path: "{path}"\n')
        refused(tiny, "names none of them")


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 99, b"model_checkpoint_path: model.ckpt", b'model_checkpoint_path: "']
)
def test_a_garbled_checkpoint_file_is_refused_only_where_it_is_needed(tiny, content):
    (tiny / "checkpoint").write_bytes(content)
    assert arrays(tiny)
    refused(with_two_checkpoints(tiny), "names none of them")
    (tiny / "checkpoint").unlink()
    refused(tiny, "checkpoint cannot be read")


@pytest.mark.parametrize("name", [DATA, INDEX, "hparams.json"])
def test_links_out_of_the_folder_pipes_devices_and_folders_are_refused(tiny, tmp_path, name):
    outside = tmp_path / "outside"
    (tiny / name).rename(outside)
    (tiny / name).symlink_to(outside)
    refused(tiny, f"{name} is a link out of its folder")
    (tiny / name).unlink()
    (tiny / name).symlink_to("/dev/zero")
    refused(tiny, f"{name} is a link out of its folder")
    (tiny / name).unlink()
    (tiny / name).symlink_to(name)
    refused(tiny, f"{name} cannot be read")
    (tiny / name).unlink()
    os.mkfifo(tiny / name)
    refused(tiny, f"{name} is not a plain file")
    (tiny / name).unlink()
    (tiny / name).mkdir()
    refused(tiny, f"{name} is not a plain file")


def test_a_link_inside_the_folder_is_a_file(tiny):
    (tiny / DATA).rename(tiny / "numbers")
    (tiny / DATA).symlink_to("numbers")
    assert arrays(tiny)


# ---- an index whose checksums are true and whose claims are not --------------------------------------------------


def with_entry(name, **claims):
    """The tiny checkpoint with other claims about one tensor."""
    bundle = bundle_of(tiny_tensors())
    before = sum(value.nbytes for other, value in tiny_tensors().items() if other < name)
    honest = {"dtype": 1, "shape": (2,), "shard": 0, "offset": before, "size": 8, "checksum": b"1234"}
    bundle.pairs[name.encode()] = entry_of(**(honest | claims))
    return bundle


N_NUMBERS = sum(value.size for value in tiny_tensors().values())
HUGE = {"shape": (2**36,), "size": 2**38}


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        (HUGE, r"truncated.*'model/ln_f/b' needs \d{12};"),
        ({"shape": (2**62,), "size": 2**64 - 1}, "negative or larger"),
        ({"shape": (2**40, 0), "size": 0, "dtype": 1}, r"of shape \(2,\) by hparams.json"),
        ({"shape": (2**62, 0), "size": 0}, "negative or larger"),
        ({"shape": (-1,)}, "negative or larger"),
        ({"shape": (-1, -2)}, "negative or larger"),
        ({"shape": (1,) * 65}, "negative or larger"),
        ({"shape": (3,)}, r"shape \(3,\) and type float32 do not fit the size of 8 bytes"),
        ({"dtype": 2}, "type float64 do not fit"),
        ({"dtype": 3}, "model/ln_f/b should be one of float16, .* and is int32"),
        ({"dtype": 0}, "and is type 0"),
        ({"dtype": 101}, "and is type 101"),
        ({"dtype": 2**64 - 1}, "and is type 18446744073709551615"),
        ({"offset": 2**50}, "truncated"),
        ({"offset": 2**64 - 8}, "truncated"),
        ({"offset": 4 * N_NUMBERS - 7}, "truncated"),
        ({"offset": 4}, "shares bytes"),
        ({"checksum": bytes(4)}, "the bytes of 'model/ln_f/b' do not have the checksum"),
        ({"shard": 1}, "should lie in shard 1 of 1"),
        ({"shard": 2**31}, "should lie in shard 2147483648 of 1"),
    ],
)
def test_claims_that_the_files_do_not_keep_are_refused_before_anything_is_allocated(tiny, claims, message):
    write_bundle(tiny, with_entry("model/ln_f/b", **claims))
    tracemalloc.start()
    try:
        refused(tiny, message)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def with_pair(key, value):
    bundle = bundle_of(tiny_tensors())
    bundle.pairs[key] = value
    return bundle


NAME = b"model/ln_f/b"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (b"", b"", "should lie in shard 0 of 0"),
        (b"", number_field(1, 1) + number_field(2, 1), "big-endian"),
        (b"", number_field(1, 1) + bytes_field(3, number_field(2, 2)), "later version"),
        (b"", number_field(1, 1) + number_field(9, 2), "field 9"),
        (b"", bytes_field(1, b"1"), "field 1 is none"),
        (NAME, b"\xff" * 100, "does not end"),
        (NAME, b"\x08" + b"\xff" * 9 + b"\x7f", "larger than 64 bits"),
        (NAME, b"\x80", "does not end"),
        (NAME, b"\x08\x81\0", "needless zero"),
        (NAME, b"\x08", "does not end"),
        (NAME, b"\x12" + varint(2**63), "reaches beyond its message"),
        (NAME, b"\x12" + varint(2**64 - 1) + b"x", "reaches beyond its message"),
        (NAME, b"\x35\x00", "reaches beyond its message"),
        (NAME, b"\x0b" * 10000, "kind 3"),
        (NAME, b"\x0e", "kind 6"),
        (NAME, bytes_field(2, number_field(3, 1)), "shape is unknown"),
        (NAME, bytes_field(2, bytes_field(2, bytes_field(2, b"x") * 100 + bytes_field(3, b""))), "field 3"),
        (NAME, b"", r"model/ln_f/b should be of shape \(2,\) by hparams.json, and is \(\)"),
        (NAME, bytes_field(7, b"x"), "only slices"),
        (b"\0\1slice", b"", "slices of a partitioned variable"),
        (b"\xff", b"", "is not UTF-8"),
        (b"n" * 257, b"", "longer than 256"),
    ],
)
def test_messages_that_mean_nothing_are_refused(tiny, key, value, message):
    refused(write_bundle(tiny, with_pair(key, value)), message)


def test_an_index_without_a_header_is_refused(tiny):
    bundle = bundle_of(tiny_tensors())
    del bundle.pairs[b""]
    refused(write_bundle(tiny, bundle), "has no header")


def test_a_compressed_index_is_refused_as_such(tiny):
    refused(write_bundle(tiny, bundle_of(tiny_tensors()), compression=1), "it is compressed")


def one_block(entries):
    return table_of([(entries + bytes(4) + b"\1\0\0\0", b"z")])


def raw_entry(shared, own, length, rest=b""):
    return varint(shared) + varint(own) + varint(length) + rest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (one_block(raw_entry(1, 0, 0)), "reaches beyond its block"),
        (one_block(raw_entry(0, 2**63, 0)), "reaches beyond its block"),
        (one_block(raw_entry(0, 0, 2**64 - 1)), "reaches beyond its block"),
        (one_block(b"\xff" * 50), "does not end"),
        (one_block(raw_entry(0, 1, 0, b"a") * 2), "one is there twice"),
        (one_block(raw_entry(0, 1, 0, b"b") + raw_entry(0, 1, 0, b"a")), "not in order"),
        (one_block(raw_entry(0, 256, 0, b"a" * 256) + raw_entry(256, 1, 0, b"a") * 1000), "longer than 256"),
        (table_of([(b"", b"z")]), "shorter than its list of restarts"),
        (table_of([(b"\xff" * 4, b"z")]), "shorter than its list of restarts"),
        (table_of([]), "no header"),
        (table_of([(block_of([]), b"a"), (block_of([]), b"b")]), "no header"),
        (table_of([(block_of([]), b"a")], change_index=lambda _: block_of([(b"a", b"\0\x08")] * 3, 1)), "one after"),
        (table_of([(block_of([]), b"a")], change_index=lambda _: block_of([(b"a", b"")])), "does not end"),
        (b"\0" * 40 + (0xDB4775248B80FB57).to_bytes(8, "little"), "reaches beyond its end"),
        (b"\xff" * 40 + (0xDB4775248B80FB57).to_bytes(8, "little"), "does not end"),
        (b"", "does not end as an index does"),
        (b"\0" * 4000, "does not end as an index does"),
        (b"junk" + table_of([]), "does not have the checksum|reaches beyond"),
        (table_of([])[:-48] + b"junk" + table_of([])[-48:], "between its blocks and its end"),
    ],
)
def test_tables_that_are_none_are_refused(tiny, content, message):
    (tiny / INDEX).write_bytes(content)
    refused(tiny, message)


@pytest.mark.parametrize("name", [INDEX, "hparams.json", "checkpoint"])
def test_a_small_file_that_is_huge_is_not_read(tiny, name):
    with_two_checkpoints(tiny)
    (tiny / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"')
    os.truncate(tiny / name, 2**40)  # without using the disk
    refused(tiny, f"{name} has more than the 1048576 bytes")


# ---- names and sizes that are not the model's --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda there: there.pop("model/wpe"), "lacks 1 of 16 tensors, model/wpe"),
        (lambda there: there.update({"model/h1/ln_1/g": there["model/ln_f/g"]}), "have, 'model/h1/ln_1/g'"),
        (lambda there: there.update({"model/wte/Momentum": there["model/wte"]}), "have, 'model/wte/Momentum'"),
        (lambda there: there.update({"model/wtf/Adam": there["model/wte"]}), "have, 'model/wtf/Adam'"),
        (lambda there: there.update({"\nX: y": there["model/wte"]}), r"have, '\\nX: y'"),
        (lambda there: there.update({"model/WTE": there.pop("model/wte")}), "lacks 1 of 16 tensors, model/wte"),
        (lambda there: there.update({"model/wte": there["model/wte"][:1]}), r"shape \(2, 2\) .* is \(1, 2\)"),
        (
            lambda there: there.update({"model/h0/mlp/c_fc/w": there["model/h0/mlp/c_fc/w"][0]}),
            r"shape \(1, 2, 8\) .* is \(2, 8\)",
        ),
        (
            lambda there: there.update({"model/h0/mlp/c_fc/w": there["model/h0/mlp/c_fc/w"].transpose(0, 2, 1)}),
            r"shape \(1, 2, 8\) .* is \(1, 8, 2\)",
        ),
    ],
)
def test_tensors_that_are_not_of_the_model_are_named(tiny, change, message):
    tensors = tiny_tensors()
    change(tensors)
    refused(write_bundle(tiny, bundle_of(tensors)), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[" * 900 + "]" * 900, "should hold an object"),
        ("[]", "should hold an object, and holds list"),
        ("\xff", "not JSON"),
        ("{}", "n_vocab should be a positive whole number, and is None"),
        (json.dumps(TINY)[:-1] + ', "n_ctx": 2}', "a key is there twice"),
        (json.dumps(TINY | {"n_inner": 8}), "has the key 'n_inner', which may change the model"),
        (json.dumps(TINY | {"n_head": 2.0}), "n_head should be a positive whole number, and is 2.0"),
        (json.dumps(TINY | {"n_head": True}), "n_head .* is True"),
        (json.dumps(TINY | {"n_head": "1"}), "n_head .* is '1'"),
        (json.dumps(TINY | {"n_head": 0}), "n_head .* is 0"),
        (json.dumps(TINY | {"n_head": -1}), "n_head .* is -1"),
        (json.dumps(TINY | {"n_head": float("nan")}), "n_head .* is nan"),
        (json.dumps(TINY | {"n_head": 3}), "n_embd must be a multiple of"),
        (json.dumps(TINY | {"n_vocab": 1}), "vocab_size must be at least 2"),
        (json.dumps(TINY | {"n_vocab": 3}), r"model/wte should be of shape \(3, 2\)"),
        (json.dumps(TINY | {"n_layer": 2}), "lacks 12 of 28"),
        (json.dumps(TINY | {"n_layer": 2**31 - 1}), "claims 2147483647 layers"),
        (json.dumps(TINY | {"n_layer": 10**4000}), "n_layer should be a positive whole number"),
        ('{"n_vocab": ' + "9" * 5000 + "}", "not JSON"),
        (json.dumps(TINY | {"n_embd": 2**31 - 1}), r"should be of shape \(2, 2147483647\)"),
    ],
)
def test_hparams_that_mean_no_model_are_refused(tiny, content, message):
    (tiny / "hparams.json").write_text(content, encoding="latin-1")
    refused(tiny, message)


def test_keys_that_only_matter_in_training_are_passed_over(tiny):
    (tiny / "hparams.json").write_text(json.dumps(TINY | {"attn_dropout": 0.1, "res_dropout": 0, "embed_dropout": 0}))
    assert read_hparams(tiny) == GPTConfig(2, 1, 1, 1, 2, mlp="gelu_tanh")


# ---- seeded mutations --------------------------------------------------------------------------------------------


def mutated(rng, content):
    """One to three changes: a bit, a byte, a cut, a piece repeated, removed, made of 0xff, or moved."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if not content:
            return bytes(content)
        at, to = sorted(int(place) for place in rng.integers(0, len(content) + 1, 2))
        to = min(to, at + 16)
        match rng.integers(7):
            case 0:
                content[min(at, len(content) - 1)] ^= 1 << int(rng.integers(8))
            case 1:
                content[min(at, len(content) - 1)] = int(rng.integers(256))
            case 2:
                del content[to:]
            case 3:
                content[at:at] = content[at:to]
            case 4:
                del content[at:to]
            case 5:
                content[at:to] = b"\xff" * (to - at)
            case _:
                piece = content[at:to]
                del content[at:to]
                where = int(rng.integers(len(content) + 1))
                content[where:where] = piece
    return bytes(content)


def mutate_folder(rng, folder):
    """Change a file, or change the index's messages, entries or list of blocks and make every checksum true again."""
    bundle = bundle_of(tiny_tensors())
    kind = rng.integers(7)
    if kind < 3:
        path = folder / (DATA, INDEX, "hparams.json")[kind]
        path.write_bytes(mutated(rng, path.read_bytes()))
    elif kind == 3:
        key = list(bundle.pairs)[rng.integers(len(bundle.pairs))]
        bundle.pairs[key] = mutated(rng, bundle.pairs[key])
        write_bundle(folder, bundle)
    elif kind == 4:
        key = list(bundle.pairs)[rng.integers(len(bundle.pairs))]
        value = bundle.pairs.pop(key)
        bundle.pairs[mutated(rng, key)] = value
        write_bundle(folder, bundle)
    elif kind == 5:
        block = mutated(rng, block_of(sorted(bundle.pairs.items())))
        (folder / INDEX).write_bytes(table_of([(block, b"z")]))
    else:
        write_bundle(folder, bundle, change_index=lambda content: mutated(rng, content))


def check_mutations(folder, seed, count):
    expected, rng = arrays(folder), np.random.default_rng(seed)
    whole = {name: (folder / name).read_bytes() for name in (DATA, INDEX, "hparams.json")}
    n_refused = 0
    for _ in range(count):
        mutate_folder(rng, folder)
        try:
            found = arrays(folder)
        except GlassGPTError as error:
            n_refused += 1
            assert str(folder) in str(error)
            assert any(cure in str(error) for cure in CURES), error
        else:
            assert found.keys() == expected.keys()
            assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)
        for name, content in whole.items():
            (folder / name).write_bytes(content)
    assert n_refused > count * 0.8
    return n_refused


def test_what_is_mutated_is_refused_or_equal(tiny):
    check_mutations(tiny, seed=0, count=500)


@pytest.mark.slow
def test_what_is_mutated_many_times_is_refused_or_equal(tiny):
    check_mutations(tiny, seed=1, count=10_000)
