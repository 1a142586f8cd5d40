"""The C engine from Python: parameters packed once, then tokens in and logits out, as NumPy arrays.

decode.c trusts its caller. So every size, id and position is checked here, memory belongs to NumPy arrays that live as
long as what points into them, and one lock lets one step run at a time on the same weights.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Self, get_args

import numpy as np

from glassgpt.errors import NumericalError, UsageError
from glassgpt.models.config import MLP, GPTConfig, parameter_shapes
from glassgpt.models.native.build import library, why_not
from glassgpt.models.positions import alibi_slopes, rope_frequencies, sinusoids

Format = Literal["float32", "bfloat16", "int8", "int4"]
FORMATS: tuple[Format, ...] = get_args(Format)  # in the order of decode.c's enum
ACTIVATIONS: tuple[MLP, ...] = ("gelu", "gelu_tanh", "relu2", "swiglu")  # likewise

ROWS = 16  # tokens in one call of the C step; longer blocks are cut
SMALLEST = 256  # positions that a cache begins with; doubled when they are full
LINE = 64  # bytes to which everything is aligned
HUGE = 1 << 21  # bytes of a huge page
MOST_THREADS = 256


# ---- The structs of decode.c ----


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("tiles", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("format", ctypes.c_int32),
        ("n_out", ctypes.c_int32),
        ("n_in", ctypes.c_int32),
    )


class _Norm(ctypes.Structure):
    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p))


class _Layer(ctypes.Structure):
    _fields_ = (
        ("ln_1", _Norm),
        ("ln_2", _Norm),
        ("c_attn", _Matrix),
        ("attn_proj", _Matrix),
        ("c_fc", _Matrix),
        ("mlp_proj", _Matrix),
        ("q_norm", ctypes.c_void_p),
        ("k_norm", ctypes.c_void_p),
    )


_SIZES = ("vocab_size", "n_layer", "n_head", "n_kv_head", "head_size", "n_embd", "n_hidden")


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in _SIZES),
        ("activation", ctypes.c_int32),
        ("post_norm", ctypes.c_int32),
        ("quantised", ctypes.c_int32),
        ("epsilon", ctypes.c_float),
        ("positions", ctypes.c_void_p),
        ("frequencies", ctypes.c_void_p),
        ("slopes", ctypes.c_void_p),
        ("layers", ctypes.POINTER(_Layer)),
        ("embedding", _Matrix),
        ("output", _Matrix),
        ("ln_f", _Norm),
    )


class _Cache(ctypes.Structure):
    _fields_ = (
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("capacity", ctypes.c_int32),
        ("halves", ctypes.c_int32),
    )


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "glass_packed_bytes": (ctypes.c_size_t, [ctypes.c_int] * 3),
    "glass_pack": (None, [ctypes.c_int] * 3 + [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]),
    "glass_unpack": (None, [ctypes.POINTER(_Matrix), ctypes.c_void_p]),
    "glass_team_new": (ctypes.c_void_p, [ctypes.c_int] * 2),
    "glass_team_free": (None, [ctypes.c_void_p]),
    "glass_buffer_bytes": (ctypes.c_size_t, [ctypes.POINTER(_Model)] + [ctypes.c_int] * 3),
    "glass_step": (
        None,
        [ctypes.POINTER(_Model), ctypes.c_void_p, ctypes.POINTER(_Cache), ctypes.c_void_p]
        + [ctypes.c_int] * 4
        + [ctypes.c_void_p] * 2,
    ),
    "glass_activate": (None, [ctypes.c_int] * 2 + [ctypes.c_void_p] * 2),
    "glass_lanes": (ctypes.c_int, []),
    "glass_head_stride": (ctypes.c_int, [ctypes.POINTER(_Model)]),
    "glass_fast_halves": (ctypes.c_int, []),
}


@functools.cache
def engine() -> ctypes.CDLL:
    """The compiled decode.c, its functions typed. Raises UsageError where there is none."""
    loaded = library()
    if loaded is None:
        raise UsageError(f"there is no native engine here: {why_not()}. The torch and array models need none")
    return typed(loaded)


def typed(loaded: ctypes.CDLL) -> ctypes.CDLL:
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def zeros(n_bytes: int) -> np.ndarray:
    """A zeroed uint8 array (n_bytes,) that begins at a cache line, in huge pages where it is large and they exist.

    Huge pages count: a pass over the weights is up to twice as fast with them (`benchmarks/native.py`).
    """
    if n_bytes < HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        plain = np.zeros(n_bytes + LINE, dtype=np.uint8)
        start = -plain.ctypes.data % LINE
        return plain[start : start + n_bytes]
    pages = mmap.mmap(-1, n_bytes + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them
        pages.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(pages, dtype=np.uint8)  # keeps the pages until the last view of it is gone
    start = -array.ctypes.data % HUGE
    return array[start : start + n_bytes]


def default_threads() -> int:
    """As many as this process may use cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_THREADS)


