"""Calibration: the detector itself reads the history, and what it has learned by the end goes into the bundle.

Windows, scaling, forecasts and scores are those of the live service, because
it is the live service's operator that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import quality, scaling, scoring, tails
from pipeline.core.detector import Detector
from pipeline.core.model import Model, SensorTables
from pipeline.core.readings import FloatArray, ReadingBatch
from pipeline.core.table import BLOCKS, Clock, Columns, Count, Lane, Level, SensorTable, Tally, layout, learned
from training.dataset import History

PRIOR_COUNTS = 500  # readings that the group's tails weigh for a sensor that the model has not seen
FEWEST_HELD_OUT = 300  # readings; with fewer, calibration also counts what the network was fitted on
FEWEST_BLOCKS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Sensor:
    """One sensor's history with what was fitted to the part before `history.held_out`."""

    history: History
    scales: FloatArray  # (channels, 2) location and scale
    network: int = 0  # which of the model's networks forecasts it

    @property
    def values(self) -> FloatArray:
        """Raw readings, (n, channels), NaN where missing."""
        return np.where(self.history.missing, np.nan, self.history.values)

    @property
    def counted_from(self) -> int:
        """The row from which tails and episodes are counted."""
        held_out = len(self.history) - self.history.held_out
        return self.history.held_out if held_out >= FEWEST_HELD_OUT else 0


def calibrate(
    model: Model, sensors: Sequence[Sensor], on_row: Callable[[int], None] | None = None
) -> tuple[Model, FloatArray]:
    """`model` with the tables of these sensors and the priors of the group, and the scores of the held-out readings."""
    sensors = sorted(sensors, key=lambda s: s.history.sensor)
    detector = Detector(replace(model, sensors=_first_tables(model, sensors), prior={}))
    held_out = {s.history.sensor: s.history.held_out for s in sensors}
    scores: list[float] = []
    for row, batch in enumerate(_rows(sensors)):
        outcome = detector.step(batch)
        scores += [s for s, name in zip(outcome.scores.tolist(), batch.sensors, strict=True) if row >= held_out[name]]
        if on_row is not None:
            on_row(row + 1)
    learnt = detector.snapshot(0)
    arrays = Columns(**{name: learnt[name] for name in detector.table.fields})
    _settle(arrays)
    prior = _group_prior(model, arrays)
    episode = (float(prior["level"][Level.USUAL]), float(prior["level"][Level.EXCESS]))
    usual, excess = scoring.episode_calibration(arrays.blocks, episode)
    arrays.level[:, Level.USUAL], arrays.level[:, Level.EXCESS] = usual, excess
    arrays.clock[:, Clock.LEARN_FROM] = [s.history.times[-1] + 1 for s in sensors]
    names = tuple(s.history.sensor for s in sensors)
    calibrated = replace(model, sensors=SensorTables(names, learned(arrays, detector.table.fields)), prior=prior)
    return calibrated, np.array(scores)


def _first_tables(model: Model, sensors: Sequence[Sensor]) -> SensorTables:
    """What is known of each sensor before its history is read: scale, range of the fit part, usual repeats."""
    fields, targets = layout(model), model.target_columns
    arrays = SensorTable(fields).blank(len(sensors))
    for i, sensor in enumerate(sensors):
        history, values = sensor.history, sensor.values
        arrays.scale[i] = sensor.scales
        fit = scaling.scaled(values[: history.held_out], sensor.scales)[:, targets]
        known = ~np.isnan(fit).all(axis=0)
        arrays.lane[i, known, Lane.LOW] = np.nanmin(fit[:, known], axis=0)
        arrays.lane[i, known, Lane.HIGH] = np.nanmax(fit[:, known], axis=0)
        arrays.tally[i, :, Tally.STUCK_LIMIT] = quality.stuck_limits(values)[targets]
        arrays.clock[i, Clock.LEARN_FROM] = history.times[sensor.counted_from]
        arrays.clock[i, Clock.GAP_LIMIT] = history.gap_limit
        arrays.count[i, [Count.NETWORK, Count.FITTED]] = sensor.network, 1
        arrays.level[i, [Level.USUAL, Level.EXCESS]] = scoring.USUAL, scoring.EXCESS
    return SensorTables(tuple(s.history.sensor for s in sensors), learned(arrays, fields))


def _rows(sensors: Sequence[Sensor]) -> Iterator[ReadingBatch]:
    """Row k of every sensor that has one, k = 0, 1, ..."""
    values = [sensor.values for sensor in sensors]
    for row in range(max(map(len, values))):
        here = [i for i, rows in enumerate(values) if row < len(rows)]
        nothing = np.zeros(len(here), np.int64)
        yield ReadingBatch(
            sensors=[sensors[i].history.sensor for i in here],
            times=np.array([sensors[i].history.times[row] for i in here], np.int64),
            values=np.stack([values[i][row] for i in here]),
            usable=np.ones(len(here), np.bool_),
            partitions=nothing,
            offsets=nothing + row,
            received=nothing,
        )


def _settle(arrays: Columns) -> None:
    """Let what waits for its delay enter: nothing after the history can be excused by it."""
    sensors, lanes = arrays.tail.shape[:2]
    tail, pending = scoring.flat(arrays.tail), scoring.flat(arrays.pending)
    every = np.arange(sensors * lanes)
    for block in (0, 1):
        tails.enter(tail, pending, every, np.full(len(every), block, np.int32))
    written = arrays.count[:, Count.LEARNED] // scoring.BLOCK_READINGS
    for later in range(scoring.BLOCK_DELAY):
        arrays.blocks[np.arange(sensors), (written + later) % BLOCKS] = np.nan
    arrays.count[:, Count.LEARNED] = (written + scoring.BLOCK_DELAY) * scoring.BLOCK_READINGS


def _group_prior(model: Model, arrays: Columns) -> dict[str, npt.NDArray[Any]]:
    """What a sensor of this group is like: pooled tails at the weight of PRIOR_COUNTS readings, median episodes."""
    fields = layout(model)
    prior = {name: rows[0].copy() for name, rows in learned(SensorTable(fields).blank(1), fields).items()}
    pooled = arrays.tail.astype(np.float64).sum(axis=0)
    share = pooled / np.maximum(pooled[..., :1], 1)
    prior["tail"] = np.rint(share * PRIOR_COUNTS).astype(np.uint16)
    prior["lane"][:, Lane.LOG_ERROR] = np.median(arrays.lane[..., Lane.LOG_ERROR], axis=0)
    prior["clock"][Clock.GAP_LIMIT] = int(np.median(arrays.clock[:, Clock.GAP_LIMIT]))
    enough = np.isfinite(arrays.blocks).sum(axis=1) >= FEWEST_BLOCKS
    episode = np.array([scoring.USUAL, scoring.EXCESS])
    if enough.any():
        blocks = arrays.blocks[enough]
        medians, highs = np.nanquantile(blocks, [0.5, 0.9], axis=1)
        episode = np.median([medians, (highs - medians) / np.log(5)], axis=1)
    prior["level"][: Level.EXCESS + 1] = episode[0], max(float(episode[1]), scoring.LEAST_EXCESS)
    del prior["scale"]  # of its own first readings
    return prior
