"""Transitions to alerts: the words, numbers and evidence an operator is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core import alerting
from pipeline.core.alerts import Alert, Evidence, Kind, Resolution, Severity, State, alert_id
from pipeline.core.episodes import BLOCK_READINGS
from pipeline.core.events import Outcome, Rules
from pipeline.core.model import Array, Model
from pipeline.core.readings import FloatArray
from pipeline.core.table import NEVER, Clock, Count, Level, SensorTable, Tally

MOST_CHANNELS = 5  # contributors named in an alert
SEVERITIES = (Severity.WARNING, Severity.CRITICAL)


class Seen(NamedTuple):
    """What the reading that moved an episode looked like, by channel."""

    expected: Mapping[str, float]
    actual: Mapping[str, float]
    band: Mapping[str, tuple[float, float]]
    contributions: Mapping[str, float]


NOTHING_SEEN = Seen({}, {}, {}, {})


class Reporter:
    """Reads table rows and writes alerts; changes nothing."""

    def __init__(self, model: Model, table: SensorTable, rules: Rules, threshold: float, budget: float) -> None:
        self.model, self.table, self.rules, self.threshold, self.budget = model, table, rules, threshold, budget

    def seen(self, out: Outcome, at: int, values: FloatArray, voices: Array) -> Seen:
        """The channels that spoke loudest at position `at`, their share of the score, and what was expected of them."""
        total = float(voices.sum())
        loudest = [int(c) for c in np.argsort(-voices, kind="stable")[:MOST_CHANNELS] if voices[c] > 0]
        targets, columns = self.model.targets, self.model.target_columns
        known = [c for c in loudest if np.isfinite(out.expected[at, c])]
        expected = {targets[c]: float(out.expected[at, c]) for c in known}
        band = {
            targets[c]: (expected[targets[c]] - float(out.band[at, c]), expected[targets[c]] + float(out.band[at, c]))
            for c in known
        }
        actual = {targets[c]: float(values[columns[c]]) for c in loudest}
        return Seen(expected, actual, band, {targets[c]: float(voices[c]) / total for c in loudest})

    def forecast(self, row: int, transition: str, score: float, seen: Seen = NOTHING_SEEN) -> Alert:
        """A forecast episode that opened, became worse, returned to normal, or was accepted as the new normal."""
        clock, count = self.table.arrays.clock[row], self.table.arrays.count[row]
        ended = transition in ("returned", "accepted")
        states = {"opened": State.FIRING, "worse": State.UPDATE}
        return self._alert(
            row,
            Kind.FORECAST,
            start=int(clock[Clock.ONSET]),
            first_offset=int(clock[Clock.ONSET_OFFSET]),
            revision=int(count[Count.REVISION]),
            state=states.get(transition, State.RESOLVED),
            severity=SEVERITIES[int(count[Count.SEVERITY])],
            end=int(clock[Clock.LAST]) if ended else None,
            resolution=Resolution(transition) if ended else None,
            score=score,
            threshold=float(self.table.arrays.level[row, Level.ASKED]),
            extrapolated=score > self._highest_known(row),
            expected=seen.expected,
            actual=seen.actual,
            band=seen.band,
            contributions=seen.contributions,
            imputed=int(count[Count.FILLED]),
        )

    def gap(self, row: int, since: int, time: int, offset: int | None = None) -> Alert:
        """The sensor was silent from `since` to `time`; with `offset`, that of the reading that ended it."""
        clock = self.table.arrays.clock[row]
        ended, time = offset is not None, max(time, since)  # a clock that was set back would end it before it began
        return self._alert(
            row,
            Kind.GAP,
            start=since,
            last=time,
            first_offset=int(clock[Clock.OFFSET]),
            last_offset=offset,
            revision=2 if ended else 1,
            state=State.RESOLVED if ended else State.FIRING,
            end=time if ended else None,
            resolution=Resolution.RETURNED if ended else None,
            measure=(time - since) / 1e6,
            limit=int(clock[Clock.GAP_LIMIT]) / 1e6,
            unit="s",
        )

    def clock(self, row: int, time: int, offset: int, right: int, ended: bool) -> Alert:
        """The sensor's stamps went wrong after its last good one; `time` (µs) is what it says, `right` what is."""
        clock = self.table.arrays.clock[row]
        return self._alert(
            row,
            Kind.CLOCK,
            start=int(clock[Clock.WRONG_SINCE]),
            last=time,
            first_offset=offset,
            last_offset=offset,
            revision=2 if ended else 1,
            state=State.RESOLVED if ended else State.FIRING,
            end=time if ended else None,
            resolution=Resolution.RETURNED if ended else None,
            measure=0.0 if ended else (time - right) / 1e6,
            limit=self.rules.max_future / 1e6 if time > right else 0.0,
            unit="s",
        )

    def lane(
        self, row: int, target: int, kind: Kind, ended: bool, raw: float, since: int, measure: float, limit: float
    ) -> Alert:
        """A stuck value or a crossed limit of one channel, opening or ended."""
        clock, channel = self.table.arrays.clock[row], self.model.targets[target]
        bound = self.rules.bound(self.table.names[row] or "", channel)
        return self._alert(
            row,
            kind,
            channel=channel,
            start=since,
            first_offset=int(clock[Clock.OFFSET]),
            revision=2 if ended else 1,
            state=State.RESOLVED if ended else State.FIRING,
            end=int(clock[Clock.LAST]) if ended else None,
            resolution=Resolution.RETURNED if ended else None,
            measure=measure,
            limit=limit,
            unit="readings" if kind is Kind.STUCK else bound.unit if bound else "",
            actual={channel: raw},
        )

    def standing(self, rows: npt.NDArray[np.intp]) -> list[Alert]:
        """The open alerts of these rows as they were last told, less what only the moment of telling showed."""
        arrays = self.table.arrays
        alerting_rows = rows[arrays.count[rows, Count.STATE] == alerting.OPEN].tolist()
        silent_rows = rows[arrays.clock[rows, Clock.GAP_FROM] != NEVER].tolist()
        alerts = [self.forecast(row, "opened", float(arrays.level[row, Level.SCORE])) for row in alerting_rows]
        alerts += [
            self.gap(
                row, since := int(arrays.clock[row, Clock.GAP_FROM]), since + int(arrays.clock[row, Clock.GAP_LIMIT])
            )
            for row in silent_rows
        ]
        for row in rows[arrays.count[rows, Count.WRONG_CLOCK] == 1].tolist():
            astray, offset = (int(arrays.clock[row, c]) for c in (Clock.ASTRAY, Clock.ASTRAY_OFFSET))
            if astray == NEVER:  # it was believed with its last reading
                astray, offset = (int(arrays.clock[row, c]) for c in (Clock.LAST, Clock.OFFSET))
            alerts.append(self.clock(row, astray, offset, int(arrays.clock[row, Clock.WRONG_SINCE]), ended=False))
        for kind, column in ((Kind.STUCK, Tally.STUCK), (Kind.LIMIT, Tally.BEYOND)):
            for i, target in zip(*np.nonzero(arrays.tally[rows, :, column]), strict=True):
                alerts.append(self._standing_lane(int(rows[i]), int(target), kind))
        return alerts

    def describe(self, row: int) -> dict[str, object]:
        """A sensor's state in words and numbers."""
        arrays = self.table.arrays
        clock, count, level = arrays.clock[row], arrays.count[row], arrays.level[row]
        targets = {}
        for t, channel in enumerate(self.model.targets):
            column = self.model.target_columns[t]
            location, scale = arrays.scale[row, column].tolist()
            targets[channel] = {
                "last": float(arrays.raw[row, column]),
                "usual": location,
                "scale": scale,
                "stuck_after_readings": int(arrays.tally[row, t, Tally.STUCK_LIMIT]),
            }
        fitted = bool(count[Count.FITTED])
        return {
            "sensor": self.table.names[row],
            "group": self.model.group,
            "model": {"name": self.model.ref.name, "version": self.model.ref.version},
            "network": int(count[Count.NETWORK]),
            "state": "scoring"
            if fitted
            else f"warming: {int(count[Count.SEEN])} of {self.model.network.window} readings",
            "readings": int(count[Count.SEEN]),
            "last_time": int(clock[Clock.LAST]) // 1000 if clock[Clock.LAST] != NEVER else None,
            "score": float(level[Level.SCORE]),
            "threshold": float(alerting.asked(arrays.count[[row]], self.threshold, self.budget)[0]),
            "gap_after_seconds": int(clock[Clock.GAP_LIMIT]) / 1e6,
            "alert_open": int(count[Count.STATE]) == alerting.OPEN,
            "channels": targets,
        }

    def _highest_known(self, row: int) -> float:
        """The score that one episode in everything calibrated so far would have."""
        own = float(self.table.arrays.level[row, Level.OWN_BLOCKS])
        blocks = max(int(np.isfinite(self.table.arrays.blocks[row]).sum()) + own, 1)
        return float(np.log10(blocks * BLOCK_READINGS))

    def _standing_lane(self, row: int, target: int, kind: Kind) -> Alert:
        arrays = self.table.arrays
        tally, raw = arrays.tally[row, target], float(arrays.raw[row, self.model.target_columns[target]])
        stuck_since, beyond_since = arrays.since[row, target].tolist()
        if kind is Kind.STUCK:
            repeats, limit = tally[[Tally.RUN, Tally.STUCK_LIMIT]].tolist()
            return self.lane(row, target, kind, False, raw, stuck_since, float(repeats), float(limit))
        bound = float(arrays.bounds[row, target, int(tally[Tally.BEYOND] > 0)])
        return self.lane(row, target, kind, False, raw, beyond_since, raw, bound)

    def _alert(
        self, row: int, kind: Kind, *, start: int, first_offset: int, last: int | None = None,
        last_offset: int | None = None, channel: str = "", severity: Severity = Severity.WARNING, **said: object,
    ) -> Alert:  # fmt: skip
        sensor, clock = self.table.names[row] or "", self.table.arrays.clock[row]
        last = max(int(clock[Clock.LAST]) if last is None else last, start)  # a clock may have been set back since
        if isinstance(end := said.get("end"), int):
            said["end"] = max(end, start)
        last_offset = int(clock[Clock.OFFSET]) if last_offset is None else last_offset
        return Alert(
            alert_id=alert_id(sensor, kind, channel, start),
            kind=kind,
            severity=severity,
            sensor=sensor,
            channel=channel,
            start=start,
            last=last,
            evidence=Evidence(int(self.table.partition[row]), first_offset, last_offset),
            model=self.model.ref,
            detection_delay_ms=(last - start) // 1000 if said["state"] is State.FIRING else None,
            **said,  # type: ignore[arg-type]
        )
