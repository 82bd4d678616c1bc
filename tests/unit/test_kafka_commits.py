"""Transactions that come to nothing: what is waited out, how, and for how long. The clients are played."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import pytest

from pipeline.adapters import kafka_commits
from pipeline.adapters.kafka_commits import (
    DELIVERIES,
    FUTILE_SECONDS,
    LONGEST_REST_SECONDS,
    Committed,
    InDoubtError,
    KafkaRefusedError,
    Message,
    Transactions,
)
from pipeline.adapters.kafka_connection import KafkaAwayError
from pipeline.ports import Position
from pipeline.settings_schema import KafkaSettings

ATTEMPT_SECONDS = 5.0  # until a client has waited long enough for a topic


class Cluster:
    """A broker that answers, with its clock: what is committed, whether topics can be written, when it is away."""

    def __init__(self) -> None:
        self.now = 0.0
        self.attempts: list[float] = []  # when each began
        self.writable = False
        self.away = 0.0  # s that it takes to come back, the next time that somebody connects
        self.waits: list[str] = []

    # as `time`

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    # as a member

    def generation(self) -> object:
        return self

    def committed(self, _: int) -> Committed | None:
        return None

    # as a producer

    def connected(self, _: str) -> Cluster:
        if self.away > 0:
            self.now, self.away = self.now + 1.0, self.away - 1.0
            raise KafkaAwayError("no broker answers")
        return self

    def begin(self) -> None:
        pass

    def open(self) -> None:
        self.attempts.append(self.now)

    def send(self, _: Iterable[Message]) -> None:
        if not self.writable:
            self.now += ATTEMPT_SECONDS
            raise InDoubtError("topic sensor.alerts not found")

    def send_offsets(self, _: Mapping[int, Committed], __: object) -> None:
        pass

    def commit(self) -> None:
        pass

    def must_know(self, _: str) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(kafka_commits, "time", cluster)
    return cluster


def transactions(cluster: Cluster) -> Transactions:
    return Transactions(
        KafkaSettings(bootstrap_servers="kafka:9092"), DELIVERIES, cluster, cluster.connected, cluster.waits.append
    )


def tried(of: Transactions) -> bool:
    return of.run([Message("sensor.alerts", b"s", b"{}", [])], {0: Position(1)})


def test_a_topic_that_takes_nothing_for_two_minutes_is_waited_out(cluster: Cluster) -> None:
    ours = transactions(cluster)
    while cluster.now < 120:
        assert not tried(ours)
    cluster.writable = True
    assert tried(ours)


def test_attempts_that_come_to_nothing_follow_at_growing_intervals_and_each_wait_is_told(cluster: Cluster) -> None:
    ours = transactions(cluster)
    for _ in range(12):
        tried(ours)
    rests = [later - earlier - ATTEMPT_SECONDS for earlier, later in itertools.pairwise(cluster.attempts)]
    assert rests[:6] == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0]
    assert set(rests[6:]) == {LONGEST_REST_SECONDS}
    assert cluster.waits[-1] == "11 commits in a row came to nothing"
    assert len(cluster.waits) >= sum(rests), "the loop gave no sign of life"


def test_after_minutes_it_ends_with_what_to_do_and_no_sooner(cluster: Cluster) -> None:
    ours = transactions(cluster)

    def tried_for_long() -> None:
        while cluster.now < 10 * FUTILE_SECONDS:
            tried(ours)

    with pytest.raises(KafkaRefusedError, match=r"sensor\.alerts not found.*foreshock doctor"):
        tried_for_long()
    assert FUTILE_SECONDS < cluster.now <= FUTILE_SECONDS + ATTEMPT_SECONDS + LONGEST_REST_SECONDS


def test_a_commit_that_succeeds_starts_the_count_anew(cluster: Cluster) -> None:
    ours = transactions(cluster)
    for _ in range(4):
        while cluster.now % 1000 < FUTILE_SECONDS - 20:
            assert not tried(ours)
        cluster.writable = True
        assert tried(ours)
        cluster.writable, cluster.now = False, cluster.now + 1000 - cluster.now % 1000


def test_an_absent_broker_and_a_loop_that_does_something_else_do_not_count(cluster: Cluster) -> None:
    ours = transactions(cluster)
    assert not tried(ours)
    cluster.away = 3 * FUTILE_SECONDS
    assert not tried(ours)
    cluster.now += 3 * FUTILE_SECONDS
    assert not tried(ours)
    assert cluster.now > 6 * FUTILE_SECONDS
