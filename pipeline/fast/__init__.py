"""The optional compiled form of the detector's step, for thin batches and catch-up: the extra `fast`."""

from __future__ import annotations

import importlib.util
from typing import Literal

from pipeline.core.walking import Walkers

Kernel = Literal["numpy", "numba"]


class KernelError(ValueError):
    """What is to compute the scores is not there."""


def walkers(kernel: Kernel) -> Walkers | None:
    """What takes in ordinary readings: None for numpy, which needs nothing else.

    The other is loaded, and compiled where its machine code is not kept, before this returns. KernelError where it is
    not installed, or does not load.
    """
    if kernel == "numpy":
        return None
    if importlib.util.find_spec("numba") is None:
        raise KernelError('kernel: numba is not installed; install the extra `fast`, or set kernel to "numpy"')
    try:
        from pipeline.fast.walker import walker
    except Exception as why:  # whatever a compiler raises: there is no kernel
        raise KernelError(
            f"kernel: numba is installed but does not load here ({type(why).__name__}: {why}); "
            'reinstall it by `pip install --force-reinstall numba llvmlite`, or set kernel to "numpy"'
        ) from why

    return walker


def recorded(kernel: Kernel) -> str:
    """The compiled form and what compiled it, for the record; "" for numpy alone."""
    if kernel == "numpy":
        return ""
    from pipeline.fast.compile import described

    return described()


def kept_in(kernel: Kernel) -> str:
    """Where machine code is kept from one start to the next; "" where it is not, or there is none."""
    if kernel == "numpy":
        return ""
    from pipeline.fast.compile import folder

    return str(folder() or "")
