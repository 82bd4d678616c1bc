"""State across restarts: a partition's last fitting checkpoint in, the present state out."""

from __future__ import annotations

import time

import structlog

from pipeline.groups import Groups
from pipeline.ports import (
    Assigned,
    Checkpoint,
    CheckpointError,
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
        self._must_be_as_wide(self._partitions, assigned)
        if not assigned.committed:
            return "", None
        for name in self._store.names(self._topic, assigned.partition, assigned.position.offset):
            try:
                checkpoint = self._store.load(name)
                self._must_be_as_wide(checkpoint.partitions, assigned)
                self._must_fit(checkpoint, assigned)
                changed = self._changed(checkpoint)
                self._groups.restore(assigned.partition, checkpoint.groups, checkpoint.outage, adopt=bool(changed))
            except (CheckpointError, ValueError) as why:
                log.warning("checkpoint refused", checkpoint=name, why=str(why))
            else:
                if changed:
                    log.info(
                        "checkpoint adopted", checkpoint=name, why=changed, effect="episodes go on, windows re-read"
                    )
                if checkpoint.kernel != self._kernel:
                    log.info("checkpoint of another kernel", checkpoint=name, then=checkpoint.kernel, now=self._kernel,
                             effect="scores may differ in their last digit from what was computed there")  # fmt: skip
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
            self._topic, partition, done, watermark, self._serving(), self._fingerprint, state,
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

    def _changed(self, checkpoint: Checkpoint) -> str:
        """What is not as it was when the checkpoint was taken; "" where all is."""
        if checkpoint.settings != self._fingerprint:
            return "other settings in [detection], model.groups or sensors.csv"
        now, then = self._serving(), checkpoint.models
        others = sorted(group for group in now.keys() | then.keys() if now.get(group) != then.get(group))
        return f"another model for {', '.join(others)}" if others else ""

    def _must_fit(self, checkpoint: Checkpoint, assigned: Assigned) -> None:
        if checkpoint.position.offset < assigned.earliest:
            gone = f"{checkpoint.position.offset} to {assigned.earliest - 1}"
            raise CheckpointError(f"the readings that follow it, offsets {gone}, are out of retention")

    def _must_be_as_wide(self, then: int, assigned: Assigned) -> None:
        if then != assigned.partitions:
            raise PartitionsChangedError(
                f"topic {self._topic}: has {assigned.partitions} partitions, its state was kept for {then}; stop every "
                "member, run `foreshock checkpoint repartition`, then start again (or set the checkpoints aside, and "
                "every sensor starts afresh)"
            )

    def _serving(self) -> dict[str, str]:
        return {group: model.ref.sha256 for group, model in self._groups.models.items()}
