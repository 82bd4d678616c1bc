"""A round: at most one reading of each sensor, judged, scored, learned and told of, in this order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.core import alerting, imputed, quality, reorder, scaling, stamps
from pipeline.core.admission import Admission
from pipeline.core.alerts import Alert, Kind
from pipeline.core.engine import SETTLING, Engine, Step
from pipeline.core.events import Outcome, Rules
from pipeline.core.gaps import Gaps
from pipeline.core.model import Model
from pipeline.core.readings import BoolArray, FloatArray, IntArray
from pipeline.core.reporting import Reporter
from pipeline.core.rounds import Round
from pipeline.core.table import NEVER, UNFITTED, Clock, Count, Level, SensorTable, Tally


class Intake:
    """Takes rounds into the table, for one model and its rules."""

    def __init__(
        self, model: Model, table: SensorTable, rules: Rules, engine: Engine, admission: Admission, reporter: Reporter,
        gaps: Gaps,
    ) -> None:  # fmt: skip
        self._model, self._table, self._rules, self._engine = model, table, rules, engine
        self._admission, self._reporter, self._gaps = admission, reporter, gaps
        self._threshold, self._budget = reporter.threshold, reporter.budget

    def take(self, arrived: Round, out: Outcome) -> list[tuple[int, Alert]]:
        """Fill `out` at the round's positions; the alerts with the positions of the readings that they are told at."""
        if not self._rules.reorder:
            return self._take_in(arrived, out)
        turn = reorder.turn(self._table.arrays, arrived, self._rules.max_future)
        for what in ("duplicate", "late", "reordered"):
            out.count(what, getattr(turn, what))
        self._repeat(turn.kept, out)
        told = self._take_in(turn.out, out)
        of_others = turn.out.at[turn.waited]  # what was expected there is not of the reading that stands there
        out.expected[of_others] = out.band[of_others] = np.nan
        return told

    def _repeat(self, unscored: Round, out: Outcome) -> None:
        """Say what was said of these sensors last."""
        out.scores[unscored.at] = self._table.arrays.level[unscored.rows, Level.SCORE]
        out.alerting[unscored.at] = alerting.open_rows(self._table.arrays, unscored.rows)

    def _take_in(self, arrived: Round, out: Outcome) -> list[tuple[int, Alert]]:
        arrays = self._table.arrays
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
        last = self._table.arrays.clock[arrived.rows, Clock.LAST]
        seen = stamps.judge(self._table.arrays, arrived, self._rules.max_future)
        for i in np.flatnonzero(seen.future).tolist():
            out.rejected.append(stamps.refusal(self._table.names[arrived.rows[i]] or "", arrived, i))
        for what in ("future", "duplicate", "late"):
            out.count(what, int(getattr(seen, what).sum()))
        if self._rules.reorder:  # what waits is of a clock that is no longer believed
            out.count("late", reorder.forget(self._table.arrays, arrived.rows[seen.fresh & (arrived.times <= last)]))
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
        clock, count = self._table.arrays.clock, self._table.arrays.count
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
        for i in np.flatnonzero(silent | (gap & ~self._gaps.are_covered(taken.partitions, last + set_back))).tolist():
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
        if not self._rules.bridge:
            return
        arrays, targets = self._table.arrays, len(self._engine.targets)
        late = steps > quality.LATE_STEP * arrays.clock[rows, Clock.USUAL_STEP]
        sparse = arrays.count[rows, Count.FILLED] > 0
        if sparse.any():  # readings that came without a value are missing ones, however many
            run = arrays.tally[rows, :, Tally.MISSED].min(axis=1)
            ended = sparse & (run > self._rules.bridge) & present[:, self._engine.targets].any(axis=1)
            arrays.count[rows[ended], Count.SINCE] = 0
        if not late.any():
            return
        rows, missed = rows[late], imputed.missed(steps[late], self._model.interval)
        arrays.count[rows[missed > self._rules.bridge], Count.SINCE] = 0
        few = (missed <= self._rules.bridge) & (steps[late] <= arrays.clock[rows, Clock.GAP_LIMIT])
        most = imputed.MOST_FILLED * self._engine.window * targets
        few &= arrays.count[rows, Count.FILLED] + missed * targets <= most
        bridged = np.where(few, missed, 0)
        for done in range(int(bridged.max())):
            on = rows[bridged > done]
            nothing = np.zeros((len(on), present.shape[1]), np.bool_)
            self._engine.advance(arrays, on, nothing.astype(np.float32), nothing, nothing[:, 0])
        out.count("imputed", int(bridged.sum()))

    def _score(self, taken: Round, present: BoolArray, out: Outcome) -> list[tuple[int, Alert]]:
        arrays, rows, at = self._table.arrays, taken.rows, taken.at
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
        arrays, rows, at = self._table.arrays, taken.rows, taken.at
        on = np.flatnonzero(scored)
        moved = alerting.advance(
            arrays, rows[on], out.scores[at[on]], taken.times[on], taken.offsets[on], self._threshold, self._budget
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
        arrays, targets = self._table.arrays, len(self._model.targets)
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
