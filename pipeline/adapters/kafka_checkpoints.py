"""Checkpoints in a compacted topic that has a partition for each of the input: no disk has to outlive the process.

Each partition has two slots. A checkpoint goes, in chunks, to the slot that the manifest in force does not name; then
the manifest does. All of it is one transaction that commits the position again as well, so that of a member that the
group has put out nothing stays (KIP-447), and a reader finds a whole checkpoint or the one before.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError, RetriableError

from pipeline.adapters import checkpoint_format
from pipeline.adapters.kafka_commits import KafkaRefusedError, Message, Transactions
from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError, new_consumer, partitions_of
from pipeline.ports import Checkpoint, CheckpointError
from pipeline.settings_schema import KafkaSettings

CHUNK_BYTES = 900_000  # a broker takes messages of 1 MiB by default, key and headers among it
ANSWER_MS = 5_000  # for one request
QUIET_SECONDS = 15.0  # nothing comes though offsets are left: compaction took the records
LOOK_BACK = 32  # records behind the end in which the manifest is looked for first
FETCH_BYTES = 8 * 2**20
SLOTS = ("a", "b")
NAME = "name"  # the header that holds a checkpoint's name


class KeptInTopic:
    """The newest checkpoint of each partition, to be read: belongs to no group and commits nothing."""

    def __init__(self, settings: KafkaSettings, waiting: Callable[[str], None]) -> None:
        """Connect and find the topic; `waiting` is called with the reason about once a second of a wait."""
        self._topic, self._readings = settings.topics.checkpoints, settings.topics.readings
        self._group, self._waiting = settings.group_id, waiting
        try:
            self._reader = new_consumer(
                settings,
                client_id="foreshock-checkpoints",
                group_id=None,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                max_partition_fetch_bytes=FETCH_BYTES,
            )
        except RetriableError as error:
            raise KafkaAwayError(f"no broker at {settings.bootstrap_servers} answers") from error
        try:
            self._must_be_as_wide_as_the_readings()
        except BaseException:
            self._reader.close(autocommit=False)
            raise

    def names(self, topic: str, partition: int, at_most: int) -> Iterator[str]:
        """That of the newest, if it is not behind `at_most`; for a moment after a commit, that of the one before."""
        found = self._in_force(partition)
        if found is not None:
            name = _name_of(found)
            of_topic, _, own = name.rpartition("/")
            if of_topic == f"{topic}/{partition}" and int(own.partition("-")[0]) <= at_most:
                yield name

    def about(self, name: str) -> Checkpoint:
        """Its manifest alone."""
        _, manifest, where = self._manifest(name)
        return checkpoint_format.restored(manifest, {}, where)

    def load(self, name: str) -> Checkpoint:
        """Read and verify; CheckpointError says what is wrong with it."""
        found, manifest, where = self._manifest(name)
        slot, _, first = manifest.place.partition(" ")
        if not first.isdecimal():
            raise CheckpointError(f"{where}: does not say where its chunks are")
        keys = {file: [self._key(slot, file, i) for i in range(len(of))] for file, of in manifest.sha256.items()}
        wanted = {key for of_file in keys.values() for key in of_file}
        between = self._records(manifest.partition, int(first), found.offset)
        chunks = {record.key: record.value or b"" for record in between if record.key in wanted}
        contents = {}
        for file, of_file in keys.items():
            for i, (key, sha256) in enumerate(zip(of_file, manifest.sha256[file], strict=True)):
                found_hash = hashlib.sha256(chunks.get(key, b"")).hexdigest()
                checkpoint_format.must_match(found_hash, sha256, f"{where}, {file}, chunk {i}")
            contents[file] = b"".join(chunks[key] for key in of_file)
        return checkpoint_format.restored(manifest, contents, where)

    def close(self) -> None:
        """Let go; what was saved stays."""
        self._reader.close(autocommit=False)

    def _manifest(self, name: str) -> tuple[Any, checkpoint_format.Manifest, str]:
        """The record that it stands in, and where that is."""
        partition = int(name.split("/")[1])
        found = self._in_force(partition)
        if found is None or _name_of(found) != name:
            raise CheckpointError(f"{self._topic}: no longer holds {name}")
        where = f"{self._topic}/{partition} at {found.offset}"
        manifest = checkpoint_format.read_manifest(found.value or b"", where)
        if (manifest.topic, manifest.partition) != (self._readings, partition):
            raise CheckpointError(f"{where}: belongs to {manifest.topic}, partition {manifest.partition}")
        return found, manifest, where

    def _in_force(self, partition: int) -> Any:
        """The record of the newest manifest, looked for from the end; None where there is none."""
        tp, upto, back = TopicPartition(self._topic, partition), self._end(partition), LOOK_BACK
        earliest = self._answered(lambda: self._reader.beginning_offsets([tp], timeout_ms=ANSWER_MS)[tp])
        while upto > earliest:
            start = max(upto - back, earliest)
            manifests = [r for r in self._records(partition, start, upto) if r.key == self._key("manifest")]
            if manifests:
                return manifests[-1]
            upto, back = start, back * 8
        return None

    def _records(self, partition: int, start: int, end: int) -> Iterator[Any]:
        """What a read_committed reader finds from `start` to before `end`; compaction may have left nothing there."""
        tp = TopicPartition(self._topic, partition)
        self._reader.assign([tp])
        self._reader.seek(tp, start)
        position, heard = start, time.monotonic()
        while position < end and time.monotonic() - heard < QUIET_SECONDS:
            polled = self._answered(lambda: self._reader.poll(timeout_ms=500))
            yield from (record for record in polled.get(tp, []) if record.offset < end)
            if (reached := self._answered(lambda: self._reader.position(tp, timeout_ms=ANSWER_MS))) > position:
                position, heard = reached, time.monotonic()

    def _end(self, partition: int) -> int:
        """Behind the last record that is committed."""
        tp = TopicPartition(self._topic, partition)
        return int(self._answered(lambda: self._reader.end_offsets([tp], timeout_ms=ANSWER_MS)[tp]))

    def _answered(self, ask: Callable[[], Any]) -> Any:
        """Wait for an absent broker as long as it takes: what cannot be read yet is not damaged."""
        while True:
            try:
                return ask()
            except RetriableError:
                self._waiting("the broker does not give the checkpoints")
            except KafkaError as why:
                raise KafkaSetupError(f"topic {self._topic}: {why}; `foreshock doctor` checks all") from why

    def _key(self, *words: object) -> bytes:
        return "/".join([self._group, *map(str, words)]).encode()

    def _must_be_as_wide_as_the_readings(self) -> None:
        wide = {topic: len(partitions_of(self._reader, topic)) for topic in (self._readings, self._topic)}
        if wide[self._topic] < wide[self._readings]:
            raise KafkaSetupError(
                f"topic {self._topic}: has {wide[self._topic]} partitions, {self._readings} has "
                f"{wide[self._readings]}; give it as many, and cleanup.policy=compact; `foreshock doctor` checks all"
            )


class TopicCheckpoints(KeptInTopic):
    """Keeps the newest checkpoint of each partition, for the group that `transactions` commit for."""

    def __init__(
        self,
        settings: KafkaSettings,
        transactions: Transactions,
        waiting: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Connect and find the topic; the transactions are the store's to close, also where that fails."""
        self._transactions, self._clock = transactions, clock
        self._slots: dict[int, str] = {}  # partition -> the one that our last checkpoint went to
        try:
            super().__init__(settings, waiting)
        except BaseException:
            transactions.close()
            raise

    def names(self, topic: str, partition: int, at_most: int) -> Iterator[str]:
        """That of the newest, as for whoever only reads."""
        self._slots.pop(partition, None)  # it may have been another member's meanwhile
        return super().names(topic, partition, at_most)

    def save(self, checkpoint: Checkpoint) -> str:
        """Write it beside the one in force, which it then replaces."""
        (name,) = self._saved([checkpoint])
        return name

    def save_all(self, checkpoints: Sequence[Checkpoint]) -> None:
        """All of them, or none."""
        self._saved(checkpoints)

    def close(self) -> None:
        """Let go; what was saved stays."""
        self._transactions.close()
        super().close()

    def _saved(self, checkpoints: Sequence[Checkpoint]) -> list[str]:
        taken = round(self._clock() * 1000)
        names = [f"{c.topic}/{c.partition}/{c.position.offset:020d}-{taken:013d}" for c in checkpoints]
        slots = [self._free_slot(c.partition) for c in checkpoints]

        def messages() -> Iterator[Message]:
            for checkpoint, name, (slot, first) in zip(checkpoints, names, slots, strict=True):
                yield from self._messages(checkpoint, name, slot, first)

        try:
            written = self._transactions.run(messages(), {c.partition: c.position for c in checkpoints})
        except KafkaRefusedError as why:
            raise CheckpointError(f"{self._topic}: {why}") from why
        if not written:
            raise CheckpointError(f"{self._topic}: the transaction came to nothing")
        self._slots |= {c.partition: slot for c, (slot, _) in zip(checkpoints, slots, strict=True)}
        return names

    def _messages(self, checkpoint: Checkpoint, name: str, slot: str, first: int) -> Iterator[Message]:
        """The chunks in their slot, then the manifest."""
        sha256: dict[str, list[str]] = {}
        for file, content in checkpoint_format.files(checkpoint).items():
            hashes = sha256.setdefault(file, [])
            for start in range(0, len(content), CHUNK_BYTES):
                chunk = content[start : start + CHUNK_BYTES]
                yield self._chunk(chunk, self._key(slot, file, len(hashes)), checkpoint.partition)
                hashes.append(hashlib.sha256(chunk).hexdigest())
        manifest = checkpoint_format.manifest(checkpoint, sha256, f"{slot} {first}")
        headers = [(NAME, name.encode())]
        yield Message(self._topic, self._key("manifest"), manifest, headers, checkpoint.partition)

    def _chunk(self, content: bytes, key: bytes, partition: int) -> Message:
        return Message(self._topic, key, content, [], partition)

    def _free_slot(self, partition: int) -> tuple[str, int]:
        """The slot that the manifest in force does not name, and an offset behind which its chunks will come."""
        end = self._end(partition)
        last = self._slots.get(partition)
        if last is None and (found := self._in_force(partition)) is not None:
            with contextlib.suppress(CheckpointError):  # of no use, whatever it names
                last = checkpoint_format.read_manifest(found.value or b"", self._topic).place.partition(" ")[0]
        return SLOTS[1] if last == SLOTS[0] else SLOTS[0], end


def _name_of(manifest: Any) -> str:
    """What its header says; "" where it says nothing that could be a name."""
    for key, value in manifest.headers or ():
        topic, _, own = value.decode(errors="replace").rpartition("/")
        if key == NAME and topic and own.partition("-")[0].isdecimal():
            return f"{topic}/{own}"
    return "//0-0"
