"""A checkpoint as bytes, wherever it is kept: safetensors a group, and a sealed manifest with their hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from pipeline.core.silence import Outage
from pipeline.core.table import Arrays
from pipeline.ports import Checkpoint, CheckpointError, Moment, Position

FORMAT: Final = 5  # a lane has the offset of its forecast
SUFFIX = ".safetensors"
NAMES = "names"  # the one field of text, which safetensors cannot hold


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a checkpoint but its arrays."""

    format: int
    topic: str
    partition: int
    partitions: int
    offset: int
    ticks: tuple[Moment, ...]
    watermark_us: int
    settings: str
    models: dict[str, str]
    kernel: str
    outage: Outage | None
    sha256: dict[str, list[str]]  # file -> hash of each of its parts
    place: str = ""  # what else its store has to know
    seal: str = ""  # SHA-256 of this manifest without it

    def sealed(self) -> Manifest:
        """The same with its seal."""
        bare = msgspec.json.encode(msgspec.structs.replace(self, seal=""))
        return msgspec.structs.replace(self, seal=hashlib.sha256(bare).hexdigest())


def files(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The arrays of each group, by the name of their file."""
    return {f"{group}{SUFFIX}": _packed(arrays) for group, arrays in checkpoint.groups.items()}


def manifest(checkpoint: Checkpoint, sha256: dict[str, list[str]], place: str = "") -> bytes:
    """The manifest of a checkpoint whose files have these hashes."""
    return msgspec.json.encode(
        Manifest(
            format=FORMAT,
            topic=checkpoint.topic,
            partition=checkpoint.partition,
            partitions=checkpoint.partitions,
            offset=checkpoint.position.offset,
            ticks=checkpoint.position.ticks,
            watermark_us=checkpoint.watermark,
            settings=checkpoint.settings,
            models=dict(checkpoint.models),
            kernel=checkpoint.kernel,
            outage=checkpoint.outage,
            sha256=sha256,
            place=place,
        ).sealed()
    )


def read_manifest(content: bytes, where: str) -> Manifest:
    """What the bytes found at `where` say; CheckpointError where they cannot be used."""
    try:
        version = msgspec.json.decode(content, type=_Version).format
        if version != FORMAT:
            raise CheckpointError(f"{where}: format {version}, this build reads {FORMAT}; the build that wrote it does")
        found = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{where}: not a manifest: {error}") from error
    if found != found.sealed():
        raise CheckpointError(f"{where}: was changed after it was written")
    if any(Path(file).name != file or not hashes for file, hashes in found.sha256.items()):
        raise CheckpointError(f"{where}: names files that no checkpoint has")
    return found


def restored(found: Manifest, contents: Mapping[str, bytes], where: str) -> Checkpoint:
    """The checkpoint, from files whose hashes were compared; CheckpointError where one is not the state of a group."""
    return Checkpoint(
        found.topic,
        found.partition,
        Position(found.offset, found.ticks),
        found.watermark_us,
        found.models,
        found.settings,
        {file.removesuffix(SUFFIX): _unpacked(content, f"{where}/{file}") for file, content in contents.items()},
        found.partitions,
        found.kernel,
        found.outage,
    )


def must_match(found: str, sha256: str, where: str) -> None:
    """CheckpointError where the hash that was found is not the one in the manifest."""
    if found != sha256:
        raise CheckpointError(f"{where}: its SHA-256 is not the one in the manifest")


class _Version(msgspec.Struct):
    format: int


def _packed(arrays: Arrays) -> bytes:
    text = np.ascontiguousarray(arrays[NAMES])
    width = text.dtype.itemsize
    tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items() if name != NAMES}
    return save_tensors(tensors | {NAMES: text.view(np.uint8).reshape(len(text), width)})


def _unpacked(content: bytes, where: str) -> Arrays:
    try:
        arrays: Arrays = dict(load_tensors(content))
        text = arrays[NAMES]
        arrays[NAMES] = text.reshape(-1).view(f"S{text.shape[1]}")
    except (SafetensorError, KeyError, ValueError, IndexError, TypeError) as error:
        raise CheckpointError(f"{where}: not the state of a group: {error}") from error
    return arrays
