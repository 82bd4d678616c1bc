"""Files through the live detector: a score for every row, and the alerts that would have been raised."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.adapters.files import DataError, Series, iter_batches
from pipeline.adapters.replay_folder import GroupRun, Run, Signals, write_run, write_scores, write_signals
from pipeline.adapters.sensors import SensorRow, bounds
from pipeline.core.alerts import Alert
from pipeline.core.detector import Detector
from pipeline.core.events import Rules
from pipeline.core.frames import Frame
from pipeline.core.model import Model
from pipeline.core.readings import SECOND, BoolArray, FloatArray, Reading
from pipeline.routing import Router, groups_of


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """One sensor's rows after the replay, in the order of its file."""

    series: Series
    scores: FloatArray  # (n,)
    alerting: BoolArray  # (n,) a forecast alert is open
    signals: Signals


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """What came of all rows."""

    sensors: tuple[Replayed, ...]
    alerts: tuple[Alert, ...]
    counts: Mapping[str, int]
    fleet: int  # sensors that a budget of the fleet is shared by
    groups: Mapping[str, GroupRun]

    def write(self, folder: Path, budget: str) -> None:
        """The scores, and what an evaluation of them needs beside them; `budget` in the operator's words."""
        for one in self.sensors:
            write_scores(folder, one.series, one.scores, one.alerting)
            write_signals(folder, one.series, one.signals)
        write_run(folder, Run(budget, self.fleet, self.groups))


def replay(
    series: Sequence[Series],
    models: Mapping[str, Model],
    rules: Rules,
    sensors_csv: Sequence[SensorRow] = (),
    on_readings: Callable[[int], None] | None = None,
    detector_of: Callable[[Model, Rules], Detector] = Detector,
) -> Replay:
    """Replay every sensor through its group's detector; DataError where no group reads a sensor.

    `on_readings` is told how many readings have been replayed so far; `detector_of` is for experiments.
    """
    router = Router(groups_of(models))
    members: dict[str, list[Series]] = defaultdict(list)
    for one in series:
        members[_group(one, router, models)].append(one)
    fleet = sum(len(model.sensors.names) for model in models.values())
    rules = replace(rules, fleet=fleet)
    runs: dict[str, GroupRun] = {}
    sensors: list[Replayed] = []
    alerts: list[Alert] = []
    counts: dict[str, int] = defaultdict(int)
    done = 0
    for name, group in sorted(members.items()):
        blank = {one.sensor: _blank(one, models[name]) for one in group}
        limits = bounds(sensors_csv, models[name].channels)
        detector = detector_of(models[name], replace(rules, bounds=limits))
        runs[name] = _run(detector, tuple(blank))
        for batch in iter_batches(group, models[name].channels):
            outcome = detector.step(batch)
            for sensor, at in _by_sensor(batch.sensors):
                into, rows = blank[sensor], batch.offsets[at]
                into.scores[rows], into.alerting[rows] = outcome.scores[at], outcome.alerting[at]
                into.signals.expected[rows], into.signals.band[rows] = outcome.expected[at], outcome.band[at]
            alerts += [replace(alert, mode="replay") for alert in outcome.alerts]
            for what, how_many in outcome.counts.items():
                counts[what] += how_many
            done += len(batch)
            if on_readings is not None:
                on_readings(done)
        sensors += blank.values()
    return Replay(tuple(sensors), tuple(alerts), counts, fleet, runs)


def _group(series: Series, router: Router, models: Mapping[str, Model]) -> str:
    """As the live service routes it; files that suit several groups go to the one sampled most like them."""
    probe = Reading(series.sensor, 0, dict.fromkeys(series.channels, 0.0))
    routed, rejected = router.split(Frame.of([probe]))
    if routed:
        return next(iter(routed))
    alike = [name for name, model in models.items() if set(model.channels) == set(series.channels)]
    if not alike or len(series) < 2:
        raise DataError(f"{series.sensor}: {rejected[0].detail}")
    interval = float(np.median(np.abs(np.diff(series.times)))) or SECOND
    return min(alike, key=lambda name: abs(np.log(models[name].interval / interval)))


def _run(detector: Detector, sensors: tuple[str, ...]) -> GroupRun:
    ref, interval = detector.model.ref, detector.model.interval
    return GroupRun(ref.name, ref.version, ref.sha256, interval, detector.threshold, detector.budget, sensors)


def _blank(series: Series, model: Model) -> Replayed:
    rows, targets = len(series), model.targets
    nothing = np.full((rows, len(targets)), np.nan)
    signals = Signals(targets, series.columns(targets), nothing, nothing.copy())
    return Replayed(series, np.zeros(rows), np.zeros(rows, np.bool_), signals)


def _by_sensor(names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Each sensor of a batch with the positions of its readings."""
    unique, which = np.unique(np.array(names), return_inverse=True)
    order = np.argsort(which, kind="stable")
    for name, at in zip(unique, np.split(order, np.cumsum(np.bincount(which))[:-1]), strict=True):
        yield str(name), at
