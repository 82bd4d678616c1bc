"""A simulated plant: pumps, motors, furnaces and tanks whose readings follow from the seed and the row alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from pipeline.core.readings import DAY, SECOND, FloatArray, IntArray, Reading

INTERVAL = 60 * SECOND  # µs of event time between two readings of a sensor
DAY_ROWS = DAY // INTERVAL
START = 1_704_067_200 * SECOND  # Monday 2024-01-01T00:00:00Z, the event time of row 0; in the past on any clock
CHUNK = 512  # rows drawn at a time
DECIMALS = 4

LOAD_SWEEP = 0.08  # of full load: how far the load wanders off its daily cycle
DISTURBANCE = 0.4  # of the measurement noise: what the channels of a machine share
MEMORY = 0.8  # of the disturbance, from one row to the next
MEMORY_ROWS = 48  # MEMORY**48 = 2e-5: what is older no longer shows


@dataclass(frozen=True, slots=True)
class Channel:
    """One signal of a machine type. `idle` and `noise` are in its unit, the rest in multiples of `noise`."""

    name: str
    unit: str
    idle: float
    noise: float  # standard deviation of the measurement
    load: float  # rise from no load to full load
    lag: int = 0  # rows behind the load
    wear: float = 0.0  # rise over 10,000 rows
    swing: float = 0.0  # amplitude of the oscillation, 0 where there is none
    period: float = 12.0  # of the oscillation, rows


MACHINES: Mapping[str, tuple[Channel, ...]] = MappingProxyType(
    {
        "pump": (
            Channel("flow", "m3/h", idle=80.0, noise=0.8, load=12.0),
            Channel("pressure", "bar", idle=6.5, noise=0.04, load=-8.0, lag=2, wear=-0.5),
            Channel("vibration", "mm/s", idle=2.0, noise=0.05, load=6.0, wear=1.0, swing=2.5, period=11.0),
            Channel("temperature", "°C", idle=48.0, noise=0.25, load=14.0, lag=30, wear=0.5),
        ),
        "motor": (
            Channel("current", "A", idle=18.0, noise=0.3, load=14.0),
            Channel("vibration", "mm/s", idle=1.4, noise=0.04, load=5.0, wear=1.0, swing=2.5, period=13.0),
            Channel("temperature", "°C", idle=60.0, noise=0.4, load=12.0, lag=45, wear=0.5),
        ),
        "furnace": (
            Channel("temperature", "°C", idle=820.0, noise=1.5, load=10.0, lag=20),
            Channel("power", "kW", idle=240.0, noise=4.0, load=12.0, wear=0.5, swing=2.5, period=10.0),
        ),
        "tank": (Channel("level", "%", idle=45.0, noise=0.5, load=12.0, lag=60, swing=2.5, period=12.0),),
    }
)
SEQUENCE = ("pump", "motor", "furnace", "tank", "pump", "motor", "pump", "motor", "pump", "motor")


class Line:
    """All machines of one type: one group of sensors that share their channels."""

    def __init__(self, kind: str, sensors: tuple[str, ...], seed: int) -> None:
        self.kind = kind
        self.sensors = sensors
        self.channels = MACHINES[kind]
        self.names = tuple(c.name for c in self.channels)
        self._seed = (seed, list(MACHINES).index(kind))
        rng = np.random.default_rng(self._seed)
        shape = (len(sensors), len(self.channels))

        def around(centre: float, share: float) -> FloatArray:
            """Every machine differs a little from its type, (sensors, channels)."""
            return centre * rng.uniform(1 - share, 1 + share, shape)

        self.noise = self._each("noise") * around(1, 0.1)  # (sensors, channels), in the channel's unit
        self.swing = self._each("swing") * self.noise
        self.period = self._each("period") * around(1, 0.1)
        self._idle = self._each("idle") * around(1, 0.05)
        self._load = self._each("load") * around(1, 0.15) * self.noise
        self._wear = self._each("wear") * around(1, 0.5) * self.noise / 10_000
        self._lag = self._each("lag").astype(np.int64)
        self._angle = rng.uniform(0, 2 * np.pi, shape)
        self._shift = rng.uniform(-30, 30, len(sensors))  # rows: no two machines start their day together
        self._sway = rng.uniform((250, 400, 2500), (400, 700, 4500), (len(sensors), 3)).T  # periods, rows
        self._sway_angle = rng.uniform(0, 2 * np.pi, (3, len(sensors)))
        self._chunk = lru_cache(maxsize=4)(self._draw)

    def block(self, first_row: int, rows: int) -> FloatArray:
        """Readings of `rows` rows, (rows, sensors, channels); any two blocks agree where they overlap."""
        if not rows:
            return np.empty((0, len(self.sensors), len(self.channels)))
        first, last = first_row // CHUNK, (first_row + rows - 1) // CHUNK
        chunks = np.concatenate([self._chunk(i) for i in range(first, last + 1)])
        return chunks[first_row - first * CHUNK :][:rows]

    def oscillation(self, rows: IntArray, pace: float = 1.0, since: int = 0) -> FloatArray:
        """The oscillation alone, (rows, sensors, channels), from row `since` on at `pace` times its frequency."""
        turned = rows + (pace - 1) * np.maximum(rows - since, 0)
        return np.asarray(self.swing * np.sin(2 * np.pi * turned[:, None, None] / self.period + self._angle))

    def load(self, rows: FloatArray) -> FloatArray:
        """Load of each machine, about 0 at night and 1 by day, (..., sensors)."""
        turn = 2 * np.pi * (rows[..., None] - self._shift) / DAY_ROWS
        daily = 0.5 - 0.5 * np.cos(turn) + 0.12 * np.sin(2 * turn)
        sway = np.sin(2 * np.pi * rows[..., None, None] / self._sway + self._sway_angle).mean(axis=-2)
        return np.asarray(daily + LOAD_SWEEP * sway)

    def _draw(self, chunk: int) -> FloatArray:
        rows = chunk * CHUNK + np.arange(CHUNK)
        load = self.load((rows[:, None] - self._lag).astype(np.float64)).swapaxes(1, 2)  # (rows, sensors, channels)
        shocks = np.concatenate([self._shocks(chunk - 1)[-(MEMORY_ROWS - 1) :], self._shocks(chunk)])
        fading = MEMORY ** np.arange(MEMORY_ROWS)[::-1]
        window = np.lib.stride_tricks.sliding_window_view(shocks, MEMORY_ROWS, axis=0)  # (rows, sensors, MEMORY_ROWS)
        disturbance = DISTURBANCE * np.sqrt(1 - MEMORY**2) * (window @ fading)
        white = self._rng(chunk, 1).standard_normal((CHUNK, *self.noise.shape)) * np.sqrt(1 - DISTURBANCE**2)
        steady = self._idle + self._load * load + self._wear * rows[:, None, None]
        values = steady + self.oscillation(rows) + self.noise * (white + disturbance[..., None])
        return np.asarray(np.round(values, DECIMALS))

    def _shocks(self, chunk: int) -> FloatArray:
        return self._rng(chunk, 0).standard_normal((CHUNK, len(self.sensors)))

    def _rng(self, chunk: int, stream: int) -> np.random.Generator:
        return np.random.default_rng((*self._seed, chunk + 1, stream))  # the chunk before row 0 is number -1

    def _each(self, field: str) -> FloatArray:
        return np.array([getattr(c, field) for c in self.channels], dtype=np.float64)


Change = Callable[[Line, int, FloatArray], None]
"""Alters a block of a line in place, given its first row; a reading of which nothing is left (all NaN) is not sent."""


class Plant:
    """Sensors of every machine type, plant1/pump-01 and so on; row r has the event time START + r * INTERVAL."""

    def __init__(self, sensors: int = 40, seed: int = 0) -> None:
        if sensors < 1:
            raise ValueError(f"a plant has at least one sensor, not {sensors}")
        kinds = [SEQUENCE[i % len(SEQUENCE)] for i in range(sensors)]
        self.seed = seed
        self.lines = tuple(
            Line(kind, tuple(f"plant1/{kind}-{n + 1:02d}" for n in range(kinds.count(kind))), seed)
            for kind in MACHINES
            if kind in kinds
        )
        self.sensors = tuple(sensor for line in self.lines for sensor in line.sensors)

    def history(self, rows: int) -> dict[str, tuple[IntArray, FloatArray]]:
        """The first `rows` rows without a fault: times in µs (rows,) and values (rows, channels) of each sensor."""
        times = START + INTERVAL * np.arange(rows, dtype=np.int64)
        blocks = [(line, line.block(0, rows)) for line in self.lines]
        return {s: (times, values[:, i]) for line, values in blocks for i, s in enumerate(line.sensors)}

    def stream(self, start_row: int, change: Change | None = None) -> Iterator[list[Reading]]:
        """One list a row, without end, with a reading of each sensor that sends one."""
        row = start_row
        while True:
            rows = CHUNK - row % CHUNK
            lines = []
            for line in self.lines:
                values = line.block(row, rows).copy()
                if change:
                    change(line, row, values)
                lines.append((line, values.tolist()))
            for offset in range(rows):
                time = time_of(row + offset)
                yield [
                    Reading(sensor, time, dict(zip(line.names, values, strict=True)))
                    for line, block in lines
                    for sensor, values in zip(line.sensors, block[offset], strict=True)
                    if any(value == value for value in values)
                ]
            row += rows


def time_of(row: int) -> int:
    """Event time of a row, µs UTC."""
    return START + row * INTERVAL


def row_of(time: int) -> int:
    """The last row at or before an event time, µs UTC."""
    return (time - START) // INTERVAL
