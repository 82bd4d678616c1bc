"""The loop of the service: poll, step, deliver, and what keeps it true across restarts and rebalances.

The order of a turn, which is the whole of the delivery guarantee:

1. `poll`        records, and partitions that come and go; nothing is promised yet.
2. `follow`      partitions given up: commit, checkpoint, drop. Partitions gained: restore, then let them flow.
3. `step`        every reading into its group's detector: the only place where one becomes a score.
4. `tick`        partitions that were read to their end learn how late it is: who is silent?
5. `deliver`     outputs until the broker has acknowledged them, then the positions.
6. `checkpoint`  the state at exactly the committed position, every so often.

A crash before 5 loses nothing: the records are read again. Inside 5, outputs may be published twice, each alert with
the id and revision it had. After 5, a restart takes the last checkpoint, replays to the committed position with its
outputs suppressed, and goes on as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from pipeline.bundle import BundleError
from pipeline.core.alerts import Alert
from pipeline.core.model import Model
from pipeline.core.readings import SECOND, Record
from pipeline.groups import Groups, Stepped
from pipeline.ports import Assigned, Outputs, Polled, Position, Sink, Source
from pipeline.progress import Clock, Pace, Progress, Turn
from pipeline.recovery import Recovery

COMMIT_SECONDS = 1.0  # positions are committed at least so often; at once where there is something to say
TICK_SECONDS = 1.0

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
        self._commit_due = self._tick_due = self._ticked = 0.0
        self._reload = False

    def turn(self) -> Turn:
        """Poll, follow, step, tick, deliver, checkpoint: see the top of this file."""
        turn = Turn()
        if self._reload:
            self._take_up_models(turn)
        polled = self._source.poll(self._pace.poll_seconds)  # 1
        self._follow(polled, turn)  # 2
        known, news = self._parted(polled.records)
        replayed = self._groups.step(known)  # 3, a second time: said before
        turn.replayed, turn.stepped = len(known), self._groups.step(news)  # 3
        self._advance(polled, replayed, turn.stepped)
        turn.alerts = [self._told(*raised) for raised in turn.stepped.raised]
        turn.alerts += [self._told(alert) for alert in self._tick()]  # 4
        turn.refused = turn.stepped.refused
        scored = turn.stepped.scored if self._pace.scores else ()
        turn.committed = self._deliver(Outputs(turn.alerts, turn.refused, scored))  # 5
        turn.latency_seconds = self._latency(news)
        self._checkpoint_one_that_is_due(turn)  # 6
        turn.waiting_for = self._waiting_for(polled)
        return turn

    def take_up_models(self) -> None:
        """Ask for the serving versions to be read again before the next turn; safe in a signal's handler."""
        self._reload = True

    def drain(self, patience_seconds: float) -> bool:
        """Commit, checkpoint, leave the group; whether everything was committed. Blocks while outputs are in flight."""
        deadline = self._clock.monotonic() + patience_seconds
        self._deliver(Outputs(), now=True)
        while self._uncommitted() and self._clock.monotonic() < deadline:
            polled = self._source.poll(self._pace.poll_seconds)  # a rebalance that is under way has to end first
            self._follow(replace(polled, assigned=()), Turn())
            self._deliver(Outputs(), now=True)
        for partition in sorted(self.partitions):
            self._checkpoint(partition)
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
        if polled.given_up and self._deliver(Outputs(), now=True):
            turn.committed = True
        for partition in sorted(polled.given_up):
            self._checkpoint(partition, turn)
        for partition in sorted(polled.given_up | polled.lost):
            self._groups.drop(partition)
            if self.partitions.pop(partition, None):
                log.info("partition left", partition=partition, lost=partition in polled.lost)
        for assigned in polled.assigned:
            self._take_over(assigned)
            if not self.partitions[assigned.partition].checkpoint:
                self._keep(assigned.partition, turn)  # before the first commit, which a restart must find a state for

    def _take_over(self, assigned: Assigned) -> None:
        """Restore what fits, and start where the restored state ends: before the committed offset, as a rule."""
        partition, now = assigned.partition, self._clock.monotonic()
        name, checkpoint = self._recovery.restore(assigned)
        progress = Progress(
            position=checkpoint.position.offset if checkpoint else assigned.position.offset,
            replay_until=assigned.position.offset,
            committed=assigned.position if assigned.committed else None,
            tick=assigned.position.tick,
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

    # -- 3. step

    def _parted(self, records: Sequence[Record]) -> tuple[Sequence[Record], Sequence[Record]]:
        """What was delivered before a restart, and the news."""
        if not any(progress.restoring for progress in self.partitions.values()):
            return (), records
        until = {partition: progress.replay_until for partition, progress in self.partitions.items()}
        known = [record for record in records if record.offset < until[record.partition]]
        return known, [record for record in records if record.offset >= until[record.partition]]

    def _advance(self, polled: Polled, *stepped: Stepped) -> None:
        now = self._clock.monotonic()
        for partition in {record.partition for record in polled.records}:
            self.partitions[partition].arrived = now
        for partition, progress in self.partitions.items():
            latest = [s.watermarks[partition] for s in stepped if partition in s.watermarks]
            progress.watermark = max([progress.watermark, *latest])
            progress.position = polled.positions.get(partition, progress.position)
            progress.end = polled.ends.get(partition, progress.end)
            self._restored_if_read(partition, progress)

    def _restored_if_read(self, partition: int, progress: Progress) -> None:
        if not progress.restoring or progress.position < progress.replay_until:
            return
        if progress.tick:
            self._groups.tick(partition, progress.tick)  # the gaps that only a tick had noticed; told before
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
            if alerts := self._groups.tick(partition, at):
                progress.tick = at
                told += alerts
        return told

    # -- 5. deliver

    def _told(self, alert: Alert, received: int = 0) -> Alert:
        """The alert with what only the runner knows: topic, checkpoint, and whether the reading is old."""
        progress = self.partitions[alert.evidence.partition]
        evidence = replace(alert.evidence, topic=self._pace.topic, checkpoint=progress.checkpoint)
        age = self._clock.wall() - received / SECOND if received else 0.0
        return replace(alert, evidence=evidence, mode="catchup" if age > self._pace.catchup_after_seconds else "live")

    def _deliver(self, outputs: Outputs, *, now: bool = False) -> bool:
        """Hand over outputs and every position that has moved; True once the positions are committed."""
        at = self._clock.monotonic()
        if not outputs and not now and at < self._commit_due:
            return False
        self._commit_due = at + COMMIT_SECONDS
        moved = self._uncommitted()
        if not outputs and not moved:
            return False
        if not self._sink.deliver(outputs, moved):
            return False
        for partition, position in moved.items():
            self.partitions[partition].committed = position
        return bool(moved)

    def _uncommitted(self) -> dict[int, Position]:
        return {
            partition: progress.done
            for partition, progress in self.partitions.items()
            if not progress.restoring and progress.done != progress.committed
        }

    def _latency(self, news: Sequence[Record]) -> float | None:
        stamps = [record.timestamp for record in news if record.timestamp]
        return max(self._clock.wall() - min(stamps) / SECOND, 0.0) if stamps else None

    # -- 6. checkpoint

    def _checkpoint_one_that_is_due(self, turn: Turn) -> None:
        """One partition a turn, the longest due first, so that no turn waits for all of them."""
        now = self._clock.monotonic()
        due = [
            (progress.checkpoint_due, p) for p, progress in self.partitions.items() if progress.checkpoint_due <= now
        ]
        if due:
            self._deliver(Outputs(), now=True)
            self._checkpoint(min(due)[1], turn)

    def _checkpoint(self, partition: int, turn: Turn | None = None) -> None:
        """Keep the state, if it is that of the committed position: any other would lose or repeat outputs."""
        progress = self.partitions[partition]
        if progress.restoring or progress.done != progress.committed:
            return
        if progress.kept == progress.done:  # nothing has happened since; the last one is as good as new
            progress.checkpoint_due = self._clock.monotonic() + self._pace.checkpoint_seconds
            progress.checkpoint_time = self._clock.wall()
        else:
            self._keep(partition, turn)

    def _keep(self, partition: int, turn: Turn | None) -> None:
        progress, began = self.partitions[partition], self._clock.monotonic()
        progress.checkpoint_due = began + self._pace.checkpoint_seconds
        name = self._recovery.keep(partition, progress.done, progress.watermark)
        if name is None:
            return
        progress.checkpoint, progress.kept, progress.checkpoint_time = name, progress.done, self._clock.wall()
        if turn is not None:
            turn.checkpoint_seconds.append(self._clock.monotonic() - began)

    # -- models

    def _take_up_models(self, turn: Turn) -> None:
        """Commit, checkpoint, swap, checkpoint: the swap has a place in the stream, and a restart knows it."""
        if any(progress.restoring for progress in self.partitions.values()):
            return  # the replay belongs to the old model; the flag stays
        self._deliver(Outputs(), now=True)
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
        restoring = sorted(p for p, progress in self.partitions.items() if progress.restoring)
        return f"partitions {restoring} are being restored" if restoring else ""
