"""State across restarts: a partition's last fitting checkpoint in, the present state out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import structlog

from pipeline.groups import Groups
from pipeline.ports import (
    Assigned,
    Checkpoint,
    CheckpointError,
    Checkpoints,
    CheckpointStore,
    PartitionsChangedError,
    Position,
)

log = structlog.get_logger(__name__)


class Recovery:
    """Restores and keeps partitions. What does not fit is refused with the reason, and costs a fresh start."""

    def __init__(self, groups: Groups, store: CheckpointStore, topic: str, fingerprint: str, kernel: str = "") -> None:
        """`kernel` is what computes here: another may differ in the last digit."""
        self._groups, self._store = groups, store
        self._topic, self._fingerprint, self._kernel = topic, fingerprint, kernel
        self._partitions = 0  # of the topic, when the first of them came

    def restore(self, assigned: Assigned) -> tuple[str, Checkpoint | None]:
        """Take over the newest checkpoint at or before the committed offset; ("", None) where none fits.

        PartitionsChangedError where the topic was widened: going on would leave sensors without their state.
        """
        self._groups.drop(assigned.partition)
        self._partitions = self._partitions or assigned.partitions
        _must_be_as_wide(self._topic, self._partitions, assigned)
        if not assigned.committed:
            return "", None
        for name, checkpoint in fitting(self._store, self._topic, assigned):
            _must_be_as_wide(self._topic, checkpoint.partitions, assigned)
            if taken_up(self._groups, name, checkpoint, self.changed(checkpoint), self._kernel):
                return name, checkpoint
        log.warning(
            "no checkpoint to restore",
            partition=assigned.partition,
            offset=assigned.position.offset,
            effect="sensors start from what their model knows of them",
        )
        return "", None

    def keep(self, partition: int, done: Position, watermark: int) -> str | None:
        """Write the partition's state, which must be that of `done`; None where it could not be written.

        Not fatal: the checkpoint before it stays, and a restart replays from there.
        """
        began, state = time.perf_counter(), self._groups.snapshot(partition)
        checkpoint = Checkpoint(
            self._topic, partition, done, watermark, hashes(self._groups), self._fingerprint, state,
            self._partitions, self._kernel, self._groups.outage(partition),
        )  # fmt: skip
        try:
            name = self._store.save(checkpoint)
        except (OSError, CheckpointError) as why:
            log.error("checkpoint failed", partition=partition, why=str(why), effect="the one before it stays")
            return None
        size, seconds = sum(a.nbytes for arrays in state.values() for a in arrays.values()), time.perf_counter() - began
        log.info(
            "checkpoint taken",
            partition=partition,
            offset=done.offset,
            bytes=size,
            bytes_per_second=round(size / seconds),
        )
        return name

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    def changed(self, checkpoint: Checkpoint) -> str:
        """What is not as it was when the checkpoint was taken; "" where all is."""
        return changed(checkpoint, hashes(self._groups), self._fingerprint)


def hashes(groups: Groups) -> dict[str, str]:
    """Group -> SHA-256 of the bundle that serves it."""
    return {group: model.ref.sha256 for group, model in groups.models.items()}


def changed(checkpoint: Checkpoint, now: Mapping[str, str], fingerprint: str) -> str:
    """What is not as it was when the checkpoint was taken; "" where all is. `now` are the bundles that serve."""
    if checkpoint.settings != fingerprint:
        return "other settings in [detection], [model] or sensors.csv"
    then = checkpoint.models
    others = sorted(group for group in now.keys() | then.keys() if now.get(group) != then.get(group))
    return f"another model for {', '.join(others)}" if others else ""


def taken_up(groups: Groups, name: str, checkpoint: Checkpoint, changed: str, kernel: str) -> bool:
    """Let the detectors go on from its state, as after a swap if it was `changed`; False where it does not fit."""
    try:
        groups.restore(checkpoint.partition, checkpoint.groups, checkpoint.outage, adopt=bool(changed))
    except ValueError as why:
        _refused(name, why)
        return False
    if changed:
        log.info("checkpoint adopted", checkpoint=name, why=changed, effect="episodes go on, windows re-read")
    if checkpoint.kernel != kernel:
        log.info("checkpoint of another kernel", checkpoint=name, then=checkpoint.kernel, now=kernel,
                 effect="scores may differ in their last digit from what was computed there")  # fmt: skip
    return True


def fitting(store: Checkpoints, topic: str, assigned: Assigned) -> Iterator[tuple[str, Checkpoint]]:
    """The checkpoints from which the partition can be replayed to its position, newest first; others are logged."""
    for name in store.names(topic, assigned.partition, assigned.position.offset):
        try:
            checkpoint = store.load(name)
            _must_be_followed(checkpoint, assigned)
        except CheckpointError as why:
            _refused(name, why)
        else:
            yield name, checkpoint


def _must_be_followed(checkpoint: Checkpoint, assigned: Assigned) -> None:
    if checkpoint.position.offset < assigned.earliest:
        gone = f"{checkpoint.position.offset} to {assigned.earliest - 1}"
        raise CheckpointError(f"the readings that follow it, offsets {gone}, are out of retention")


def _must_be_as_wide(topic: str, then: int, assigned: Assigned) -> None:
    if then != assigned.partitions:
        raise PartitionsChangedError(
            f"topic {topic}: has {assigned.partitions} partitions, its state was kept for {then}; stop every "
            "member, run `foreshock checkpoint repartition`, then start again (or set the checkpoints aside, and "
            "every sensor starts afresh)"
        )


def _refused(name: str, why: Exception) -> None:
    log.warning("checkpoint refused", checkpoint=name, why=str(why))
