"""A small disk that can be filled and made read-only: a tmpfs where that may be mounted, else the process's limits."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

BYTES = 2 * 2**20
NOBODY = 65_534


class Disk(Protocol):
    """What a test does to a disk."""

    kind: str
    folder: Path

    def fill(self) -> None:
        """Nothing more can be written."""

    def lock(self) -> None:
        """It can only be read."""

    def repair(self) -> None:
        """It is as it was."""


class Tmpfs:
    """A file system of its own."""

    kind = "tmpfs of 2 MiB"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def lock(self) -> None:
        self._remount("ro")

    def repair(self) -> None:
        self._remount("rw")
        self._filler.unlink(missing_ok=True)

    def _remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.folder)], check=True)


class Limits:
    """The kernel refuses the process what it would refuse on such a disk."""

    kind = "RLIMIT_FSIZE, and folders without the right to write"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._root = os.geteuid() == 0
        self._soft, self._hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, self._hard))  # a write beyond fails with EFBIG

    def lock(self) -> None:
        self._allow(0o555)
        if self._root:  # whom no mode stops
            os.seteuid(NOBODY)

    def repair(self) -> None:
        if self._root:
            os.seteuid(0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._soft, self._hard))
        self._allow(0o755)

    def _allow(self, mode: int) -> None:
        for place in (self.folder, *self.folder.rglob("*")):
            if place.is_dir():
                place.chmod(mode)


@contextmanager
def small_disk() -> Iterator[Disk]:
    """The real thing where it is to be had."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "foreshock", str(folder)]
    mounted = shutil.which("mount") and subprocess.run(mounting, capture_output=True).returncode == 0
    disk: Disk = Tmpfs(folder) if mounted else Limits(folder)
    try:
        yield disk
    finally:
        disk.repair()
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
        shutil.rmtree(folder)


def put(what: str, path: Path, size: int) -> None:
    """Something that nobody should read to its end in the place of a file; the huge one takes no room."""
    path.unlink()
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(size)


ENDLESS = ("a pipe", "a device", "huge")
