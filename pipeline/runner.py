"""The loop of the service: poll, step, deliver, and what keeps it true across restarts and rebalances.

The order of a turn, which is the whole of the delivery guarantee:

1. `poll`        records, and partitions that come and go; nothing is promised yet.
2. `follow`      partitions given up: commit, checkpoint, drop. Partitions gained: restore, then let them flow.
3. `step`        every reading into its group's detector: the only place where one becomes a score.
4. `tick`        partitions that were read to their end learn how late it is: who is silent?
5. `deliver`     where it is due, in one transaction: what was said since the last commit, and the positions.
6. `checkpoint`  the state at exactly the committed position, every so often.

A crash before the end of 5 leaves nothing that a read_committed reader would see, and the records are read again.
After 5, a restart takes the last checkpoint, replays to the committed position with its outputs suppressed, and goes on
as if nothing had happened. A transaction that comes to nothing leaves its outputs waiting for the next, unless their
partitions went to another member, who says the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import structlog

from pipeline.bundle import BundleError
from pipeline.core.alerts import Alert
from pipeline.core.model import Model
from pipeline.core.readings import SECOND, Record
from pipeline.delivery import Delivery
from pipeline.groups import Groups, Stepped
from pipeline.ports import Assigned, Checkpoint, Moment, Outputs, Polled, Position, Sink, Source
from pipeline.progress import Clock, Pace, Progress, Turn
from pipeline.recovery import Recovery

TICK_SECONDS = 1.0
MOST_TICKS = 64  # that a commit remembers; with half of them since the last checkpoint, the next is due

log = structlog.get_logger(__name__)


class Runner:
    """Owns the partitions of this process. Used from one thread."""

    def __init__(
        self,
        groups: Groups,
        source: Source,
        sink: Sink,
        recovery: Recovery,
        pace: Pace,
        models: Callable[[], Mapping[str, Model]],
        clock: Clock | None = None,
    ) -> None:
        self.partitions: dict[int, Progress] = {}
        self._groups, self._source, self._sink, self._recovery = groups, source, sink, recovery
        self._pace, self._models, self._clock = pace, models, clock or Clock()
        self._delivery = Delivery(sink, pace.commit_seconds)
        self._tick_due = self._ticked = 0.0
        self._reload = False

    def turn(self) -> Turn:
        """Poll, follow, step, tick, deliver, checkpoint: see the top of this file."""
        turn = Turn()
        if self._reload:
            self._take_up_models(turn)
        polled = self._source.poll(self._patience())  # 1
        self._follow(polled, turn)  # 2
        known, news = self._parted(polled.records)
        replayed = self._step_again(known)  # 3, a second time: said before
        self._advance(polled, *replayed)  # a tick at the end of a replay has its place before the news
        turn.replayed, turn.stepped = len(known), self._groups.step(news)  # 3
        self._watermarks(turn.stepped)
        alerts = [self._told(*raised) for raised in turn.stepped.raised]
        alerts += [self._told(alert) for alert in self._tick()]  # 4
        scored = turn.stepped.scored if self._pace.scores else ()
        self._delivery.add(Outputs(alerts, turn.stepped.refused, scored), _oldest(news))
        self._deliver(turn)  # 5
        self._checkpoint_one_that_is_due(turn)  # 6
        turn.waiting_for = self._waiting_for(polled)
        return turn

    def take_up_models(self) -> None:
        """Ask for the serving versions to be read again before the next turn; safe in a signal's handler."""
        self._reload = True

    def drain(self, patience_seconds: float) -> bool:
        """Commit, checkpoint, leave the group; whether everything was committed. Blocks while a commit is in flight."""
        deadline = self._clock.monotonic() + patience_seconds
        self._deliver(Turn(), now=True)
        while self._uncommitted() and self._clock.monotonic() < deadline:
            polled = self._source.poll(self._pace.poll_seconds)  # a rebalance that is under way has to end first
            self._follow(replace(polled, assigned=()), Turn())
            self._deliver(Turn(), now=True)
        self._checkpoint_until(deadline, self.partitions, Turn())
        self._recovery.close()
        self._sink.close()
        self._source.close()
        return not self._uncommitted()

    def abandon(self) -> None:
        """Leave the group as it is, so that another member goes on from the last commit."""
        self._source.close()

    def open_alerts(self) -> list[Alert]:
        """Every open alert as it would be told now."""
        return [self._told(alert) for alert in self._groups.open_alerts()]

    # -- 2. follow

    def _follow(self, polled: Polled, turn: Turn) -> None:
        self._let_go(polled.lost, "taken by another member")
        if polled.given_up:
            deadline = self._clock.monotonic() + self._pace.let_go_seconds
            self._deliver(turn, now=True)
            self._checkpoint_until(deadline, polled.given_up, turn)
            self._let_go(polled.given_up, "given up")
        for assigned in polled.assigned:
            checkpoint = self._take_over(assigned)
            if checkpoint is None:
                self._keep(assigned.partition, turn)  # before the first commit, which a restart must find a state for
            elif self._recovery.changed(checkpoint):
                self._checkpoint(assigned.partition, turn)  # so that whoever replays finds the change in its place

    def _let_go(self, partitions: AbstractSet[int], why: str) -> None:
        """Drop what is left of them; what could not be committed is said by whoever takes them."""
        self._delivery.forget(partitions)
        for partition in sorted(partitions):
            self._groups.drop(partition)
            if self.partitions.pop(partition, None):
                log.info("partition left", partition=partition, why=why)

    def _take_over(self, assigned: Assigned) -> Checkpoint | None:
        """Restore what fits, and start where the restored state ends: before the committed offset, as a rule."""
        partition, now = assigned.partition, self._clock.monotonic()
        name, checkpoint = self._recovery.restore(assigned)
        progress = Progress(
            position=checkpoint.position.offset if checkpoint else assigned.position.offset,
            replay_until=assigned.position.offset,
            committed=assigned.position if assigned.committed else None,
            ticks=assigned.position.ticks,
            again=_after(checkpoint, assigned.position) if checkpoint else [],
            watermark=checkpoint.watermark if checkpoint else 0,
            arrived=now,
            checkpoint=name,
            checkpoint_due=now + self._pace.checkpoint_seconds,
        )
        self.partitions[partition] = progress
        self._source.start(partition, progress.position)
        log.info(
            "partition assigned", partition=partition, offset=progress.position,
            replay=progress.replay_until - progress.position, checkpoint=name or None,
        )  # fmt: skip
        self._restored_if_read(partition, progress)
        return checkpoint

    # -- 3. step

    def _parted(self, records: Sequence[Record]) -> tuple[Sequence[Record], Sequence[Record]]:
        """What was delivered before a restart, and the news."""
        if not any(progress.restoring for progress in self.partitions.values()):
            return (), records
        until = {partition: progress.replay_until for partition, progress in self.partitions.items()}
        known = [record for record in records if record.offset < until[record.partition]]
        return known, [record for record in records if record.offset >= until[record.partition]]

    def _advance(self, polled: Polled, *replayed: Stepped) -> None:
        now = self._clock.monotonic()
        for partition in {record.partition for record in polled.records}:
            self.partitions[partition].arrived = now
        self._watermarks(*replayed)
        for partition, progress in self.partitions.items():
            progress.position = polled.positions.get(partition, progress.position)
            progress.end = polled.ends.get(partition, progress.end)
            self._restored_if_read(partition, progress)

    def _watermarks(self, *stepped: Stepped) -> None:
        for partition, latest in (item for each in stepped for item in each.watermarks.items()):
            progress = self.partitions[partition]
            progress.watermark = max(progress.watermark, latest)

    def _restored_if_read(self, partition: int, progress: Progress) -> None:
        if not progress.restoring or progress.position < progress.replay_until:
            return
        self._tick_again(partition, progress, progress.position)
        progress.restoring = False
        log.info("partition restored", partition=partition, offset=progress.position)

    # -- 4. tick

    def _tick(self) -> list[Alert]:
        """Once a second, tell each partition that has been read to its end how late it is.

        Where records flow, the end is the one seen a tick ago, for there is always one more on its way, and it is as
        late as its readings say. Where none came since, the broker is asked whether that is all, and event time goes on
        by the wall time since the last.
        """
        now = self._clock.monotonic()
        if now < self._tick_due:
            return []
        flowing, quiet = set(), set()
        for partition, progress in self.partitions.items():
            if progress.watermark and not progress.restoring:
                if progress.arrived > self._ticked:
                    flowing |= {partition} if progress.position >= (progress.end_at_tick or 0) else set()
                elif progress.position == progress.end:
                    quiet.add(partition)
            progress.end_at_tick = progress.end
        self._ticked, self._tick_due = now, now + TICK_SECONDS
        told = []
        for partition in sorted(flowing | (self._source.at_end(quiet) if quiet else set())):
            progress = self.partitions[partition]
            silence = 0.0 if partition in flowing else now - progress.arrived
            at = progress.watermark + round(silence * SECOND)
            alerts, changed = self._groups.tick(partition, at)
            told += alerts
            if changed:
                progress.ticks = (*progress.ticks, Moment(progress.position, at))[-MOST_TICKS:]
                since = progress.kept.ticks if progress.kept else ()
                if len(set(progress.ticks) - set(since)) > MOST_TICKS // 2:
                    progress.checkpoint_due = now
        return told

    # -- after a restart

    def _step_again(self, records: Sequence[Record]) -> list[Stepped]:
        """What was said before, with every tick that changed something in its place."""
        stepped, begin = [], 0
        for i, record in enumerate(records):
            progress = self.partitions[record.partition]
            if progress.again and progress.again[0].offset <= record.offset:
                stepped.append(self._groups.step(records[begin:i]))
                begin = i
                self._tick_again(record.partition, progress, record.offset)
        return [*stepped, self._groups.step(records[begin:])]

    def _tick_again(self, partition: int, progress: Progress, offset: int) -> None:
        while progress.again and progress.again[0].offset <= offset:
            self._groups.tick(partition, progress.again.pop(0).time)

    # -- 5. deliver

    def _told(self, alert: Alert, received: int = 0) -> Alert:
        """The alert with what only the runner knows: topic, checkpoint, and whether the reading is old."""
        progress = self.partitions[alert.evidence.partition]
        evidence = replace(alert.evidence, topic=self._pace.topic, checkpoint=progress.checkpoint)
        age = self._clock.wall() - received / SECOND if received else 0.0
        return replace(alert, evidence=evidence, mode="catchup" if age > self._pace.catchup_after_seconds else "live")

    def _deliver(self, turn: Turn, *, now: bool = False) -> None:
        """Hand over every position that has moved and what was said on the way, where that is due or asked for now."""
        at = self._clock.monotonic()
        moved = self._uncommitted()  # whatever is said has moved a position, or its partition's last tick
        if not moved or (not now and self._delivery.due_in(at) > 0):
            return
        if (committed := self._delivery.commit(moved, at)) is None:
            turn.futile_commits += 1
            return
        for partition, position in moved.items():
            self.partitions[partition].committed = position
        outputs, oldest = committed
        turn.committed = True
        turn.alerts, turn.refused = [*turn.alerts, *outputs.alerts], [*turn.refused, *outputs.dead_letters]
        if oldest < math.inf:
            turn.latency_seconds = max(self._clock.wall() - oldest / SECOND, 0.0)

    def _patience(self) -> float:
        """How long a poll may wait: not beyond the next commit, where something waits for it."""
        if not self._uncommitted():
            return self._pace.poll_seconds
        return min(self._pace.poll_seconds, max(self._delivery.due_in(self._clock.monotonic()), 0.0))

    def _uncommitted(self) -> dict[int, Position]:
        return {
            partition: progress.done
            for partition, progress in self.partitions.items()
            if not progress.restoring and progress.done != progress.committed
        }

    # -- 6. checkpoint

    def _checkpoint_one_that_is_due(self, turn: Turn) -> None:
        """One partition a turn, the longest due first, so that no turn waits for all of them."""
        now = self._clock.monotonic()
        due = [
            (progress.checkpoint_due, p) for p, progress in self.partitions.items() if progress.checkpoint_due <= now
        ]
        if due:
            self._deliver(turn, now=True)
            self._checkpoint(min(due)[1], turn)

    def _checkpoint_until(self, deadline: float, partitions: Iterable[int], turn: Turn) -> None:
        """As many as there is time for: whoever takes one that was left out replays from the checkpoint before."""
        for partition in sorted(partitions):
            if self._clock.monotonic() >= deadline:
                log.warning("checkpoint left out", partition=partition, why="others wait for the partitions")
            elif partition in self.partitions:
                self._checkpoint(partition, turn)

    def _checkpoint(self, partition: int, turn: Turn) -> None:
        """Keep the state, if it is that of the committed position: any other would lose or repeat outputs."""
        progress = self.partitions[partition]
        if progress.restoring or progress.done != progress.committed:
            return
        if progress.kept == progress.done:  # nothing has happened since; the last one is as good as new
            progress.checkpoint_due = self._clock.monotonic() + self._pace.checkpoint_seconds
            progress.checkpoint_time = self._clock.wall()
        else:
            self._keep(partition, turn)

    def _keep(self, partition: int, turn: Turn) -> None:
        progress, began = self.partitions[partition], self._clock.monotonic()
        progress.checkpoint_due = began + self._pace.checkpoint_seconds
        name = self._recovery.keep(partition, progress.done, progress.watermark)
        if name is None:
            return
        progress.checkpoint, progress.kept, progress.checkpoint_time = name, progress.done, self._clock.wall()
        turn.checkpoint_seconds.append(self._clock.monotonic() - began)

    # -- models

    def _take_up_models(self, turn: Turn) -> None:
        """Commit, checkpoint, swap, checkpoint: the swap has a place in the stream, and a restart knows it."""
        if any(progress.restoring for progress in self.partitions.values()):
            return  # the replay belongs to the old model; the flag stays
        self._deliver(turn, now=True)
        if self._uncommitted():
            return
        self._reload = False
        try:
            found = self._models()
        except BundleError as why:
            log.error("models not taken up", why=str(why), effect="the present ones keep serving")
            return
        newer = self._groups.newer(found)
        for partition in self.partitions if newer else ():
            self._checkpoint(partition, turn)
        self._groups.swap(newer)
        for partition in self.partitions if newer else ():
            self._keep(partition, turn)

    def _waiting_for(self, polled: Polled) -> str:
        if not polled.reachable:
            return "the broker does not answer"
        if not polled.joined:
            return "the group has not admitted this member yet"
        if self._delivery.failures and self._uncommitted():
            return f"{self._delivery.failures} commits in a row came to nothing; the log says why"
        restoring = sorted(p for p, progress in self.partitions.items() if progress.restoring)
        return f"partitions {restoring} are being restored" if restoring else ""


def _after(checkpoint: Checkpoint, committed: Position) -> list[Moment]:
    """The ticks that the checkpoint has not seen."""
    seen = set(checkpoint.position.ticks)
    return [tick for tick in committed.ticks if tick.offset >= checkpoint.position.offset and tick not in seen]


def _oldest(records: Sequence[Record]) -> float:
    """The earliest of their timestamps, µs."""
    return min((record.timestamp for record in records if record.timestamp), default=math.inf)