class _Team:
    """The threads of some weights. They sleep between steps and end with the weights.

    They don't survive os.fork(): a child makes a team of its own. A thread that woke too late for a step may still
    look at the model when the step is over, so the team keeps what describes it.
    """

    def __init__(self, threads: int, n_layer: int, keeps: object) -> None:
        lib = engine()
        self.threads, self.process, self.keeps = threads, os.getpid(), keeps
        self.pointer = lib.glass_team_new(threads, n_layer)
        if not self.pointer:
            raise MemoryError("no memory for the threads of the native engine")
        weakref.finalize(self, _Team._free, lib.glass_team_free, self.pointer, self.process)

    @staticmethod
    def _free(free: Any, pointer: int, process: int) -> None:
        if os.getpid() == process:
            free(pointer)


class Weights:
    """A GPT's parameters as the C engine reads them. Made by `pack`; texts begin with `cache()`."""

    def __init__(
        self,
        config: GPTConfig,
        params: Mapping[str, np.ndarray],
        format: Format,
        output_format: Format,
        threads: int,
    ) -> None:
        self.config = config
        self.format, self.output_format = format, output_format
        self.threads = threads
        self.halves = format != "float32" and bool(engine().glass_fast_halves())
        self.lock = threading.Lock()
        self._floats: dict[str, np.ndarray] = {}  # norms, biases and positions
        self._matrices: dict[str, _Matrix] = {}
        self._pack(params)
        self._model = self._describe()
        self._team: _Team | None = None
        self._buffer = zeros(0)
        self._buffer_for = (0, 0)  # threads and positions

    @property
    def threads(self) -> int:
        return self._threads

    @threads.setter
    def threads(self, threads: int) -> None:
        if not 1 <= threads <= MOST_THREADS:
            raise UsageError(f"expected 1 to {MOST_THREADS} threads, got {threads}")
        self._threads = threads

    @property
    def n_bytes(self) -> int:
        """Bytes of packed matrices that one step reads: all but an embedding that only gives rows."""
        return self._bytes_of(name for name in self._matrices if name != "wte.weight" or self.config.tied)

    def cache(self) -> Cache:
        """An empty text."""
        return Cache(self)

    def dequantised(self, name: str) -> np.ndarray:
        """What the packed weights stand for: the parameter `name` as a float32 array of its own shape."""
        if name in self._floats:
            return self._floats[name].copy()
        if name not in self._matrices:
            raise UsageError(f"a model of this shape has no parameter {name!r}")
        matrix = self._matrices[name]
        rows = np.empty((matrix.n_out, matrix.n_in), dtype=np.float32)
        engine().glass_unpack(ctypes.byref(matrix), rows.ctypes.data)
        return rows if _rows_are_outputs(name) else np.ascontiguousarray(rows.T)

    # ---- Packing ----

    def _pack(self, params: Mapping[str, np.ndarray]) -> None:
        shapes = parameter_shapes(self.config)
        if params.keys() != shapes.keys():
            wrong = sorted(params.keys() ^ shapes.keys())[0]
            has = "has no" if wrong in params else "needs a"
            raise UsageError(f"a model of this shape {has} parameter {wrong}: pass what parameter_shapes(config) names")
        for name, shape in shapes.items():
            if params[name].shape != shape:
                raise UsageError(f"{name} should be of shape {shape} in this model, and is {params[name].shape}")
        matrices = [name for name in shapes if _is_matrix(name)]
        self._reserve(matrices)
        for name in shapes.keys() - set(matrices):
            self._floats[name] = _finite(name, params[name])
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(lambda name: self._pack_matrix(name, params[name]), matrices))

    def _format_of(self, name: str) -> Format:
        if name == "lm_head.weight" or (name == "wte.weight" and self.config.tied):
            return self.output_format
        if name == "wte.weight" and self.format == "int4":
            return "int8"  # a lookup costs nothing, so nothing is won by fewer bits
        return self.format

    def _reserve(self, names: list[str]) -> None:
        """One stretch of memory for all matrices, in the order in which a step reads them."""
        shapes = parameter_shapes(self.config)
        names = sorted(names, key=lambda name: not name.startswith("h."))  # layers first, then the output
        for name in names:
            n_out, n_in = shapes[name] if _rows_are_outputs(name) else reversed(shapes[name])
            self._matrices[name] = _Matrix(None, None, FORMATS.index(self._format_of(name)), n_out, n_in)
        self._memory = zeros(self._bytes_of(names))
        address = self._memory.ctypes.data
        for name in names:
            self._matrices[name].tiles = address
            address += self._bytes_of([name])

    def _bytes_of(self, names: Iterable[str]) -> int:
        matrices = (self._matrices[name] for name in names)
        return sum(engine().glass_packed_bytes(m.format, m.n_out, m.n_in) for m in matrices)

    def _pack_matrix(self, name: str, value: np.ndarray) -> None:
        value = _finite(name, value)
        matrix = self._matrices[name]
        strides = (value.shape[1], 1) if _rows_are_outputs(name) else (1, value.shape[1])
        engine().glass_pack(matrix.format, matrix.n_out, matrix.n_in, value.ctypes.data, *strides, matrix.tiles)

    # ---- The model as decode.c's struct; every pointer leads into an array that `self` keeps ----

    def _describe(self) -> _Model:
        c = self.config
        if c.position == "sinusoidal":
            self._positions = sinusoids(c.context_length, c.n_embd).astype(np.float32)
        elif c.position == "learned":
            self._positions = self._floats["wpe.weight"]
        self._frequencies = np.ascontiguousarray(rope_frequencies(c), dtype=np.float64)
        self._slopes = alibi_slopes(c.n_head).astype(np.float32)
        self._layers = (_Layer * c.n_layer)(*(self._layer(f"h.{i}") for i in range(c.n_layer)))
        sizes = (c.vocab_size, c.n_layer, c.n_head, c.kv_heads, c.head_width, c.n_embd, c.hidden_width)
        return _Model(
            *sizes,
            ACTIVATIONS.index(c.mlp),
            c.post_norm,
            any(FORMATS[matrix.format].startswith("int") for matrix in self._matrices.values()),
            c.norm_epsilon,
            self._positions.ctypes.data if c.position in ("learned", "sinusoidal") else None,
            self._frequencies.ctypes.data if c.position == "rope" else None,
            self._slopes.ctypes.data if c.position == "alibi" else None,
            self._layers,
            self._matrices["wte.weight"],
            self._matrices["wte.weight" if c.tied else "lm_head.weight"],
            self._norm("ln_f"),
        )

    def _layer(self, name: str) -> _Layer:
        return _Layer(
            self._norm(f"{name}.ln_1"),
            self._norm(f"{name}.ln_2"),
            self._linear(f"{name}.attn.c_attn"),
            self._linear(f"{name}.attn.c_proj"),
            self._linear(f"{name}.mlp.c_fc"),
            self._linear(f"{name}.mlp.c_proj"),
            self._address(f"{name}.attn.q_norm.weight"),
            self._address(f"{name}.attn.k_norm.weight"),
        )

    def _linear(self, name: str) -> _Matrix:
        matrix = self._matrices[f"{name}.weight"]
        matrix.bias = self._address(f"{name}.bias")
        return matrix

    def _norm(self, name: str) -> _Norm:
        return _Norm(self._address(f"{name}.weight"), self._address(f"{name}.bias"))

    def _address(self, name: str) -> int | None:
        return self._floats[name].ctypes.data if name in self._floats else None

    # ---- Stepping ----

    def _step(self, cache: _Cache, tokens: np.ndarray, position: int, first_logits: int, logits: np.ndarray) -> None:
        """One call of the C step, under the lock. All arguments have been checked."""
        model = ctypes.byref(self._model)
        if self._team is None or (self._team.threads, self._team.process) != (self.threads, os.getpid()):
            self._team = _Team(self.threads, self.config.n_layer, (self._model, self._layers))
        threads, positions = self._buffer_for
        if threads != self.threads or positions < cache.capacity:
            n_bytes = engine().glass_buffer_bytes(model, self.threads, ROWS, cache.capacity)
            self._buffer, self._buffer_for = zeros(n_bytes), (self.threads, cache.capacity)
        engine().glass_step(
            model, self._team.pointer, ctypes.byref(cache), tokens.ctypes.data, len(tokens),
            position, first_logits, ROWS, self._buffer.ctypes.data, logits.ctypes.data,
        )  # fmt: skip


