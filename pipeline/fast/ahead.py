"""Asking memory for a row before its turn: those of a large fleet are in no cache, and lie in many arrays."""

from __future__ import annotations

from typing import Any

import numba
import numpy.typing as npt
from llvmlite import ir
from numba.extending import intrinsic

from pipeline.core.novelty import MEMORY_DELAY
from pipeline.core.tails import BLOCK_ROWS
from pipeline.fast.compile import compiled
from pipeline.fast.state import LEARNED, SEEN, Table

LINE = 64  # bytes that come at a time


@intrinsic  # type: ignore[untyped-decorator]
def _ask(_: Any, array: Any, byte: Any) -> Any:
    """Have the line come in which this byte of an array lies."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bytes_of = ir.IntType(8).as_pointer()
        start = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        where = builder.gep(builder.bitcast(start, bytes_of), [arguments[1]])
        flag = ir.IntType(32)
        prefetch = builder.module.declare_intrinsic(
            "llvm.prefetch", [bytes_of], ir.FunctionType(ir.VoidType(), [bytes_of, flag, flag, flag])
        )
        builder.call(prefetch, [where, flag(0), flag(3), flag(1)])  # to be read, to be kept, not code
        return context.get_dummy_value()

    return numba.types.none(array, byte), generate


@compiled
def whole(array: npt.NDArray[Any]) -> None:
    """All of an array."""
    size = array.size * array.itemsize
    for byte in range(0, size, LINE):
        _ask(array, byte)
    _ask(array, size - 1)  # it need not begin where a line does


@compiled
def counts(table: Table, row: int) -> None:
    """What says which parts of the row will be needed."""
    whole(table.counts[row])


@compiled
def rest(table: Table, row: int) -> None:
    """What a reading of this sensor is going to touch, by its counts."""
    seen, window = int(table.counts[row, SEEN]), table.window.shape[1]
    block = table.counts[row, LEARNED] // BLOCK_ROWS % 2
    whole(table.clock[row])
    whole(table.level[row])
    whole(table.scale[row])
    whole(table.raw[row])
    whole(table.carried[row])
    whole(table.lane[row])
    whole(table.tally[row])
    whole(table.bounds[row])
    whole(table.since[row])
    whole(table.known[row])
    whole(table.forecast[row])
    whole(table.filled[row])
    if table.prototypes.shape[3] > 0:
        whole(table.prototypes[row])
        whole(table.hits[row])
    whole(table.tail[row])
    for t in range(len(table.pending[row])):
        whole(table.pending[row, t, block])
    whole(table.window[row, seen % window])
    whole(table.window[row, (seen - 1) % window])
    whole(table.window[row, (seen - MEMORY_DELAY) % window])
