"""Readings in, scores and alerts out, one bounded state per sensor: the one operator that everything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import alerting, imputed, quality, reorder, scaling, stamps
from pipeline.core.admission import Admission
from pipeline.core.alerts import Alert, Kind, Resolution, State
from pipeline.core.engine import SETTLING, Engine, Step
from pipeline.core.events import Event, Outcome, Retire, Rules, Swap, Tick
from pipeline.core.lstm import Steps
from pipeline.core.model import Model
from pipeline.core.places import NOWHERE, Places
from pipeline.core.readings import BoolArray, FloatArray, IntArray, ReadingBatch, Reason, Rejected
from pipeline.core.reporting import Reporter
from pipeline.core.rounds import Round
from pipeline.core.scoring import Weights
from pipeline.core.silence import Silences
from pipeline.core.table import NEVER, UNFITTED, Arrays, Clock, Count, Level, SensorTable, Tally, layout
from pipeline.core.walking import Walkers, steps


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
        walkers: Walkers | None = None,
    ) -> None:
        """`walkers`: a compiled form for what is ordinary, where there is one.

        `weights` and `forecaster` are for experiments: what a part is worth, what a simpler forecast would do.
        """
        self.rules = rules or Rules()
        self._experiment = weights, forecaster
        ordinary = forecaster is None and not self.rules.reorder  # what may have to wait is never ordinary
        self._walkers = walkers if ordinary else None
        self.table = SensorTable(layout(model, self.rules.reorder))
        self._places = Places(self.table, self.rules.most_sensors)
        self._covered: dict[int, Tick] = {}  # the newest of a partition that is silent itself
        self._serve(model)

    def step(self, batch: ReadingBatch) -> Outcome:
        """Score each reading against the state before it, then learn it. Every row of `batch` gets a score."""
        out = Outcome.empty(len(batch), len(self.model.targets))
        told: list[tuple[int, Alert]] = []
        begin = 0
        while begin < len(batch):
            rows, made = self._places.take(batch, begin, partial(self._evict, batch, told, out))
            for row in made:
                self._admission.admit(row)
                if len(self.table.find(name := self.table.names[row] or "")) > 1:
                    out.split.append(name)
            (placed,) = (rows != NOWHERE).nonzero()
            out.count("duplicate", len(rows) - len(placed))
            if begin:  # one row for each position so far
                rows, placed = np.concatenate([np.full(begin, NOWHERE), rows]), placed + begin
            for at in steps(self._walker, self.table.arrays, batch, rows, placed, out):
                told += self._round(Round.of(batch, rows[at], at), out)
            begin = len(rows)
        out.alerts = [alert for _, alert in sorted(told, key=lambda item: item[0])]
        return out

    def apply(self, event: Event) -> Outcome:
        """Everything else that can change an alert, in its place in the stream."""
        out = Outcome.empty(0, len(self.model.targets))
        match event:
            case Tick():
                out.alerts = self._silence(event)
            case Swap(model):
                self._swap(model)
            case Retire():
                out.alerts = self._retire(event)
        return out

    def snapshot(self, partition: int) -> Arrays:
        """The rows of a partition, whole, in the order of their names."""
        return self.table.gather(self.table.rows_of(partition))

    def restore(self, partition: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace a partition's rows by those of a snapshot; ValueError where it was made by another layout."""
        self.drop(partition)
        self.table.put(partition, reorder.fitted(arrays, self.rules.reorder))

    def adopt(self, partition: int) -> None:
        """Go on under this model and these rules from rows that a snapshot brought from others, as after a swap."""
        self._admission.take_over(self.table.rows_of(partition))

    def drop(self, partition: int) -> None:
        """Let a partition go."""
        self.table.remove(self.table.rows_of(partition))
        self._places.drop(partition)
        self._covered.pop(partition, None)

    def silences(self, partition: int) -> Silences:
        """Who has been silent for how long there."""
        rows = np.flatnonzero(self.table.partition == partition)
        rows = rows[reorder.newest(self.table.arrays, rows) != NEVER]
        clock, last = self.table.arrays.clock[rows], reorder.heard(self.table.arrays, rows)
        return Silences(last, clock[:, Clock.GAP_LIMIT], clock[:, Clock.GAP_FROM] != NEVER, clock[:, Clock.OFFSET])

    def open_alerts(self) -> list[Alert]:
        """Every alert that is open now, as it would be told again."""
        return self._reporter.standing(self.table.rows_of())

    def census(self) -> dict[str, int]:
        """Sensors by what they are doing; each is counted once."""
        rows = np.flatnonzero(self.table.partition >= 0)
        count, clock = self.table.arrays.count[rows], self.table.arrays.clock[rows]
        silent = clock[:, Clock.GAP_FROM] != NEVER
        for partition, tick in self._covered.items():
            silent |= (self.table.partition[rows] == partition) & (
                tick.time - reorder.newest(self.table.arrays, rows) > clock[:, Clock.GAP_LIMIT]
            )
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

    def _round(self, arrived: Round, out: Outcome) -> list[tuple[int, Alert]]:
        if not self.rules.reorder:
            return self._take_in(arrived, out)
        turn = reorder.turn(self.table.arrays, arrived, self.rules.max_future)
        for what in ("duplicate", "late", "reordered"):
            out.count(what, getattr(turn, what))
        self._repeat(turn.kept, out)
        told = self._take_in(turn.out, out)
        of_others = turn.out.at[turn.waited]  # what was expected there is not of the reading that stands there
        out.expected[of_others] = out.band[of_others] = np.nan
        return told

    def _repeat(self, unscored: Round, out: Outcome) -> None:
        """Say what was said of these sensors last."""
        out.scores[unscored.at] = self.table.arrays.level[unscored.rows, Level.SCORE]
        out.alerting[unscored.at] = alerting.open_rows(self.table.arrays, unscored.rows)

    def _take_in(self, arrived: Round, out: Outcome) -> list[tuple[int, Alert]]:
        arrays = self.table.arrays
        fresh, told = self._in_time(arrived, out)
        self._repeat(arrived.only(~fresh), out)
        taken = arrived.only(fresh)
        if len(taken.rows) == 0:
            return told
        steps, gaps = self._arrive(taken)
        told += gaps

        present = np.isfinite(taken.values) & taken.usable[:, None]
        out.count("unusable", int((~present.any(axis=1)).sum()))
        fitted = arrays.count[taken.rows, Count.FITTED] != UNFITTED
        warming = taken.only(~fitted)
        self._admission.warm(warming.rows, warming.values, present[~fitted])
        out.count("warming", len(warming.rows))
        out.scores[warming.at] = 0.0
        if fitted.any():
            taken, present = taken.only(fitted), present[fitted]
            self._bridge(taken.rows, steps[fitted], present, out)
            told += self._score(taken, present, out)
        return told

    def _in_time(self, arrived: Round, out: Outcome) -> tuple[BoolArray, list[tuple[int, Alert]]]:
        """Which readings are later than their sensor's last, and not from the future; the others are only counted."""
        last = self.table.arrays.clock[arrived.rows, Clock.LAST]
        seen = stamps.judge(self.table.arrays, arrived, self.rules.max_future)
        for i in np.flatnonzero(seen.future).tolist():
            sensor = self.table.names[arrived.rows[i]]
            ahead = (arrived.times[i] - arrived.received[i]) / 1e6
            detail = f"{sensor}: the reading's time is {ahead:.0f} s ahead of its record's timestamp"
            partition, offset = int(arrived.partitions[i]), int(arrived.offsets[i])
            out.rejected.append(Rejected(Reason.FUTURE, detail, partition=partition, offset=offset))
        for what in ("future", "duplicate", "late"):
            out.count(what, int(getattr(seen, what).sum()))
        if self.rules.reorder:  # what waits is of a clock that is no longer believed
            out.count("late", reorder.forget(self.table.arrays, arrived.rows[seen.fresh & (arrived.times <= last)]))
        told: list[tuple[int, Alert]] = []
        for ended, positions in ((False, seen.opened), (True, seen.ended)):
            for i in np.flatnonzero(positions).tolist():
                ahead_of_record = seen.future[i] or (arrived.times[i] == last[i] and arrived.received[i] > 0)
                right = int(arrived.received[i] if ahead_of_record else last[i])
                row, time, offset = int(arrived.rows[i]), int(arrived.times[i]), int(arrived.offsets[i])
                told.append((int(arrived.at[i]), self._reporter.clock(row, time, offset, right, ended)))
        return seen.fresh, told

    def _arrive(self, taken: Round) -> tuple[IntArray, list[tuple[int, Alert]]]:
        """Advance the sensors' clocks, by (n,) µs. A reading after too long a silence ends its gap, whoever noticed."""
        clock, count = self.table.arrays.clock, self.table.arrays.count
        rows, times, received = taken.rows, taken.times, taken.received
        last, set_back = clock[rows, Clock.LAST], clock[rows, Clock.SET_BACK]
        # by its records, a clock that was behind is right again
        caught_up = (set_back > 0) & (received > 0) & (2 * (received - times) < set_back)
        clock[rows[caught_up], Clock.SET_BACK] = 0
        steps = np.where(last == NEVER, 0, times - last - np.where(caught_up, set_back, 0))
        gap = steps > clock[rows, Clock.GAP_LIMIT]
        steps[caught_up & ~gap] = 0  # by how much exactly it was behind, nobody knows
        # a tick told of it, and may have been ahead of this reading; one that waited may be from before
        before = times + set_back <= clock[rows, Clock.GAP_FROM]
        silent = (clock[rows, Clock.GAP_FROM] != NEVER) & ~before
        told: list[tuple[int, Alert]] = []
        for i in np.flatnonzero(silent | (gap & ~self._is_covered(taken.partitions, last + set_back))).tolist():
            row, position, time, since = (
                int(rows[i]),
                int(taken.at[i]),
                int(times[i]),
                int(clock[rows[i], Clock.GAP_FROM]),
            )
            if not silent[i]:
                since = int(last[i])
                told.append((position, self._reporter.gap(row, since, time)))
            told.append((position, self._reporter.gap(row, since, time, int(taken.offsets[i]))))
        clock[rows[~before], Clock.GAP_FROM] = NEVER
        count[rows[gap], Count.SINCE] = 0
        clock[rows, Clock.LAST] = times
        clock[rows, Clock.OFFSET] = taken.offsets
        return steps, told

    def _bridge(self, rows: npt.NDArray[np.intp], steps: IntArray, present: BoolArray, out: Outcome) -> None:
        """Let the forecast stand in for a few readings that did not come; after more of them the window restarts."""
        if not self.rules.bridge:
            return
        arrays, targets = self.table.arrays, len(self._engine.targets)
        late = steps > quality.LATE_STEP * arrays.clock[rows, Clock.USUAL_STEP]
        sparse = arrays.count[rows, Count.FILLED] > 0
        if sparse.any():  # readings that came without a value are missing ones, however many
            run = arrays.tally[rows, :, Tally.MISSED].min(axis=1)
            ended = sparse & (run > self.rules.bridge) & present[:, self._engine.targets].any(axis=1)
            arrays.count[rows[ended], Count.SINCE] = 0
        if not late.any():
            return
        rows, missed = rows[late], imputed.missed(steps[late], self.model.interval)
        arrays.count[rows[missed > self.rules.bridge], Count.SINCE] = 0
        few = (missed <= self.rules.bridge) & (steps[late] <= arrays.clock[rows, Clock.GAP_LIMIT])
        most = imputed.MOST_FILLED * self._engine.window * targets
        few &= arrays.count[rows, Count.FILLED] + missed * targets <= most
        bridged = np.where(few, missed, 0)
        for done in range(int(bridged.max())):
            on = rows[bridged > done]
            nothing = np.zeros((len(on), present.shape[1]), np.bool_)
            self._engine.advance(arrays, on, nothing.astype(np.float32), nothing, nothing[:, 0])
        out.count("imputed", int(bridged.sum()))

    def _score(self, taken: Round, present: BoolArray, out: Outcome) -> list[tuple[int, Alert]]:
        arrays, rows, at = self.table.arrays, taken.rows, taken.at
        news = taken.times >= arrays.clock[rows, Clock.LEARN_FROM]  # what was trained on is neither learned nor alerted
        some = present[:, self._engine.targets].any(axis=1)
        scales = arrays.scale[rows]
        raw_before = arrays.raw[rows]
        settled = arrays.count[rows, Count.SINCE] >= SETTLING
        step = self._engine.advance(arrays, rows, scaling.scaled(taken.values, scales), present, news & some)
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
        out.imputed[at] = arrays.count[rows, Count.FILLED]

        told = self._score_episodes(taken, step, scored & settled, out)
        told += self._check_values(taken, raw_before, present, news)
        arrays.raw[rows] = np.where(present, taken.values, raw_before)
        return told

    def _score_episodes(self, taken: Round, step: Step, scored: BoolArray, out: Outcome) -> list[tuple[int, Alert]]:
        arrays, rows, at = self.table.arrays, taken.rows, taken.at
        on = np.flatnonzero(scored)
        moved = alerting.advance(
            arrays, rows[on], out.scores[at[on]], taken.times[on], taken.offsets[on], self.threshold, self.budget
        )
        out.alerting[at] = alerting.open_rows(arrays, rows)
        told: list[tuple[int, Alert]] = []
        for name, positions in moved._asdict().items():
            for i in on[positions].tolist():
                seen = self._reporter.seen(out, int(at[i]), taken.values[i], step.voices[i])
                told.append((int(at[i]), self._reporter.forecast(int(rows[i]), name, float(out.scores[at[i]]), seen)))
        return told

    def _check_values(
        self, taken: Round, before: FloatArray, present: BoolArray, news: BoolArray
    ) -> list[tuple[int, Alert]]:
        """Stuck values and physical limits of the present channels."""
        arrays, targets = self.table.arrays, len(self.model.targets)
        columns = self._engine.targets
        flat = np.flatnonzero(present[:, columns])
        sensor, target = flat // targets, flat % targets
        raw, held = taken.values[:, columns].ravel()[flat], before[:, columns].ravel()[flat]
        times = taken.times[sensor]
        lanes = taken.rows[sensor] * targets + target
        told: list[tuple[int, Alert]] = []
        for kind, events in (
            (Kind.STUCK, quality.stuck(arrays, lanes, raw, held, times, news[sensor])),
            (Kind.LIMIT, quality.limits(arrays, lanes, raw, times)),
        ):
            for ended, positions in ((False, events.opened), (True, events.ended)):
                for i in positions.tolist():
                    since, measure, limit = int(events.since[i]), float(events.measure[i]), float(events.limit[i])
                    row, channel = int(taken.rows[sensor[i]]), int(target[i])
                    alert = self._reporter.lane(row, channel, kind, ended, float(raw[i]), since, measure, limit)
                    told.append((int(taken.at[sensor[i]]), alert))
        return told

    # -- what serves, who falls silent, who is gone

    def _serve(self, model: Model) -> None:
        self.model = model
        fleet = self.rules.fleet or len(model.sensors.names)
        self.budget = self.rules.budget.per_reading(model.interval, fleet)  # false alerts allowed a reading
        self.threshold = self.rules.budget.threshold(model.interval, fleet)  # the score at which it is spent
        self._engine = Engine(model, *self._experiment)
        self._admission = Admission(model, self.table, self.rules, self._engine)
        self._reporter = Reporter(model, self.table, self.rules, self.threshold, self.budget)
        self._walker = None
        if self._walkers is not None:
            self._walker = self._walkers(model, self._engine.weights, self.threshold, self.rules.max_future)

    def _silence(self, tick: Tick) -> list[Alert]:
        """Tell of the sensors of a partition that have been silent for longer than is usual for them."""
        self._covered.pop(tick.partition, None)
        if tick.covered is not None:
            self._covered[tick.partition] = tick
        clock = self.table.arrays.clock
        rows = np.flatnonzero(self.table.partition == tick.partition)
        newest = reorder.newest(self.table.arrays, rows)
        rows = rows[(newest != NEVER) & (clock[rows, Clock.GAP_FROM] == NEVER)]
        last, limit = reorder.heard(self.table.arrays, rows), clock[rows, Clock.GAP_LIMIT]
        silent = tick.time - last > limit
        if tick.covered is not None:
            silent &= (last + limit < tick.covered.since) | (last > tick.covered.until)
        rows = self.table.by_name(rows[silent])
        clock[rows, Clock.GAP_FROM] = reorder.newest(self.table.arrays, rows)
        return [self._reporter.gap(int(row), int(clock[row, Clock.GAP_FROM]), tick.time) for row in rows]

    def _is_covered(self, partitions: IntArray, last: IntArray) -> BoolArray:
        """Whether a silence since `last` (µs) is part of one of its partition, (n,)."""
        covered = np.zeros(len(partitions), np.bool_)
        for partition, tick in self._covered.items():
            if tick.covered is not None:
                covered |= (partitions == partition) & (last <= tick.covered.until)
        return covered

    def _retire(self, event: Retire) -> list[Alert]:
        """Resolve what is open, and forget the sensor, unless it has spoken since."""
        row = self.table.index.get(event.partition, {}).get(event.sensor)
        if row is None or 0 <= event.offset < self.table.arrays.clock[row, Clock.OFFSET]:
            return []
        self._places.removed(event.partition, event.offset)
        return self._remove(row, event.time, Resolution.RETIRED)

    def _evict(self, batch: ReadingBatch, told: list[tuple[int, Alert]], out: Outcome, row: int, at: int) -> None:
        """Forget a sensor because that of the reading at position `at` needs its row."""
        told += [(at, alert) for alert in self._remove(row, int(batch.times[at]), Resolution.EVICTED)]
        out.count("evicted", 1)

    def _remove(self, row: int, time: int, why: Resolution) -> list[Alert]:
        rows = np.array([row], np.intp)
        ended = [
            replace(a, revision=a.revision + 1, state=State.RESOLVED, end=max(time, a.start), resolution=why)
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
        self._admission.take_over(self.table.rows_of())
