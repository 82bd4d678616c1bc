"""How the functions of this package are compiled, and where their machine code is kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import llvmlite
import numba

import pipeline.core

Function = TypeVar("Function", bound=Callable[..., object])

# A product and a sum may become one instruction; nothing else is relaxed, so that every row is computed in one order.
FASTMATH = {"contract"}


def compiled(function: Function) -> Function:
    """Machine code, as a part of what calls it. It counts no references: what it is handed stays, and it makes none."""
    return cast("Function", numba.njit(fastmath=FASTMATH, error_model="numpy", _nrt=False)(function))


def entered(function: Function) -> Function:
    """Machine code that makes the arrays which `compiled` functions are handed."""
    return cast("Function", numba.njit(error_model="numpy")(function))


def kept(*signature: object) -> Callable[[Function], Function]:
    """As `entered`, for arguments of these types, and now; its machine code with all that it calls is kept in a folder.

    The library would only notice a change of this function's own file, so the folder is named by all of ours.
    """

    def compile_now(function: Function) -> Function:
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(folder() / _digest())
        try:
            return cast("Function", numba.njit(signature, error_model="numpy", cache=True)(function))
        finally:
            numba.config.CACHE_DIR = before

    return compile_now


def folder() -> Path:
    """NUMBA_CACHE_DIR, or the user's cache; where that cannot be written to, the library has places of its own.

    What lies there is run: nobody else may write to it.
    """
    if numba.config.CACHE_DIR:
        return Path(numba.config.CACHE_DIR)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "foreshock"


def described() -> str:
    """What compiles here, and for which processor."""
    cpu = numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name()
    return f"numba {numba.__version__} {cpu}"


def _digest() -> str:
    sources = [*Path(__file__).parent.glob("*.py"), *Path(pipeline.core.__path__[0]).glob("*.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()[:16]
