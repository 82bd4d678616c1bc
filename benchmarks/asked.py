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
    per_message: int = 500  # readings of a message that holds several
    messages: int = 120_000  # of one reading each, in the topic
    rate: float | None = None  # readings a second of the latency figure; None: half of what the service was seen to do
    seconds: float = 10.0  # of the latency figure
    restored: int = 100_000  # sensors
    trained: int = 256  # sensors
    rows: int = 4000  # readings of each of them
    separate: int = 3  # of them are fitted one by one
    repeats: int = 3


MEANINGS = {
    "sensors": "sensors of the fleet",
    "many": "sensors of the large fleet",
    "channels": "channels of the figure for several",
    "hidden": "units of the LSTM",
    "partitions": "partitions of the topic",
    "batch": "readings of a step",
    "per_message": "readings of a message that holds several",
    "messages": "messages of one reading each in the topic",
    "rate": "readings a second while latency is measured (default: half of the maximum seen)",
    "seconds": "how long latency is measured",
    "restored": "sensors of the restored checkpoints",
    "trained": "sensors to fit",
    "rows": "readings of each sensor to fit",
    "separate": "sensors that Keras fits one by one",
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
        kind = float if name in ("rate", "seconds") else int
        given = getattr(default, name)
        shown = meaning if given is None else f"{meaning} ({given})"
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=given, help=shown)
    parser.add_argument("--only", action="append", choices=parts, help="one part; may be given several times")
    parser.add_argument("--json", type=Path, help="write the figures here")
    found = vars(parser.parse_args(words))
    only, path = found.pop("only"), found.pop("json")
    for name, value in found.items():
        if value is not None and value <= 0:
            parser.error(f"--{name.replace('_', '-')} must be more than 0, not {value}")
    return Words(Asked(**found), tuple(only or parts), path)
