"""The parts of a run, each in a process of its own: its memory is its own, and what it imports stays there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.asked import Asked
from benchmarks.figures import Figure

PARTS = {
    "step": "benchmarks.step:measure",
    "memory": "benchmarks.step:memory",
    "replay": "benchmarks.backlog:measure",
    "restore": "benchmarks.restart:measure",
    "start": "benchmarks.starting:measure",
    "kafka": "benchmarks.throughput:measure",
    "latency": "benchmarks.latency:measure",
    "training": "benchmarks.training:measure",
}  # in the order of the table

Answer = TypeVar("Answer")


def apart(work: Callable[..., Answer], *told: Any) -> Answer:
    """`work` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work, *told).result()


def measured(part: str, asked: Asked) -> list[Figure]:
    """One part's figures; BLAS on one thread, as the service has it."""
    module, function = PARTS[part].split(":")
    measure: Callable[[Asked], Iterator[Figure]] = getattr(import_module(module), function)
    with threadpool_limits(limits=1, user_api="blas"):
        return list(measure(asked))
