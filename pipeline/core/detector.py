"""Readings in, scores and alerts out, one bounded state per sensor: the one operator that everything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import alerting, reorder, stamps
from pipeline.core.admission import Admission
from pipeline.core.alerts import Alert, Resolution, State
from pipeline.core.engine import Engine
from pipeline.core.events import Event, Outcome, Retire, Rules, Swap, Tick
from pipeline.core.gaps import Gaps
from pipeline.core.intake import Intake
from pipeline.core.lstm import Steps
from pipeline.core.model import Model
from pipeline.core.places import NOWHERE, Places
from pipeline.core.readings import BoolArray, ReadingBatch
from pipeline.core.reporting import Reporter
from pipeline.core.rounds import Round, Rows
from pipeline.core.scoring import Weights
from pipeline.core.silence import Silences
from pipeline.core.table import UNFITTED, Arrays, Clock, Count, SensorTable, layout
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
        self._gaps = Gaps(self.table)
        self._serve(model)

    def step(self, batch: ReadingBatch) -> Outcome:
        """Score each reading against the state before it, then learn it. Every row of `batch` gets a score."""
        out = Outcome.empty(len(batch), len(self.model.targets))
        told: list[tuple[int, Alert]] = []
        begin, ahead = 0, stamps.ahead(batch, self.rules.max_future)
        while begin < len(batch):
            rows, made = self._places.take(batch, ahead, begin, partial(self._evict, batch, told, out))
            for row in made:
                self._admission.admit(row)
                if len(self.table.find(name := self.table.names[row] or "")) > 1:
                    out.split.append(name)
            (placed,) = (rows != NOWHERE).nonzero()
            if len(placed) < len(rows):
                self._refuse(batch, ahead, begin + np.flatnonzero(rows == NOWHERE), out)
            if begin:  # one row for each position so far
                rows, placed = np.concatenate([np.full(begin, NOWHERE), rows]), placed + begin
            for at in steps(self._walker, self.table.arrays, batch, rows, placed, out):
                told += self._intake.take(Round.of(batch, rows[at], at), out)
            begin = len(rows)
        told.sort(key=lambda item: item[0])
        out.told_at, out.alerts = [at for at, _ in told], [alert for _, alert in told]
        return out

    def apply(self, event: Event) -> Outcome:
        """Everything else that can change an alert, in its place in the stream."""
        out = Outcome.empty(0, len(self.model.targets))
        match event:
            case Tick():
                out.alerts = self._gaps.notice(event, self._reporter)
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
        self._gaps.drop(partition)

    def silences(self, partition: int) -> Silences:
        """Who has been silent for how long there."""
        return self._gaps.of(partition)

    def open_alerts(self) -> list[Alert]:
        """Every alert that is open now, as it would be told again."""
        return self._reporter.standing(self.table.rows_of())

    def census(self) -> dict[str, int]:
        """Sensors by what they are doing; each is counted once."""
        rows = np.flatnonzero(self.table.partition >= 0)
        count, silent = self.table.arrays.count[rows], self._gaps.silent(rows)
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

    # -- who has no row

    def _refuse(self, batch: ReadingBatch, ahead: BoolArray, at: Rows, out: Outcome) -> None:
        """Readings at positions `at` of sensors that have no row: of a wrong time, or delivered again."""
        refused = at[ahead[at]]
        out.rejected += [stamps.refusal(batch.sensors[i], batch, i) for i in refused.tolist()]
        out.count("future", len(refused))
        out.count("duplicate", len(at) - len(refused))

    # -- what serves, who is gone

    def _serve(self, model: Model) -> None:
        self.model = model
        fleet = self.rules.fleet or len(model.sensors.names)
        self.budget = self.rules.budget.per_reading(model.interval, fleet)  # false alerts allowed a reading
        self.threshold = self.rules.budget.threshold(model.interval, fleet)  # the score at which it is spent
        self._engine = Engine(model, *self._experiment)
        self._admission = Admission(model, self.table, self.rules, self._engine)
        self._reporter = Reporter(model, self.table, self.rules, self.threshold, self.budget)
        self._intake = Intake(model, self.table, self.rules, self._engine, self._admission, self._reporter, self._gaps)
        self._walker = None
        if self._walkers is not None:
            self._walker = self._walkers(model, self._engine.weights, self.threshold, self.rules.max_future)

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
