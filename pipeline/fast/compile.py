"""How the functions of this package are compiled: by numba, which nothing else here loads."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm

os.environ.setdefault("NUMBA_DISABLE_INTEL_SVML", "1")  # before numba: its functions would be in need of their library
import numba

from pipeline.fast.machine import ENTRY, target

Function = TypeVar("Function", bound=Callable[..., object])

# A product and a sum may become one instruction; nothing else is relaxed, so that every row is computed in one order.
FASTMATH = {"contract"}
# numba counts the references to an array; those that are made of places own nothing that could be freed.
NOTHING_TO_FREE = "define void @NRT_MemInfo_call_dtor(ptr %0) { ret void }"

NOT_OF_C = ("numba", "NRT", "Py", "__svml")  # how functions begin that only it knows


def compiled(function: Function) -> Function:
    """Machine code, as a part of what calls it. It counts no references: what it is handed stays, and it makes none."""
    return cast("Function", numba.njit(fastmath=FASTMATH, error_model="numpy", _nrt=False)(function))


def entered(function: Function) -> Function:
    """Machine code that makes the arrays which `compiled` functions are handed."""
    return cast("Function", numba.njit(error_model="numpy")(function))


def emitted(function: Callable[..., None], signature: Any) -> bytes:
    """The object code of a function and of all that it calls, entered at `ENTRY` and in need of the C library alone.

    numba wraps what is called from C into what reports its exceptions to Python, and that needs numba: it is left out.
    `function` must raise none.
    """
    made = numba.cfunc(signature, error_model="numpy")(function)
    module, machine = llvm.parse_assembly(made.inspect_llvm()), target()
    entry = made.native_name.removeprefix("cfunc.")
    for part in module.functions:
        if not part.is_declaration:
            part.linkage = "external" if part.name == entry else "internal"
    module.get_function(entry).name = ENTRY
    module.link_in(llvm.parse_assembly(NOTHING_TO_FREE))
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=0)))
    if strangers := {f.name for f in module.functions if f.is_declaration and f.name.startswith(NOT_OF_C)}:
        raise RuntimeError(f"{function.__name__} cannot be run without numba: {', '.join(sorted(strangers))}")
    code: bytes = machine.emit_object(module)
    return code
