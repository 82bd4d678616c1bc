"""The Kafka adapter on a broker: the contract of every source and sink, and what only a real group does."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import MemberToRemove
from structlog.testing import capture_logs

from pipeline.adapters import kafka_commits, kafka_connection
from pipeline.adapters.kafka_admin import survey
from pipeline.adapters.kafka_checkpoints import KeptInTopic
from pipeline.adapters.kafka_clients import client
from pipeline.adapters.kafka_commits import DELIVERIES, InDoubtError, KafkaRefusedError, Producer, committable, ticks_of
from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError
from pipeline.adapters.kafka_events import send_event
from pipeline.adapters.kafka_group import IdleGroup
from pipeline.adapters.kafka_member import GroupMember
from pipeline.adapters.kafka_producer import TopicProducer
from pipeline.adapters.kafka_rekey import Rekey
from pipeline.adapters.kafka_sink import KafkaSink
from pipeline.adapters.kafka_span import records_since
from pipeline.adapters.librdkafka_transactions import LibrdkafkaProducer
from pipeline.codecs import decode
from pipeline.core.readings import UNREADABLE_HEADERS, Reason
from pipeline.demo.producer import stream_plant
from pipeline.ports import Moment, Outputs, Position, Sink, Source
from pipeline.runner import MOST_TICKS
from pipeline.settings_schema import KafkaSettings
from tests.brokers import Broker
from tests.conftest import NewTopics
from tests.contract.source_and_sink import ALERT, DEAD, STARTS, SourceAndSinkContract, World, assigned, records, until
from tests.kafka.node import KafkaNode, KafkaNodeError, fetch_jars
from tests.service import messages

TICKS = tuple(Moment(1, 1_795_347_600_123_000 + i) for i in range(MOST_TICKS))


def ignore(reason: str) -> None:
    """Nobody waits in these tests."""


def group_settings(bootstrap: str, readings: str, alerts: str, dead: str, **others: object) -> KafkaSettings:
    return KafkaSettings.model_validate(
        {
            "bootstrap_servers": bootstrap,
            "group_id": readings,
            "topics": {"readings": readings, "alerts": alerts, "dead_letter": dead},
            "session_timeout_seconds": 2.0,  # the embedded broker lets a member in after half of it
            "heartbeat_seconds": 0.4,
            "start": "earliest",
            **others,
        }
    )


def put_out(admin: KafkaAdminClient, group: str) -> None:
    """Whoever is in the group, as an administrator would."""
    members = admin.describe_groups([group])[group]["members"]
    admin.remove_group_members(group, [MemberToRemove(member_id=member["member_id"]) for member in members])


@pytest.fixture(params=["kafka-python", "librdkafka"])
def by(request: pytest.FixtureRequest, broker: Broker) -> str:
    """Each client."""
    if request.param == "librdkafka" and not broker.is_apache_kafka:
        pytest.skip(f"needs Apache Kafka; the best broker here is {broker.name}")
    return str(request.param)


@contextmanager
def joined(settings: KafkaSettings, waiting: Callable[[str], None] = ignore) -> Iterator[tuple[GroupMember, KafkaSink]]:
    """A member of the group, by the client that the settings name."""
    by = client(settings)
    source = by.source(settings)
    try:
        sink = KafkaSink(settings, by.transactions(settings, DELIVERIES, source, waiting))
        try:
            yield source, sink
        finally:
            sink.close()
    finally:
        source.close()


class KafkaWorld:
    def __init__(self, broker: Broker, topics: NewTopics, **others: object) -> None:
        self.broker, self.others = broker, others
        (self.readings,) = topics("readings", partitions=2)
        self.alerts, self.dead = topics("alerts", "dead")

    def settings(self, **others: object) -> KafkaSettings:
        return group_settings(self.broker.bootstrap, self.readings, self.alerts, self.dead, **self.others, **others)

    @contextmanager
    def member(self, start: str | datetime = "earliest") -> Iterator[tuple[Source, Sink]]:
        with joined(self.settings(start=start)) as both:
            yield both

    def produce(self, values: list[bytes], partition: int = 0) -> None:
        with KafkaProducer(bootstrap_servers=self.broker.bootstrap, linger_ms=20) as producer:
            for value in values:
                producer.send(self.readings, value=value, partition=partition)

    def published(self) -> tuple[list[bytes], int]:
        alerts, dead = (messages(self.broker.bootstrap, topic) for topic in (self.alerts, self.dead))
        return [json.loads(alert)["alert_id"].encode() for alert in alerts], len(dead)


class TestKafka(SourceAndSinkContract):
    @pytest.fixture
    def world(self, broker: Broker, topics: NewTopics, by: str) -> World:
        return KafkaWorld(broker, topics, client=by)

    @pytest.mark.kafka_only  # the embedded broker names ends that are too low
    def test_positions_and_ends_say_how_much_is_left(self, world: World) -> None:
        super().test_positions_and_ends_say_how_much_is_left(world)

    @pytest.mark.kafka_only  # nor does it find a time
    @pytest.mark.parametrize(("start", "first"), STARTS)
    def test_without_a_committed_offset_the_settings_say_where_to_start(
        self, world: World, start: str, first: bytes
    ) -> None:
        super().test_without_a_committed_offset_the_settings_say_where_to_start(world, start, first)


@pytest.mark.kafka_only  # the embedded broker takes minutes over a rebalance
@pytest.mark.parametrize("newcomer", ["kafka-python", "librdkafka"])
def test_a_member_that_comes_takes_half_and_the_other_commits_what_it_gives_up_whatever_their_clients(
    broker: Broker, topics: NewTopics, by: str, newcomer: str
) -> None:
    world = KafkaWorld(broker, topics)
    world.produce([b"a", b"b"], partition=0)
    world.produce([b"c", b"d"], partition=1)
    with joined(world.settings(client=by)) as (first, sink), joined(world.settings(client=newcomer)) as (second, _):
        until(first, lambda polls: len(records(polls)) == 4)
        came: dict[int, int] = {}
        stop = threading.Event()

        def follow() -> None:
            while not stop.is_set():
                for one in second.poll(0.1).assigned:
                    came[one.partition] = one.position.offset
                    second.start(one.partition, one.position.offset)

        other = threading.Thread(target=follow)
        other.start()
        polls = until(first, lambda polls: any(polled.given_up for polled in polls))
        given_up = set(polls[-1].given_up)
        assert sink.deliver(Outputs(), {partition: Position(2) for partition in given_up})
        deadline = time.monotonic() + 20
        while not came and time.monotonic() < deadline:
            first.poll(0.1)
        stop.set()
        other.join()
    assert len(given_up) == 1
    assert came == dict.fromkeys(given_up, 2), "the newcomer did not see the last commit"


@pytest.mark.kafka_only
def test_a_member_that_ends_while_it_gives_partitions_up_leaves_the_group_and_no_thread(
    broker: Broker, topics: NewTopics, by: str
) -> None:
    world = KafkaWorld(broker, topics, client=by, session_timeout_seconds=30.0)
    threads = set(threading.enumerate())
    first = client(world.settings()).source(world.settings())
    try:
        until(first, lambda polls: len(assigned(polls)) == 2)
        ours = set(threading.enumerate()) - threads
        with joined(world.settings()) as (second, _):
            stop = threading.Event()

            def follow() -> None:
                while not stop.is_set():
                    for one in second.poll(0.1).assigned:
                        second.start(one.partition, one.position.offset)

            other = threading.Thread(target=follow)
            other.start()
            try:
                until(first, lambda polls: any(polled.given_up for polled in polls))
                first.close()
                assert not any(thread.is_alive() for thread in ours)
                deadline = time.monotonic() + 20  # less than the session
                while len(second.held) < 2 and time.monotonic() < deadline:
                    time.sleep(0.1)
                assert second.held == {0, 1}
            finally:
                stop.set()
                other.join()
    finally:
        first.close()


@pytest.mark.kafka_only
def test_the_ticks_that_changed_something_travel_with_the_commit(broker: Broker, topics: NewTopics, by: str) -> None:
    world = KafkaWorld(broker, topics, client=by)
    world.produce([b"a"])
    with world.member() as (source, sink):
        until(source, lambda polls: bool(records(polls)))
        assert sink.deliver(Outputs(), {0: Position(1, TICKS)})
    with world.member() as (source, _):
        polls = until(source, lambda polls: 0 in assigned(polls))
    assert assigned(polls)[0].position == Position(1, TICKS)


def test_alerts_are_keyed_by_their_sensor(broker: Broker, topics: NewTopics, by: str) -> None:
    world = KafkaWorld(broker, topics, client=by)
    world.produce([b"a"])
    with world.member() as (source, sink):
        until(source, lambda polls: 0 in assigned(polls))
        assert sink.deliver(Outputs([ALERT]), {0: Position(1)})
    with KafkaConsumer(bootstrap_servers=broker.bootstrap, isolation_level="read_committed") as consumer:
        consumer.assign([TopicPartition(world.alerts, 0)])
        consumer.seek_to_beginning()
        (found,) = (record for polled in consumer.poll(timeout_ms=5000).values() for record in polled)
    assert found.key == b"plant1/pump-7"


class _NotUtf8(str):
    def encode(self, *_: object) -> bytes:
        return b"content-\xff\xfe"


@pytest.mark.kafka_only
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_header_whose_name_is_not_utf8_costs_its_record_and_no_other(
    broker: Broker, topics: NewTopics, by: str, compression: str | None
) -> None:
    world = KafkaWorld(broker, topics, client=by)
    sound = b'{"sensor":"s","time":1795347600000,"value":1}'
    told, broken = [("a", b"1")], [("a", b"1"), (_NotUtf8(), b"2"), ("b", b"3")]
    with KafkaProducer(
        bootstrap_servers=broker.bootstrap, linger_ms=1000, compression_type=compression, batch_size=2**16
    ) as producer:
        for headers in (told, broken, [], broken, broken, told):  # one batch
            producer.send(world.readings, sound, key=b"k", headers=headers, partition=0)
    with world.member() as (source, sink):
        found = records(until(source, lambda polls: len(records(polls)) >= 6))
        readings, refused = decode(found)
        assert sink.deliver(Outputs([], refused), {0: Position(6)})
    assert [record.offset for record in found] == [0, 1, 2, 3, 4, 5]
    assert {(record.key, record.value) for record in found} == {(b"k", sound)}
    assert [record.headers for record in found] == [
        tuple(told),
        *[UNREADABLE_HEADERS, ()],
        *[UNREADABLE_HEADERS] * 2,
        tuple(told),
    ]
    assert [reading.offset for reading in readings] == [0, 2, 5]
    assert [(r.reason, r.offset, r.value) for r in refused] == [(Reason.UNREADABLE, o, sound) for o in (1, 3, 4)]
    dead = [json.loads(letter) for letter in messages(broker.bootstrap, world.dead)]
    assert [letter["offset"] for letter in dead] == [1, 3, 4]
    assert all("the name of a header is not UTF-8" in letter["detail"] for letter in dead)
    seen = [record for poll in records_since(world.settings(), world.readings, 0) for record in poll]
    assert seen == found, "history is read as the service reads"


@pytest.mark.kafka_only
@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_of_unknown_outcome_is_looked_up_and_never_repeated_in_place(
    broker: Broker, topics: NewTopics, monkeypatch: pytest.MonkeyPatch, committed: bool, by: str
) -> None:
    world = KafkaWorld(broker, topics, client=by)
    world.produce([b"a"])
    commit = kafka_commits._commit

    def cut_off(producer: Producer) -> None:
        if committed:
            commit(producer)
        raise InDoubtError("the answer never came")

    with world.member() as (source, sink), capture_logs() as logs:
        until(source, lambda polls: 0 in assigned(polls))
        with monkeypatch.context() as patch:
            patch.setattr(kafka_commits, "_commit", cut_off)
            assert sink.deliver(Outputs([ALERT], [DEAD]), {0: Position(1, (Moment(1, 7),))}) == committed
        assert world.published() == ([ALERT.alert_id.encode()] * committed, 1 * committed)
        if not committed:
            assert sink.deliver(Outputs([ALERT], [DEAD]), {0: Position(1, (Moment(1, 7),))})
    assert [line["found"] for line in logs if "found" in line] == ["committed" if committed else "aborted"]
    assert world.published() == ([ALERT.alert_id.encode()], 1)


@pytest.mark.kafka_only
@pytest.mark.parametrize("writer", ["kafka-python", "librdkafka"])
def test_the_ticks_beside_an_offset_are_read_as_they_were_committed_by_either_client(
    broker: Broker, topics: NewTopics, writer: str, by: str
) -> None:
    """librdkafka, in C, reads on to a zero byte, which kafka-python did not write."""
    world = KafkaWorld(broker, topics)
    world.produce([b"a"])
    with joined(world.settings(client=writer)) as (source, sink), joined(world.settings(client=by)) as (reader, _):
        until(source, lambda polls: 0 in assigned(polls))
        for ticks in (TICKS[:n] for n in (64, 40, 7, 6, 0, 5, 4, 3, 2, 1)):  # the shorter where there was a longer
            assert sink.deliver(Outputs(), {0: Position(1, ticks)})
            for _ in range(10):
                assert reader.committed(0) == committable(Position(1, ticks)), "as whoever looks what became of it"


@pytest.mark.parametrize("said", ["", "1:2 3:4", "1:2 3:45\x7f12", "by another program"])
def test_what_does_not_end_as_ours_is_no_tick(said: str) -> None:
    assert ticks_of(said) == ()


@pytest.mark.kafka_only
def test_what_the_broker_refuses_for_good_is_raised_and_nothing_is_committed(
    broker: Broker, topics: NewTopics, by: str
) -> None:
    world = KafkaWorld(broker, topics, client=by)
    world.produce([b"a"])
    (world.alerts,) = topics("narrow", partitions=1, **{"max.message.bytes": "100"})
    with world.member() as (source, sink):
        until(source, lambda polls: 0 in assigned(polls))
        with pytest.raises(KafkaRefusedError):
            sink.deliver(Outputs([ALERT], [DEAD]), {0: Position(1)})
    assert world.published() == ([], 0)
    with world.member() as (source, _):
        polls = until(source, lambda polls: 0 in assigned(polls))
    assert not assigned(polls)[0].committed


@pytest.mark.kafka_only
def test_a_member_that_the_group_has_put_out_commits_nothing(broker: Broker, topics: NewTopics, by: str) -> None:
    world = KafkaWorld(broker, topics, client=by)
    world.produce([b"a"])
    with world.member() as (source, sink):
        until(source, lambda polls: bool(records(polls)))
        with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
            put_out(admin, world.readings)
        assert not sink.deliver(Outputs([ALERT], [DEAD]), {0: Position(1)})
    assert world.published() == ([], 0)


@pytest.mark.kafka_only
def test_a_member_that_joins_again_and_learns_that_it_was_put_out_takes_its_partitions_anew(
    broker: Broker, topics: NewTopics, by: str
) -> None:
    """Others may have gone on with them; a heartbeat would have told it, but comes too late."""
    world = KafkaWorld(broker, topics, client=by, session_timeout_seconds=30.0, heartbeat_seconds=10.0)
    with joined(world.settings()) as (source, _):
        until(source, lambda polls: len(assigned(polls)) == 2)
        with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
            put_out(admin, world.readings)
        source._join_again()
        polls = until(source, lambda polls: len(assigned(polls)) == 2)
    gone = set().union(*(polled.lost | polled.given_up for polled in polls))
    assert gone == {0, 1}


@pytest.mark.kafka_only
def test_a_named_member_comes_back_to_its_partitions_and_ends_what_it_had_left_open(
    broker: Broker, topics: NewTopics, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    world = KafkaWorld(broker, topics, client=by, instance_id="foreshock-0")
    world.produce([b"a", b"b"])
    with world.member() as (source, sink):
        until(source, lambda polls: 0 in assigned(polls))
        assert sink.deliver(Outputs([ALERT]), {0: Position(1)})
        with monkeypatch.context() as patch:
            patch.setattr(kafka_commits, "_commit", _killed)
            with pytest.raises(ZeroDivisionError):
                sink.deliver(Outputs([ALERT]), {0: Position(2)})
    began = time.monotonic()
    with world.member() as (source, _):
        polls = until(source, lambda polls: len(assigned(polls)) == 2)
    assert time.monotonic() - began < 2, "waited for the session or the transaction to time out"
    assert assigned(polls)[0].position == Position(1)
    assert world.published() == ([ALERT.alert_id.encode()], 0)


def _killed(_: Producer) -> None:
    raise ZeroDivisionError


@pytest.mark.kafka_only
def test_the_older_of_two_processes_of_one_name_ends_and_says_why(broker: Broker, topics: NewTopics, by: str) -> None:
    world = KafkaWorld(broker, topics, client=by, instance_id="foreshock-0")
    world.produce([b"a"])
    with world.member() as (first, sink):
        until(first, lambda polls: bool(records(polls)))
        with world.member() as (second, _):
            until(second, lambda polls: 0 in assigned(polls))
            assert not sink.deliver(Outputs([ALERT]), {0: Position(1)})  # takes the transactions back, to no avail:
            with pytest.raises(KafkaSetupError, match=r"instance_id foreshock-0: another process"):
                sink.deliver(Outputs([ALERT]), {0: Position(1)})
    assert world.published() == ([], 0)


def test_no_broker_is_told_apart_from_a_broker_without_the_topics(broker: Broker, topics: NewTopics, by: str) -> None:
    (readings,) = topics("readings")
    away = group_settings("127.0.0.1:1", readings, "alerts", "dead", client=by)
    with pytest.raises(KafkaAwayError, match=r"no broker at 127\.0\.0\.1:1"):
        client(away).source(away)
    if broker.is_apache_kafka:
        settings = group_settings(broker.bootstrap, readings, "no-such-alerts", "no-such-dead-letters", client=by)
        with pytest.raises(KafkaSetupError, match=r"topic no-such-alerts.*create it"), joined(settings):
            pass


def test_a_configuration_that_librdkafka_does_not_take_is_a_sentence(broker: Broker, topics: NewTopics) -> None:
    world = KafkaWorld(broker, topics, client="librdkafka")
    settings = world.settings(max_poll_interval_seconds=1e6)
    with pytest.raises(KafkaSetupError, match=r"librdkafka cannot be set up so.*max\.poll\.interval\.ms.*correct"):
        client(settings).source(settings)
    with pytest.raises(KafkaSetupError, match=r"transaction\.timeout\.ms.*correct"):
        LibrdkafkaProducer(world.settings(), DELIVERIES._replace(seconds=3e6), "name")


def test_no_command_creates_the_topics_that_it_does_not_find(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        fetch_jars()
    except KafkaNodeError as reason:
        pytest.skip(str(reason))  # the broker in use creates none, whoever asks
    with KafkaNode() as node, KafkaAdminClient(bootstrap_servers=node.bootstrap) as admin:
        admin.create_topics(
            {name: {"num_partitions": 1, "replication_factor": 1} for name in ("there", "dead")}, wait_for_metadata=True
        )
        for by in ("kafka-python", "librdkafka"):
            settings = group_settings(node.bootstrap, "there", "alerts", "dead", client=by)
            for origin, target in (("there", "missing"), ("missing", "there")):
                with pytest.raises(KafkaSetupError, match=r"topic missing: does not exist.*--create-topics"):
                    Rekey(settings, origin, target, ignore)
        monkeypatch.setattr(kafka_connection, "ANSWER_MS", 1_000)
        absent = group_settings(node.bootstrap, "missing", "alerts", "dead")
        kept = settings.model_copy(update={"topics": settings.topics.model_copy(update={"checkpoints": "missing"})})
        for what in (
            lambda: TopicProducer(settings, "missing"),
            lambda: IdleGroup(absent),
            lambda: KeptInTopic(kept, ignore),
            lambda: KeptInTopic(absent, ignore),
            lambda: next(records_since(settings, "missing", 0)),
            lambda: stream_plant(2, 0, absent, 100.0),
            lambda: send_event(absent, "s", b"{}", []),
        ):
            with pytest.raises(KafkaSetupError, match=r"topic missing: does not exist.*--create-topics"):
                what()
        assert survey(absent, ["missing"]).topics == {}
        assert "missing" not in admin.list_topics()


@pytest.mark.kafka_only
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the client leaves sockets open that never connected
def test_an_absent_broker_is_waited_out_and_loses_nothing(caplog: pytest.LogCaptureFixture, by: str) -> None:
    caplog.set_level("CRITICAL", "kafka")  # a record that is kept keeps the sockets
    try:
        fetch_jars()
    except KafkaNodeError as reason:
        pytest.skip(str(reason))  # the broker in use is Apache Kafka, but not one that we may kill
    with KafkaNode() as node:
        _deliver_across_an_outage(node, by)
        assert len(messages(node.bootstrap, "alerts")) == 1
    gc.collect()  # here, where the warning is expected


def _deliver_across_an_outage(node: KafkaNode, by: str) -> None:
    settings = group_settings(node.bootstrap, "readings", "alerts", "dead", client=by)
    with KafkaProducer(bootstrap_servers=node.bootstrap) as producer:
        for topic in ("readings", "alerts", "dead"):
            producer.partitions_for(topic)  # which creates it
    waited: list[str] = []
    with joined(settings, waited.append) as (source, sink):
        until(source, lambda polls: 0 in assigned(polls))
        node.kill()
        while source.poll(0.2).reachable:
            pass
        assert source.at_end({0}) == set()
        back = threading.Timer(3, node.start)
        back.start()
        while not sink.deliver(Outputs([ALERT]), {0: Position(1)}):
            source.poll(0.2)
        acknowledged = time.monotonic()
        back.join()
        assert waited, "nobody was told that the service waits"
        until(source, lambda polls: bool(polls) and polls[-1].reachable)
        assert time.monotonic() - acknowledged < 10


def test_a_survey_says_what_there_is_and_changes_nothing(broker: Broker, topics: NewTopics) -> None:
    world = KafkaWorld(broker, topics)
    world.produce([b"a"])
    before = time.time()
    seen = survey(world.settings(), [world.readings, world.alerts, "no-such-topic"])
    assert seen.brokers >= 1
    assert set(seen.topics) == {world.readings, world.alerts}
    assert seen.topics[world.readings].partitions == 2
    assert seen.newest is not None
    assert abs(seen.newest - before) < 60
