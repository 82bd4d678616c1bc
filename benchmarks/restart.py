"""Restoring a partition's sensors from their checkpoints, beside reading and hashing the files alone."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.asked import Asked
from benchmarks.figures import Beside, Figure, Goal, repeated
from benchmarks.fleets import settled, state_of
from pipeline.adapters.checkpoints import FolderCheckpoints
from pipeline.core.detector import Detector
from pipeline.core.model import Model
from pipeline.groups import Groups
from pipeline.ports import Assigned, Checkpoint, Position
from pipeline.recovery import Recovery
from pipeline.routing import Router, groups_of

TOPIC = "sensor.readings"
RESTORED = Goal(4)


def measure(asked: Asked) -> Iterator[Figure]:
    """From the folder of checkpoints to detectors that may go on; the files are in the page cache."""
    with tempfile.TemporaryDirectory() as folder:
        store = FolderCheckpoints(Path(folder))
        model = keep(store, asked)

        def restore() -> float:
            recovery = Recovery(_groups(model), FolderCheckpoints(Path(folder)), TOPIC, "")
            began = time.perf_counter()
            for partition in range(asked.partitions):
                name, _ = recovery.restore(Assigned(partition, Position(1), True, 0, asked.partitions))
                assert name, "a checkpoint did not fit"
            return time.perf_counter() - began

        def read() -> float:
            began = time.perf_counter()
            for file in Path(folder).rglob("*"):
                if file.is_file():
                    hashlib.sha256(file.read_bytes()).digest()
            return time.perf_counter() - began

        bare = repeated(read, asked.repeats)
        name = f"restore of {asked.restored:,} sensors"
        ceiling = Beside("read and hash the files", bare.value)
        yield Figure.of(name, repeated(restore, asked.repeats), "s", RESTORED, ceiling)


def keep(store: FolderCheckpoints, asked: Asked) -> Model:
    """Checkpoints of a whole fleet, in as many partitions as asked."""
    model = settled(1, asked.hidden)[0].model
    for partition in range(asked.partitions):
        names = [f"s{i}" for i in range(partition, asked.restored, asked.partitions)]
        groups = {model.group: state_of(names, 1, asked.hidden)}
        store.save(
            Checkpoint(TOPIC, partition, Position(1), 1, {model.group: model.ref.sha256}, "", groups, asked.partitions)
        )
    return model


def _groups(model: Model) -> Groups:
    models = {model.group: model}
    return Groups({model.group: Detector(model)}, Router(groups_of(models)))
