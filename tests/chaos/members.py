"""The members of one group, killed as planned and started again while readings come in."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

from kafka import KafkaAdminClient
from kafka.errors import RetriableError

from tests.chaos.plan import ANY_MOMENT, RESTORING, Kill
from tests.chaos.world import TICKS_SECONDS, World
from tests.service import Service

SESSION_SECONDS = 6.0  # the shortest that a broker grants by default
AWAY_SECONDS = SESSION_SECONDS + 2.0
CHECKPOINT_SECONDS = 3.0
LOOK_SECONDS = 0.1  # between two looks at what is committed
POINT_SECONDS = 20.0  # for a member to pass the point where it is to be killed
START_SECONDS = 240.0  # a kernel may have to be compiled, by all of them at once
DRAIN_SECONDS = 180.0
AHEAD = 1.5  # kills: so far the stream goes on at its pace while one is awaited,
TRICKLE = 0.05  # and then at this part of it: a member that has nothing to do passes no point

Report = Callable[[int, str], None]  # kills done, what to say of the last


class Look(NamedTuple):
    """What the group had committed at a moment."""

    asked: float  # s since 1970
    answered: float
    offsets: Mapping[int, int]


class Killed(NamedTuple):
    """A kill that has happened."""

    number: int
    member: int
    point: str  # where it was
    time: float  # s since 1970
    partitions: AbstractSet[int]  # that the member was at work on


@dataclass(slots=True)
class Course:
    """What happened."""

    killed: list[Killed] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    drain_seconds: float = 0.0  # from the last kill until everything was committed

    def recovery_seconds(self, killed: Killed) -> float | None:
        """From the kill until each of the member's partitions was committed further; None where it had none."""
        if not killed.partitions:
            return None
        looks = itertools.dropwhile(lambda look: look.asked < killed.time, self.looks)
        before = next(looks).offsets
        for look in looks:
            if all(look.offsets.get(p, 0) > before.get(p, 0) for p in killed.partitions):
                return look.answered - killed.time
        raise AssertionError(f"{killed}: its partitions were never committed again")


@dataclass(slots=True)
class Member:
    """One place in the group, and the process that has it."""

    service: Service
    start_at: float | None = 0.0  # monotonic s; None: it has been started
    awaited: bool = False  # it is about to kill itself

    @property
    def is_dead(self) -> bool:
        """It was started, and has ended."""
        process = self.service.process
        return self.start_at is None and process is not None and process.poll() is not None

    @property
    def is_ready(self) -> bool:
        """It answers, and says so."""
        return self.start_at is None and self.service.get("/readyz") is not None

    def partitions(self) -> frozenset[int]:
        """That it has restored, or is about to."""
        mine: set[int] = set()
        for event in self.service.events():
            match event["event"]:
                case "service started":
                    mine = set()
                case "partition assigned":
                    mine.add(event["partition"])
                case "partition left":
                    mine.discard(event["partition"])
        return frozenset(mine)


