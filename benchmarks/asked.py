"""What a run of the benchmarks is asked for: the words of its command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Asked:
    """How much of what to measure."""

    sensors: int = 10_000
    many: int = 1_000_000  # sensors of the figure that says what a large fleet costs
    channels: int = 8  # of the figure for several channels
    hidden: int = 32
    partitions: int = 8
    batch: int = 4096  # readings of a step
    restored: int = 100_000  # sensors
    readings: int = 300_000  # of the service's figures
    repeats: int = 3


MEANINGS = {
    "sensors": "sensors of the fleet",
    "many": "sensors of the large fleet",
    "channels": "channels of the figure for several",
    "hidden": "units of the LSTM",
    "partitions": "partitions of the topic and of the restored checkpoints",
    "batch": "readings of a step",
    "restored": "sensors of the restored checkpoints",
    "readings": "readings that a service on Kafka is given",
    "repeats": "repeats of each measurement",
}


@dataclass(frozen=True, slots=True)
class Words:
    """The command line."""

    asked: Asked
    only: tuple[str, ...]
    json: Path | None


def parse(parts: tuple[str, ...], description: str | None, words: list[str] | None = None) -> Words:
    """From the command line, or from `words`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=description)
    default = Asked()
    for name, meaning in MEANINGS.items():
        given = getattr(default, name)
        parser.add_argument(f"--{name}", type=int, default=given, help=f"{meaning} ({given})")
    parser.add_argument("--only", action="append", choices=parts, help="one part; may be given several times")
    parser.add_argument("--json", type=Path, help="write the figures here")
    found = vars(parser.parse_args(words))
    only, path = found.pop("only"), found.pop("json")
    for name, value in found.items():
        if value <= 0:
            parser.error(f"--{name} must be more than 0, not {value}")
    return Words(Asked(**found), tuple(only or parts), path)
