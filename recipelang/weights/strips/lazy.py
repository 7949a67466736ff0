"""Arrays that only note what is asked of them, under numpy's names.

A kernel that is written over ``xp`` (:mod:`recipelang.weights.kernel`) runs on them unchanged: one
operation an element is noted as a node; anything else (a sort, a sum along an axis) has numpy do it
on what the nodes before it give. Nodes never change: ``x *= 2`` gives the name ``x`` another one.

Results have numpy's bits: Python numbers take an array's dtype, booleans count as 0 and 1.

Example:
    >>> x = of(np.array([1.0, -2.0], np.float32))
    >>> x *= x > 0
    >>> concrete(x + 1)      # doctest: +SKIP
    array([2., 1.], dtype=float32)
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from recipelang.weights.kernel import Array
from recipelang.weights.kernels.thinning import row_ranks
from recipelang.weights.strips.program import Program, operations
from recipelang.weights.strips.ranks import SHORTEST, rank_rows

__all__ = ["XP", "Lazy", "Namespace", "checked", "concrete", "convert", "converts", "of", "wrapped"]

F4, F8, U1, U2 = (np.dtype(name) for name in ("f4", "f8", "u1", "u2"))
BOOL, BF16, F16 = np.dtype("?"), np.dtype(ml_dtypes.bfloat16), np.dtype("f2")
KINDS = {F4: "f4", F8: "f8", U1: "u1", BOOL: "u1", U2: "u2", BF16: "bf", F16: "f2"}
EXPONENTS = {F4: 0x7F80_0000, F8: 0x7FF0_0000_0000_0000, BF16: 0x7F80, F16: 0x7C00}
FUNCTIONS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide,
    "max": np.maximum, "min": np.minimum, "gt": np.greater, "ge": np.greater_equal,
    "lt": np.less, "le": np.less_equal, "eq": np.equal, "ne": np.not_equal,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "copysign": np.copysign,
}  # fmt: skip
UNARY: dict[str, Callable[[Any], Any]] = {"abs": np.abs, "neg": np.negative, "sqrt": np.sqrt}
NAMES = {function: name for name, function in FUNCTIONS.items()}
COMPARISONS = frozenset({"gt", "ge", "lt", "le", "eq", "ne"})
SWAPPED = {"gt": "lt", "ge": "le", "lt": "gt", "le": "ge"}
LARGEST = {U1: 0xFF, U2: 0xFFFF}
COUNTER = count()


def _operator(name: str, *, reflected: bool = False) -> Callable[[Any, Any], Any]:
    if reflected:
        return lambda self, other: _binary(name, other, self)
    return lambda self, other: _binary(name, self, other)


def _assignment(name: str) -> Callable[[Any, Any], Any]:
    return lambda self, other: _assigned(_binary(name, self, other), self.dtype)


class Lazy:
    """A 1-D array of ``length`` elements: the instruction that gives it from its ``args``. One that
    stands in memory is a "load" of its ``value``; "same" is another node under another dtype."""

    __slots__ = ("args", "dtype", "failure", "length", "number", "op", "order", "value", "word")

    def __init__(
        self, op: str, args: tuple[Lazy, ...], dtype: np.dtype[Any], length: int,
        number: float = 0.0, word: int = 0,
    ) -> None:  # fmt: skip
        self.op, self.args, self.dtype, self.length = op, args, dtype, length
        self.number, self.word = number, word
        self.order = next(COUNTER)
        self.value: NDArray[Any] | None = None
        self.failure: Callable[[], Exception] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """One axis."""
        return (self.length,)

    @property
    def ndim(self) -> int:
        """One axis."""
        return 1

    def __len__(self) -> int:
        return self.length

    def __bool__(self) -> bool:
        return bool(concrete(self))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        found: NDArray[Any] = np.array(concrete(self), dtype, copy=copy)
        return found

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **named: Any) -> Any:
        """What numpy asks where one of its arrays meets a lazy one, ``array += lazy`` included."""
        name = NAMES.get(ufunc)
        out = named.pop("out", (None,))[0]
        if name is not None and method == "__call__" and not named:
            found = _binary(name, *args)
        else:
            found = getattr(ufunc, method)(*map(concrete, args), **named)
        if out is None:
            return found
        if out is args[0]:
            return _assigned(found, out.dtype)
        out[...] = concrete(found)
        return out

    def __getitem__(self, key: Any) -> Any:
        return concrete(self)[key]

    def reshape(self, *shape: Any) -> NDArray[Any]:
        """A numpy array."""
        found: NDArray[Any] = concrete(self).reshape(*shape)
        return found

    def __abs__(self) -> Array:
        return _unary("abs", self)

    def __neg__(self) -> Array:
        return _unary("neg", self)

    def __invert__(self) -> Array:
        if self.dtype != BOOL:
            return wrapped(~concrete(self))
        return Lazy("u1_xor_vn", (self,), BOOL, self.length, number=1)

    def __pow__(self, exponent: Any) -> Array:
        if _is_number(exponent) and exponent == 2 and self.dtype in (F4, F8):
            return self * self
        return wrapped(concrete(self) ** concrete(exponent))

    __hash__ = object.__hash__
    __add__, __radd__ = _operator("add"), _operator("add", reflected=True)
    __sub__, __rsub__ = _operator("sub"), _operator("sub", reflected=True)
    __mul__, __rmul__ = _operator("mul"), _operator("mul", reflected=True)
    __truediv__, __rtruediv__ = _operator("div"), _operator("div", reflected=True)
    __and__, __rand__ = _operator("and"), _operator("and", reflected=True)
    __or__, __ror__ = _operator("or"), _operator("or", reflected=True)
    __xor__, __rxor__ = _operator("xor"), _operator("xor", reflected=True)
    __iadd__, __isub__ = _assignment("add"), _assignment("sub")
    __imul__, __itruediv__ = _assignment("mul"), _assignment("div")
    __iand__, __ior__, __ixor__ = _assignment("and"), _assignment("or"), _assignment("xor")
    __gt__, __ge__ = _operator("gt"), _operator("ge")
    __lt__, __le__ = _operator("lt"), _operator("le")
    __eq__, __ne__ = _operator("eq"), _operator("ne")


class _Places:
    """first, first + 1, ... as a comparison with a number sees them."""

    def __init__(self, length: int, first: int = 0) -> None:
        self._length, self._first = length, first

    def __radd__(self, first: int) -> _Places:
        return _Places(self._length, self._first + first)

    def __mod__(self, divisor: int) -> NDArray[Any]:
        return np.arange(self._first, self._first + self._length) % divisor

    def __lt__(self, place: int) -> Lazy:
        return Lazy("before", (), BOOL, self._length, number=float(place - self._first))

    def __le__(self, place: int) -> Lazy:
        return self < place + 1


def of(array: Any) -> Lazy:
    """The node of an array that stands in memory; a node itself."""
    if isinstance(array, Lazy):
        return array
    node = Lazy("load", (), array.dtype, array.size)
    node.value = np.require(array, requirements=("C", "A"))
    return node


def wrapped(result: Any) -> Any:
    """What numpy gave as kernels go on with it: they may assign in place to a 1-D array while nodes
    still lead to it, so it becomes one that never changes."""
    return of(result) if getattr(result, "ndim", 0) == 1 else result


def concrete(array: Any) -> Any:
    """The array in memory; what is none already stays as it is."""
    if not isinstance(array, Lazy):
        return array
    if array.value is None:
        array.value = Program((array,)).run(array.length).values[0]
        array.op, array.args = "load", ()
    return array.value


def checked(array: Any, failure: Callable[[], Exception]) -> Lazy:
    """The same array; whoever computes what follows from it raises ``failure()`` where it holds
    infinities or NaN."""
    node = of(array)
    dtype = node.dtype
    look = Lazy(f"u{dtype.itemsize}_finite", (node,), U1, node.length, word=EXPONENTS[dtype])
    look.failure = failure
    return Lazy("same", (node, look), dtype, node.length)


def convert(array: Any, dtype: np.dtype[Any]) -> Any:
    """The elements in another dtype, rounded once; of no array that stands in memory it is a
    view."""
    source = array.dtype
    if not isinstance(array, Lazy):
        if source != dtype and not converts(source, dtype):
            return array.astype(dtype)
        array = of(array)
    if source == dtype:
        return array
    if source == BOOL and dtype == U1:
        return Lazy("same", (array,), U1, array.length)
    if not converts(source, dtype):
        return concrete(array).astype(dtype)
    return Lazy(f"{KINDS[source]}_{KINDS[dtype]}", (array,), dtype, array.length)


def converts(source: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """Whether there is an instruction from one dtype to another, which rounds once."""
    return f"{KINDS.get(source)}_{KINDS.get(dtype)}" in operations()


def _unary(name: str, array: Any) -> Any:
    op = f"{KINDS.get(array.dtype)}_{name}"
    if not isinstance(array, Lazy) or op not in operations():
        return wrapped(UNARY[name](concrete(array)))
    return Lazy(op, (array,), array.dtype, array.length)


def _binary(name: str, a: Any, b: Any) -> Any:
    found = _noted(name, a, b)
    if found is None:
        with np.errstate(all="ignore"):
            return wrapped(FUNCTIONS[name](concrete(a), concrete(b)))
    return found


def _assigned(found: Any, dtype: np.dtype[Any]) -> Any:
    """What was found, under the dtype of the array that it is assigned to."""
    if found.dtype == dtype:
        return found
    if not np.can_cast(found.dtype, dtype, "same_kind"):
        raise TypeError(f"{found.dtype} is not assigned to an array of {dtype}")
    return wrapped(convert(found, dtype))


def _noted(name: str, a: Any, b: Any) -> Lazy | None:
    """The node, None where there is no instruction for it."""
    if _is_number(a):
        if b.ndim != 1:
            return None
        if f"f4_{name}_nv" in operations():
            return _with_number(name, "nv", b, a)
        return _with_number(SWAPPED.get(name, name), "vn", b, a)
    if _is_number(b):
        return _with_number(name, "vn", a, b) if a.ndim == 1 else None
    if a.ndim != 1 or a.shape != b.shape:
        return None
    x, y = of(a), of(b)
    if x.dtype != y.dtype:
        common = np.result_type(x.dtype, y.dtype)
        x, y = convert(x, common), convert(y, common)
        if not isinstance(x, Lazy) or not isinstance(y, Lazy):
            return None
    elif x.dtype == BOOL and name not in ("and", "or", "xor"):
        return None
    op = f"{KINDS.get(x.dtype)}_{name}_vv"
    if op not in operations():
        return None
    return Lazy(op, (x, y), BOOL if name in COMPARISONS else x.dtype, x.length)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, np.generic)


def _with_number(name: str, kind: str, array: Any, number: float) -> Lazy | None:
    node = of(array)
    dtype = node.dtype
    op = f"{KINDS.get(dtype)}_{name}_{kind}"
    if op not in operations() or dtype == BOOL:
        return None
    if dtype in LARGEST:
        if not isinstance(number, int) or not 0 <= number <= LARGEST[dtype]:
            return None
        if name == "add" and number == 0:
            return node
    result = BOOL if name in COMPARISONS else dtype
    return Lazy(op, (node,), result, node.length, number=float(number))


class Namespace:
    """numpy's names over lazy arrays."""

    lazy = True
    float32, float64, uint8, int32, bool_ = F4, F8, U1, np.dtype("i4"), BOOL

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        if not callable(function) or isinstance(function, type):
            return function

        def on_numpy(*args: Any, **named: Any) -> Any:
            return wrapped(
                function(*map(concrete, args), **{k: concrete(v) for k, v in named.items()})
            )

        return on_numpy

    def abs(self, x: Any) -> Any:
        """Magnitudes."""
        return _unary("abs", x)

    def sqrt(self, x: Any) -> Any:
        """Square roots; of a Python number a number."""
        return _unary("sqrt", x) if hasattr(x, "dtype") else np.sqrt(x)

    def square(self, x: Any) -> Any:
        """Squares."""
        return x * x

    def maximum(self, a: Any, b: Any) -> Any:
        """NaN where one is."""
        return _binary("max", a, b)

    def minimum(self, a: Any, b: Any) -> Any:
        """NaN where one is."""
        return _binary("min", a, b)

    def copysign(self, a: Any, b: Any) -> Any:
        """The magnitude of ``a`` with the sign of ``b``."""
        return _binary("copysign", a, b)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        """``a`` where the condition holds, else ``b``."""
        found = _where(condition, a, b)
        if found is not None:
            return found
        return wrapped(np.where(*map(concrete, (condition, a, b))))

    def astype(self, x: Any, dtype: Any) -> Any:
        """In another dtype. Nodes never change, so the same dtype needs no copy."""
        return wrapped(convert(x, np.dtype(dtype)) if x.ndim == 1 else x.astype(dtype))

    def zeros(self, length: int, dtype: Any) -> Any:
        """Zeros."""
        wanted = np.dtype(dtype)
        if f"{KINDS.get(wanted)}_fill" not in operations():
            return wrapped(np.zeros(length, wanted))
        return Lazy(f"{KINDS[wanted]}_fill", (), wanted, length)

    def zeros_like(self, x: Any) -> Any:
        """Zeros."""
        return self.zeros(len(x), x.dtype) if isinstance(x, Lazy) else np.zeros_like(x)

    def arange(self, length: int) -> Any:
        """Places to compare with a number, or to take the rest of a division of."""
        return _Places(length)

    def row_ranks(self, x: Any, row: int) -> Any:
        """See :func:`recipelang.weights.kernels.thinning.row_ranks`."""
        values = concrete(x)
        if row < SHORTEST or values.dtype != F4:
            return wrapped(row_ranks(np, values, row))
        return of(rank_rows(np.ascontiguousarray(values), row))

    def half_words(self, key: tuple[int, int], start: int, stop: int) -> Any:
        """See :mod:`recipelang.weights.kernels.uniform_bits`."""
        word = key[0] | key[1] << 32
        return Lazy("half_words", (), U2, stop - start, number=float(start), word=word)


XP = Namespace()


def _where(condition: Any, a: Any, b: Any) -> Lazy | None:
    arrays = [one for one in (condition, a, b) if hasattr(one, "dtype")]
    if any(one.ndim != 1 or one.shape != arrays[0].shape for one in arrays):
        return None
    dtypes = {one.dtype for one in (a, b) if hasattr(one, "dtype")}
    if len(dtypes) != 1 or not hasattr(condition, "dtype") or condition.dtype != BOOL:
        return None
    (dtype,) = dtypes
    if dtype not in (F4, F8):
        return None
    length = len(condition)

    def node(one: Any) -> Lazy:
        if hasattr(one, "dtype"):
            return of(one)
        return Lazy(f"{KINDS[dtype]}_fill", (), dtype, length, number=float(one))

    return Lazy(f"{KINDS[dtype]}_where", (node(a), node(b), node(condition)), dtype, length)
