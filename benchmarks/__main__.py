"""`make bench`: the detector's step and the JSON codec, each as a ratio to its ceiling in the same run.

Machines are shared and noisy, so only the ratios mean anything; the spread is over the repeats.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from pipeline.codecs import JSON
from pipeline.core.detector import Detector
from pipeline.core.lstm import Forecaster, features
from pipeline.core.model import Model
from pipeline.core.readings import Reading, ReadingBatch, Record
from pipeline.core.table import row_bytes
from tests.models import INTERVAL, START, model

STEP_GOAL = 6.0  # times the bare LSTM step


@dataclass(frozen=True)
class Figure:
    """One measured figure beside its goal and its ceiling."""

    figure: str
    value: float
    unit: str
    spread: float  # highest less lowest of the repeats, as a share of the median
    ceiling: float | None = None  # what the same run cannot do better than, in the same unit
    goal: float | None = None  # times the ceiling

    @property
    def ratio(self) -> float | None:
        return self.value / self.ceiling if self.ceiling else None

    @property
    def met(self) -> bool | None:
        return None if self.goal is None or self.ratio is None else self.ratio <= self.goal

    def as_json(self) -> dict[str, object]:
        return {
            "figure": self.figure, "value": round(self.value, 3), "unit": self.unit, "goal": self.goal, "met": self.met,
            "ceiling": None if self.ceiling is None else round(self.ceiling, 3), "peer": None,
        }  # fmt: skip


def measured(work: Callable[[], object], readings: int, repeats: int) -> tuple[float, float]:
    """µs of processor time a reading: median over the repeats, and their spread."""
    costs = []
    for _ in range(repeats):
        before = time.process_time()
        work()
        costs.append((time.process_time() - before) / readings * 1e6)
    middle = statistics.median(costs)
    return middle, (max(costs) - min(costs)) / middle


def step(served: Model, sensors: int, batch: int, repeats: int) -> Figure:
    """Warm a fleet up, then step one batch of distinct sensors at a time."""
    rng = np.random.default_rng(0)
    detector = Detector(served)
    names = [f"s{i}" for i in range(sensors)]
    nothing = np.zeros(sensors, np.int64)
    clock = 0

    def row(of: list[str]) -> ReadingBatch:
        nonlocal clock
        clock += 1
        times = np.full(len(of), START + clock * INTERVAL)
        values = 20 + np.sin(clock / 9) + 0.1 * rng.standard_normal((len(of), len(served.channels)))
        zero = nothing[: len(of)]
        return ReadingBatch(of, times, values, np.ones(len(of), bool), zero, zero, zero)

    for _ in range(served.network.window + 50):
        detector.step(row(names))
    batches = [row(names[i : i + batch]) for i in range(0, sensors, batch)]
    clock += 1
    middle, spread = measured(lambda: [detector.step(b) for b in _later(batches)], sensors, repeats)
    return Figure(f"Detector.step, {len(served.channels)} channels, batch {batch}", middle, "µs/reading", spread)


def _later(batches: list[ReadingBatch]) -> list[ReadingBatch]:
    """The same batches one interval on, so that every reading is news."""
    for batch in batches:
        batch.times[:] += INTERVAL
    return batches


def bare_lstm(served: Model, rows: int, repeats: int) -> float:
    """The recurrent step alone, µs a reading."""
    forecaster = Forecaster(served.network)
    x = np.random.default_rng(0).standard_normal((rows, len(served.channels)))
    inputs, which = features(x, x), np.zeros(rows, np.int32)
    state = np.zeros((rows, forecaster.state_size), np.float32)
    return measured(lambda: [forecaster.step(state, inputs, which) for _ in range(8)], 8 * rows, repeats)[0]


def codec(readings: int, repeats: int) -> Figure:
    """JSON messages to readings, beside msgspec alone on the same bytes."""
    record = Record("t", 0, 0, START, None, JSON.encode(Reading("plant1/pump-7", START, {"value": 71.3})))
    records = [record._replace(offset=offset) for offset in range(readings)]
    middle, spread = measured(lambda: JSON.decode(records), readings, repeats)
    decoder = msgspec.json.Decoder()
    assert record.value is not None
    message = record.value
    bare, _ = measured(lambda: [decoder.decode(message) for _ in range(readings)], readings, repeats)
    return Figure("JSON decode, one reading a message", middle, "µs/reading", spread, bare)


def figures(sensors: int, hidden: int, repeats: int) -> list[Figure]:
    """All of them, the cheap ones first."""
    found = [codec(20_000, repeats)]
    for channels in (1, 8):
        served = model(channels, hidden=hidden, window=256)
        bare = bare_lstm(served, 4096, repeats)
        found.append(Figure(f"bytes a sensor, {channels} channels", row_bytes(served), "B", 0.0))
        for batch in (4096, 256, 16):
            one = step(served, min(sensors, 4096 if batch > 16 else 256), batch, repeats)
            found.append(Figure(one.figure, one.value, one.unit, one.spread, bare, STEP_GOAL if batch > 16 else None))
    return found


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--sensors", type=int, default=4096)
    words.add_argument("--hidden", type=int, default=32)
    words.add_argument("--repeats", type=int, default=5)
    words.add_argument("--json", type=Path)
    asked = words.parse_args()
    with threadpool_limits(limits=1):
        found = figures(asked.sensors, asked.hidden, asked.repeats)
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, one thread")
    print(f"{'figure':44} {'value':>10} {'unit':11} {'spread':>7} {'ceiling':>8} {'ratio':>6} {'goal':>5}")
    for f in found:
        ceiling, ratio = (f"{x:.2f}" if x else "" for x in (f.ceiling, f.ratio))
        goal = "" if f.goal is None else f"{f.goal:g}x"
        print(f"{f.figure:44} {f.value:10.2f} {f.unit:11} {f.spread:7.0%} {ceiling:>8} {ratio:>6} {goal:>5}")
    if asked.json is not None:
        asked.json.write_text(json.dumps({"figures": [f.as_json() for f in found]}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