class Cache:
    """One text: the keys and values of its first `length` tokens. Keys are kept normalised and turned, as used.

    In float32 they are float32; with other formats they are float16 where the processor reads those at no cost.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._length = 0
        self._stride = engine().glass_head_stride(ctypes.byref(weights._model))
        self._allocate(min(SMALLEST, weights.config.context_length))

    @property
    def length(self) -> int:
        """How many tokens the text holds. Set it after writing into `keys` and `values`."""
        return self._length

    @length.setter
    def length(self, length: int) -> None:
        if not 0 <= length <= self.capacity:
            raise UsageError(f"a cache of {self.capacity} positions can't hold {length} tokens: call reserve first")
        self._length = length

    @property
    def keys(self) -> np.ndarray:
        """A view (n_layer, n_kv_head, capacity, head_size), float32 or float16, valid until the capacity grows."""
        return self._keys[..., : self.weights.config.head_width]

    @property
    def values(self) -> np.ndarray:
        """As `keys`."""
        return self._values[..., : self.weights.config.head_width]

    def reserve(self, length: int) -> None:
        """Make room for texts of `length` tokens in all."""
        context_length = self.weights.config.context_length
        if length > context_length:
            raise UsageError(
                f"{length} tokens don't fit this model's context of {context_length}: "
                "crop the text and begin a new cache"
            )
        if length <= self.capacity:
            return
        keys, values = self._keys, self._values
        self._allocate(min(max(length, 2 * self.capacity), context_length))
        self._keys[:, :, : self.length] = keys[:, :, : self.length]
        self._values[:, :, : self.length] = values[:, :, : self.length]

    def extend(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Append n tokens whose keys and values were computed elsewhere: arrays (n_layer, n_kv_head, n, head_size)."""
        L, K, _, D = self.keys.shape
        for name, array in (("keys", keys), ("values", values)):
            if array.ndim != 4 or (*array.shape[:2], array.shape[3]) != (L, K, D) or array.shape != keys.shape:
                raise UsageError(f"expected {name} of shape ({L}, {K}, tokens, {D}), got {array.shape}")
        end = self.length + keys.shape[2]
        self.reserve(end)
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end

    def step(self, tokens: Sequence[int] | np.ndarray, last_only: bool = False) -> np.ndarray:
        """Append tokens (n,) and return the logits after each: float32 (n, vocab_size); with `last_only` (1, ...)."""
        ids = self._checked(tokens)
        n, weights = len(ids), self.weights
        logits = np.empty((1 if last_only else n, weights.config.vocab_size), dtype=np.float32)
        with weights.lock:
            self.reserve(self.length + n)
            for start in range(0, n, ROWS):
                block = ids[start : start + ROWS]
                wanted = logits if last_only else logits[start:]
                first = 0 if not last_only else len(block) - (start + ROWS >= n)
                weights._step(self._struct, block, self.length, first, wanted)
                self._length += len(block)
        return logits

    def rewind(self, n: int) -> None:
        """Forget the last `n` tokens."""
        if not 0 <= n <= self.length:
            raise UsageError(f"cannot rewind {n} tokens of a text that holds {self.length}")
        self._length -= n

    def fork(self) -> Self:
        """An independent copy."""
        copy = type(self)(self.weights)
        copy.extend(self.keys[:, :, : self.length], self.values[:, :, : self.length])
        return copy

    def _checked(self, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
        array = np.asarray(tokens)
        if array.ndim != 1 or not len(array) or not np.issubdtype(array.dtype, np.integer):
            raise UsageError(
                f"expected integer token ids of shape (n,), n >= 1, got {array.dtype} of shape {array.shape}: "
                "a native cache holds one text"
            )
        V = self.weights.config.vocab_size
        if array.min() < 0 or array.max() >= V:
            wrong = array[(array < 0) | (array >= V)][0]
            raise UsageError(f"token id {wrong} is outside this model's vocabulary of {V} (ids 0 to {V - 1})")
        return np.ascontiguousarray(array, dtype=np.int32)

    def _allocate(self, capacity: int) -> None:
        config = self.weights.config
        shape = (config.n_layer, config.kv_heads, capacity, self._stride)
        dtype = np.dtype(np.float16 if self.weights.halves else np.float32)
        n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self._keys, self._values = (zeros(n_bytes).view(dtype).reshape(shape) for _ in range(2))
        self.capacity = capacity
        self._struct = _Cache(self._keys.ctypes.data, self._values.ctypes.data, capacity, self.weights.halves)


def pack(
    config: GPTConfig,
    params: Mapping[str, np.ndarray],
    format: Format = "float32",
    output_format: Format | None = None,
    threads: int | None = None,
) -> Weights:
    """The parameters (see `parameter_shapes`; Linear matrices (in, out)) packed for decoding.

    `format` is that of the Linear matrices: float32, bfloat16, int8 (blocks of 32 with a scale, 8.5 bits a weight) or
    int4 (blocks of 32 with a scale and a minimum, 5 bits a weight). `output_format` is that of the output matrix, left
    at None the same, but int8 for int4: that matrix suffers most. With int8 and int4 the activations are rounded to
    8 bits as well. Norms, biases and learned positions stay float32. `threads`: None for all cores.
    """
    for chosen in (format, output_format or format):
        if chosen not in FORMATS:
            raise UsageError(f"weights can be packed as {', '.join(FORMATS)}; got {chosen!r}")
    output: Format = output_format or ("int8" if format == "int4" else format)
    return Weights(config, params, format, output, default_threads() if threads is None else threads)


def activated(name: MLP, x: np.ndarray) -> np.ndarray:
    """An activation as the engine computes it: float32 (n,) to (n,). With swiglu, x holds gates and then values."""
    x = np.ascontiguousarray(x, dtype=np.float32)
    n = len(x) // 2 if name == "swiglu" else len(x)
    result = np.empty(n, dtype=np.float32)
    engine().glass_activate(ACTIVATIONS.index(name), n, x.ctypes.data, result.ctypes.data)
    return result


def _is_matrix(name: str) -> bool:
    return name in ("wte.weight", "lm_head.weight") or name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))


def _rows_are_outputs(name: str) -> bool:
    """Whether the parameter is (out, in): the embedding and the output matrix are, Linear matrices are (in, out)."""
    return name in ("wte.weight", "lm_head.weight")


def _finite(name: str, value: np.ndarray) -> np.ndarray:
    value = np.ascontiguousarray(value, dtype=np.float32)
    if not np.isfinite(value).all():
        raise NumericalError(f"{name} holds NaN or infinity (or a number too large for float32)")
    return value
