"""Every group's detector behind one router: records in, what they say out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import structlog

from pipeline.codecs import decode_frames
from pipeline.codecs.events import decode_event, parted
from pipeline.core.alerts import Alert, Kind
from pipeline.core.detector import Detector
from pipeline.core.events import Maintain, Outcome, Swap
from pipeline.core.frames import ROW_BITS, batch_of, merged, offset_of
from pipeline.core.joining import Joiner
from pipeline.core.maintenance import Maintenance
from pipeline.core.model import Model
from pipeline.core.readings import ReadingBatch, Record, Rejected
from pipeline.core.silence import InputWatch, Outage, Silences
from pipeline.core.table import Arrays
from pipeline.core.tags import Tags
from pipeline.ports import Scored
from pipeline.routing import Router

log = structlog.get_logger(__name__)

MENDED = ("imputed", "reordered")  # counts of what was put right on the way in
PIECE_READINGS = 16_384  # of one step: what a message in a batch becomes is bounded by more than the poll
OPEN = "~open"  # behind a group's name, which has no tilde: its readings that wait for their channels
MAINTENANCE = "~maintenance"  # of all groups
IGNORED = ("late", "duplicate", "unusable")  # counts of readings that were good, and yet were not scored


class Raised(NamedTuple):
    """An alert, and the timestamp (µs) of the record that it is told at, of whichever sensor; 0 where none is."""

    alert: Alert
    received: int


class Ticked(NamedTuple):
    """What a tick did: what is to be said, and whether anything changed, said or not."""

    alerts: list[Alert]
    changed: bool


@dataclass(slots=True)
class Stepped:
    """What came of the records of one poll."""

    raised: list[Raised] = field(default_factory=list)
    refused: list[Rejected] = field(default_factory=list)
    scored: list[Scored] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of each detector's step
    ignored: dict[str, int] = field(default_factory=dict)  # reason -> readings
    mended: dict[str, int] = field(default_factory=dict)  # how -> readings
    evicted: dict[str, int] = field(default_factory=dict)  # group -> sensors that made room
    split: list[str] = field(default_factory=list)  # sensors that came new and are in another partition as well
    events: int = 0  # an operator's, applied
    watermarks: dict[int, int] = field(default_factory=dict)  # partition -> largest event time admitted, µs


class Groups:
    """All detectors of this process. The same events reach each of them, in the same order."""

    def __init__(
        self,
        detectors: Mapping[str, Detector],
        router: Router,
        muted: AbstractSet[Kind] = frozenset(),
        watch: InputWatch | None = None,
        joiners: Mapping[str, Joiner] | None = None,
        tags: Tags | None = None,
    ) -> None:
        """`joiners`: of the groups whose readings may name a part of their channels."""
        self._detectors = dict(sorted(detectors.items()))
        self._router = router
        self._muted = muted  # kinds that the settings switched off
        self._watch = watch or InputWatch()
        self._joiners, self._tags = joiners or {}, tags
        self._maintenance = Maintenance()

    @property
    def models(self) -> dict[str, Model]:
        """The model that serves each group."""
        return {name: detector.model for name, detector in self._detectors.items()}

    @property
    def budgets(self) -> dict[str, float]:
        """The false forecast alerts that each group is allowed a reading."""
        return {name: detector.budget for name, detector in self._detectors.items()}

    @property
    def thresholds(self) -> dict[str, float]:
        """The score at which each group's budget is spent."""
        return {name: detector.threshold for name, detector in self._detectors.items()}

    def step(self, records: Sequence[Record]) -> Stepped:
        """Decode, route and score. Records of a partition come in offset order; how they are cut does not matter."""
        stepped = Stepped()
        if not records:
            return stepped
        for readings, event in parted(records):
            self._read(readings, stepped)
            if event is not None:
                self._apply(event, stepped)
        stepped.refused = _completed(stepped.refused, records)
        return stepped

    def tick(self, partition: int, time_us: int) -> Ticked:
        """The partition has been read to its end and its event time is `time_us`."""
        before = self._watch.outage(partition)
        silences = Silences.of(d.silences(partition) for d in self._detectors.values())
        tick, told = self._watch.judge(partition, time_us, silences)
        told += [a for d in self._detectors.values() for a in d.apply(tick).alerts]
        return Ticked(list(self._audible(told)), bool(told) or self._watch.outage(partition) != before)

    def newer(self, found: Mapping[str, Model]) -> list[Model]:
        """Those that are not the ones that serve."""
        for group in sorted(found.keys() ^ self._detectors.keys()):
            log.warning("group not taken up", group=group, why="groups are fixed while the service runs; restart it")
        serving = self.models
        return [model for group, model in found.items() if group in serving and model.ref != serving[group].ref]

    def swap(self, models: Iterable[Model]) -> None:
        """Serve these from the next reading on; one that does not fit the state leaves the present one serving."""
        for model in models:
            try:
                self._detectors[model.group].apply(Swap(model))
            except ValueError as why:
                log.error("model not taken up", group=model.group, version=model.ref.version, why=str(why))
            else:
                if model.group in self._joiners:
                    self._joiners[model.group].follow(model.interval)
                log.info("model swapped", group=model.group, version=model.ref.version)

    def snapshot(self, partition: int) -> dict[str, Arrays]:
        """The partition's state in every group."""
        state = {name: detector.snapshot(partition) for name, detector in self._detectors.items()}
        state |= {name + OPEN: joiner.snapshot(partition) for name, joiner in self._joiners.items()}
        worked_on = self._maintenance.snapshot(partition)
        return state | {MAINTENANCE: worked_on} if worked_on else state

    def outage(self, partition: int) -> Outage | None:
        """Whether the partition itself is silent, beside the state of its sensors."""
        return self._watch.outage(partition)

    def restore(
        self, partition: int, groups: Mapping[str, Arrays], outage: Outage | None = None, *, adopt: bool = False
    ) -> None:
        """Take over a snapshot, `adopt` where other models or settings made it.

        ValueError where another build made it, and then nothing of the partition is left.
        """
        try:
            for name in self._detectors.keys() & groups.keys():
                self._detectors[name].restore(partition, groups[name])
                if adopt:
                    self._detectors[name].adopt(partition)
            for name, joiner in self._joiners.items():
                joiner.drop(partition)
                if name + OPEN in groups:
                    joiner.restore(partition, groups[name + OPEN])
            self._maintenance.drop(partition)
            if MAINTENANCE in groups:
                self._maintenance.restore(partition, groups[MAINTENANCE])
        except ValueError:
            self.drop(partition)
            raise
        tick = self._watch.restore(partition, outage)
        for detector in self._detectors.values():
            detector.apply(tick)

    def drop(self, partition: int) -> None:
        """Let a partition's state go."""
        self._watch.drop(partition)
        self._maintenance.drop(partition)
        for detector in self._detectors.values():
            detector.drop(partition)
        for joiner in self._joiners.values():
            joiner.drop(partition)

    def open_alerts(self) -> list[Alert]:
        """Every alert that is open now."""
        of_sensors = (alert for d in self._detectors.values() for alert in d.open_alerts())
        return list(self._audible([*self._watch.open_alerts(), *of_sensors]))

    def census(self) -> dict[str, dict[str, int]]:
        """Group -> sensors by what they are doing."""
        return {name: detector.census() for name, detector in self._detectors.items()}

    def describe(self, sensor: str) -> dict[str, object] | None:
        """What is known of a sensor, for a person; None if no group has seen it."""
        known = (detector.describe(sensor) for detector in self._detectors.values())
        found = next((found for found in known if found is not None), None)
        return None if found is None else found | {"maintenance": self._maintenance.of(sensor)}

    def _read(self, records: Sequence[Record], stepped: Stepped) -> None:
        decoded = decode_frames(records)
        frames = self._tags.renamed(decoded.frames) if self._tags else decoded.frames
        routed, strays = self._router.split(frames)
        stepped.refused += decoded.rejected + strays
        for name, frames in routed.items():
            batch = self._maintenance.masked(batch_of(frames, self._detectors[name].model.channels))
            if name in self._joiners:
                batch = self._joined(name, batch, stepped)
            for start in range(0, len(batch), PIECE_READINGS):
                piece = batch if len(batch) <= PIECE_READINGS else batch.take(slice(start, start + PIECE_READINGS))
                self._step(self._detectors[name], piece, stepped)

    def _apply(self, record: Record, stepped: Stepped) -> None:
        """What an operator says, where it stands among the readings of its partition."""
        event = decode_event(record)
        if isinstance(event, Rejected):
            stepped.refused.append(event)
            return
        stepped.events += 1
        if isinstance(event, Maintain):
            self._maintenance.apply(event)
            return
        for joiner in self._joiners.values():
            joiner.retire(event.partition, event.sensor)
        for detector in self._detectors.values():
            told = self._audible(detector.apply(event).alerts)
            stepped.raised += [Raised(alert, record.timestamp) for alert in told]

    def _joined(self, group: str, batch: ReadingBatch, stepped: Stepped) -> ReadingBatch:
        batch, counts = self._joiners[group].join(batch)
        self._count(group, counts, stepped)
        return batch

    def _step(self, detector: Detector, batch: ReadingBatch, stepped: Stepped) -> None:
        began = time.perf_counter()
        outcome = detector.step(batch)
        stepped.seconds.append(time.perf_counter() - began)
        in_messages = replace(batch, offsets=batch.offsets >> ROW_BITS)
        stepped.scored.append(Scored(detector.model, in_messages, outcome))
        stepped.refused += [r._replace(offset=offset_of(r.offset)) for r in outcome.rejected]
        stepped.raised += self._raised(batch, outcome)
        self._count(detector.model.group, outcome.counts, stepped)
        stepped.split += outcome.split
        _advance(stepped.watermarks, batch, detector.rules.max_future)

    def _count(self, group: str, counts: Mapping[str, int], stepped: Stepped) -> None:
        for names, seen in ((IGNORED, stepped.ignored), (MENDED, stepped.mended)):
            for name in names:
                if how_many := counts.get(name):
                    seen[name] = seen.get(name, 0) + how_many
        if evicted := counts.get("evicted"):
            stepped.evicted[group] = stepped.evicted.get(group, 0) + evicted

    def _raised(self, batch: ReadingBatch, outcome: Outcome) -> Iterator[Raised]:
        for alert, at in zip(outcome.alerts, outcome.told_at, strict=True):
            for told in self._audible([alert]):
                yield Raised(told, int(batch.received[at]))

    def _audible(self, alerts: Iterable[Alert]) -> Iterator[Alert]:
        """Those that are not muted, their evidence in offsets of messages: the detectors know places."""
        for alert in alerts:
            if alert.kind not in self._muted:
                seen = alert.evidence
                where = replace(
                    seen, first_offset=offset_of(seen.first_offset), last_offset=offset_of(seen.last_offset)
                )
                yield replace(alert, evidence=where)


def _advance(watermarks: dict[int, int], batch: ReadingBatch, max_future: int) -> None:
    """Move each partition's watermark to its latest reading, past those that are refused for their time."""
    admitted = (batch.received == 0) | (batch.times <= batch.received + max_future)
    for partition in sorted(set(batch.partitions[admitted].tolist())):
        latest = int(batch.times[admitted & (batch.partitions == partition)].max())
        watermarks[partition] = max(latest, watermarks.get(partition, 0))


def _completed(refused: list[Rejected], records: Sequence[Record]) -> list[Rejected]:
    """The refusals of router and detectors, who see no messages, with the message each stands for."""
    if all(r.topic for r in refused):
        return refused
    refused = merged(refused)
    known = {(record.partition, record.offset): record for record in records}
    whole = []
    for r in refused:
        record = known[r.partition, r.offset]
        whole.append(r if r.topic else r._replace(topic=record.topic, key=record.key, value=record.value))
    return whole
