"""The service on a broker in memory: what comes, and what goes wrong meanwhile, is a script.

    calm = play(settings, readings)
    hit = play(settings, [*readings[:500], ABORT, *readings[500:], PAUSE(600), REDELIVER(20)])
    assert hit.said == calm.said

Everything but broker, group and clock is what `foreshock run` runs. Time is that of the readings: it stands still but
for them, PAUSE and AWAY.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from pipeline import bundle
from pipeline.adapters.checkpoints import FolderCheckpoints
from pipeline.adapters.files import read
from pipeline.adapters.kafka_group import place_of
from pipeline.adapters.memory import MemoryBroker, MemorySink, MemorySource
from pipeline.app import kernel, pace_of
from pipeline.codecs import JSON
from pipeline.core.alerts import Alert, Kind, State
from pipeline.core.model import Model
from pipeline.core.readings import SECOND, Reading, Record, Rejected
from pipeline.progress import Clock, Pace, Turn
from pipeline.recovery import Recovery
from pipeline.runner import Runner
from pipeline.serving import Serving, serving
from pipeline.settings_schema import Settings

BATCH = 200  # messages a turn, where a script is played
MOST_TURNS = 100  # of a pause: time goes on in steps of a second, or in so many


@dataclass(frozen=True, slots=True)
class _Word:
    """A word of a script that needs no more said."""

    name: str

    def __repr__(self) -> str:
        return self.name


END: Final = _Word("END")  # SIGTERM: commit, checkpoint, leave; another one starts where the script goes on
ABORT: Final = _Word("ABORT")  # kill -9: what was not committed is forgotten, and another one starts
FENCED: Final = _Word("FENCED")  # the group takes the member for dead: its partitions go at once, and come back


@dataclass(frozen=True, slots=True)
class PAUSE:
    """Nothing comes for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AWAY:
    """No broker answers for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class REDELIVER:
    """A producer that heard of no acknowledgement sends its last messages again, now."""

    messages: int


Step = Reading | Record | bytes | _Word | PAUSE | AWAY | REDELIVER


@dataclass(slots=True)
class Time:
    """A clock that stands still until it is moved."""

    now: float = 0.0  # s, monotonic
    began: float = 0.0  # s since 1970, when `now` was 0

    def clock(self) -> Clock:
        """As the runner takes it."""
        return Clock(wall=lambda: self.began + self.now, monotonic=lambda: self.now)


@dataclass
class Member:
    """A service on a broker in memory, killed and started again at will; the broker and the folder outlive it."""

    broker: MemoryBroker
    folder: Path  # of the checkpoints
    serving: Serving
    pace: Pace
    batch: int = 5000  # messages a turn
    time: Time = field(default_factory=Time)
    kernel: str = ""

    def start(self) -> Runner:
        """Another process: it knows what the broker and the folder know, and nothing else."""
        groups = self.serving.groups()
        self.source, self.sink = MemorySource(self.broker, most_records=self.batch), MemorySink(self.broker)
        self.store = FolderCheckpoints(self.folder)
        recovery = Recovery(groups, self.store, self.pace.topic, self.serving.fingerprint, self.kernel)
        return Runner(groups, self.source, self.sink, recovery, self.pace, self.load, self.time.clock())

    def load(self) -> Mapping[str, Model]:
        """What is in the folder of the bundles when the runner is asked to look."""
        return self.serving.models


@dataclass(slots=True)
class Played:
    """What came of a script, as a read_committed consumer and the metrics tell it."""

    alerts: list[Alert]
    dead_letters: list[Rejected]
    ignored: dict[str, int] = field(default_factory=dict)  # reason -> readings that were good, and yet not scored
    scored: int = 0  # readings that reached their group, those of a replay apart
    replayed: int = 0  # messages stepped a second time after a start, in silence
    starts: int = 0

    @property
    def said(self) -> dict[tuple[str, int], Alert]:
        """The alerts by identity and revision, `plain`; ValueError where one was said twice."""
        told: dict[tuple[str, int], Alert] = {}
        for alert in self.alerts:
            if (alert.alert_id, alert.revision) in told:
                raise ValueError(f"alert {alert.alert_id}, revision {alert.revision}: said twice")
            told[alert.alert_id, alert.revision] = plain(alert)
        return told


def readings(path: Path) -> list[Reading]:
    """Every reading of a file or a folder, CSV or Parquet, in time order; DataError where it cannot be read."""
    found = [
        Reading(series.sensor, int(time), dict(zip(series.channels, row, strict=True)))
        for series in read(path)
        for time, row in zip(series.times, series.values.tolist(), strict=True)
    ]
    return sorted(found, key=lambda reading: reading.time)


def plain(alert: Alert) -> Alert:
    """Without what depends on when it was told: topic, checkpoint, mode, and how late an open gap was when noticed."""
    same = replace(alert, evidence=replace(alert.evidence, checkpoint="", topic=""), mode="live")
    if alert.kind is Kind.GAP and alert.state is State.FIRING:
        return replace(same, last=alert.start, measure=None, detection_delay_ms=0)
    return same


def play(
    settings: Settings, script: Iterable[Step], *, partitions: int = 1, models: Mapping[str, Model] | None = None
) -> Played:
    """Run the service of these settings through the script; BundleError or DataError where it would not start.

    A `Reading` is a message in the partition of its sensor, produced at its time (`received`, where that is given); a
    `Record` goes to its partition at its timestamp; bytes go to partition 0. Of the settings, those of the cluster, of
    HTTP and of the checkpoint store are not looked at; `models` stands in for `model.dir`.
    """
    serves = serving(settings, bundle.load_all(settings.model.dir) if models is None else models)
    broker = MemoryBroker(settings.kafka.topics.readings, partitions)
    with TemporaryDirectory() as folder, threadpool_limits(limits=1):
        stage = _Stage(Member(broker, Path(folder), serves, pace_of(settings), BATCH, kernel=kernel(settings)))
        for step in script:
            stage.take(step)
        return stage.ended()


class _Stage:
    """Where a script is played."""

    def __init__(self, member: Member) -> None:
        self._member, self._broker, self._time = member, member.broker, member.time
        self._sent: list[Record] = []
        self._unread = 0
        self._runner: Runner | None = None
        self._played = Played(self._broker.alerts, self._broker.dead_letters)

    def take(self, step: Step) -> None:
        match step:
            case Reading():
                partition = place_of(step.sensor.encode(), self._broker.partitions)
                stamp = step.received or step.time
                self._send(Record("", partition, 0, stamp, step.sensor.encode(), JSON.encode(step)))
            case Record():
                self._send(step)
            case bytes():
                self._send(Record("", 0, 0, 0, None, step))
            case REDELIVER(messages):
                for record in self._sent[-messages:] if messages else ():
                    self._send(record._replace(timestamp=0), again=True)
            case PAUSE(seconds):
                self._read()
                self._wait(seconds)
            case AWAY(seconds):
                self._broker.reachable = False
                self._wait(seconds)
                self._broker.reachable = True
            case _:
                self._read()
                self._disturb(step)

    def ended(self) -> Played:
        self._read()
        self._disturb(END)
        return self._played

    def _disturb(self, word: _Word) -> None:
        if word == FENCED:
            every = range(self._broker.partitions)
            self._member.source.lose(*every)
            self._turn()
            self._member.source.take(*every)
            return
        if word == END and self._runner:
            self._runner.drain(1.0)  # which never passes: the clock stands still
        self._runner = None

    def _send(self, record: Record, *, again: bool = False) -> None:
        stamp = record.timestamp or round((self._time.began + self._time.now) * SECOND)
        if not self._sent:
            self._time.began = stamp / SECOND
        self._time.now = max(self._time.now, stamp / SECOND - self._time.began)
        self._broker.produce(
            record.value, key=record.key, partition=record.partition, headers=record.headers, timestamp=stamp
        )
        if not again:
            self._sent.append(record)
        self._unread += 1
        if self._unread >= BATCH:
            self._read()

    def _read(self) -> None:
        """Until nothing is left."""
        self._unread = 0
        while not self._turn() or any(
            progress.position < self._broker.end(partition)
            for partition, progress in self._running().partitions.items()
        ):
            pass

    def _wait(self, seconds: float) -> None:
        turns = min(max(math.ceil(seconds), 1), MOST_TURNS)
        for _ in range(turns):
            self._time.now += seconds / turns
            self._turn()

    def _turn(self) -> bool:
        """Whether all partitions are there."""
        turn = self._running().turn()
        self._count(turn)
        return len(self._running().partitions) == self._broker.partitions

    def _count(self, turn: Turn) -> None:
        self._played.replayed += turn.replayed
        self._played.scored += sum(len(scored.batch) for scored in turn.stepped.scored)
        for reason, how_many in turn.stepped.ignored.items():
            self._played.ignored[reason] = self._played.ignored.get(reason, 0) + how_many

    def _running(self) -> Runner:
        if self._runner is None:
            self._runner = self._member.start()
            self._played.starts += 1
        return self._runner
