"""The optional compiled form of a round, for thin batches and catch-up: the extra `fast`."""

from __future__ import annotations

import importlib.util
from typing import Literal

from pipeline.core.walking import Walkers

Kernel = Literal["numpy", "numba"]


class KernelError(ValueError):
    """What is to compute the scores is not there."""


def walkers(kernel: Kernel) -> Walkers | None:
    """What takes in ordinary readings: None for numpy, which needs nothing else. Loading the other takes a second.

    KernelError where it is not installed.
    """
    if kernel == "numpy":
        return None
    if importlib.util.find_spec("numba") is None:
        raise KernelError('kernel: numba is not installed; `pip install "foreshock[fast]"`, or set kernel to "numpy"')
    from pipeline.fast.walker import walker

    return walker


def recorded(kernel: Kernel) -> str:
    """The compiled form and what compiled it, for the record; "" for numpy alone."""
    if kernel == "numpy":
        return ""
    from pipeline.fast.compile import described

    return described()
