"""GGUF files: read as gguf's own reader and quants do, and refused by name wherever they lie about themselves."""

import os
import struct
import sys
import time
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from glassgpt.errors import DamagedFileError, GlassGPTError, UnsupportedError
from glassgpt.weights import gguf_file
from glassgpt.weights.gguf_file import READABLE, read_gguf, shown

U8, U32, BOOL, STRING, ARRAY, U64 = 0, 4, 7, 8, 9, 10
F32 = 0


# ---- files by hand ---------------------------------------------------------------------------------------------------


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def string(text):
    content = text if isinstance(text, bytes) else text.encode()
    return u64(len(content)) + content


def key(name, type, payload):
    return string(name) + u32(type) + payload


def tensor(name="a", sizes=(4, 2), type=F32, offset=0):
    return string(name) + u32(len(sizes)) + b"".join(map(u64, sizes)) + u32(type) + u64(offset)


def whole(keys=(), tensors=(), data=b"", *, magic=b"GGUF", version=3, n_keys=None, n_tensors=None, alignment=32):
    """A GGUF file's bytes; what is counted can be said otherwise."""
    head = magic + u32(version)
    head += u64(len(tensors) if n_tensors is None else n_tensors) + u64(len(keys) if n_keys is None else n_keys)
    head += b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


NAME = key("general.name", STRING, string("a model"))
NUMBERS = np.arange(8, dtype="<f4")
SOUND = whole([NAME], [tensor()], NUMBERS.tobytes())


def written(tmp_path, content, name="model.gguf"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def refuses(path, match=None):
    """Reading must fail with a short error of ours that names the file; gives its text."""
    with pytest.raises(DamagedFileError, match=match) as caught:
        read_gguf(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))
    return str(caught.value)


def test_a_file_written_byte_by_byte_is_read(tmp_path):
    read = read_gguf(written(tmp_path, SOUND))
    assert read.metadata == {"general.name": "a model"}
    assert (read.tensors["a"].shape, read.tensors["a"].dtype) == ((2, 4), "F32")
    np.testing.assert_array_equal(read.tensors["a"].read(), NUMBERS.reshape(2, 4))
    assert bytes(read.raw("a").reshape(-1)) == NUMBERS.tobytes()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_both_versions_and_other_alignments_are_read(tmp_path, version, alignment):
    keys = [key("general.alignment", U32, u32(alignment))]
    content = whole(keys, [tensor()], NUMBERS.tobytes(), version=version, alignment=alignment)
    np.testing.assert_array_equal(read_gguf(written(tmp_path, content)).tensors["a"].read().ravel(), NUMBERS)


def test_a_file_of_words_alone_is_read(tmp_path):
    assert read_gguf(written(tmp_path, whole([NAME]))).tensors == {}


# ---- as gguf has it --------------------------------------------------------------------------------------------------


