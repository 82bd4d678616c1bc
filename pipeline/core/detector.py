"""Readings in, scores and alerts out, one bounded state per sensor: the one operator that everything runs."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import alerting, quality, scaling, stamps
from pipeline.core.alerts import Alert, Kind, Resolution, State
from pipeline.core.engine import FIRST_TRUST, SETTLING, Engine, Step, Steps
from pipeline.core.episodes import NO_GROUP
from pipeline.core.events import Event, Outcome, Retire, Rules, Swap, Tick
from pipeline.core.model import Array, Model
from pipeline.core.readings import BoolArray, FloatArray, ReadingBatch, Reason, Rejected
from pipeline.core.reporting import Reporter
from pipeline.core.scoring import Weights
from pipeline.core.table import NEVER, UNFITTED, UNSEEN, Arrays, Clock, Count, Lane, Level, SensorTable, Tally, layout

Rows = npt.NDArray[np.intp]


class Detector:
    """Follows the sensors of one group. Deterministic: the same events in the same order give the same alerts.

    Batches may be cut anywhere, parts may be delivered again, and a partition's rows may move to another detector.
    """

    def __init__(
        self,
        model: Model,
        rules: Rules | None = None,
        *,
        weights: Weights | None = None,
        forecaster: Steps | None = None,
    ) -> None:
        """`weights` and `forecaster` are for experiments: what a part is worth, what a simpler forecast would do."""
        self.rules = rules or Rules()
        self._experiment = weights, forecaster
        self.table = SensorTable(layout(model))
        self._serve(model)

    def step(self, batch: ReadingBatch) -> Outcome:
        """Score each reading against the state before it, then learn it. Every row of `batch` gets a score."""
        out = Outcome.empty(len(batch), len(self.model.targets))
        rows, made = self.table.locate(batch.sensors, batch.partitions)
        for row in made:
            self._admit(row)
        told: list[tuple[int, Alert]] = []
        for at in rounds(rows):
            told += self._round(batch, rows[at], at, out)
        out.alerts = [alert for _, alert in sorted(told, key=lambda item: item[0])]
        return out

    def apply(self, event: Event) -> Outcome:
        """Everything else that can change an alert, in its place in the stream."""
        out = Outcome.empty(0, len(self.model.targets))
        match event:
            case Tick(partition, time):
                out.alerts = self._silence(partition, time)
            case Swap(model):
                self._swap(model)
            case Retire(sensor, time):
                out.alerts = self._retire(np.array(self.table.find(sensor), np.intp), time)
        return out

    def snapshot(self, partition: int) -> Arrays:
        """The rows of a partition, whole, in the order of their names."""
        return self.table.gather(self.table.rows_of(partition))

    def restore(self, partition: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace a partition's rows by those of a snapshot; ValueError where it was made by another layout."""
        self.drop(partition)
        self.table.put(partition, arrays)

    def adopt(self, partition: int) -> None:
        """Go on under this model and these rules from rows that a snapshot brought from others, as after a swap."""
        self._take_over(self.table.rows_of(partition))

    def drop(self, partition: int) -> None:
        """Let a partition go."""
        self.table.remove(self.table.rows_of(partition))

    def open_alerts(self) -> list[Alert]:
        """Every alert that is open now, as it would be told again."""
        return self._reporter.standing(self.table.rows_of())

    def census(self) -> dict[str, int]:
        """Sensors by what they are doing; each is counted once."""
        rows = self.table.rows_of()
        count, clock = self.table.arrays.count[rows], self.table.arrays.clock[rows]
        silent = clock[:, Clock.GAP_FROM] != NEVER
        warming = ~silent & (count[:, Count.FITTED] == UNFITTED)
        alert = ~silent & ~warming & (count[:, Count.STATE] == alerting.OPEN)
        scoring = ~silent & ~warming & ~alert
        return {
            "scoring": int(scoring.sum()),
            "warming": int(warming.sum()),
            "alerting": int(alert.sum()),
            "silent": int(silent.sum()),
        }

    def describe(self, sensor: str) -> dict[str, object] | None:
        """What is known of a sensor, for a person; None if it has not been seen."""
        return next((self._reporter.describe(row) for row in self.table.find(sensor)), None)

    # -- one round: at most one reading of each sensor

    def _round(self, batch: ReadingBatch, rows: Rows, at: Rows, out: Outcome) -> list[tuple[int, Alert]]:
        arrays = self.table.arrays
        fresh, told = self._in_time(batch, rows, at, out)
        stale = ~fresh
        out.scores[at[stale]] = arrays.level[rows[stale], Level.SCORE]
        out.alerting[at[stale]] = alerting.open_rows(arrays, rows[stale])
        rows, at = rows[fresh], at[fresh]
        if len(rows) == 0:
            return told
        told += self._arrive(batch, rows, at)

        values, usable = batch.values[at], batch.usable[at]
        present = np.isfinite(values) & usable[:, None]
        out.count("unusable", int((~present.any(axis=1)).sum()))
        fitted = arrays.count[rows, Count.FITTED] != UNFITTED
        self._warm(rows[~fitted], values[~fitted], present[~fitted])
        out.count("warming", int((~fitted).sum()))
        out.scores[at[~fitted]] = 0.0
        rows, at, values, present = rows[fitted], at[fitted], values[fitted], present[fitted]
        if len(rows):
            told += self._score(batch, rows, at, values, present, out)
        return told

    def _in_time(
        self, batch: ReadingBatch, rows: Rows, at: Rows, out: Outcome
    ) -> tuple[BoolArray, list[tuple[int, Alert]]]:
        """Which readings are later than their sensor's last, and not from the future; the others are only counted."""
        times, received = batch.times[at], batch.received[at]
        last = self.table.arrays.clock[rows, Clock.LAST]
        seen = stamps.judge(
            self.table.arrays, rows, times, batch.offsets[at], received, batch.values[at], self.rules.max_future
        )
        for position in at[seen.future].tolist():
            ahead = (batch.times[position] - batch.received[position]) / 1e6
            detail = f"{batch.sensors[position]}: the reading's time is {ahead:.0f} s ahead of its record's timestamp"
            partition, offset = int(batch.partitions[position]), int(batch.offsets[position])
            out.rejected.append(Rejected(Reason.FUTURE, detail, partition=partition, offset=offset))
        for what in ("future", "duplicate", "late"):
            out.count(what, int(getattr(seen, what).sum()))
        told: list[tuple[int, Alert]] = []
        for ended, positions in ((False, seen.opened), (True, seen.ended)):
            for i in np.flatnonzero(positions).tolist():
                right = int(received[i] if seen.future[i] else last[i])
                offset = int(batch.offsets[at[i]])
                told.append((int(at[i]), self._reporter.clock(int(rows[i]), int(times[i]), offset, right, ended)))
        return seen.fresh, told

    def _arrive(self, batch: ReadingBatch, rows: Rows, at: Rows) -> list[tuple[int, Alert]]:
        """Advance the sensors' clocks. A reading after too long a silence ends its gap, whoever noticed it."""
        clock, count = self.table.arrays.clock, self.table.arrays.count
        times, last = batch.times[at], clock[rows, Clock.LAST]
        set_back = clock[rows, Clock.SET_BACK]
        received = batch.received[at]  # by its records, a clock that was behind is right again:
        caught_up = (set_back > 0) & (received > 0) & (2 * (received - times) < set_back)
        clock[rows[caught_up], Clock.SET_BACK] = 0
        gap = (last != NEVER) & (times - last - np.where(caught_up, set_back, 0) > clock[rows, Clock.GAP_LIMIT])
        silent = clock[rows, Clock.GAP_FROM] != NEVER  # a tick told of it, and may have been ahead of this reading
        told: list[tuple[int, Alert]] = []
        for i in np.flatnonzero(gap | silent).tolist():
            row, position = int(rows[i]), int(at[i])
            if clock[row, Clock.GAP_FROM] == NEVER:
                told.append((position, self._reporter.gap(row, int(times[i]))))
            told.append((position, self._reporter.gap(row, int(times[i]), int(batch.offsets[position]))))
        clock[rows, Clock.GAP_FROM] = NEVER
        count[rows[gap], Count.SINCE] = 0
        clock[rows, Clock.LAST] = times
        clock[rows, Clock.OFFSET] = batch.offsets[at]
        return told

    def _score(
        self, batch: ReadingBatch, rows: Rows, at: Rows, values: FloatArray, present: BoolArray, out: Outcome
    ) -> list[tuple[int, Alert]]:
        arrays = self.table.arrays
        times = batch.times[at]
        news = times >= arrays.clock[rows, Clock.LEARN_FROM]  # what was trained on is neither learned nor alerted
        some = present[:, self._engine.targets].any(axis=1)
        scales = arrays.scale[rows]
        raw_before = arrays.raw[rows]
        settled = arrays.count[rows, Count.SINCE] >= SETTLING
        step = self._engine.advance(arrays, rows, scaling.scaled(values, scales), present, news & some)
        scored = news & some
        scores = np.where(
            scored, step.scores, np.where(some, np.minimum(step.scores, 1.0), arrays.level[rows, Level.SCORE])
        )
        arrays.level[rows, Level.SCORE] = scores
        out.scores[at] = arrays.level[rows, Level.SCORE]  # in float32, as it is repeated where nothing is scored
        out.count("scored", int(some.sum()))
        target_scales = scales[:, self._engine.targets]
        out.expected[at] = scaling.unscaled(step.expected, target_scales)
        out.band[at] = step.usual_error * target_scales[..., 1]

        told = self._score_episodes(batch, rows, at, values, step, scored & settled, out)
        told += self._check_values(batch, rows, at, values, raw_before, present, news)
        arrays.raw[rows] = np.where(present, values, raw_before)
        return told

    def _score_episodes(
        self, batch: ReadingBatch, rows: Rows, at: Rows, values: FloatArray, step: Step, scored: BoolArray, out: Outcome
    ) -> list[tuple[int, Alert]]:
        arrays = self.table.arrays
        on = np.flatnonzero(scored)
        moved = alerting.advance(
            arrays, rows[on], out.scores[at[on]], batch.times[at[on]], batch.offsets[at[on]], self.threshold
        )
        out.alerting[at] = alerting.open_rows(arrays, rows)
        told: list[tuple[int, Alert]] = []
        for name, positions in moved._asdict().items():
            for i in on[positions].tolist():
                seen = self._reporter.seen(out, int(at[i]), values[i], step.voices[i])
                told.append((int(at[i]), self._reporter.forecast(int(rows[i]), name, float(out.scores[at[i]]), seen)))
        return told

    def _check_values(
        self,
        batch: ReadingBatch,
        rows: Rows,
        at: Rows,
        values: FloatArray,
        before: FloatArray,
        present: BoolArray,
        news: BoolArray,
    ) -> list[tuple[int, Alert]]:
        """Stuck values and physical limits of the present channels."""
        arrays, targets = self.table.arrays, len(self.model.targets)
        columns = self._engine.targets
        flat = np.flatnonzero(present[:, columns])
        sensor, target = flat // targets, flat % targets
        raw, held = values[:, columns].ravel()[flat], before[:, columns].ravel()[flat]
        times = batch.times[at][sensor]
        lanes = rows[sensor] * targets + target
        told: list[tuple[int, Alert]] = []
        for kind, events in (
            (Kind.STUCK, quality.stuck(arrays, lanes, raw, held, times, news[sensor])),
            (Kind.LIMIT, quality.limits(arrays, lanes, raw, times)),
        ):
            for ended, positions in ((False, events.opened), (True, events.ended)):
                for i in positions.tolist():
                    since, measure, limit = int(events.since[i]), float(events.measure[i]), float(events.limit[i])
                    row, channel = int(rows[sensor[i]]), int(target[i])
                    alert = self._reporter.lane(row, channel, kind, ended, float(raw[i]), since, measure, limit)
                    told.append((int(at[sensor[i]]), alert))
        return told

    # -- sensors that come, warm up, fall silent

    def _serve(self, model: Model) -> None:
        self.model = model
        fleet = self.rules.fleet or len(model.sensors.names)
        self.budget = self.rules.budget.per_reading(model.interval, fleet)  # false alerts allowed a reading
        self.threshold = self.rules.budget.threshold(model.interval, fleet)  # the score at which it is spent
        self._engine = Engine(model, *self._experiment)
        self._reporter = Reporter(model, self.table, self.rules, self.threshold)

    def _admit(self, row: int) -> bool:
        """Give a row what the bundle knows of its sensor, or else of the group; True where it knows the sensor."""
        arrays, sensor = self.table.arrays, self.table.names[row]
        assert sensor is not None
        names = self.model.sensors.names
        i = bisect.bisect_left(names, sensor)
        known = i < len(names) and names[i] == sensor
        source = {k: v[i] for k, v in self.model.sensors.arrays.items()} if known else self.model.prior
        for name, values in source.items():
            field = self.table.fields[name]
            if field.learned < 0:
                arrays[name][row] = values
            else:
                arrays[name][row, ..., : field.learned] = values
        if not known and "level" not in source:
            arrays.level[row, : Level.OWN_BLOCKS + 1] = NO_GROUP
        clock = arrays.clock[row]
        clock[Clock.LAST] = clock[Clock.GAP_FROM] = clock[Clock.ASTRAY] = clock[Clock.ASTRAY_FROM] = NEVER
        clock[[Clock.OFFSET, Clock.ASTRAY_OFFSET]] = -1
        clock[Clock.UPDATED] = NEVER // 2
        clock[Clock.GAP_LIMIT] = clock[Clock.GAP_LIMIT] or quality.gap_limit(np.empty(0, np.int64), self.model.interval)
        for target, channel in enumerate(self.model.targets):
            bound = self._bound(sensor, channel)
            arrays.bounds[row, target] = bound
        return known

    def _bound(self, sensor: str, channel: str) -> tuple[float, float]:
        bound = self.rules.bound(sensor, channel)
        return (-np.inf, np.inf) if bound is None else (bound.low, bound.high)

    def _warm(self, rows: Rows, values: FloatArray, present: BoolArray) -> None:
        """Fill the windows of sensors without a scale; a full window gives them one."""
        whole = present.any(axis=1)
        rows, values, present = rows[whole], values[whole], present[whole]
        if len(rows) == 0:
            return
        arrays, window = self.table.arrays, self._engine.window
        scales = arrays.scale[rows]
        first, within = present & (scales[..., 1] == 0), scaling.bounded(values)
        scales = np.where(first[..., None], np.stack([within, np.ones_like(within)], -1), scales)
        arrays.scale[rows] = scales
        seen = arrays.count[rows, Count.SEEN]
        previous = np.where((seen > 0)[:, None], arrays.window[rows, (seen - 1) % window], np.float32(0))
        offset = (np.where(present, within, 0) - scales[..., 0]).astype(np.float32)
        arrays.window[rows, seen % window] = np.where(present, offset, previous)
        arrays.raw[rows] = np.where(present, values, arrays.raw[rows])
        arrays.count[rows, Count.SEEN] += 1
        full = rows[seen + 1 >= window]
        if len(full):
            self._fit(full)

    def _fit(self, rows: Rows) -> None:
        """Scale, range and repeats from a full window, which is then read again as if it had just arrived."""
        arrays = self.table.arrays
        raw = scaling.unscaled(arrays.window[rows], np.maximum(arrays.scale[rows], [-np.inf, 1.0])[:, None])
        for row, values in zip(rows.tolist(), raw, strict=True):
            arrays.scale[row] = scaling.location_and_scale(scaling.statistics(values))
            arrays.tally[row, :, Tally.STUCK_LIMIT] = quality.stuck_limits(values)[self._engine.targets]
        x = scaling.scaled(raw, arrays.scale[rows][:, None])
        arrays.lane[rows, :, Lane.LOW] = x[:, :, self._engine.targets].min(axis=1)
        arrays.lane[rows, :, Lane.HIGH] = x[:, :, self._engine.targets].max(axis=1)
        arrays.count[rows, Count.FITTED] = UNSEEN
        self._prime(rows, x, np.full(len(rows), x.shape[1]), learn_from=x.shape[1] // 2)

    def _prime(self, rows: Rows, x: Array, lengths: npt.NDArray[np.int64], learn_from: int) -> None:
        """Read the last `lengths` rows of windows x (n, window, channels) again, from a cleared forecast and state."""
        arrays, window = self.table.arrays, x.shape[1]
        for name in ("carried", "forecast", "window"):
            arrays[name][rows] = 0
        arrays.count[rows, Count.SEEN] = 0
        arrays.count[rows, Count.SINCE] = 0
        arrays.lane[rows, :, Lane.MEAN :] = 0
        arrays.lane[rows, :, Lane.MOVED :] = FIRST_TRUST
        for t in range(window):
            live = np.flatnonzero(t >= window - lengths)
            if len(live):
                present = np.ones((len(live), x.shape[2]), np.bool_)
                learns = np.full(len(live), t >= learn_from)
                self._engine.advance(arrays, rows[live], x[live, t], present, learns)

    def _silence(self, partition: int, time: int) -> list[Alert]:
        """Tell of the sensors of a partition that have been silent for longer than is usual for them."""
        rows = self.table.rows_of(partition)
        clock = self.table.arrays.clock
        late = time - stamps.behind_partition(clock[rows]) > clock[rows, Clock.GAP_LIMIT]
        silent = rows[late & (clock[rows, Clock.LAST] != NEVER) & (clock[rows, Clock.GAP_FROM] == NEVER)]
        clock[silent, Clock.GAP_FROM] = clock[silent, Clock.LAST]
        return [self._reporter.gap(int(row), time) for row in silent]

    def _retire(self, rows: Rows, time: int) -> list[Alert]:
        """Resolve what is open, and forget the sensor."""
        ended = [
            replace(a, revision=a.revision + 1, state=State.RESOLVED, end=time, resolution=Resolution.RETIRED)
            for a in self._reporter.standing(rows)
        ]
        self.table.remove(rows)
        return ended

    def _swap(self, model: Model) -> None:
        """Serve another model of the same group from here on: windows are read again under its scales and weights."""
        old = self.model
        if (model.channels, model.targets) != (old.channels, old.targets) or layout(model) != layout(old):
            raise ValueError(
                f"group {old.group}: version {model.ref.version} has other channels or another size than "
                f"{old.ref.version}; stop the service and start it with the new version"
            )
        self._serve(model)
        self._take_over(self.table.rows_of())

    def _take_over(self, rows: Rows) -> None:
        """Give rows what the present model and rules know of them; episodes and clocks go on."""
        arrays, window = self.table.arrays, self._engine.window
        seen = arrays.count[rows, Count.SEEN].astype(np.int64)
        order = (seen[:, None] + np.arange(window)) % window  # oldest first
        raw = scaling.unscaled(arrays.window[rows[:, None], order], arrays.scale[rows][:, None])
        arrays.pending[rows] = 0  # errors of the old network
        for row in rows.tolist():
            before = {name: arrays[name][row].copy() for name in ("clock", "count", "lane", "tally")}
            known = self._admit(row)
            arrays.clock[row, 2:] = before["clock"][2:]
            # what this sensor has not sent yet is news, even if the model has been trained on it since
            learn_from = arrays.clock[row, Clock.LEARN_FROM]
            arrays.clock[row, Clock.LEARN_FROM] = min(learn_from, before["clock"][Clock.LAST] + 1)
            if (
                not known and before["count"][Count.FITTED] != UNFITTED
            ):  # its own readings still say what is usual for it
                arrays.count[row, Count.FITTED] = UNSEEN
                arrays.clock[row, Clock.GAP_LIMIT] = before["clock"][Clock.GAP_LIMIT]
                arrays.count[row, Count.NETWORK] = 0
                arrays.lane[row, :, Lane.LOW : Lane.HIGH + 1] = before["lane"][:, Lane.LOW : Lane.HIGH + 1]
                arrays.tally[row, :, Tally.STUCK_LIMIT] = before["tally"][:, Tally.STUCK_LIMIT]
        fitted = np.flatnonzero(arrays.count[rows, Count.FITTED] != UNFITTED)
        x = scaling.scaled(raw[fitted], arrays.scale[rows[fitted]][:, None])
        self._prime(rows[fitted], x, np.minimum(seen[fitted], window), learn_from=window)


def rounds(rows: Rows) -> Iterator[Rows]:
    """Positions in stream order, cut so that each cut holds a row at most once and a row's positions stay in order."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = (
        np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(rows) else np.empty(0, np.intp)
    )
    lengths = np.diff(np.concatenate([starts, [len(rows)]]))
    if len(rows) and lengths.max() == 1:
        yield np.arange(len(rows))
        return
    occurrence = np.empty(len(rows), np.intp)
    occurrence[order] = np.arange(len(rows)) - np.repeat(starts, lengths)
    by_round = np.argsort(occurrence, kind="stable")
    for start, stop in zip(*_edges(occurrence[by_round]), strict=True):
        yield by_round[start:stop]


def _edges(ordered: Rows) -> tuple[list[int], list[int]]:
    if len(ordered) == 0:
        return [], []
    cuts = (np.flatnonzero(np.diff(ordered)) + 1).tolist()
    return [0, *cuts], [*cuts, len(ordered)]
