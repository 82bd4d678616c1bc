"""Checkpoints in a folder: TOPIC/PARTITION/OFFSET-TIME/{manifest.json, GROUP.safetensors}.

A checkpoint is written beside its place and renamed there, so a reader sees it whole or not at all; the one before it
stays until then. Arrays are safetensors, and every file's SHA-256 is checked on the way in.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from pipeline.core.table import Arrays
from pipeline.ports import Checkpoint, CheckpointError, Position

FORMAT: Final = 1
KEPT = 2  # a partition; the older one is for the day the newer one turns out to be damaged
MANIFEST = "manifest.json"
UNFINISHED = ".new"
NAMES = "names"  # the one field of text, which safetensors cannot hold


class _Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    topic: str
    partition: int
    offset: int
    tick_us: int
    watermark_us: int
    settings: str
    models: dict[str, str]
    sha256: dict[str, str]  # file -> hash
    seal: str = ""  # SHA-256 of this manifest without it

    def sealed(self) -> _Manifest:
        """The same with its seal."""
        bare = msgspec.json.encode(msgspec.structs.replace(self, seal=""))
        return msgspec.structs.replace(self, seal=hashlib.sha256(bare).hexdigest())


class FolderCheckpoints:
    """Keeps the two newest checkpoints of each partition below one folder."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock

    def save(self, checkpoint: Checkpoint) -> str:
        """Write, sync, rename, sync, and only then let older ones go; OSError where the disk refuses."""
        place = self._folder / checkpoint.topic / f"{checkpoint.partition:05d}"
        name = f"{checkpoint.position.offset:020d}-{round(self._clock() * 1000):013d}"
        unfinished = place / f"{name}{UNFINISHED}"
        try:
            unfinished.mkdir(parents=True)
            files = {f"{group}.safetensors": _packed(arrays) for group, arrays in checkpoint.groups.items()}
            files[MANIFEST] = msgspec.json.encode(_manifest(checkpoint, files))
            for file, content in files.items():
                _write(unfinished / file, content)
            _sync(unfinished)
            unfinished.rename(place / name)
            _sync(place)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)  # it may be the room that the next attempt needs
            raise
        self._let_go(place, name)
        return f"{checkpoint.topic}/{checkpoint.partition}/{name}"

    def names(self, topic: str, partition: int, at_most: int) -> Iterator[str]:
        """Newest first: by offset, then by when they were taken."""
        for place in reversed(self._finished(self._folder / topic / f"{partition:05d}")):
            if int(place.name.partition("-")[0]) <= at_most:
                yield f"{topic}/{partition}/{place.name}"

    def load(self, name: str) -> Checkpoint:
        """Read and verify; CheckpointError says what is wrong with it."""
        topic, partition, own = name.split("/")
        place = self._folder / topic / f"{int(partition):05d}" / own
        manifest = _read_manifest(place / MANIFEST)
        if (manifest.topic, manifest.partition) != (topic, int(partition)):
            raise CheckpointError(f"{place}: belongs to {manifest.topic}, partition {manifest.partition}")
        groups = {
            file.removesuffix(".safetensors"): _unpacked(place / file, sha256)
            for file, sha256 in manifest.sha256.items()
        }
        return Checkpoint(
            topic,
            manifest.partition,
            Position(manifest.offset, manifest.tick_us),
            manifest.watermark_us,
            manifest.models,
            manifest.settings,
            groups,
        )

    def _finished(self, place: Path) -> list[Path]:
        """Oldest first."""
        if not place.is_dir():
            return []
        return sorted(p for p in place.iterdir() if p.name.partition("-")[0].isdigit() and p.suffix != UNFINISHED)

    def _let_go(self, place: Path, newest: str) -> None:
        """Older ones beyond those kept, later ones (the group was rewound: another history), and what was cut off."""
        finished = self._finished(place)
        at = next(i for i, p in enumerate(finished) if p.name == newest)
        for old in (*finished[: max(at + 1 - KEPT, 0)], *finished[at + 1 :], *place.glob(f"*{UNFINISHED}")):
            shutil.rmtree(old, ignore_errors=True)  # tried again after the next checkpoint


def _manifest(checkpoint: Checkpoint, files: Mapping[str, bytes]) -> _Manifest:
    return _Manifest(
        format=FORMAT,
        topic=checkpoint.topic,
        partition=checkpoint.partition,
        offset=checkpoint.position.offset,
        tick_us=checkpoint.position.tick,
        watermark_us=checkpoint.watermark,
        settings=checkpoint.settings,
        models=dict(checkpoint.models),
        sha256={file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
    ).sealed()


def _read_manifest(path: Path) -> _Manifest:
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=_Manifest)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{path}: not a manifest: {error}") from error
    if manifest.format != FORMAT:
        raise CheckpointError(f"{path}: format {manifest.format}, this build reads {FORMAT}")
    if manifest != manifest.sealed():
        raise CheckpointError(f"{path}: was changed after it was written")
    return manifest


def _packed(arrays: Arrays) -> bytes:
    text = np.ascontiguousarray(arrays[NAMES])
    width = text.dtype.itemsize
    tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items() if name != NAMES}
    return save_tensors(tensors | {NAMES: text.view(np.uint8).reshape(len(text), width)})


def _unpacked(path: Path, sha256: str) -> Arrays:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(f"{path}: its SHA-256 is not the one in the manifest")
    try:
        arrays: Arrays = dict(load_tensors(content))
        text = arrays[NAMES]
        arrays[NAMES] = text.reshape(-1).view(f"S{text.shape[1]}")
    except (SafetensorError, KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: not the state of a group: {error}") from error
    return arrays


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