def test_metadata_of_every_type_is_what_ggufs_reader_says(tmp_path):
    path = tmp_path / "all.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    kinds = gguf.GGUFValueType
    for kind, value in {
        kinds.UINT8: 255, kinds.INT8: -128, kinds.UINT16: 65535, kinds.INT16: -5, kinds.UINT32: 2**32 - 1,
        kinds.INT32: -(2**31), kinds.FLOAT32: 1e-5, kinds.BOOL: True, kinds.UINT64: 2**64 - 1, kinds.INT64: -(2**63),
        kinds.FLOAT64: 0.1, kinds.STRING: "Grüße 日本",
    }.items():  # fmt: skip
        writer.add_key_value(f"one.{kind.name}", value, kind)
        writer.add_key_value(f"many.{kind.name}", [value] * 3, kinds.ARRAY, sub_type=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    read = read_gguf(path)
    expected = {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}
    expected = {name: value for name, value in expected.items() if not name.startswith("GGUF.")}
    assert read.metadata.keys() == expected.keys()
    for name, value in expected.items():
        assert list(read.metadata[name]) == value if isinstance(value, list) else read.metadata[name] == value
    assert [type(read.metadata[f"one.{name}"]) for name in ("BOOL", "INT8", "FLOAT32")] == [bool, int, float]


@pytest.mark.parametrize("name", READABLE)
def test_every_type_of_numbers_is_what_ggufs_quants_say(tmp_path, name):
    kind = GGMLQuantizationType[name]
    numbers, n_bytes = GGML_QUANT_SIZES[kind]
    rows = np.random.default_rng(0).integers(0, 256, (3, 2 * n_bytes), dtype=np.uint8)
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("a", rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = read_gguf(path)
    assert (read.tensors["a"].shape, read.tensors["a"].dtype) == ((3, 2 * numbers), name)
    with np.errstate(all="ignore"):
        expected = rows.view("<f8") if name == "F64" else dequantize(rows, kind)
    assert read.tensors["a"].read().dtype == (np.float64 if name == "F64" else np.float32)
    np.testing.assert_array_equal(read.tensors["a"].read(), expected)
    np.testing.assert_array_equal(read.raw("a"), rows)
    assert not read.raw("a").flags.writeable


@pytest.mark.parametrize("chunk", [1, 32, 96, 2**16])
def test_the_size_of_the_pieces_in_which_numbers_are_read_does_not_matter(tmp_path, monkeypatch, chunk):
    rows = np.random.default_rng(0).integers(0, 60, (7, 5 * 34), dtype=np.uint8)
    content = whole([], [tensor(sizes=(160, 7), type=int(GGMLQuantizationType.Q8_0))], rows.tobytes())
    monkeypatch.setattr(gguf_file, "CHUNK", chunk)
    expected = dequantize(rows, GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(read_gguf(written(tmp_path, content)).tensors["a"].read(), expected)


@pytest.mark.parametrize("name", ["I8", "I64", "Q8_1", "Q8_K", "Q1_0"])
def test_types_that_are_no_weights_are_refused_when_they_are_read(tmp_path, name):
    kind = GGMLQuantizationType[name]
    numbers, n_bytes = GGML_QUANT_SIZES[kind]
    read = read_gguf(written(tmp_path, whole([], [tensor(sizes=(numbers,), type=int(kind))], bytes(n_bytes))))
    assert read.tensors["a"].dtype == name
    with pytest.raises(UnsupportedError, match=f"'a' is stored as {name}"):
        read.tensors["a"].read()


# ---- lies ------------------------------------------------------------------------------------------------------------

ROOM = bytes(4096)  # so that a file isn't refused for its mere length
BAD = {
    "an empty file": (b"", "0 bytes"),
    "a header cut short": (SOUND[:23], "23 bytes"),
    "another format": (whole(magic=b"GGML"), "begins with b'GGML'"),
    "version 0": (whole(version=0), "big-endian"),
    "version 1": (whole(version=1), "version 1"),
    "version 4": (whole(version=4), "version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "2^63 tensors": (whole(n_tensors=2**63) + ROOM, "9223372036854775808 tensors"),
    "2^64-1 keys": (whole(n_keys=2**64 - 1) + ROOM, "18446744073709551615 keys"),
    "more tensors than there are": (whole([NAME], [tensor()], bytes(32), n_tensors=100), "100 tensors"),
    "more keys than there are": (whole([NAME], n_keys=9) + ROOM, "twice"),
    "a key of 2^40 bytes": (whole([u64(2**40) + b"general.name"]), "key 0 would need"),
    "a key of 2^64-1 bytes": (whole([u64(2**64 - 1) + b"general.name"]), "key 0 would need"),
    "a key of 100,000 bytes": (whole([key("a" * 100_000, U8, b"\0")]), "longer than 65536 bytes"),
    "a key that is no UTF-8": (whole([key(b"\xff\xfe", U8, b"\0")]), "no UTF-8"),
    "a key twice": (whole([NAME, NAME]), "'general.name' stands in it twice"),
    "a value of type 13": (whole([key("a", 13, u64(0))]), "type 13"),
    "a value of type 2^32-1": (whole([key("a", 2**32 - 1, u64(0))]), "type 4294967295"),
    "a string of 2^40 bytes": (whole([key("a", STRING, u64(2**40))]), "cut short or altered"),
    "a string that is no UTF-8": (whole([key("a", STRING, string(b"\xc3("))]), "'a' is no UTF-8"),
    "a string with half a surrogate pair": (whole([key("a", STRING, string(b"\xed\xa0\x80"))]), "no UTF-8"),
    "a bool of 2": (whole([key("a", BOOL, b"\2")]), "only 0"),
    "a bool of 255 in an array": (whole([key("a", ARRAY, u32(BOOL) + u64(3) + b"\0\1\xff")]), "holds 255"),
    "an array of arrays": (whole([key("a", ARRAY, u32(ARRAY) + u64(1) + u32(U8) + u64(0))]), "array of arrays"),
    "an array of type 77": (whole([key("a", ARRAY, u32(77) + u64(1) + ROOM)]), "type 77"),
    "an array of 2^40 bytes": (whole([key("a", ARRAY, u32(U8) + u64(2**40) + ROOM)]), "cut short or altered"),
    "an array of 2^61 words": (whole([key("a", ARRAY, u32(U64) + u64(2**61) + ROOM)]), "cut short or altered"),
    "an array of 2^63 strings": (whole([key("a", ARRAY, u32(STRING) + u64(2**63) + ROOM)]), "cut short or altered"),
    "bytes that are said to be strings": (whole([key("a", ARRAY, u32(STRING) + u64(3) + b"\7" * 30)]), "cut short"),
    "an alignment of 0": (whole([key("general.alignment", U32, u32(0))]), "alignment is 0"),
    "an alignment of 3": (whole([key("general.alignment", U32, u32(3))]), "alignment is 3"),
    "an alignment of 2^31": (whole([key("general.alignment", U32, u32(2**31))]), "alignment is 2147483648"),
    "an alignment that is a string": (whole([key("general.alignment", STRING, string("32"))]), "of type 8"),
    "an alignment of another width": (whole([key("general.alignment", U64, u64(32))]), "of type 10"),
    "no sizes": (whole([], [tensor(sizes=())], ROOM), "has 0 sizes"),
    "five sizes": (whole([], [tensor(sizes=(1, 1, 1, 1, 1))], ROOM), "has 5 sizes"),
    "2^31 sizes": (whole([], [string("a") + u32(2**31)], ROOM), "has 2147483648 sizes"),
    "a size of 0": (whole([], [tensor(sizes=(4, 0))], ROOM), "holds nothing"),
    "a size of 2^42+1": (whole([], [tensor(sizes=(2**42 + 1, 2**22))], ROOM), "should end at byte"),
    "sizes whose product is 2^64": (whole([], [tensor(sizes=(2**32, 2**32))], ROOM), "should end at byte"),
    "sizes of 2^64-1": (whole([], [tensor(sizes=(2**64 - 1,) * 4)], ROOM), "should end at byte"),
    "a tensor of type 4, which was removed": (whole([], [tensor(type=4)], ROOM), "type 4"),
    "a tensor of type 2^31": (whole([], [tensor(type=2**31)], ROOM), "type 2147483648"),
    "rows that are no whole blocks": (whole([], [tensor(sizes=(33, 2), type=8)], ROOM), "blocks of 32"),
    "a tensor past the end": (whole([], [tensor(offset=4096)], bytes(4096)), "should end at byte"),
    "a tensor at 2^64-32": (whole([], [tensor(offset=2**64 - 32)], ROOM), "should end at byte"),
    "a tensor off the alignment": (whole([], [tensor(offset=4)], ROOM), "no multiple of the alignment 32"),
    "a tensor twice": (whole([], [tensor(), tensor(offset=32)], ROOM), "'a' stands in it twice"),
    "tensors over each other": (whole([], [tensor(), tensor("b")], ROOM), "'a' and 'b' lie over each other"),
    "tensors partly over each other": (
        whole([], [tensor("b", offset=32), tensor("a", sizes=(9,))], ROOM),
        "'a' and 'b' lie over each other",
    ),
    "a tensor of 1 TB in 2 KB": (whole([], [tensor(sizes=(2**38,))], bytes(2048)), "should end at byte"),
    "a tensor's name that is no UTF-8": (whole([], [tensor(b"\xff")], ROOM), "no UTF-8"),
    "a tensor's name of 2^40 bytes": (whole([], [u64(2**40) + ROOM]), "cut short or altered"),
    "no data": (whole([], [tensor()]), "should end at byte"),
    "data cut short by a byte": (SOUND[:-1], "and the file ends at"),
}


@pytest.mark.parametrize("what", BAD)
def test_lies_are_refused_by_name(tmp_path, what):
    content, match = BAD[what]
    refuses(written(tmp_path, content), match)


def test_every_file_cut_short_is_refused(tmp_path):
    path = tmp_path / "cut.gguf"
    for size in range(len(SOUND)):
        path.write_bytes(SOUND[:size])
        refuses(path, "cut short|the file ends|in a file of|holds .* bytes")


def test_errors_say_what_to_do(tmp_path):
    assert refuses(written(tmp_path, SOUND[:-1])).endswith("download it again")


def test_names_and_values_in_errors_are_cut_to_a_readable_length(tmp_path):
    assert len(shown("x" * 10**6)) < 90
    assert shown(["x" * 10**6] * 10) == "an array of 10"
    assert shown(7) == "7"
    refuses(written(tmp_path, whole([key("k" * 60_000, 99, b"")])))


# ---- what is no file -------------------------------------------------------------------------------------------------


def test_a_missing_file_is_refused(tmp_path):
    refuses(tmp_path / "none.gguf", "cannot be read")
    with pytest.raises(DamagedFileError, match="cannot be read"):
        read_gguf(Path("a\0b"))


def test_a_folder_is_refused(tmp_path):
    refuses(tmp_path, "is not a file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    started = time.monotonic()
    refuses(tmp_path / "pipe.gguf", "is not a file")
    for device in ("/dev/zero", "/dev/null"):
        refuses(Path(device), "is not a file")
    assert time.monotonic() - started < 5


def test_parts_of_a_split_model_are_refused_with_a_cure(tmp_path):
    part = written(tmp_path, SOUND, "big-00001-of-00003.gguf")
    with pytest.raises(UnsupportedError, match=r"one of 3 parts.*llama-gguf-split --merge"):
        read_gguf(part)
    renamed = written(tmp_path, whole([key("split.count", 2, struct.pack("<H", 3))]))
    with pytest.raises(UnsupportedError, match="one of 3 parts"):
        read_gguf(renamed)
    assert read_gguf(written(tmp_path, SOUND, "small-00001-of-00001.gguf")).tensors


@pytest.mark.skipif(sys.platform == "win32", reason="Windows doesn't shorten a file that is open")
def test_a_file_that_becomes_shorter_is_noticed_before_its_bytes_are_touched(tmp_path):
    path = written(tmp_path, whole([], [tensor(sizes=(4096, 4))], bytes(4 * 4 * 4096)))
    read = read_gguf(path)
    os.truncate(path, 4096)
    for attempt in (read.tensors["a"].read, lambda: read.raw("a")):
        with pytest.raises(DamagedFileError, match="shorter"):
            attempt()


def test_a_file_that_is_replaced_stays_what_it_was(tmp_path):
    path = written(tmp_path, SOUND)
    read = read_gguf(path)
    written(tmp_path, whole(), "other.gguf").replace(path)
    np.testing.assert_array_equal(read.tensors["a"].read().ravel(), NUMBERS)


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", BAD)
def test_no_lie_costs_memory(tmp_path, what):
    path = written(tmp_path, BAD[what][0])
    tracemalloc.start()
    try:
        refuses(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_header_of_more_strings_than_any_vocabulary_has_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_file, "MAX_STRINGS", 1000)
    words = key("a", ARRAY, u32(STRING) + u64(1001) + 1001 * u64(0))
    refuses(written(tmp_path, whole([words])), "1001 strings")
    some = [key(name, ARRAY, u32(STRING) + u64(600) + 600 * u64(0)) for name in "ab"]
    refuses(written(tmp_path, whole(some)), "'b' would hold 600 strings")


def test_a_header_longer_than_any_vocabulary_needs_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_file, "MAX_HEADER", 1000)
    refuses(written(tmp_path, whole([key("a", STRING, string("x" * 2000))])), "longer than 1000 bytes")


# ---- mutations -------------------------------------------------------------------------------------------------------


def mutate(content, rng):
    """One of the ways in which files go wrong; gives the bytes, and where the first of them is that may differ."""
    at = int(rng.integers(len(content)))
    kind = int(rng.integers(6))
    changed = bytearray(content)
    if kind == 0:
        changed[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        changed[at] = int(rng.integers(256))
    elif kind == 2:
        del changed[at:]
    elif kind == 3:
        del changed[at : at + int(rng.integers(1, 40))]
    elif kind == 4:
        changed[at:at] = rng.bytes(int(rng.integers(1, 40)))
    else:
        values = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1)
        changed[at : at + 8] = u64(values[int(rng.integers(len(values)))])
    return bytes(changed), at


def rich_file():
    """Every kind of value and several types of tensors."""
    keys = [
        NAME,
        key("general.alignment", U32, u32(64)),
        key("flag", BOOL, b"\1"),
        key("floats", ARRAY, u32(6) + u64(3) + bytes(12)),
        key("words", ARRAY, u32(STRING) + u64(4) + b"".join(map(string, ("a", "ä", "", "日本")))),
        key("flags", ARRAY, u32(BOOL) + u64(2) + b"\0\1"),
    ]
    tensors = [tensor("x", (4, 2)), tensor("y", (32, 2), 8, 64), tensor("z", (256,), 14, 192)]
    data = np.random.default_rng(0).integers(0, 60, 192 + 210, dtype=np.uint8)
    return whole(keys, tensors, data.tobytes(), alignment=64)


def check_mutations(path, count, seed):
    """Each mutant is refused by an error of ours or read; tensors whose bytes were not touched stay what they were."""
    sound = rich_file()
    path.write_bytes(sound)
    original = read_gguf(path)
    numbers = {name: stored.read() for name, stored in original.tensors.items()}
    data_start = min(place.offset for place in original.places.values())
    rng = np.random.default_rng(seed)
    for _ in range(count):
        content, at = mutate(sound, rng)
        path.write_bytes(content)
        try:
            read = read_gguf(path)
            found = {name: stored.read() for name, stored in read.tensors.items()}
        except GlassGPTError as error:
            assert len(str(error)) < 600
            continue
        if at >= data_start:
            assert read.metadata.keys() == original.metadata.keys()
            for name, place in original.places.items():
                if place.end <= at:
                    np.testing.assert_array_equal(found[name], numbers[name])


def test_five_hundred_mutants_are_refused_or_harmless(tmp_path):
    check_mutations(tmp_path / "mutant.gguf", 500, seed=0)


@pytest.mark.slow
def test_ten_thousand_mutants_are_refused_or_harmless(tmp_path):
    check_mutations(tmp_path / "mutant.gguf", 10_000, seed=1)
