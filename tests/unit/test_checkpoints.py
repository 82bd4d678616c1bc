"""Checkpoints in a folder: whole or not at all, verified, and never in each other's way."""

from __future__ import annotations

import errno
import itertools
import os
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.adapters.checkpoint_format import FORMAT
from pipeline.adapters.checkpoints import FolderCheckpoints
from pipeline.ports import Checkpoint, CheckpointError, CheckpointStore
from tests.contract.checkpoint_store import TOPIC, CheckpointStoreContract, at, taken
from tests.disks import ENDLESS, put
from tests.faults import Said


@pytest.fixture
def state() -> Checkpoint:
    return taken()


@pytest.fixture
def store(tmp_path: Path) -> FolderCheckpoints:
    seconds = itertools.count(1_795_347_600)
    return FolderCheckpoints(tmp_path, clock=lambda: next(seconds))


def offsets(store: FolderCheckpoints, at_most: int = 10**9) -> list[int]:
    return [store.load(name).position.offset for name in store.names(TOPIC, 0, at_most)]


class TestFolder(CheckpointStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> CheckpointStore:
        return FolderCheckpoints(tmp_path)


def test_two_are_kept(store: FolderCheckpoints, state: Checkpoint) -> None:
    for offset in range(0, 500, 100):
        store.save(at(offset, of=state))
    assert offsets(store) == [400, 300]


def test_the_first_of_each_of_the_last_days_is_kept_as_well(tmp_path: Path, state: Checkpoint) -> None:
    hours = itertools.count(start=12, step=6)  # of 1970-01-01
    store = FolderCheckpoints(tmp_path, keep_days=3, clock=lambda: next(hours) * 1800)  # two readings of it a save
    for offset in range(0, 2000, 100):
        store.save(at(offset, of=state))
    days = [(int(name.rpartition("-")[2]) / 3.6e6) for name in store.names(TOPIC, 0, 10**9)]
    assert [(hour // 24, hour % 24) for hour in days] == [(5, 0.0), (4, 18.0), (4, 0.0), (3, 0.0)]


def test_two_at_the_same_offset_are_told_apart_by_their_time(store: FolderCheckpoints, state: Checkpoint) -> None:
    store.save(replace(state, models={"g": "old"}))
    store.save(replace(state, models={"g": "new"}))
    assert [store.load(name).models["g"] for name in store.names(TOPIC, 0, 300)] == ["new", "old"]


@pytest.mark.parametrize("call", ["fsync", "mkdir", "rename"])
def test_a_disk_that_refuses_leaves_the_one_before_and_no_debris(
    tmp_path: Path, store: FolderCheckpoints, state: Checkpoint, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store.save(at(100, of=state))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            store.save(at(200, of=state))
    assert offsets(store) == [100]
    assert len(list((tmp_path / TOPIC / "00000").iterdir())) == 1


def test_a_checkpoint_that_was_cut_off_is_not_seen_and_goes_with_the_next(
    tmp_path: Path, store: FolderCheckpoints, state: Checkpoint
) -> None:
    cut_off = tmp_path / TOPIC / "00000" / "00000000000000000900-1795347600000.new"
    cut_off.mkdir(parents=True)
    assert offsets(store) == []
    store.save(at(100, of=state))
    assert not cut_off.exists()


def flip(content: bytes, where: float) -> bytes:
    at = min(int(where * len(content)), len(content) - 1)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def cut(content: bytes, where: float) -> bytes:
    return content[: int(where * len(content))]


@pytest.mark.fault(
    "a file of a checkpoint cut or with a flipped bit",
    expected="refused with the place",
    seen="refused in every example",
)
@given(where=st.floats(0, 1, exclude_max=True), damage=st.sampled_from([flip, cut]), file=st.integers(0, 2))
def test_damage_anywhere_is_refused_with_the_place(
    tmp_path_factory: pytest.TempPathFactory, where: float, damage: Callable[[bytes, float], bytes], file: int
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    store = FolderCheckpoints(folder)
    name = store.save(taken())
    path = sorted(folder.rglob("*.*"))[-3:][file]
    path.write_bytes(damage(path.read_bytes(), where))
    with pytest.raises(CheckpointError, match=path.name):
        store.load(name)


@pytest.mark.fault("a file of a checkpoint is {what}", expected="refused with the reason, without holding it in memory")
@pytest.mark.parametrize("what", ENDLESS)
def test_a_file_without_an_end_is_not_taken_in(
    tmp_path: Path, store: FolderCheckpoints, state: Checkpoint, what: str, seen: Said
) -> None:
    for file in ("manifest.json", "g.safetensors"):
        name = store.save(state)
        (path,) = (tmp_path / TOPIC).glob(f"*/{name.rpartition('/')[2]}/{file}")
        put(what, path, 2**28)
        tracemalloc.start()
        try:
            with pytest.raises(CheckpointError, match=file) as refused:
                store.load(name)
            assert tracemalloc.get_traced_memory()[1] < 2**26
        finally:
            tracemalloc.stop()
        seen(str(refused.value).removeprefix(f"{path.parent}/"))


def test_another_format_is_refused(tmp_path: Path, store: FolderCheckpoints, state: Checkpoint) -> None:
    name = store.save(state)
    (manifest,) = tmp_path.rglob("manifest.json")
    before = manifest.read_bytes()
    manifest.write_bytes(before.replace(b'"format":%d' % FORMAT, b'"format":999'))
    assert manifest.read_bytes() != before
    with pytest.raises(CheckpointError, match=f"format 999, this build reads {FORMAT}"):
        store.load(name)
