"""How a sensor comes to be scored: what the model knows of it, its first window, another model that takes over."""

from __future__ import annotations

import bisect

import numpy as np
import numpy.typing as npt

from pipeline.core import imputed, quality, scaling
from pipeline.core.engine import FIRST_TRUST, Engine
from pipeline.core.episodes import NO_GROUP
from pipeline.core.events import Rules
from pipeline.core.model import Array, Model
from pipeline.core.readings import BoolArray, FloatArray
from pipeline.core.rounds import Rows
from pipeline.core.table import NEVER, UNFITTED, UNSEEN, Clock, Count, Lane, Level, SensorTable, Tally


class Admission:
    """Fills rows of the table for one model and its rules."""

    def __init__(self, model: Model, table: SensorTable, rules: Rules, engine: Engine) -> None:
        self._model, self._table, self._rules, self._engine = model, table, rules, engine

    def admit(self, row: int) -> bool:
        """Give a row what the bundle knows of its sensor, or else of the group; True where it knows the sensor."""
        arrays, sensor = self._table.arrays, self._table.names[row]
        assert sensor is not None
        names = self._model.sensors.names
        i = bisect.bisect_left(names, sensor)
        known = i < len(names) and names[i] == sensor
        source = {k: v[i] for k, v in self._model.sensors.arrays.items()} if known else self._model.prior
        for name, values in source.items():
            field = self._table.fields[name]
            if field.learned < 0:
                arrays[name][row] = values
            else:
                arrays[name][row, ..., : field.learned] = values
        if not known and "level" not in source:
            arrays.level[row, : Level.OWN_BLOCKS + 1] = NO_GROUP
        clock = arrays.clock[row]
        clock[Clock.LAST] = clock[Clock.GAP_FROM] = clock[Clock.ASTRAY] = clock[Clock.ASTRAY_FROM] = NEVER
        clock[[Clock.OFFSET, Clock.ASTRAY_OFFSET, Clock.BELIEVED_OFFSET]] = -1
        clock[Clock.UPDATED] = NEVER // 2
        clock[Clock.USUAL_STEP] = clock[Clock.USUAL_STEP] or self._model.interval
        clock[Clock.GAP_LIMIT] = clock[Clock.GAP_LIMIT] or quality.gap_limit(
            np.empty(0, np.int64), self._model.interval
        )
        for target, channel in enumerate(self._model.targets):
            arrays.bounds[row, target] = self._bound(sensor, channel)
        return known

    def warm(self, rows: Rows, values: FloatArray, present: BoolArray) -> None:
        """Fill the windows of sensors without a scale; a full window gives them one."""
        whole = present.any(axis=1)
        rows, values, present = rows[whole], values[whole], present[whole]
        if len(rows) == 0:
            return
        arrays, window = self._table.arrays, self._engine.window
        scales = arrays.scale[rows]
        first, within = present & (scales[..., 1] == 0), scaling.bounded(values)
        scales = np.where(first[..., None], np.stack([within, np.ones_like(within)], -1), scales)
        arrays.scale[rows] = scales
        seen = arrays.count[rows, Count.SEEN]
        previous = np.where((seen > 0)[:, None], arrays.window[rows, (seen - 1) % window], np.float32(0))
        offset = (np.where(present, within, 0) - scales[..., 0]).astype(np.float32)
        arrays.window[rows, seen % window] = np.where(present, offset, previous)
        imputed.mark(arrays, rows, seen.astype(np.int64) % window, ~present[:, self._engine.targets])
        arrays.raw[rows] = np.where(present, values, arrays.raw[rows])
        arrays.count[rows, Count.SEEN] += 1
        full = rows[seen + 1 >= window]
        if len(full):
            self._fit(full)

    def take_over(self, rows: Rows) -> None:
        """Give rows what the present model and rules know of them; episodes and clocks go on."""
        arrays, window = self._table.arrays, self._engine.window
        seen = arrays.count[rows, Count.SEEN].astype(np.int64)
        order = (seen[:, None] + np.arange(window)) % window  # oldest first
        raw = scaling.unscaled(arrays.window[rows[:, None], order], arrays.scale[rows][:, None])
        since = np.where(arrays.count[rows, Count.FITTED] != UNFITTED, arrays.count[rows, Count.SINCE], window)
        arrays.pending[rows] = 0  # errors of the old network
        for row in rows.tolist():
            before = {name: arrays[name][row].copy() for name in ("clock", "count", "lane", "tally")}
            known = self.admit(row)
            learned = self._table.fields["clock"].learned
            arrays.clock[row, learned:] = before["clock"][learned:]
            arrays.count[row, Count.ONSETS], arrays.count[row, Count.SPENT_FROM] = 0, before["count"][Count.LEARNED]
            # what this sensor has not sent yet is news, even if the model has been trained on it since
            learn_from = arrays.clock[row, Clock.LEARN_FROM]
            arrays.clock[row, Clock.LEARN_FROM] = min(learn_from, before["clock"][Clock.LAST] + 1)
            if not known and before["count"][Count.FITTED] != UNFITTED:
                # its own readings still say what is usual for it
                arrays.count[row, Count.FITTED] = UNSEEN
                pace = [Clock.GAP_LIMIT, Clock.USUAL_STEP]
                arrays.clock[row, pace] = before["clock"][pace]
                arrays.count[row, Count.NETWORK] = 0
                arrays.lane[row, :, Lane.LOW : Lane.HIGH + 1] = before["lane"][:, Lane.LOW : Lane.HIGH + 1]
                arrays.tally[row, :, Tally.STUCK_LIMIT] = before["tally"][:, Tally.STUCK_LIMIT]
        fitted = np.flatnonzero(arrays.count[rows, Count.FITTED] != UNFITTED)
        x = scaling.scaled(raw[fitted], arrays.scale[rows[fitted]][:, None])
        missing = imputed.over(arrays, rows[fitted], order[fitted])
        self._prime(rows[fitted], x, missing, np.minimum(seen[fitted], window), learn_from=window)
        # a start or a gap that was settling under the old model still is
        arrays.count[rows, Count.SINCE] = np.minimum(arrays.count[rows, Count.SINCE], since)

    def _bound(self, sensor: str, channel: str) -> tuple[float, float]:
        bound = self._rules.bound(sensor, channel)
        return (-np.inf, np.inf) if bound is None else (bound.low, bound.high)

    def _fit(self, rows: Rows) -> None:
        """Scale, range and repeats from a full window, which is then read again as if it had just arrived."""
        arrays = self._table.arrays
        raw = scaling.unscaled(arrays.window[rows], np.maximum(arrays.scale[rows], [-np.inf, 1.0])[:, None])
        whole = np.tile(np.arange(raw.shape[1]), (len(rows), 1))
        missing, targets = imputed.over(arrays, rows, whole), self._engine.targets
        raw[:, :, targets] = np.where(missing, np.nan, raw[:, :, targets])
        for row, values in zip(rows.tolist(), raw, strict=True):
            arrays.scale[row] = scaling.location_and_scale(scaling.statistics(values))
            arrays.tally[row, :, Tally.STUCK_LIMIT] = quality.stuck_limits(values)[targets]
        x = scaling.scaled(raw, arrays.scale[rows][:, None])
        never = missing.all(axis=1)  # a channel that had no value yet is taken for one that stands at 0
        for column, extreme, beyond in ((Lane.LOW, np.min, np.inf), (Lane.HIGH, np.max, -np.inf)):
            found = extreme(np.where(missing, np.float32(beyond), x[:, :, targets]), axis=1)
            arrays.lane[rows, :, column] = np.where(never, np.float32(0), found)
        arrays.count[rows, Count.FITTED] = UNSEEN
        self._prime(rows, x, missing, np.full(len(rows), x.shape[1]), learn_from=x.shape[1] // 2)

    def _prime(self, rows: Rows, x: Array, missing: BoolArray, lengths: npt.NDArray[np.int64], learn_from: int) -> None:
        """Read the last `lengths` rows of windows x (n, window, channels) again, from a cleared forecast and state.

        What had no value, `missing` (n, window, targets), is filled in anew.
        """
        arrays, window = self._table.arrays, x.shape[1]
        for name in ("carried", "forecast", "window", "filled"):
            arrays[name][rows] = 0
        arrays.count[rows[:, None], [Count.SEEN, Count.SINCE, Count.FILLED]] = 0
        arrays.tally[rows, :, Tally.MISSED] = 0
        arrays.lane[rows, :, Lane.MEAN :] = 0
        arrays.lane[rows, :, Lane.MOVED :] = FIRST_TRUST
        for t in range(window):
            live = np.flatnonzero(t >= window - lengths)
            if len(live):
                present = np.ones((len(live), x.shape[2]), np.bool_)
                present[:, self._engine.targets] = ~missing[live, t]
                learns = present[:, self._engine.targets].any(axis=1) & np.full(len(live), t >= learn_from)
                self._engine.advance(arrays, rows[live], x[live, t], present, learns)
