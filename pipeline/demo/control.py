"""The control the service must beat: an EWMA control chart on the same readings, at the same false-alarm budget.

The chart is the one with a moving centre line (Montgomery & Mastrangelo, 1991), after Roberts, 1959: a reading is
forecast by the exponentially weighted mean of those before it, and charted in standard deviations of that forecast's
error. With a fixed centre line the chart takes the plant's daily cycle for a fault, which would be too easy to beat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.core.readings import FloatArray, IntArray
from pipeline.demo.plant import Change, Plant

RATE = 0.2  # of the mean towards the newest reading; Roberts, 1959, and every textbook since
REFRACTORY_ROWS = 100  # from an opening to the sensor's next, as for the service
BUDGET = 1e-4  # false alarms a reading


@dataclass(frozen=True, slots=True, order=True)
class Opening:
    """An alert opens: on which sensor, at which row of the plant."""

    row: int
    sensor: str


def watch(plant: Plant, change: Change, first_row: int, rows: int, budget: float = BUDGET) -> list[Opening]:
    """Alerts of the chart on `rows` rows from `first_row` on, its limit set on the history before them."""
    errors = []
    for line in plant.lines:
        live = line.block(first_row, rows).copy()
        change(line, first_row, live)
        errors.append(chart(np.concatenate([line.block(0, first_row), live]), first_row))
    height = np.concatenate(errors, axis=1)  # (rows, sensors), in the order of plant.sensors
    limit = calibrate(height[:first_row], budget)
    return [Opening(int(r), plant.sensors[s]) for r, s in openings(height, limit) if r >= first_row]


def chart(values: FloatArray, history_rows: int) -> FloatArray:
    """How far each reading lies off the centre line, values (rows, sensors, channels) -> (rows, sensors).

    In standard deviations over the history, the largest of the channels; 0 where there is no reading.
    """
    centre = values[0].copy()
    errors = np.zeros_like(values)
    for row, reading in enumerate(values):
        error = np.where(np.isnan(reading), 0.0, reading - centre)  # a lost reading leaves the line where it was
        centre += RATE * error
        errors[row] = error
    return np.asarray(np.max(np.abs(errors) / errors[:history_rows].std(axis=0), axis=2))


def calibrate(height: FloatArray, budget: float) -> float:
    """The lowest limit at which fault-free heights (rows, sensors) open at most `budget` alerts a reading."""
    allowed = int(budget * height.size)
    ladder = np.sort(height, axis=None)
    low, high = 0, len(ladder) - 1  # nothing exceeds the highest
    while low < high:
        middle = (low + high) // 2
        if len(openings(height, ladder[middle])) <= allowed:
            high = middle
        else:
            low = middle + 1
    return float(ladder[high])


def openings(height: FloatArray, limit: float) -> IntArray:
    """Where an alert opens, (n, 2) of row and sensor: the limit is newly crossed, the refractory time over."""
    above = height > limit
    crossed = above & ~np.pad(above, ((1, 0), (0, 0)))[:-1]
    ready = np.zeros(height.shape[1], dtype=np.int64)  # the first row at which each sensor may open an alert
    opened = []
    for row, sensor in np.argwhere(crossed):
        if row >= ready[sensor]:
            ready[sensor] = row + REFRACTORY_ROWS
            opened.append((row, sensor))
    return np.array(opened, dtype=np.int64).reshape(-1, 2)
