"""Calibration: the detector itself reads the history, and what it has learned by the end goes into the bundle.

Windows, scaling, forecasts and scores are those of the live service, because
it is the live service's operator that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.core import episodes, quality, scaling
from pipeline.core.detector import Detector
from pipeline.core.events import Outcome
from pipeline.core.model import Array, Model, SensorTables
from pipeline.core.readings import FloatArray, ReadingBatch
from pipeline.core.table import TRAINED, Clock, Columns, Count, Lane, Level, SensorTable, Tally, layout, learned
from training.dataset import History
from training.rehearsal import Stretch, rehearse, usual_episode
from training.unseen import group_prior

FEW_COUNTS = 1500  # readings: half of what the tails ever count
FEWEST_HELD_OUT = 300  # readings; with fewer, calibration also counts what the network was fitted on


@dataclass(frozen=True, slots=True, eq=False)
class Sensor:
    """One sensor's history with what was fitted to the part before `history.held_out`."""

    history: History
    scales: FloatArray  # (channels, 2) location and scale
    network: int = 0  # which of the model's networks forecasts it

    @property
    def stretch(self) -> Stretch:
        """Its readings as they came."""
        values = np.where(self.history.missing, np.nan, self.history.values)
        return Stretch(self.history.sensor, self.history.times, values)

    @property
    def counted_from(self) -> int:
        """The row from which tails and episodes are counted."""
        held_out = len(self.history) - self.history.held_out
        return self.history.held_out if held_out >= FEWEST_HELD_OUT else 0


def calibrate(
    model: Model,
    sensors: Sequence[Sensor],
    on_row: Callable[[int], None] | None = None,
    detector_of: Callable[[Model], Detector] = Detector,
    prior: bool = True,
) -> tuple[Model, FloatArray]:
    """`model` with the tables of these sensors and the prior of the group, and the scores of the held-out readings.

    `detector_of` a model is what reads the histories: where something else is to serve, it must calibrate itself.
    Without a `prior`, which takes longest, the model is of no use to other sensors than these.
    """
    sensors = sorted(sensors, key=lambda s: s.history.sensor)
    held_out = {s.history.sensor: s.history.held_out for s in sensors}
    scores: list[float] = []

    def note(row: int, batch: ReadingBatch, outcome: Outcome) -> None:
        scores.extend(
            score for score, name in zip(outcome.scores.tolist(), batch.sensors, strict=True) if row >= held_out[name]
        )
        if on_row is not None:
            on_row(row + 1)

    stretches = [sensor.stretch for sensor in sensors]
    blank = replace(model, sensors=_first_tables(model, sensors), prior={})
    arrays, blocks = rehearse(blank, stretches, note, detector_of)
    _set_episodes(arrays, blocks)
    arrays.clock[:, Clock.LEARN_FROM] = [s.history.times[-1] + 1 for s in sensors]
    tables = SensorTables(tuple(s.history.sensor for s in sensors), learned(arrays, layout(model)))
    of_unseen = group_prior(model, arrays, stretches, detector_of) if prior else {}
    return replace(model, sensors=tables, prior=of_unseen), np.array(scores)


def _first_tables(model: Model, sensors: Sequence[Sensor]) -> SensorTables:
    """What is known of each sensor before its history is read: scale, range of the fit part, usual repeats."""
    fields, targets = layout(model), model.target_columns
    arrays = SensorTable(fields).blank(len(sensors))
    for i, sensor in enumerate(sensors):
        history, values = sensor.history, sensor.stretch.values
        arrays.scale[i] = sensor.scales
        fit = scaling.scaled(values[: history.held_out], sensor.scales)[:, targets]
        known = ~np.isnan(fit).all(axis=0)
        arrays.lane[i, known, Lane.LOW] = np.nanmin(fit[:, known], axis=0)
        arrays.lane[i, known, Lane.HIGH] = np.nanmax(fit[:, known], axis=0)
        arrays.tally[i, :, Tally.STUCK_LIMIT] = quality.stuck_limits(values)[targets]
        arrays.clock[i, Clock.LEARN_FROM] = history.times[sensor.counted_from]
        arrays.clock[i, [Clock.GAP_LIMIT, Clock.USUAL_STEP]] = history.gap_limit, history.usual_step
        arrays.count[i, [Count.NETWORK, Count.FITTED]] = sensor.network, TRAINED
        arrays.level[i, : Level.OWN_BLOCKS + 1] = episodes.NO_GROUP
    return SensorTables(tuple(s.history.sensor for s in sensors), learned(arrays, fields))


def _set_episodes(arrays: Columns, blocks: Array) -> None:
    """What is usual for each sensor by its own training (sensors, B), shrunk to what is usual in the group."""
    if arrays.lane.shape[1] > 1:
        blocks = _well_judged(blocks)
    quantile = episodes.winsored(arrays.lane.shape[1])
    group = np.tile(np.array([*usual_episode(blocks, quantile), episodes.GROUP_BLOCKS], np.float32), (len(blocks), 1))
    usual, excess = episodes.calibrated(blocks, group, quantile)
    own = np.minimum(np.isfinite(blocks).sum(axis=1), episodes.MOST_OWN_BLOCKS)
    level = np.stack([usual, excess, usual, excess, episodes.GROUP_BLOCKS + own], axis=1)
    arrays.level[:, : Level.OWN_BLOCKS + 1] = level


def _well_judged(blocks: Array) -> Array:
    """Block maxima (sensors, B) without the first, at most half of a sensor's, that were judged by few counts.

    Tails of many channels are extrapolated from their counts, and from few they are extrapolated too far: what would
    be called usual is twice as high as what serving calls so, with the counts of the whole history. A single
    channel's are ranks, which few counts only bound.
    """
    early = np.minimum(np.isfinite(blocks).sum(axis=1) // 2, FEW_COUNTS // episodes.BLOCK_READINGS)
    judged: Array = np.where(np.arange(blocks.shape[1]) < early[:, None], np.float32(np.nan), blocks)
    return judged
