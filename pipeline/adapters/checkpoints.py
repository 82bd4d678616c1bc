"""Checkpoints in a folder: TOPIC/PARTITION/OFFSET-TIME/{manifest.json, GROUP.safetensors}.

A checkpoint is written beside its place and renamed there, so a reader sees it whole or not at all; the one before it
stays until then. Arrays are safetensors, and every file's SHA-256 is checked on the way in.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.adapters import checkpoint_format
from pipeline.ports import Checkpoint, CheckpointError

KEPT = 2  # a partition; the older one is for the day the newer one turns out to be damaged
DAY_MS = 86_400_000
MOST_MANIFEST_BYTES = 2**24
MANIFEST = "manifest.json"
UNFINISHED = ".new"


class FolderCheckpoints:
    """Keeps the two newest checkpoints of each partition below one folder, and those that spans are replayed from."""

    def __init__(self, folder: Path, keep_days: int = 0, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._keep_days, self._clock = folder, keep_days, clock

    def save_all(self, checkpoints: Sequence[Checkpoint]) -> None:
        """One after the other."""
        for checkpoint in checkpoints:
            self.save(checkpoint)

    def save(self, checkpoint: Checkpoint) -> str:
        """Write, sync, rename, sync, and only then let older ones go; OSError where the disk refuses."""
        place = self._folder / checkpoint.topic / f"{checkpoint.partition:05d}"
        name = f"{checkpoint.position.offset:020d}-{round(self._clock() * 1000):013d}"
        unfinished = place / f"{name}{UNFINISHED}"
        try:
            unfinished.mkdir(parents=True)
            files = checkpoint_format.files(checkpoint)
            sha256 = {file: [hashlib.sha256(content).hexdigest()] for file, content in files.items()}
            for file, content in (files | {MANIFEST: checkpoint_format.manifest(checkpoint, sha256)}).items():
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

    def about(self, name: str) -> Checkpoint:
        """Its manifest alone."""
        place, manifest = self._manifest(name)
        return checkpoint_format.restored(manifest, {}, str(place))

    def load(self, name: str) -> Checkpoint:
        """Read and verify; CheckpointError says what is wrong with it."""
        place, manifest = self._manifest(name)
        contents = {}
        for file, (sha256, *_) in manifest.sha256.items():
            contents[file] = _read(place / file, sha256)
        return checkpoint_format.restored(manifest, contents, str(place))

    def close(self) -> None:
        """Nothing to let go of."""

    def _manifest(self, name: str) -> tuple[Path, checkpoint_format.Manifest]:
        topic, partition, own = name.split("/")
        place = self._folder / topic / f"{int(partition):05d}" / own
        manifest = checkpoint_format.read_manifest(_read(place / MANIFEST), str(place / MANIFEST))
        if (manifest.topic, manifest.partition) != (topic, int(partition)):
            raise CheckpointError(f"{place}: belongs to {manifest.topic}, partition {manifest.partition}")
        return place, manifest

    def _finished(self, place: Path) -> list[Path]:
        """Oldest first."""
        if not place.is_dir():
            return []
        return sorted(p for p in place.iterdir() if p.name.partition("-")[0].isdigit() and p.suffix != UNFINISHED)

    def _let_go(self, place: Path, newest: str) -> None:
        """Older ones beyond those kept, later ones (the group was rewound: another history), and what was cut off."""
        finished = self._finished(place)
        at = next(i for i, p in enumerate(finished) if p.name == newest)
        older = finished[: max(at + 1 - KEPT, 0)]
        to_replay_from = self._to_replay_from(older)
        for old in (*older, *finished[at + 1 :], *place.glob(f"*{UNFINISHED}")):
            if old not in to_replay_from:
                shutil.rmtree(old, ignore_errors=True)  # tried again after the next checkpoint

    def _to_replay_from(self, older: Sequence[Path]) -> set[Path]:
        """Of the last days (UTC), the first of each, and the first after a change of models, settings or partitions."""
        today = round(self._clock() * 1000) // DAY_MS
        wanted, days, before = set(), set(), None
        for path in older:
            day, under = int(path.name.partition("-")[2]) // DAY_MS, _under(path)
            if day > today - self._keep_days and (day not in days or under != before):
                wanted.add(path)
            days.add(day)
            before = under
        return wanted


def _under(path: Path) -> object:
    """What served when it was taken; None where it does not say."""
    try:
        manifest = checkpoint_format.read_manifest(_read(path / MANIFEST), str(path))
    except CheckpointError:
        return None
    return manifest.models, manifest.settings, manifest.partitions


def _read(path: Path, sha256: str | None = None) -> bytes:
    """The content of a plain file: a pipe or a device in its place may have no end.

    It is that of the `sha256`, which is looked at before anything is held in memory; a manifest has none, and is small.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise CheckpointError(f"{path}: not a plain file")
        if sha256 is None and found.st_size > MOST_MANIFEST_BYTES:
            raise CheckpointError(f"{path}: {found.st_size} bytes, more than any manifest has")
        with path.open("rb") as file:
            if sha256 is not None:
                checkpoint_format.must_match(hashlib.file_digest(file, "sha256").hexdigest(), sha256, str(path))
                file.seek(0)
            return file.read()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error


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
