"""The arrays behind their places, for compiled functions: a call that is handed fifty arrays looks at them for 7 µs."""

from __future__ import annotations

from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from numba.extending import intrinsic

from pipeline.fast.compile import entered
from pipeline.fast.machine import DATA, SHAPE
from pipeline.fast.state import Batch, Net, Said, Scoring, Scratch, Table

Scalar = TypeVar("Scalar", bound=np.generic)
Places = npt.NDArray[np.int64]  # to the type checker; it is a pointer


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(_: Any, address: Any, scalar: Any) -> Any:
    """An address as the pointer that `numba.carray` asks for."""
    to = numba.types.CPointer(scalar.dtype)

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(to))

    return to(address, scalar), generate


@entered
def places_at(address: int) -> Places:
    """The places that lie there."""
    found: Places = _pointer(address, np.int64)
    return found


@entered
def number_at(at: Places, position: int) -> float:
    """A float64 among integers."""
    return float(numba.carray(at, (position + 1,)).view(np.float64)[position])


@entered
def _data(at: int, scalar: type[Scalar]) -> Any:
    """Where the array's first element lies."""
    return _pointer(_pointer(at + DATA, np.int64)[0], scalar)


@entered
def _shape(at: int) -> Any:
    """Where its lengths lie."""
    return _pointer(_pointer(at + SHAPE, np.int64)[0], np.int64)


@entered
def vector(at: int, scalar: type[Scalar]) -> npt.NDArray[Scalar]:
    """The array of one dimension at this place."""
    n = _shape(at)
    array: npt.NDArray[Scalar] = numba.carray(_data(at, scalar), (n[0],))
    return array


@entered
def matrix(at: int, scalar: type[Scalar]) -> npt.NDArray[Scalar]:
    """The array of two dimensions at this place."""
    n = _shape(at)
    array: npt.NDArray[Scalar] = numba.carray(_data(at, scalar), (n[0], n[1]))
    return array


@entered
def cube(at: int, scalar: type[Scalar]) -> npt.NDArray[Scalar]:
    """The array of three dimensions at this place."""
    n = _shape(at)
    array: npt.NDArray[Scalar] = numba.carray(_data(at, scalar), (n[0], n[1], n[2]))
    return array


@entered
def block(at: int, scalar: type[Scalar]) -> npt.NDArray[Scalar]:
    """The array of four dimensions at this place."""
    n = _shape(at)
    array: npt.NDArray[Scalar] = numba.carray(_data(at, scalar), (n[0], n[1], n[2], n[3]))
    return array


@entered
def stack(at: int, scalar: type[Scalar]) -> npt.NDArray[Scalar]:
    """The array of five dimensions at this place."""
    n = _shape(at)
    array: npt.NDArray[Scalar] = numba.carray(_data(at, scalar), (n[0], n[1], n[2], n[3], n[4]))
    return array


@entered
def table_at(at: Places) -> Table:
    """The table behind `places(*Table)`."""
    return Table(
        matrix(at[0], np.int64),
        matrix(at[1], np.int32),
        matrix(at[2], np.float32),
        matrix(at[3], np.float32),
        cube(at[4], np.float64),
        cube(at[5], np.float32),
        cube(at[6], np.int32),
        cube(at[7], np.uint32),
        block(at[8], np.uint8),
        cube(at[9], np.uint16),
        block(at[10], np.uint16),
        stack(at[11], np.uint8),
        cube(at[12], np.float64),
        cube(at[13], np.int64),
        matrix(at[14], np.float64),
        matrix(at[15], np.float32),
        cube(at[16], np.float32),
        cube(at[17], np.uint32),
        cube(at[18], np.float32),
    )


@entered
def net_at(at: Places) -> Net:
    """The network behind `places(*Net)`."""
    return Net(
        cube(at[0], np.float32),
        matrix(at[1], np.float32),
        cube(at[2], np.float32),
        matrix(at[3], np.float32),
        vector(at[4], np.int64),
        vector(at[5], np.int64),
        vector(at[6], np.int64),
    )


@entered
def scoring_at(at: Places) -> Scoring:
    """The scoring behind `places(*Scoring)`."""
    return Scoring(
        vector(at[0], np.float32),
        vector(at[1], np.float32),
        vector(at[2], np.float32),
        vector(at[3], np.float32),
        vector(at[4], np.float32),
        vector(at[5], np.float32),
    )


@entered
def scratch_at(at: Places) -> Scratch:
    """The scratch behind `places(*Scratch)`."""
    return Scratch(
        vector(at[0], np.float32),
        vector(at[1], np.float32),
        vector(at[2], np.float32),
        vector(at[3], np.bool_),
        matrix(at[4], np.float32),
        vector(at[5], np.bool_),
        vector(at[6], np.float32),
        matrix(at[7], np.float32),
        matrix(at[8], np.float32),
        matrix(at[9], np.int64),
        vector(at[10], np.int64),
        vector(at[11], np.uint8),
        vector(at[12], np.uint8),
        vector(at[13], np.float32),
        vector(at[14], np.float32),
        vector(at[15], np.float32),
        vector(at[16], np.float64),
    )


@entered
def batch_at(at: Places) -> Batch:
    """The readings: the first seven of what is handed."""
    return Batch(
        vector(at[0], np.int64),
        vector(at[1], np.int64),
        matrix(at[2], np.float64),
        vector(at[3], np.bool_),
        vector(at[4], np.int64),
        vector(at[5], np.int64),
        vector(at[6], np.int64),
    )


@entered
def said_at(at: Places) -> Said:
    """The outcome: the five behind the readings."""
    return Said(
        vector(at[7], np.float64),
        vector(at[8], np.bool_),
        matrix(at[9], np.float64),
        matrix(at[10], np.float64),
        vector(at[11], np.int64),
    )
