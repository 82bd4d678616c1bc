"""What every source and sink keep together, whatever stands behind them; tests inherit `SourceAndSinkContract`."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Protocol

import pytest

from pipeline.core.alerts import Alert, Evidence, Kind, ModelRef, Severity, State
from pipeline.core.readings import SECOND, Reason, Record, Rejected
from pipeline.ports import TURN_BYTES, Assigned, Outputs, Polled, Position, Sink, Source

PATIENCE_SECONDS = 20.0
STARTS = [("earliest", b"old"), ("latest", b"new"), ("time", b"new")]
ALERT = Alert(
    alert_id="0123456789abcdef", revision=1, state=State.FIRING, kind=Kind.FORECAST, severity=Severity.WARNING,
    sensor="plant1/pump-7", start=1, last=2, evidence=Evidence(0, 0, 1), model=ModelRef("pumps", "1", "0" * 64),
)  # fmt: skip
DEAD = Rejected(Reason.UNREADABLE, "not JSON", "readings", 0, 3, b"pump", b"{")


class World(Protocol):
    """One topic of two partitions and one group, on the adapter under test."""

    def member(self, start: str | datetime = "earliest") -> AbstractContextManager[tuple[Source, Sink]]: ...

    def produce(self, values: list[bytes], partition: int = 0) -> None: ...

    def published(self) -> tuple[list[bytes], int]:
        """The ids of the alerts, in order, and how many dead letters there are."""


def until(source: Source, enough: Callable[[list[Polled]], bool]) -> list[Polled]:
    """Poll until the polls are enough, starting each assigned partition where it says."""
    polls: list[Polled] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not enough(polls):
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s; the last poll: {polls[-1]}"
        polls.append(source.poll(0.2))
        for assigned in polls[-1].assigned:
            source.start(assigned.partition, assigned.position.offset)
    return polls


def records(polls: list[Polled]) -> list[Record]:
    return [record for polled in polls for record in polled.records]


def assigned(polls: list[Polled]) -> dict[int, Assigned]:
    return {a.partition: a for polled in polls for a in polled.assigned}


class SourceAndSinkContract:
    @pytest.fixture
    def world(self) -> World:
        raise NotImplementedError("an adapter's tests say what they test")

    def test_records_come_in_order_with_everything_the_broker_knows(self, world: World) -> None:
        before = int(time.time() * SECOND)
        world.produce([b"a", b"b", b"c"])
        with world.member() as (source, _):
            found = records(until(source, lambda polls: len(records(polls)) >= 3))
        assert [record.value for record in found] == [b"a", b"b", b"c"]
        assert [record.offset for record in found] == [0, 1, 2]
        assert {record.partition for record in found} == {0}
        assert all(abs(record.timestamp - before) < 60 * SECOND for record in found)

    def test_an_assigned_partition_is_silent_until_it_is_started(self, world: World) -> None:
        world.produce([b"a"])
        with world.member() as (source, _):
            deadline = time.monotonic() + PATIENCE_SECONDS
            polls = [source.poll(0.2)]
            while len(assigned(polls)) < 2 and time.monotonic() < deadline:
                polls.append(source.poll(0.2))
            polls += [source.poll(0.2) for _ in range(3)]
            assert len(assigned(polls)) == 2
            assert records(polls) == []

    def test_positions_and_ends_say_how_much_is_left(self, world: World) -> None:
        world.produce([b"a", b"b", b"c"])
        with world.member() as (source, _):
            polls = until(source, lambda polls: len(records(polls)) >= 3)
            assert (polls[-1].positions[0], polls[-1].ends[0]) == (3, 3)
            assert source.at_end({0}) == {0}
            world.produce([b"d"])
            assert source.at_end({0}) == set()

    def test_what_was_delivered_is_published_and_a_successor_goes_on_behind_it(self, world: World) -> None:
        world.produce([b"a", b"b", b"c"])
        with world.member() as (source, sink):
            until(source, lambda polls: len(records(polls)) >= 3)
            assert sink.deliver(Outputs([ALERT], [DEAD]), {0: Position(2)})
        assert world.published() == ([ALERT.alert_id.encode()], 1)
        with world.member() as (source, _):
            polls = until(source, lambda polls: bool(records(polls)) and 0 in assigned(polls))
        assert assigned(polls)[0] == Assigned(0, Position(2), committed=True, earliest=0, partitions=2)
        assert [record.value for record in records(polls)] == [b"c"]

    def test_a_turn_holds_few_messages_where_they_are_large(self, world: World) -> None:
        large = [bytes([i]) * 100_000 for i in range(40)]
        world.produce(large)
        with world.member() as (source, _):
            polls = until(source, lambda polls: len(records(polls)) >= len(large))
        assert [record.value for record in records(polls)] == large
        assert max(sum(len(r.value or b"") for r in polled.records) for polled in polls) <= TURN_BYTES
        seen = 0
        for polled in polls:  # what was left for the next poll is not said to be read
            seen += len(polled.records)
            assert polled.positions.get(0, 0) == seen

    def test_messages_that_fill_a_turn_are_taken_as_well(self, world: World) -> None:
        world.produce([b"a", b"b" * (TURN_BYTES - 1000), b"c"])
        world.produce([b"d" * (TURN_BYTES - 1000)], partition=1)
        with world.member() as (source, _):
            polls = until(source, lambda polls: len(records(polls)) >= 4)
        assert sorted((record.value or b"")[:1] for record in records(polls)) == [b"a", b"b", b"c", b"d"]

    def test_positions_can_be_committed_with_nothing_to_say(self, world: World) -> None:
        world.produce([b"a"])
        with world.member() as (source, sink):
            until(source, lambda polls: bool(records(polls)))
            assert sink.deliver(Outputs(), {0: Position(1)})
        assert world.published() == ([], 0)

    @pytest.mark.parametrize(("start", "first"), STARTS)
    def test_without_a_committed_offset_the_settings_say_where_to_start(
        self, world: World, start: str, first: bytes
    ) -> None:
        world.produce([b"old"])
        time.sleep(0.05)
        now = datetime.now(UTC)
        if start == "time":
            world.produce([b"new"])
        with world.member(now if start == "time" else start) as (source, _):
            polls = until(source, lambda polls: len(assigned(polls)) == 2)
            assert not assigned(polls)[0].committed
            if start != "time":
                world.produce([b"new"])
            polls += until(source, lambda polls: bool(records(polls)))
        assert records(polls)[0].value == first
