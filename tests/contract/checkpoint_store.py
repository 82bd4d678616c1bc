"""What every store of checkpoints keeps, whatever stands behind it; tests inherit `CheckpointStoreContract`."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from pipeline.core.detector import Detector
from pipeline.core.silence import Outage
from pipeline.ports import Checkpoint, CheckpointError, CheckpointStore, Moment, Position
from tests.models import model, stream, waves

TOPIC = "sensor.readings"


@cache
def taken(topic: str = TOPIC, sensors: int = 3) -> Checkpoint:
    """One with a group that has seen sensors, and one that has not."""
    detector = Detector(model())
    detector.step(stream(waves(sensors, 100)))
    groups = {"g": detector.snapshot(0), "empty": Detector(model(channels=2)).snapshot(0)}
    models, watermark = {"g": "0" * 64}, 1_795_347_600_123_000
    position, outage = Position(300, (Moment(290, 17), Moment(300, 18))), Outage(10, 18, 18, 2, 3, 288, 299)
    return Checkpoint(topic, 0, position, watermark, models, "settings", groups, 6, "numpy 2", outage)


def at(offset: int, partition: int = 0, *, of: Checkpoint) -> Checkpoint:
    return replace(of, position=Position(offset), partition=partition)


def assert_same(found: Checkpoint, kept: Checkpoint) -> None:
    """Bit by bit."""
    assert found.groups.keys() == kept.groups.keys()
    for group, arrays in kept.groups.items():
        assert found.groups[group].keys() == arrays.keys()
        for name, array in arrays.items():
            other = found.groups[group][name]
            assert (other.dtype, other.shape, other.tobytes()) == (array.dtype, array.shape, array.tobytes()), name
    for field in ("topic", "partition", "position", "watermark", "models", "settings", "partitions", "kernel"):
        assert getattr(found, field) == getattr(kept, field), field


class CheckpointStoreContract:
    @pytest.fixture
    def store(self) -> CheckpointStore:
        raise NotImplementedError("a store's tests say what they test")

    @pytest.fixture
    def state(self) -> Checkpoint:
        return taken()

    def test_everything_comes_back_bit_by_bit(self, store: CheckpointStore, state: Checkpoint) -> None:
        assert_same(store.load(store.save(state)), state)

    def test_the_newest_comes_first_and_none_from_behind_the_offset(
        self, store: CheckpointStore, state: Checkpoint
    ) -> None:
        assert list(store.names(state.topic, 0, 10**9)) == []
        for offset in (100, 200, 300):
            name = store.save(at(offset, of=state))
            assert next(store.names(state.topic, 0, 10**9)) == name
        assert store.load(name).position.offset == 300
        assert name not in store.names(state.topic, 0, 299)
        assert list(store.names("another.topic", 0, 10**9)) == []
        assert list(store.names(state.topic, 1, 10**9)) == []

    def test_a_rewound_group_finds_its_new_history(self, store: CheckpointStore, state: Checkpoint) -> None:
        store.save(at(900, of=state))
        store.save(at(100, of=state))
        (name,) = store.names(state.topic, 0, 10**9)
        assert store.load(name).position.offset == 100

    def test_several_partitions_at_once_and_each_by_itself(self, store: CheckpointStore, state: Checkpoint) -> None:
        store.save_all([at(10, 0, of=state), at(20, 1, of=state)])
        store.save(at(30, 1, of=state))
        found = [store.load(next(store.names(state.topic, partition, 10**9))) for partition in (0, 1)]
        assert [(c.partition, c.position.offset) for c in found] == [(0, 10), (1, 30)]

    def test_what_is_not_there_is_refused(self, store: CheckpointStore, state: Checkpoint) -> None:
        name = store.save(state)
        with pytest.raises(CheckpointError):
            store.load(name.replace("300", "301"))

    def test_a_restored_detector_goes_on_as_if_nothing_had_happened(
        self, store: CheckpointStore, state: Checkpoint
    ) -> None:
        readings = stream(waves(3, 200))
        first, second = Detector(model()), Detector(model())
        first.step(readings.take(slice(0, 300)))
        name = store.save(replace(state, groups={"g": first.snapshot(0)}))
        second.restore(0, store.load(name).groups["g"])
        rest = readings.take(slice(300, 600))
        assert np.array_equal(first.step(rest).scores, second.step(rest).scores)
