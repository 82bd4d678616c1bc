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
    """As `entered`, for arguments of these types, and now: no reading ever waits for it.

    Its machine code with all that it calls is kept in `folder()`, where there is one. The library would only notice a
    change of this function's own file, so what is kept is named by all of ours.
    """

    def compile_now(function: Function) -> Function:
        before, place = numba.config.CACHE_DIR, folder()
        numba.config.CACHE_DIR = "" if place is None else str(place / _digest())
        try:
            return cast("Function", numba.njit(signature, error_model="numpy", cache=place is not None)(function))
        finally:
            numba.config.CACHE_DIR = before

    return compile_now


def folder() -> Path | None:
    """NUMBA_CACHE_DIR, or else the user's cache; None where this user may not write to it.

    What lies there is run: a folder in it is ours, and nobody else may write to that, whoever may to the first.
    """
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        place = Path(numba.config.CACHE_DIR or Path(user, "foreshock")).expanduser()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        (place / _digest()).mkdir(mode=0o700, exist_ok=True)
        ours = (place / _digest()).stat()
    except (OSError, RuntimeError):  # a file system that is read-only, a user without a home
        return None
    return place if ours.st_uid == os.geteuid() and not ours.st_mode & 0o022 else None


def described() -> str:
    """What compiles here, and for which processor."""
    cpu = numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name()
    return f"numba {numba.__version__} {cpu}"


def _digest() -> str:
    sources = [*Path(__file__).parent.glob("*.py"), *Path(pipeline.core.__path__[0]).glob("*.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(sources))).hexdigest()[:16]
