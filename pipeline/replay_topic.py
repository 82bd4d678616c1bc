"""A span of the topic through the live detectors, from the checkpoints that the service left.

Each partition by itself, for nothing that decides crosses partitions. A stretch is cut where the kept checkpoints show
that the service had come under other models or settings, and each part begins from its own checkpoint, under the models
that it names, wherever their bundles still are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from pipeline import bundle
from pipeline.adapters.files import Series
from pipeline.adapters.kafka_span import Stretch
from pipeline.adapters.replay_folder import GroupRun, Signals
from pipeline.core.alerts import Alert
from pipeline.core.model import Model
from pipeline.core.readings import Record
from pipeline.groups import Groups
from pipeline.ports import Assigned, CheckpointError, Checkpoints, Position, Scored
from pipeline.recovery import changed, fitting, hashes, taken_up
from pipeline.replay import Replay, Replayed
from pipeline.serving import Serving, serving
from pipeline.settings_schema import Settings


@dataclass(frozen=True, slots=True)
class Part:
    """What is replayed from one checkpoint, or without any."""

    partition: int
    stretch: Stretch  # what is asked for
    begins: int  # the offset replayed from
    groups: Groups
    checkpoint: str = ""  # without one, sensors start from what their model knows of them
    changed: str = ""  # what is not as it was when the checkpoint was taken
    kernel: str = ""  # what computed the checkpoint, where that is another than here

    def covers(self, alert: Alert) -> bool:
        """Whether the newest reading that the alert knows is asked for."""
        at = alert.evidence
        return at.partition == self.partition and self.stretch.holds(at.last_offset)


class TopicReplay:
    """The service's past, as far as its checkpoints, its bundles and the topic still hold it."""

    def __init__(self, settings: Settings, topic: str, kept: Checkpoints, kernel: str) -> None:
        """BundleError or DataError where the models or settings of today cannot be used."""
        self._settings, self._topic, self._kept, self._kernel = settings, topic, kept, kernel
        self._today = bundle.load_all(settings.model.dir)
        self._known: dict[str, Model | None] = {model.ref.sha256: model for model in self._today.values()}

    @property
    def fleet(self) -> int:
        """Sensors that a budget of the fleet is shared by today."""
        return sum(len(model.sensors.names) for model in self._today.values())

    def parts(self, partition: int, stretch: Stretch, earliest: int) -> Iterator[Part]:
        """The stretch in parts, each with detectors that stand at its beginning; `earliest` is what retention left."""
        for first, end in pairwise([stretch.first, *self._changes(partition, stretch), stretch.end]):
            yield self._part(partition, Stretch(first, end), earliest)

    def alerts(self, part: Part, records: Iterable[list[Record]], seen: Callable[[Scored], None]) -> Iterator[Alert]:
        """Those of the part; `seen` is given every reading of it with its score."""
        for polled in records:
            stepped = part.groups.step(polled)
            for scored in stepped.scored:
                seen(_within(scored, part.stretch))
            for alert, _ in stepped.raised:
                told = replace(alert, evidence=replace(alert.evidence, topic=self._topic), mode="replay")
                if part.covers(told):
                    yield told

    def _part(self, partition: int, stretch: Stretch, earliest: int) -> Part:
        assigned = Assigned(partition, Position(stretch.first), True, earliest)
        for name, checkpoint in fitting(self._kept, self._topic, assigned):
            then = self._serving(checkpoint.models)
            groups = then.groups()
            why = changed(checkpoint, hashes(groups), then.fingerprint)
            if taken_up(groups, name, checkpoint, why, self._kernel):
                kernel = checkpoint.kernel if checkpoint.kernel != self._kernel else ""
                return Part(partition, stretch, checkpoint.position.offset, groups, name, why, kernel)
        return Part(partition, stretch, earliest, self._serving({}).groups())

    def _changes(self, partition: int, stretch: Stretch) -> list[int]:
        """The offsets within the stretch where other models or settings came to serve."""
        found: list[int] = []
        before: object = None
        for name in reversed(list(self._kept.names(self._topic, partition, stretch.end - 1))):
            try:
                about = self._kept.about(name)
            except CheckpointError:
                continue  # as if it had not been kept; whoever restores from it says why
            under = about.models, about.settings, about.partitions
            if under != before and about.position.offset > max([stretch.first, *found]):
                found.append(about.position.offset)
            before = under
        return found

    def _serving(self, then: Mapping[str, str]) -> Serving:
        """What served then; where its bundle is gone, what serves today."""
        patterns = self._settings.model.groups
        groups = (then.keys() | patterns.keys()) & self._today.keys() if then else self._today.keys()
        return serving(self._settings, {group: self._model(group, then.get(group)) for group in sorted(groups)})

    def _model(self, group: str, sha256: str | None) -> Model:
        if sha256 is None:
            return self._today[group]
        if sha256 not in self._known:
            self._known[sha256] = bundle.load_by_hash(self._settings.model.dir, group, sha256)
        return self._known[sha256] or self._today[group]


class Seen:
    """Every reading that was scored, to be left in a folder as a replay of files leaves it."""

    def __init__(self) -> None:
        self._scored: dict[str, list[Scored]] = {}  # by group
        self._thresholds: dict[str, float] = {}
        self._budgets: dict[str, float] = {}

    def under(self, groups: Groups) -> None:
        """These detectors score what comes now."""
        self._thresholds |= groups.thresholds
        self._budgets |= groups.budgets

    def add(self, scored: Scored) -> None:
        """Take it in."""
        if len(scored.batch):
            self._scored.setdefault(scored.model.group, []).append(scored)

    def replay(self, alerts: Iterable[Alert], fleet: int) -> Replay:
        """All of it, the readings of each sensor in the order of the topic."""
        sensors = {group: list(_by_sensor(scored)) for group, scored in self._scored.items()}
        runs = {group: self._run(group, [one.series.sensor for one in of]) for group, of in sensors.items()}
        return Replay(tuple(one for of in sensors.values() for one in of), tuple(alerts), {}, fleet, runs)

    def _run(self, group: str, sensors: list[str]) -> GroupRun:
        model = self._scored[group][-1].model
        name, version, sha256 = model.ref.name, model.ref.version, model.ref.sha256
        return GroupRun(
            name, version, sha256, model.interval, self._thresholds[group], self._budgets[group], tuple(sensors)
        )


def _by_sensor(scored: list[Scored]) -> Iterator[Replayed]:
    model = scored[0].model
    names = np.array([name for one in scored for name in one.batch.sensors])
    batches, outcomes = [one.batch for one in scored], [one.outcome for one in scored]
    times, values = (np.concatenate([getattr(b, name) for b in batches]) for name in ("times", "values"))
    scores, alerting, expected, band = (
        np.concatenate([getattr(o, name) for o in outcomes]) for name in ("scores", "alerting", "expected", "band")
    )
    for name in np.unique(names).tolist():
        at = np.flatnonzero(names == name)
        series = Series(name, times[at], model.channels, values[at])
        signals = Signals(model.targets, series.columns(model.targets), expected[at], band[at])
        yield Replayed(series, scores[at], alerting[at], signals)


def _within(scored: Scored, stretch: Stretch) -> Scored:
    offsets = scored.batch.offsets
    return scored.take(np.flatnonzero((stretch.first <= offsets) & (offsets < stretch.end)))
