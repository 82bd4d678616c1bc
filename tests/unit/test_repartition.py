"""A topic is widened: every sensor goes on in its new partition with the state it had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.adapters.checkpoints import FolderCheckpoints
from pipeline.core.detector import Detector
from pipeline.core.events import Maintain
from pipeline.core.joining import Joiner
from pipeline.core.maintenance import Maintenance
from pipeline.ports import Checkpoint, CheckpointError, Moment, Position
from pipeline.repartition import repartitioned, sources
from tests.models import INTERVAL, model, stream, waves

TOPIC = "sensor.readings"
READINGS = stream(waves(9, 120), partitions=2)  # sensor k in partition k % 2


def place(sensor: bytes, partitions: int) -> int:
    return int(sensor[1:]) % partitions


@pytest.fixture
def before() -> dict[int, Checkpoint]:
    detector = Detector(model())
    detector.step(READINGS.take(slice(0, 540)))
    return {
        p: Checkpoint(TOPIC, p, Position(300 + p, (Moment(2, 5),)), 17 - p, {}, "", {"g": detector.snapshot(p)}, 2)
        for p in (0, 1)
    }


def names(checkpoint: Checkpoint) -> list[bytes]:
    found: list[bytes] = checkpoint.groups["g"]["names"].tolist()
    return found


def test_every_sensor_goes_on_where_its_readings_now_come_from(before: dict[int, Checkpoint]) -> None:
    wider = {c.partition: c for c in repartitioned(before, 4, place)}
    assert {p: sorted(names(c)) for p, c in wider.items()} == {
        0: [b"s0", b"s4", b"s8"], 1: [b"s1", b"s5"], 2: [b"s2", b"s6"], 3: [b"s3", b"s7"],
    }  # fmt: skip
    assert [wider[p].position for p in range(4)] == [Position(300), Position(301), Position(0), Position(0)]
    assert {(c.watermark, c.partitions) for c in wider.values()} == {(16, 4)}

    undisturbed, moved = Detector(model()), Detector(model())
    undisturbed.step(READINGS.take(slice(0, 540)))
    for partition, checkpoint in wider.items():
        moved.restore(partition, checkpoint.groups["g"])
    rest = READINGS.take(slice(540, 1080))
    elsewhere = replace(rest, partitions=np.array([place(s.encode(), 4) for s in rest.sensors]))
    assert np.array_equal(moved.step(elsewhere).scores, undisturbed.step(rest).scores)


def test_readings_that_wait_for_their_channels_move_with_their_sensors(before: dict[int, Checkpoint]) -> None:
    def joiner() -> Joiner:
        return Joiner(2, INTERVAL, max_future=INTERVAL)

    parts, waiting = READINGS.take(slice(0, 9)), joiner()
    waiting.join(replace(parts, values=np.column_stack([parts.values, np.full(9, np.nan)])))
    before = {p: replace(c, groups={**c.groups, "g~open": waiting.snapshot(p)}) for p, c in before.items()}
    after = joiner()
    for checkpoint in repartitioned(before, 4, place):
        after.restore(checkpoint.partition, checkpoint.groups["g~open"])
    rest = replace(parts, partitions=np.array([place(s.encode(), 4) for s in parts.sensors]), offsets=parts.offsets + 9)
    whole, _ = after.join(replace(rest, values=np.column_stack([np.full(9, np.nan), parts.values])))
    assert np.array_equal(whole.values, np.column_stack([parts.values, parts.values]))


def test_maintenance_moves_with_its_sensors(before: dict[int, Checkpoint]) -> None:
    said = Maintenance()
    said.apply(Maintain("s2", 5, 9, partition=0))
    before[0] = replace(before[0], groups={**before[0].groups, "~maintenance": said.snapshot(0)})
    after = Maintenance()
    for checkpoint in repartitioned(before, 4, place):
        after.restore(checkpoint.partition, checkpoint.groups["~maintenance"])
    assert [after.covers(partition, "s2", 5) for partition in range(4)] == [False, False, True, False]


def test_a_sensor_seen_in_two_partitions_keeps_the_state_of_its_own(before: dict[int, Checkpoint]) -> None:
    stray = {field: rows[:1].copy() for field, rows in before[1].groups["g"].items()}
    stray["names"][0] = b"s0"  # which belongs to partition 0
    before[1] = replace(
        before[1],
        groups={"g": {field: np.concatenate([rows, stray[field]]) for field, rows in before[1].groups["g"].items()}},
    )
    for found in (before, dict(reversed(before.items()))):
        (zero,) = [c for c in repartitioned(found, 4, place) if c.partition == 0]
        row, own = names(zero).index(b"s0"), names(before[0]).index(b"s0")
        assert np.array_equal(zero.groups["g"]["window"][row], before[0].groups["g"]["window"][own])


def test_an_attempt_that_was_cut_off_is_made_again_from_what_it_read(
    tmp_path: Path, before: dict[int, Checkpoint]
) -> None:
    store = FolderCheckpoints(tmp_path)
    for checkpoint in before.values():
        store.save(checkpoint)
    committed = {p: c.position for p, c in before.items()}
    whole = repartitioned(sources(store, TOPIC, committed, 4), 4, place)
    for checkpoint in whole[:3]:  # the last, partition 0, is still as it was
        store.save(checkpoint)
    again = repartitioned(sources(store, TOPIC, committed, 4), 4, place)
    assert [(c.partition, c.position, sorted(names(c))) for c in again] == [
        (c.partition, c.position, sorted(names(c))) for c in whole
    ]


def test_state_that_is_not_that_of_the_committed_position_is_refused(
    tmp_path: Path, before: dict[int, Checkpoint]
) -> None:
    store = FolderCheckpoints(tmp_path)
    store.save(before[0])
    with pytest.raises(CheckpointError, match="partition 0: no checkpoint at offset 400"):
        sources(store, TOPIC, {0: Position(400)}, 4)


def test_state_of_different_models_is_refused(before: dict[int, Checkpoint]) -> None:
    before[1] = replace(before[1], models={"g": "1" * 64})
    with pytest.raises(CheckpointError, match="partitions 0 and 1: kept under different models"):
        repartitioned(before, 4, place)
