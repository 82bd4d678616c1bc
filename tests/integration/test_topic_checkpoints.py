"""Checkpoints in a compacted topic, on Apache Kafka: the contract of every store, and what only this one could lose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from pipeline.adapters import kafka_checkpoints, kafka_commits
from pipeline.adapters.kafka_checkpoints import CHUNK_BYTES, TopicCheckpoints
from pipeline.adapters.kafka_clients import client
from pipeline.adapters.kafka_commits import CHECKPOINTS, Producer, Transactions
from pipeline.adapters.kafka_connection import KafkaSetupError
from pipeline.adapters.kafka_member import GroupMember
from pipeline.ports import Checkpoint, CheckpointError
from pipeline.settings_schema import KafkaSettings
from tests.brokers import Broker
from tests.conftest import NewTopics
from tests.contract.checkpoint_store import CheckpointStoreContract, assert_same, at, taken
from tests.contract.source_and_sink import assigned, until
from tests.integration.test_kafka_adapter import group_settings, ignore, put_out
from tests.service import wait_for

pytestmark = pytest.mark.kafka_only
PARTITIONS = 2


@pytest.fixture
def settings(broker: Broker, topics: NewTopics) -> KafkaSettings:
    (readings,) = topics("readings", partitions=PARTITIONS)
    (kept,) = topics("checkpoints", partitions=PARTITIONS, **{"cleanup.policy": "compact"})
    names = {"readings": readings, "alerts": "alerts", "dead_letter": "dead", "checkpoints": kept}
    return group_settings(broker.bootstrap, readings, "alerts", "dead", topics=names)


@pytest.fixture
def member(settings: KafkaSettings) -> Iterator[GroupMember]:
    source = client(settings).source(settings)
    until(source, lambda polls: len(assigned(polls)) == PARTITIONS)
    yield source
    source.close()


def writing(settings: KafkaSettings, member: GroupMember) -> Transactions:
    return client(settings).transactions(settings, CHECKPOINTS, member, ignore)


class Settled(TopicCheckpoints):
    """Returns once the broker has written the markers, before which no reader finds what is committed."""

    def _saved(self, checkpoints: Sequence[Checkpoint]) -> list[str]:
        names = super()._saved(checkpoints)
        slots = dict(self._slots)
        for checkpoint, name in zip(checkpoints, names, strict=True):
            wait_for(name, 10, lambda c=checkpoint, n=name: n in self.names(c.topic, c.partition, 10**9))  # type: ignore[misc]
        self._slots |= slots
        return names


@pytest.fixture
def kept(settings: KafkaSettings, member: GroupMember) -> Iterator[TopicCheckpoints]:
    store = Settled(settings, writing(settings, member), ignore)
    yield store
    store.close()


@pytest.fixture
def taken_here(settings: KafkaSettings) -> Checkpoint:
    return replace(taken(), topic=settings.topics.readings)


class TestTopic(CheckpointStoreContract):
    @pytest.fixture
    def store(self, kept: TopicCheckpoints) -> TopicCheckpoints:
        return kept

    @pytest.fixture
    def state(self, taken_here: Checkpoint) -> Checkpoint:
        return taken_here


def newest(store: TopicCheckpoints, state: Checkpoint) -> Checkpoint:
    return store.load(next(store.names(state.topic, state.partition, 10**9)))


def stored(settings: KafkaSettings) -> list[tuple[str, int]]:
    """The keys and sizes in partition 0 of the topic, committed or not."""
    with KafkaConsumer(bootstrap_servers=settings.bootstrap_servers) as consumer:
        consumer.assign([TopicPartition(settings.topics.checkpoints, 0)])
        consumer.seek_to_beginning()
        found: list[tuple[str, int]] = []
        while polled := consumer.poll(timeout_ms=1500):
            found += [(record.key.decode(), len(record.value)) for records in polled.values() for record in records]
    return found


def test_large_state_goes_in_chunks_to_the_slot_that_is_not_in_force(
    settings: KafkaSettings, kept: TopicCheckpoints
) -> None:
    state = replace(taken(sensors=400), topic=settings.topics.readings)
    for offset in (1, 2, 3):
        kept.save(at(offset, of=state))
        assert_same(newest(kept, state), at(offset, of=state))
    found = stored(settings)
    slots = [key.split("/")[1] for key, _ in found if key.endswith("g.safetensors/1")]
    assert slots == ["a", "b", "a"]
    assert max(size for _, size in found) == CHUNK_BYTES
    assert found[-1][0].endswith("/manifest")


def test_a_checkpoint_that_was_cut_off_leaves_the_one_before(
    settings: KafkaSettings, kept: TopicCheckpoints, taken_here: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for offset in (100, 200):
        kept.save(at(offset, of=taken_here))

    def cut_off(_: Producer) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(kafka_commits, "_commit", cut_off)
        with pytest.raises(ZeroDivisionError):
            kept.save(at(300, of=taken_here))
    assert newest(kept, taken_here).position.offset == 200


def test_of_a_member_that_the_group_has_put_out_nothing_stays(
    broker: Broker, settings: KafkaSettings, member: GroupMember, kept: TopicCheckpoints, taken_here: Checkpoint
) -> None:
    kept.save(at(100, of=taken_here))
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
        put_out(admin, settings.group_id)
    with pytest.raises(CheckpointError, match="came to nothing"):
        kept.save(at(200, of=taken_here))
    assert newest(kept, taken_here).position.offset == 100


@pytest.mark.parametrize("damaged", ["g.safetensors/0", "manifest"])
def test_what_others_wrote_over_it_is_refused_with_the_place_and_the_next_one_is_sound(
    settings: KafkaSettings, kept: TopicCheckpoints, taken_here: Checkpoint, damaged: str
) -> None:
    name = kept.save(at(100, of=taken_here))
    slot = "" if damaged == "manifest" else "a/"
    key = f"{settings.group_id}/{slot}{damaged}".encode()
    with KafkaProducer(bootstrap_servers=settings.bootstrap_servers) as producer:
        producer.send(settings.topics.checkpoints, b"\x00" * 50, key=key, partition=0)
        if damaged != "manifest":  # in force, and in front of the damage: compaction would keep that alone
            with KafkaConsumer(bootstrap_servers=settings.bootstrap_servers) as consumer:
                consumer.assign([TopicPartition(settings.topics.checkpoints, 0)])
                consumer.seek_to_beginning()
                records = [r for found in consumer.poll(timeout_ms=3000).values() for r in found]
            last = next(r for r in reversed(records) if r.key.endswith(b"/manifest"))
            producer.send(settings.topics.checkpoints, last.value, key=last.key, partition=0, headers=last.headers)
    with pytest.raises(CheckpointError):
        kept.load(name)
    kept.save(at(200, of=taken_here))
    assert_same(newest(kept, taken_here), at(200, of=taken_here))


def test_the_manifest_is_found_however_far_from_the_end(
    settings: KafkaSettings, kept: TopicCheckpoints, taken_here: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.save(at(100, of=taken_here))
    with KafkaProducer(bootstrap_servers=settings.bootstrap_servers, linger_ms=20) as producer:
        for i in range(3 * kafka_checkpoints.LOOK_BACK):
            producer.send(settings.topics.checkpoints, b"of another group", key=b"other/%d" % i, partition=0)
    assert_same(newest(kept, taken_here), at(100, of=taken_here))


def test_a_topic_that_is_too_narrow_is_refused_before_anything_is_read(
    topics: NewTopics, settings: KafkaSettings, member: GroupMember
) -> None:
    (narrow,) = topics("narrow")
    other = settings.model_copy(update={"topics": settings.topics.model_copy(update={"checkpoints": narrow})})
    with pytest.raises(KafkaSetupError, match=r"has 1 partitions, .* has 2; give it as many"):
        TopicCheckpoints(other, writing(other, member), ignore)
