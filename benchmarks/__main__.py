"""`make bench`: what a reading costs, how fast it is answered, what a sensor weighs, beside ceilings and peers.

Machines are shared and noisy, so the ratios of one run mean more than its times; the spread is over the repeats. Each
part runs in a process of its own.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.asked import parse
from benchmarks.figures import table, write
from benchmarks.parts import PARTS, apart, measured


def main(words: list[str] | None = None) -> None:
    """Measure, print, write."""
    told = parse(tuple(PARTS), __doc__, words)
    console, found = Console(width=None if os.isatty(1) else 200), []
    try:
        for part in told.only:
            began = time.monotonic()
            found += apart(measured, part, told.asked)
            console.print(f"[dim]{part}: {time.monotonic() - began:.0f} s[/]", highlight=False)
    finally:  # a part that fails takes none of the others with it
        console.print(table(found))
        console.print(machine(), highlight=False)
        if told.json is not None:
            write(found, told.json)


def machine() -> str:
    """What it was measured on."""
    cpu = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    name = names[0] if names else platform.machine()
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    return f"{cores} cores of {name}, load {load}; Python {platform.python_version()}, numpy {np.__version__}"


if __name__ == "__main__":
    main()
