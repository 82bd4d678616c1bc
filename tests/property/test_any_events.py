"""Whatever comes, in whatever order: every reading gets a finite score, and the book of alerts balances."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.alerts import Alert, State
from pipeline.core.detector import Detector
from pipeline.core.events import Bound, Retire, Rules, Swap, Tick
from pipeline.core.model import Model
from pipeline.core.readings import SECOND, ReadingBatch
from pipeline.core.thresholds import Budget
from tests import models

RULES = Rules(budget=Budget.parse("1/25/sensor"), bounds=(Bound("*", "c0", 14.0, 26.0),))
SENSORS = ("s0", "s1", "new")  # the bundles know the first two
VALUES = st.sampled_from([20.0, 20.5, 21.0, 35.0, 0.0, -1e300, 1.7e308, 5e-324, np.inf, -np.inf, np.nan]) | st.floats()
STEPS = st.sampled_from([60, 60, 60, 60, 61, 0, -120, 400, 10**7, 10**12])  # seconds from the last reading
READING = st.tuples(st.sampled_from(SENSORS), STEPS, VALUES, VALUES, st.integers(0, 9), st.integers(1, 40))
EVENT = st.one_of(
    st.lists(READING, min_size=1, max_size=12),
    st.tuples(st.just("tick"), st.integers(-100, 10**5)),
    st.tuples(st.just("retire"), st.sampled_from(SENSORS)),
    st.tuples(st.just("swap"), st.integers(1, 2)),
    st.just("move"),
)
Reading = tuple[str, int, float, float, int, int]


@cache
def version(number: int) -> Model:
    history = models.stream(models.waves(2, 400, 2))
    return models.learnt(models.model(2, version=str(number), seed=number), history)


@dataclass
class Service:
    """A detector, the clock of its partition, and every alert that was told and did not end."""

    detector: Detector
    now: int = models.START + 500 * models.INTERVAL
    offset: int = 0
    open: dict[str, int] = field(default_factory=dict)  # alert id -> revision

    def read(self, readings: list[Reading]) -> None:
        """Each is repeated so many times, a step after the last one; one in ten is of bad quality."""
        rows = [r[:5] for r in readings for _ in range(r[5])]
        steps = np.array([step for _, step, *_ in rows], np.int64).clip(max=10**9)
        times = self.now + np.cumsum(steps) * SECOND
        offsets = self.offset + np.arange(len(rows), dtype=np.int64)
        batch = ReadingBatch(
            [r[0] for r in rows], times, np.array([r[2:4] for r in rows]), np.array([r[4] > 0 for r in rows]),
            np.zeros(len(rows), np.int64), offsets, np.full(len(rows), self.now + 10**6 * SECOND),
        )  # fmt: skip
        outcome = self.detector.step(batch)
        assert np.isfinite(outcome.scores).all()
        assert len(outcome.rejected) == outcome.counts.get("future", 0)
        refused = {r.offset for r in outcome.rejected}
        taken = [time for time, offset in zip(times.tolist(), offsets.tolist(), strict=True) if offset not in refused]
        self.now, self.offset = max([self.now, *taken]), self.offset + len(rows)
        self.book(outcome.alerts)

    def book(self, alerts: list[Alert]) -> None:
        """An alert is told before it ends, and ends once."""
        for alert in alerts:
            assert alert.revision == self.open.get(alert.alert_id, 0) + 1
            assert alert.score is None or np.isfinite(alert.score)
            if alert.state is State.RESOLVED:
                del self.open[alert.alert_id]
            else:
                self.open[alert.alert_id] = alert.revision
        assert {a.alert_id: a.revision for a in self.detector.open_alerts()} == self.open

    def move(self) -> None:
        """To another process."""
        other = Detector(self.detector.model, self.detector.rules)
        other.restore(0, self.detector.snapshot(0))
        self.detector = other


@settings(deadline=None)
@given(st.lists(EVENT, min_size=1, max_size=12), st.sampled_from([0, 0, 2]))
def test_any_events_in_any_order_leave_finite_scores_and_alerts_that_add_up(events: list[object], reorder: int) -> None:
    service = Service(Detector(version(1), replace(RULES, reorder=reorder)))
    for event in events:
        match event:
            case list(readings):
                service.read(readings)
            case ("tick", int(seconds)):
                service.book(service.detector.apply(Tick(0, service.now + seconds * SECOND)).alerts)
            case ("retire", str(sensor)):
                service.book(service.detector.apply(Retire(sensor, service.now)).alerts)
            case ("swap", int(number)):
                service.book(service.detector.apply(Swap(version(number))).alerts)
            case "move":
                service.move()
                service.book([])
