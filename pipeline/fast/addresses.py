"""Where arrays lie, in one array: a call that is handed fifty arrays spends 7 µs on looking at them."""

from __future__ import annotations

from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from numba.extending import intrinsic

from pipeline.core.readings import IntArray
from pipeline.fast.compile import entered

MOST_DIMENSIONS = 5
Scalar = TypeVar("Scalar", bound=np.generic)


def addresses(*arrays: npt.NDArray[Any]) -> IntArray:
    """(arrays, 1 + MOST_DIMENSIONS): address and shape of each. Whoever uses them keeps the arrays alive."""
    out = np.zeros((len(arrays), 1 + MOST_DIMENSIONS), np.int64)
    for row, array in zip(out, arrays, strict=True):
        if not array.flags.c_contiguous:
            raise ValueError(f"an array of shape {array.shape} is not contiguous: its address does not say where it is")
        row[0], row[1 : 1 + array.ndim] = array.ctypes.data, array.shape
    return out


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(_: Any, address: Any, scalar: Any) -> Any:
    """An address as the pointer that `numba.carray` asks for."""
    to = numba.types.CPointer(scalar.dtype)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(to))

    return to(address, scalar), generate


@entered
def vector(at: IntArray, scalar: type[Scalar]) -> npt.NDArray[Scalar]:
    """The array of one dimension behind a row of `addresses`."""
    array: npt.NDArray[Scalar] = numba.carray(_pointer(at[0], scalar), (at[1],))
    return array


@entered
def matrix(at: IntArray, scalar: type[Scalar]) -> npt.NDArray[Scalar]:
    """The array of two dimensions."""
    array: npt.NDArray[Scalar] = numba.carray(_pointer(at[0], scalar), (at[1], at[2]))
    return array


@entered
def cube(at: IntArray, scalar: type[Scalar]) -> npt.NDArray[Scalar]:
    """The array of three dimensions."""
    array: npt.NDArray[Scalar] = numba.carray(_pointer(at[0], scalar), (at[1], at[2], at[3]))
    return array


@entered
def block(at: IntArray, scalar: type[Scalar]) -> npt.NDArray[Scalar]:
    """The array of four dimensions."""
    array: npt.NDArray[Scalar] = numba.carray(_pointer(at[0], scalar), (at[1], at[2], at[3], at[4]))
    return array


@entered
def stack(at: IntArray, scalar: type[Scalar]) -> npt.NDArray[Scalar]:
    """The array of five dimensions."""
    array: npt.NDArray[Scalar] = numba.carray(_pointer(at[0], scalar), (at[1], at[2], at[3], at[4], at[5]))
    return array
