"""The compiled form from one start to the next: its object code in a file, loaded without numba, which made it.

To load numba and have it load its own takes a second and 100 MB; this, a twentieth.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.metadata
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt

import pipeline.core

ENTRY = "foreshock_walk"
# Within an array object lie, behind what all objects begin with: data, number of dimensions, shape (numpy's C API,
# PyArrayObject_fields). To ask an array takes 0.4 µs for each of them; a call is handed sixteen.
DATA, SHAPE = object.__basicsize__, object.__basicsize__ + 16
HASH_BYTES = 32
WELL = (0, -2)  # what a function without a result returns to whoever calls it past numba's wrapper


class Walk:
    """`walk.walk`."""

    def __init__(self, code: bytes) -> None:
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target())  # the code lies in it
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        # It keeps the interpreter's lock: to let go of that and ask for it back takes longer than a thin batch.
        kind = ctypes.PYFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 2, *[ctypes.c_char_p] * 2)
        self._call = kind(self._engine.get_function_address(ENTRY))
        self._none = ctypes.c_int64(), ctypes.c_int64()  # room for a result and an exception, of which it has none
        self._room = tuple(map(ctypes.addressof, self._none))

    def __call__(self, lasting: bytes, handed: bytes) -> None:
        """See there."""
        status = self._call(*self._room, lasting, handed)
        if status not in WELL:
            raise RuntimeError(f"the compiled form failed with {status}")


def places(*arrays: npt.NDArray[Any]) -> ctypes.Array[ctypes.c_int64]:
    """Where the arrays are; whoever uses it keeps them alive. ValueError where one has gaps."""
    for array in arrays:
        if not array.flags.c_contiguous:
            raise ValueError(f"an array of shape {array.shape} is not contiguous: its place does not say where it is")
    return (ctypes.c_int64 * len(arrays))(*map(id, arrays))


@cache
def loaded() -> Walk:
    """The compiled form of this build, compiled where it is not kept."""
    _must_lie_as_numpy_says()
    place = folder()
    path = None if place is None else place / kept_as()
    if path is not None and (code := kept(path)) is not None:
        return Walk(code)
    from pipeline.fast import walk

    code = walk.machine_code()
    if path is not None:
        _keep(code, path)
    return Walk(code)


def folder() -> Path | None:
    """Where machine code is kept: below NUMBA_CACHE_DIR, or else the user's cache; None where that cannot be.

    What lies there is run: it is ours, and nobody else may write to it, whoever may to the folder above.
    """
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        place = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(user, "foreshock")).expanduser() / "machine-code"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        ours = place.stat()
    except (OSError, RuntimeError):  # a file system that is read-only, a user without a home
        return None
    sound = ours.st_uid == os.geteuid() and not ours.st_mode & 0o022 and os.access(place, os.W_OK)
    return place if sound else None


def described() -> str:
    """What compiles here, and for which processor."""
    return f"numba {importlib.metadata.version('numba')} {_processor()}"


def target() -> llvm.TargetMachine:
    """This processor, to make code for and to run it."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    return machine.create_target_machine(_processor(), features, opt=3, codemodel="jitdefault", jit=True)


def _processor() -> str:
    return os.environ.get("NUMBA_CPU_NAME") or str(llvm.get_host_cpu_name())


def kept(path: Path) -> bytes | None:
    """The code in this file; None where there is none, or a disk has damaged it: what is wrong in it would be run."""
    try:
        head, code = (content := path.read_bytes())[:HASH_BYTES], content[HASH_BYTES:]
    except OSError:
        return None
    return code if hashlib.sha256(code).digest() == head else None


def _keep(code: bytes, path: Path) -> None:
    """Whole, or not at all: another process may look for it now, and a full disk keeps nobody from serving."""
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=path.parent) as beside:
        (Path(beside) / path.name).write_bytes(hashlib.sha256(code).digest() + code)
        (Path(beside) / path.name).replace(path)


def kept_as() -> str:
    """The name of this build's file: of everything that the code depends on."""
    sources = [*Path(__file__).parent.glob("*.py"), *Path(pipeline.core.__path__[0]).glob("*.py")]
    said = f"{described()} {llvm.llvm_version_info} {llvm.get_host_cpu_features().flatten()} {DATA} {SHAPE}"
    parts = [said.encode(), *(path.read_bytes() for path in sorted(sources))]
    return f"{hashlib.sha256(b''.join(parts)).hexdigest()[:32]}.o"


def _must_lie_as_numpy_says() -> None:
    array = np.zeros((2, 3))
    data = ctypes.c_int64.from_address(id(array) + DATA).value
    shape = (ctypes.c_int64 * 2).from_address(ctypes.c_int64.from_address(id(array) + SHAPE).value)
    if (data, *shape) != (array.ctypes.data, 2, 3):
        raise RuntimeError("an array of this interpreter or numpy does not lie as this build expects")
