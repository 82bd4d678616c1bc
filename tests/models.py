"""Small models with random weights, and streams, for tests that need a detector but no training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.core.alerts import ModelRef
from pipeline.core.detector import Detector
from pipeline.core.model import Array, Cell, Layer, Mode, Model, Network, SensorTables
from pipeline.core.readings import SECOND, FloatArray, ReadingBatch
from pipeline.core.table import TRAINED, Columns, Count, Level, learned

INTERVAL = 60 * SECOND
START = 1_700_000_000 * SECOND


def network(
    channels: int = 1, *, cell: Cell = "lstm", mode: Mode = "carried", hidden: int = 4, layers: int = 1,
    networks: int = 1, window: int = 64, seed: int = 0,
) -> Network:  # fmt: skip
    """Random weights; forecasts are near "no change"."""
    rng = np.random.default_rng(seed)
    gates, biases = (4, 1) if cell == "lstm" else (3, 2)
    width, stack = 2 * channels, []
    for _ in range(layers):
        kernel, recurrent = (_weights(rng, networks, rows, gates * hidden) for rows in (width, hidden))
        stack.append(Layer(kernel, recurrent, _weights(rng, networks, biases, gates * hidden)))
        width = hidden
    horizons = (1, 12, 48)
    head = _weights(rng, networks, hidden + 2 * channels, len(horizons) * channels) * np.float32(0.1)
    return Network(cell, mode, window, horizons, tuple(stack), head, np.zeros((networks, 1, head.shape[2]), np.float32))


def model(channels: int = 1, *, version: str = "1", **shape: object) -> Model:
    """A model that knows no sensor: each is scaled from its first window."""
    names = tuple(f"c{i}" for i in range(channels))
    nobody = SensorTables((), {})
    return Model(ModelRef("g", version, "0" * 64), "g", names, names, INTERVAL, network(channels, **shape), nobody)  # type: ignore[arg-type]


def waves(sensors: int, rows: int, channels: int = 1, seed: int = 0) -> FloatArray:
    """Noisy waves with a few jumps, repeats and missing values, (rows, sensors, channels)."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6, (1, sensors, channels))
    values = (
        20
        + 3 * np.sin(np.arange(rows)[:, None, None] / 9 + phase)
        + 0.1 * rng.standard_normal((rows, sensors, channels))
    )
    for _ in range(max(rows * sensors // 150, 2)):
        row, sensor = int(rng.integers(rows)), int(rng.integers(sensors))
        match int(rng.integers(3)):
            case 0:
                values[row : row + 15, sensor] += rng.normal(0, 4)
            case 1:
                values[row : row + 30, sensor] = values[row, sensor]
            case _:
                values[row : row + 2, sensor, int(rng.integers(channels))] = np.nan
    values[-40:-20, 0] += 9  # late enough for the tails to have counts
    return values


def stream(
    values: FloatArray, *, partitions: int = 1, dropped: float = 0.0, bad: float = 0.0, seed: int = 0
) -> ReadingBatch:
    """All readings of `waves` in time order, sensors interleaved; some are dropped in runs, some of bad quality."""
    rows, sensors, _ = values.shape
    rng = np.random.default_rng(seed)
    lost = np.zeros((rows, sensors), bool)
    for _ in range(int(dropped * rows * sensors / 12)):
        start = int(rng.integers(rows))
        lost[start : start + int(rng.integers(1, 24)), int(rng.integers(sensors))] = True
    row, sensor = np.nonzero(~lost)
    usable = np.ones(len(row), bool)
    for _ in range(int(bad * len(row) / 12)):
        start, which = int(rng.integers(rows)), int(rng.integers(sensors))
        usable &= (sensor != which) | (row < start) | (row >= start + int(rng.integers(1, 24)))
    times = START + row * INTERVAL
    return ReadingBatch(
        sensors=[f"s{i}" for i in sensor.tolist()],
        times=times.astype(np.int64),
        values=values[row, sensor],
        usable=usable,
        partitions=(sensor % partitions).astype(np.int64),
        offsets=np.arange(len(row), dtype=np.int64),
        received=times.astype(np.int64),
    )


def one(values: FloatArray, sensor: str = "s", *, first: int = 0, partition: int = 0) -> ReadingBatch:
    """Readings of one sensor, (rows,) or (rows, channels): row k a minute after row k - 1, at offset `first` + k."""
    rows = first + np.arange(len(values), dtype=np.int64)
    times = START + rows * INTERVAL
    here = np.full(len(rows), partition, np.int64)
    table = np.asarray(values, np.float64).reshape(len(rows), -1)
    return ReadingBatch([sensor] * len(rows), times, table, np.ones(len(rows), np.bool_), here, rows, times)


def learnt(model: Model, batch: ReadingBatch) -> Model:
    """`model` with the tables that its detector has after this stream of partition 0, and a prior for other sensors."""
    detector = Detector(model)
    detector.step(batch)
    rows = detector.snapshot(0)
    fields = detector.table.fields
    rows["count"][:, Count.FITTED] = TRAINED
    rows["level"][:, [Level.OWN_USUAL, Level.OWN_EXCESS]] = rows["level"][:, [Level.USUAL, Level.EXCESS]]
    tables = learned(Columns(**{name: rows[name] for name in fields}), fields)
    prior = {name: table[0].copy() for name, table in learned(detector.table.blank(1), fields).items()}
    prior |= {name: tables[name][0].copy() for name in ("level", "tail")}
    del prior["scale"]
    return replace(model, sensors=SensorTables([n.decode() for n in rows["names"].tolist()], tables), prior=prior)


def _weights(rng: np.random.Generator, *shape: int) -> Array:
    return (rng.standard_normal(shape) * 0.3).astype(np.float32)
