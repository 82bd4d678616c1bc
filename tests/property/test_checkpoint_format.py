"""A checkpoint of whatever bytes is restored bit by bit or refused in a sentence; it never does anything else."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.adapters import checkpoint_format
from pipeline.adapters.checkpoint_format import Manifest, read_manifest, restored
from pipeline.core.detector import Detector
from pipeline.ports import CheckpointError
from tests.contract.checkpoint_store import assert_same, taken
from tests.models import model

FILES = checkpoint_format.files(taken())
MANIFEST = checkpoint_format.manifest(taken(), {file: ["0" * 64] for file in FILES})
TEXT = st.text(max_size=20)
NUMBER = st.integers(-(2**70), 2**70)


@given(st.binary(max_size=200))
@example(b"[" * 200_000)
@example(b'{"format":3}')
@example(b'{"format":99999999999999999999999}')
def test_any_bytes_as_a_manifest(content: bytes) -> None:
    with pytest.raises(CheckpointError, match="here"):
        read_manifest(content, "here")


@pytest.mark.fault(
    "any byte of a checkpoint's manifest changed",
    expected="refused",
    seen="refused in every example",
)
@given(st.integers(0, len(MANIFEST) - 1), st.integers(0, 255))
def test_a_manifest_with_any_byte_changed(place: int, byte: int) -> None:
    changed = MANIFEST[:place] + bytes([byte]) + MANIFEST[place + 1 :]
    if changed == MANIFEST:
        return
    with pytest.raises(CheckpointError, match="here"):
        read_manifest(changed, "here")


@pytest.mark.fault(
    "a sealed manifest of hostile words",
    expected="refused, or harmless: no path out of its folder",
    seen="so in every example",
)
@given(st.dictionaries(TEXT, st.lists(TEXT, max_size=2), max_size=3), TEXT, NUMBER)
@example({"../../etc/passwd": [""]}, "", 0)
@example({"g.safetensors": []}, "", 0)
def test_a_sealed_manifest_of_hostile_words(sha256: dict[str, list[str]], place: str, offset: int) -> None:
    hostile = msgspec.structs.replace(msgspec.json.decode(MANIFEST, type=Manifest), sha256=sha256, place=place)
    if -(2**63) <= offset < 2**63:
        hostile = msgspec.structs.replace(hostile, offset=offset)
    try:
        found = read_manifest(msgspec.json.encode(hostile.sealed()), "here")
    except CheckpointError:
        return
    assert all("/" not in file and hashes for file, hashes in found.sha256.items())


@pytest.mark.fault(
    "any bytes as the state in a checkpoint",
    expected="refused",
    seen="refused in every example",
)
@given(st.binary(max_size=300))
@example(b"")
@example(b"\xff\xff\xff\xff\xff\xff\xff\x7f{}")  # a header of 8 EiB
@example(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
def test_any_bytes_as_the_state_of_a_group(content: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"here/g\.safetensors"):
        restored(read_manifest(MANIFEST, "here"), {"g.safetensors": content}, "here")


@given(st.integers(0, len(FILES["g.safetensors"]) - 1), st.integers(0, 255))
def test_state_with_any_byte_changed_restores_or_is_refused(place: int, byte: int) -> None:
    """The hash tells first; this is what stands behind it."""
    content = FILES["g.safetensors"]
    changed = content[:place] + bytes([byte]) + content[place + 1 :]
    try:
        found = restored(read_manifest(MANIFEST, "here"), FILES | {"g.safetensors": changed}, "here")
        Detector(model()).restore(0, found.groups["g"])
    except (CheckpointError, ValueError):
        return


def test_what_was_written_is_what_is_read() -> None:
    assert_same(restored(read_manifest(MANIFEST, "here"), FILES, "here"), taken())
