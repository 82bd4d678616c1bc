"""No damage and no malice makes a bundle serve something else than what was saved, or crash its reader."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import bundle
from pipeline.bundle import GOLDEN, MANIFEST, SENSORS, WEIGHTS, BundleError
from pipeline.core.detector import Detector
from pipeline.core.model import Model
from tests import models

HASHED = (WEIGHTS, SENSORS, GOLDEN)


class Files(dict[str, bytes]):
    """name -> content; hypothesis need not print it."""

    def __repr__(self) -> str:
        return f"Files({', '.join(self)})"

    def but(self, name: str, content: bytes) -> Files:
        """The same, with another content for one file."""
        return Files(self | {name: content})


@pytest.fixture(scope="module")
def files() -> Files:
    """A good bundle."""
    model = models.learnt(models.model(2), models.stream(models.waves(2, 400, 2)))
    golden = np.random.default_rng(0).standard_normal((1, 8, 4)).astype(np.float32)
    with TemporaryDirectory() as root:
        folder = bundle.save(model, Path(root), {"seed": 0}, golden)
        return Files({path.name: path.read_bytes() for path in folder.iterdir()})


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as root:
        yield Path(root)


def load(folder: Path, files: Files) -> Model | None:
    """The model in these files, or None where they are refused; whatever else is raised fails the test."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        return bundle.load(folder)
    except BundleError:
        return None


def numbers(model: Model) -> list[tuple[str, bytes]]:
    """Everything the detector computes with."""
    network, arrays = model.network, [*model.sensors.arrays.items(), *model.prior.items()]
    arrays += [(part, getattr(layer, part)) for layer in network.layers for part in ("kernel", "recurrent", "bias")]
    arrays += [("head", network.head), ("head bias", network.head_bias)]
    return sorted((name, np.asarray(array).tobytes()) for name, array in arrays)


def flipped(content: bytes, bits: list[int]) -> bytes:
    damaged = bytearray(content)
    for bit in bits:
        damaged[bit // 8 % len(damaged)] ^= 1 << bit % 8
    return bytes(damaged)


def sealed(files: Files) -> Files:
    """With hashes that match."""
    manifest = json.loads(files[MANIFEST])
    manifest["sha256"] = {name: hashlib.sha256(files[name]).hexdigest() for name in HASHED}
    return files.but(MANIFEST, json.dumps(manifest).encode())


@pytest.mark.fault(
    "a flipped bit in a file of a bundle",
    expected="refused",
    seen="refused in every example",
)
@given(name=st.sampled_from(HASHED), bit=st.integers(0, 2**20))
def test_a_flipped_bit_in_any_file_is_refused(name: str, bit: int, folder: Path, files: Files) -> None:
    assert load(folder, files.but(name, flipped(files[name], [bit]))) is None


@settings(max_examples=150)
@given(bit=st.integers(0, 2**20))
def test_a_flipped_bit_in_the_manifest_is_refused_or_shows_in_the_hash_and_changes_no_number(
    bit: int, folder: Path, files: Files
) -> None:
    whole, damaged = load(folder, files), load(folder, files.but(MANIFEST, flipped(files[MANIFEST], [bit])))
    assert whole is not None
    if damaged is not None:
        assert damaged.ref.sha256 != whole.ref.sha256
        assert numbers(damaged) == numbers(whole)


@pytest.mark.fault(
    "a file of a bundle cut short",
    expected="refused",
    seen="refused in every example",
)
@given(name=st.sampled_from((MANIFEST, *HASHED)), share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short_anywhere_is_refused(name: str, share: float, folder: Path, files: Files) -> None:
    assert load(folder, files.but(name, files[name][: int(share * len(files[name]))])) is None


@pytest.mark.fault(
    "a bundle changed together with its hashes",
    expected="refused, or finite scores",
    seen="so in every example",
)
@settings(max_examples=150)
@given(
    name=st.sampled_from(HASHED),
    bits=st.lists(st.integers(0, 2**13) | st.integers(0, 2**20), min_size=1, max_size=4),  # headers come first
)
def test_a_bundle_changed_together_with_its_hashes_is_refused_or_gives_finite_scores(
    name: str, bits: list[int], folder: Path, files: Files
) -> None:
    model = load(folder, sealed(files.but(name, flipped(files[name], bits))))
    if model is not None:
        outcome = Detector(model).step(models.stream(models.waves(3, 4, 2)))
        assert np.isfinite(outcome.scores).all()


@pytest.mark.fault(
    "any bytes in the place of a file of a bundle",
    expected="refused",
    seen="refused in every example",
)
@given(content=st.binary(max_size=300), name=st.sampled_from((MANIFEST, *HASHED)))
def test_any_bytes_in_the_place_of_a_file_are_refused(content: bytes, name: str, folder: Path, files: Files) -> None:
    damaged = files.but(name, content)
    assert load(folder, damaged if name == MANIFEST else sealed(damaged)) is None