class Members:
    """One group of services. While it waits for anything, readings are sent and those that were away are started."""

    def __init__(
        self, world: World, kills: Sequence[Kill], store: str, clients: Sequence[str] = ("kafka-python",), *,
        without_checkpoints: bool = False,
    ) -> None:  # fmt: skip
        """`clients`: of the members, one after the other."""
        self.group = f"killed-{world.readings}"
        self.outputs = world.outputs()
        self.course = Course()
        self._world, self._kills, self._without_checkpoints = world, kills, without_checkpoints
        self._members = [Member(self._service(m, store, clients[m % len(clients)])) for m in range(world.size.members)]
        self._admin = KafkaAdminClient(bootstrap_servers=world.broker.bootstrap)
        self._since, self._looked = time.monotonic(), 0.0
        self._lives = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for member in self._members:
            member.service.end()
        self._admin.close()

    def suffer(self, report: Report, until: float) -> Course:
        """Kill them as planned, but none after `until` (monotonic s), and let them read to the end and leave."""
        self._wait(lambda: all(m.is_ready for m in self._members), START_SECONDS, "every member ready")
        for number, kill in enumerate(self._kills):
            if time.monotonic() > until:
                break
            self._since = time.monotonic()
            self._happens(lambda: False, kill.pause)
            killed = self._kill(number, kill)
            self.course.killed.append(killed)
            self._members[kill.member].start_at = time.monotonic() + kill.away
            report(number + 1, f"member {kill.member}, {killed.point}; {self._world.stream.sent:,} readings sent")
        self._drain()
        return self.course

    def _kill(self, number: int, kill: Kill) -> Killed:
        member, point = self._members[kill.member], kill.point
        self._wait(lambda: member.start_at is None, START_SECONDS, f"member {kill.member} started")
        if point not in (ANY_MOMENT, RESTORING):
            self._wait(lambda: member.is_ready, START_SECONDS, f"member {kill.member} ready")
            assert member.service.process is not None
            member.service.process.send_signal(signal.SIGUSR1)
        member.awaited = point != ANY_MOMENT
        if member.awaited and self._happens(lambda: member.is_dead, POINT_SECONDS):
            member.service.wait_until_killed()
        else:
            point = ANY_MOMENT  # it had nothing to do there
            member.service.kill()
        member.awaited = False
        return Killed(number, kill.member, point, time.time(), member.partitions())

    def _drain(self) -> None:
        began = time.time()
        for member in self._members:
            member.start_at = 0.0 if member.start_at is not None else None

        def all_is_committed() -> bool:
            return self._world.stream.is_sent and self.course.looks[-1].offsets == self._world.stream.ends

        self._wait(all_is_committed, DRAIN_SECONDS, "everything committed")
        self.course.drain_seconds = self.course.looks[-1].answered - began
        self._wait(lambda: all(m.is_ready for m in self._members), START_SECONDS, "every member ready")
        self._happens(lambda: False, TICKS_SECONDS)
        for member in self._members:
            assert member.service.process is not None
            member.service.process.terminate()
        for member in self._members:
            assert member.service.ended() == 0, member.service.log.read_text()[-3000:]

    def _wait(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        assert self._happens(holds, seconds), f"{what}: not within {seconds:.0f} s"

    def _happens(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Whether it comes to hold within so many seconds, in which life goes on."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                return False
            self._go_on()
        return True

    def _go_on(self) -> None:
        now = time.monotonic()
        for m, member in enumerate(self._members):
            if member.start_at is not None and member.start_at <= now:
                member.start_at = None
                self._start(m)
            elif member.is_dead and not member.awaited:
                raise AssertionError(f"member {m} ended by itself:\n{member.service.log.read_text()[-3000:]}")
        self._world.stream.send_until(self._due(now))
        if now > self._looked + LOOK_SECONDS:
            self._looked = now
            self._look()
        time.sleep(0.02)

    def _due(self, now: float) -> float:
        """The share of the stream that is to be sent by now: as much for each kill, and the last after all of them."""
        ahead = (now - self._since) / self._world.size.pause
        ahead = min(ahead, AHEAD) + TRICKLE * max(ahead - AHEAD, 0.0)
        return min((len(self.course.killed) + ahead) / (len(self._kills) + 1), 1.0)

    def _start(self, m: int) -> None:
        done = len(self.course.killed)
        point = next((kill.point for kill in self._kills[done:] if kill.member == m), ANY_MOMENT)
        service = self._members[m].service
        if self._without_checkpoints:
            self._lives += 1
            empty = service.folder.parent / f"no-checkpoints-{self._lives}"
            service.settings = {**service.settings, "CHECKPOINTS__DIR": str(empty)}
        service.start("" if point == ANY_MOMENT else f"{point}:{1 if point == RESTORING else signal.SIGUSR1.name}")

    def _look(self) -> None:
        asked = time.time()
        try:
            found = self._admin.list_group_offsets(self.group)[self.group]
        except RetriableError:
            return  # a new cluster has no coordinator for a moment; the next look is near
        offsets = {tp.partition: at.offset for tp, at in found.items()}
        self.course.looks.append(Look(asked, time.time(), offsets))

    def _service(self, m: int, store: str, client: str) -> Service:
        settings = {
            "KAFKA__CLIENT": client,
            "KAFKA__INSTANCE_ID": f"member-{m}",
            "KAFKA__SESSION_TIMEOUT_SECONDS": f"{SESSION_SECONDS}",
            "KAFKA__HEARTBEAT_SECONDS": "1",
            "CHECKPOINTS__STORE": store,
            "CHECKPOINTS__EVERY_SECONDS": f"{CHECKPOINT_SECONDS}",
        }
        return self._world.service(self.group, f"member-{m}", self.outputs, settings)
