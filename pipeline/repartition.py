"""State for a topic that was widened: every sensor's row goes to the partition that its readings now come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from pipeline.core.table import Arrays, Clock
from pipeline.ports import Checkpoint, CheckpointError, CheckpointStore, Position

NAMES = "names"

Place = Callable[[bytes, int], int]  # sensor, partitions of the topic -> its partition


def sources(
    store: CheckpointStore, topic: str, committed: Mapping[int, Position], partitions: int
) -> dict[int, Checkpoint]:
    """The state at each committed position; CheckpointError where one is missing or would have to be replayed.

    Where an earlier attempt was cut off, there are both: what it read counts, not what it wrote.
    """
    found: dict[int, list[Checkpoint]] = {}
    for partition, position in committed.items():
        names = store.names(topic, partition, position.offset)
        found[partition] = [c for c in map(store.load, names) if c.position.offset == position.offset]
        if not found[partition]:
            raise CheckpointError(
                f"{topic}, partition {partition}: no checkpoint at offset {position.offset}, where the group stands, "
                "as a service that is stopped in order leaves one; set the checkpoints aside, and all starts afresh"
            )
    then = min((c.partitions for kept in found.values() for c in kept), default=partitions)
    return {partition: next((c for c in kept if c.partitions == then), kept[0]) for partition, kept in found.items()}


def repartitioned(found: Mapping[int, Checkpoint], partitions: int, place: Place) -> list[Checkpoint]:
    """A checkpoint for each of so many partitions, new ones first; those that nobody has read begin at offset 0.

    A sensor that was seen in several partitions keeps the row of the one that was its own.
    """
    first = next(iter(found.values()))
    for c in found.values():
        if (c.models, c.settings) != (first.models, first.settings):
            raise CheckpointError(
                f"{c.topic}, partitions {first.partition} and {c.partition}: kept under different models or settings; "
                "start every member with the same ones on the old topic, or set the checkpoints aside"
            )
    kept = sorted({group for c in found.values() for group in c.groups})
    groups = {group: _spread(found, group, partitions, place) for group in kept}
    wider = []
    for partition in sorted(range(partitions), reverse=True):
        at = found[partition].position.offset if partition in found else 0
        # Ticks are done: told again here, they would be of other sensors. The earliest watermark raises no false gap.
        wider.append(
            replace(
                first, partition=partition, position=Position(at), partitions=partitions,
                groups={group: by_partition[partition] for group, by_partition in groups.items()},
                watermark=min((c.watermark for c in found.values() if c.watermark), default=0),
                outage=found[partition].outage if partition in found else None,
            )
        )  # fmt: skip
    return wider


def _spread(found: Mapping[int, Checkpoint], group: str, partitions: int, place: Place) -> list[Arrays]:
    """The rows of each of so many partitions."""
    found = {source: c for source, c in found.items() if group in c.groups}
    at: dict[bytes, tuple[int, int]] = {}  # sensor -> partition it was in, row there
    for source, c in found.items():
        for row, sensor in enumerate(c.groups[group][NAMES].tolist()):
            if sensor not in at or place(sensor, c.partitions) == source:
                at[sensor] = source, row
    rows: list[dict[int, list[int]]] = [{source: [] for source in found} for _ in range(partitions)]
    for sensor, (source, row) in at.items():
        rows[place(sensor, partitions)][source].append(row)
    arrays = {source: c.groups[group] for source, c in found.items()}
    fields = next(iter(arrays.values()))
    spread = [
        {field: np.concatenate([arrays[source][field][chosen] for source, chosen in of.items()]) for field in fields}
        for of in rows
    ]
    for destination, (of, moved) in enumerate(zip(rows, spread, strict=True)):
        came = np.repeat(list(of), [len(chosen) for chosen in of.values()])  # the partition of each row until now
        if "clock" not in moved:  # beside the detectors' state
            continue
        # of the old partition: none here
        for column in (Clock.OFFSET, Clock.ASTRAY_OFFSET, Clock.ONSET_OFFSET, Clock.BELIEVED_OFFSET):
            moved["clock"][came != destination, column] = -1
    return spread
