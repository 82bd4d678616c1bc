"""Checkpoints in a folder: whole or not at all, verified, and never in each other's way."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.adapters.checkpoints import FolderCheckpoints
from pipeline.core.detector import Detector
from pipeline.ports import Checkpoint, CheckpointError, Position
from tests.models import model, stream, waves

TOPIC = "sensor.readings"


@pytest.fixture(scope="module")
def state() -> Checkpoint:
    detector = Detector(model())
    detector.step(stream(waves(3, 100)))
    groups = {"g": detector.snapshot(0), "empty": Detector(model(channels=2)).snapshot(0)}
    return Checkpoint(TOPIC, 0, Position(300, tick=17), 1_795_347_600_123_000, {"g": "0" * 64}, "settings", groups)


@pytest.fixture
def store(tmp_path: Path) -> FolderCheckpoints:
    seconds = itertools.count(1_795_347_600)
    return FolderCheckpoints(tmp_path, clock=lambda: next(seconds))


def at(state: Checkpoint, offset: int) -> Checkpoint:
    return replace(state, position=Position(offset))


def offsets(store: FolderCheckpoints, at_most: int = 10**9) -> list[int]:
    return [store.load(name).position.offset for name in store.names(TOPIC, 0, at_most)]


def test_every_array_comes_back_bit_by_bit(store: FolderCheckpoints, state: Checkpoint) -> None:
    loaded = store.load(store.save(state))
    for group, arrays in state.groups.items():
        assert loaded.groups[group].keys() == arrays.keys()
        for name, array in arrays.items():
            found = loaded.groups[group][name]
            assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes()), name
    assert (loaded.position, loaded.watermark, loaded.models, loaded.settings) == (
        state.position, state.watermark, state.models, state.settings,
    )  # fmt: skip


def test_the_newest_at_or_before_an_offset_comes_first(store: FolderCheckpoints, state: Checkpoint) -> None:
    for offset in (100, 200):
        store.save(at(state, offset))
    assert offsets(store) == [200, 100]
    assert offsets(store, at_most=199) == [100]
    assert offsets(store, at_most=99) == []
    assert list(store.names("another.topic", 0, 10**9)) == []


def test_two_are_kept(store: FolderCheckpoints, state: Checkpoint) -> None:
    for offset in range(0, 500, 100):
        store.save(at(state, offset))
    assert offsets(store) == [400, 300]


def test_a_rewound_group_leaves_no_later_history_behind(store: FolderCheckpoints, state: Checkpoint) -> None:
    for offset in (800, 900, 100):
        store.save(at(state, offset))
    assert offsets(store) == [100]


def test_two_at_the_same_offset_are_told_apart_by_their_time(store: FolderCheckpoints, state: Checkpoint) -> None:
    store.save(replace(state, models={"g": "old"}))
    store.save(replace(state, models={"g": "new"}))
    assert [store.load(name).models["g"] for name in store.names(TOPIC, 0, 300)] == ["new", "old"]


@pytest.mark.parametrize("call", ["fsync", "mkdir", "rename"])
def test_a_disk_that_refuses_leaves_the_one_before_and_no_debris(
    tmp_path: Path, store: FolderCheckpoints, state: Checkpoint, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store.save(at(state, 100))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            store.save(at(state, 200))
    assert offsets(store) == [100]
    assert len(list((tmp_path / TOPIC / "00000").iterdir())) == 1


def test_a_checkpoint_that_was_cut_off_is_not_seen_and_goes_with_the_next(
    tmp_path: Path, store: FolderCheckpoints, state: Checkpoint
) -> None:
    cut_off = tmp_path / TOPIC / "00000" / "00000000000000000900-1795347600000.new"
    cut_off.mkdir(parents=True)
    assert offsets(store) == []
    store.save(at(state, 100))
    assert not cut_off.exists()


def flip(content: bytes, where: float) -> bytes:
    at = min(int(where * len(content)), len(content) - 1)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def cut(content: bytes, where: float) -> bytes:
    return content[: int(where * len(content))]


@given(where=st.floats(0, 1, exclude_max=True), damage=st.sampled_from([flip, cut]), file=st.integers(0, 2))
def test_damage_anywhere_is_refused_with_the_place(
    tmp_path_factory: pytest.TempPathFactory,
    state: Checkpoint,
    where: float,
    damage: Callable[[bytes, float], bytes],
    file: int,
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    store = FolderCheckpoints(folder)
    name = store.save(state)
    path = sorted(folder.rglob("*.*"))[-3:][file]
    path.write_bytes(damage(path.read_bytes(), where))
    with pytest.raises(CheckpointError, match=path.name):
        store.load(name)


def test_another_format_is_refused(tmp_path: Path, store: FolderCheckpoints, state: Checkpoint) -> None:
    name = store.save(state)
    (manifest,) = tmp_path.rglob("manifest.json")
    manifest.write_bytes(manifest.read_bytes().replace(b'"format":1', b'"format":2'))
    with pytest.raises(CheckpointError, match="format 2, this build reads 1"):
        store.load(name)


def test_a_restored_detector_goes_on_as_if_nothing_had_happened(store: FolderCheckpoints) -> None:
    readings = stream(waves(3, 200))
    first, second = Detector(model()), Detector(model())
    first.step(readings.take(slice(0, 300)))
    groups = {"g": first.snapshot(0)}
    second.restore(0, store.load(store.save(Checkpoint(TOPIC, 0, Position(300), 0, {}, "", groups))).groups["g"])
    rest = readings.take(slice(300, 600))
    assert np.array_equal(first.step(rest).scores, second.step(rest).scores)
