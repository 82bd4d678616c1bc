"""A bundle comes back as it was saved; one that is damaged is refused, and only one of a group serves."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import bundle
from pipeline.bundle import MANIFEST, SERVING, WEIGHTS, BundleError
from pipeline.core.detector import Detector
from pipeline.core.model import Cell
from tests import models
from tests.bundles import FILES, assert_refused, calibrated, reseal, saved
from tests.disks import ENDLESS, put
from tests.faults import Said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good bundle."""
    return saved(tmp_path)


# -- there and back


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_bundle_comes_back_as_it_was_saved(cell: Cell, networks: int, tmp_path: Path) -> None:
    model = calibrated(cell, networks)
    again = bundle.load(saved(tmp_path, model))
    for name in ("group", "channels", "targets", "interval"):
        assert getattr(again, name) == getattr(model, name)
    for name in ("cell", "mode", "window", "horizons"):
        assert getattr(again.network, name) == getattr(model.network, name)
    pairs = [(again.network.head, model.network.head), (again.network.head_bias, model.network.head_bias)]
    for mine, theirs in zip(again.network.layers, model.network.layers, strict=True):
        pairs += [(getattr(mine, part), getattr(theirs, part)) for part in ("kernel", "recurrent", "bias")]
    assert list(again.sensors.names) == list(model.sensors.names) == ["s0", "s1"]
    for tables, expected in ((again.sensors.arrays, model.sensors.arrays), (again.prior, model.prior)):
        assert tables.keys() == expected.keys()
        pairs += [(tables[name], expected[name]) for name in tables]
    for mine_, theirs_ in pairs:
        np.testing.assert_array_equal(mine_, theirs_)
        assert mine_.dtype == theirs_.dtype


def test_a_loaded_bundle_scores_as_the_model_that_was_saved(folder: Path) -> None:
    batch = models.stream(models.waves(3, 90, 2, seed=4))  # s2 is not in the bundle
    ours, theirs = Detector(bundle.load(folder)).step(batch), Detector(calibrated()).step(batch)
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    assert ours.scores[::3].max() > 0


def test_a_bundle_without_sensors_is_a_bundle(tmp_path: Path) -> None:
    again = bundle.load(saved(tmp_path, models.model(2)))
    assert (again.sensors.names, again.sensors.arrays, again.prior) == ((), {}, {})


def test_names_of_any_script_and_length_come_back(tmp_path: Path) -> None:
    names = sorted(["", "plant 1/pumpe-ä", "泵", "x" * 500])
    arrays = {name: np.repeat(table[:1], 4, axis=0) for name, table in calibrated().sensors.arrays.items()}
    model = replace(calibrated(), sensors=replace(calibrated().sensors, names=names, arrays=arrays))
    assert list(bundle.load(saved(tmp_path, model)).sensors.names) == names


def test_a_model_is_known_by_the_hash_of_its_manifest(folder: Path) -> None:
    assert bundle.load(folder).ref.sha256 == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def test_a_version_is_never_written_over(folder: Path) -> None:
    with pytest.raises(FileExistsError):
        saved(folder.parent.parent)


@pytest.mark.parametrize("name", ["..", "../evil", "a/b", "/etc", "", ".hidden", "a\0b"])
def test_nothing_is_saved_under_a_name_that_is_a_path(name: str, tmp_path: Path) -> None:
    for model in (
        replace(calibrated(), group=name),
        replace(calibrated(), ref=replace(calibrated().ref, version=name)),
    ):
        with pytest.raises(BundleError, match="cannot name a folder"):
            saved(tmp_path, model)
    assert list(tmp_path.iterdir()) == []


# -- which version serves


def test_the_pointer_says_which_version_of_a_group_serves(tmp_path: Path) -> None:
    first = saved(tmp_path)
    second = saved(tmp_path, replace(calibrated(), ref=replace(calibrated().ref, version="2")))
    for folder in (first, second, first):
        bundle.serve(folder)
        assert (tmp_path / "g" / SERVING).read_text() == folder.name
        assert {g: m.ref.version for g, m in bundle.load_all(tmp_path).items()} == {"g": folder.name}


def test_without_a_serving_model_the_reader_is_told_how_to_get_one(folder: Path) -> None:
    root = folder.parent.parent
    with pytest.raises(BundleError, match=re.escape(f"train one: foreshock train DATA --model {root}")):
        bundle.load_all(root)
    with pytest.raises(BundleError, match="no model bundle serves here"):
        bundle.load_all(root / "nowhere")


@pytest.mark.parametrize("pointer", [b"../../etc", b"/etc", b"..", b"", b"\xff\xfe", b"1/../1", b"x" * 10_000])
def test_a_pointer_that_is_not_a_version_is_refused(pointer: bytes, folder: Path) -> None:
    (folder.parent / SERVING).write_bytes(pointer)
    with pytest.raises(BundleError, match=r"serving: .* is not the name of a version|is this a bundle folder"):
        bundle.load_all(folder.parent.parent)


def test_a_pointer_to_a_version_that_is_gone_says_which(folder: Path) -> None:
    (folder.parent / SERVING).write_text("7")
    with pytest.raises(BundleError, match=r"g/7/manifest\.json: No such file"):
        bundle.load_all(folder.parent.parent)


def test_a_bundle_in_the_place_of_another_does_not_serve(folder: Path) -> None:
    bundle.serve(folder.rename(folder.with_name("2")))
    with pytest.raises(BundleError, match="the bundle there is version 1 of group g"):
        bundle.load_all(folder.parent.parent)


# -- damaged


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_the_one_in_the_manifest_is_refused(name: str, folder: Path) -> None:
    (folder / name).write_bytes((folder / name).read_bytes() + b"\0")
    assert_refused(folder, f"{name}: its SHA-256 is not the one in the manifest; copy the bundle again")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_truncated_file_is_refused_even_where_its_hash_was_made_to_match(
    name: str, length: int, folder: Path
) -> None:
    reseal(folder, name, (folder / name).read_bytes()[:length])
    assert_refused(folder, f"{name}: not a")


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    assert_refused(folder, f"{name}: No such file or directory; is this a bundle folder?")


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_a_file_larger_than_any_bundle_s_is_not_even_read(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = max(len((folder / other).read_bytes()) for other in (MANIFEST, *FILES))
    monkeypatch.setattr(bundle, "MOST_BYTES", largest)
    with (folder / name).open("ab") as file:
        file.truncate(largest + 1)
    assert_refused(folder, f"{name}: {largest + 1} bytes, more than any bundle has")


@pytest.mark.fault("a file of a bundle is {what}", expected="refused with the reason, before it is read")
@pytest.mark.parametrize("what", ENDLESS)
def test_a_file_without_an_end_is_not_read(what: str, tmp_path: Path, seen: Said) -> None:
    for version, name in enumerate([MANIFEST, WEIGHTS]):
        folder = saved(tmp_path, replace(calibrated(), ref=replace(calibrated().ref, version=str(version))))
        put(what, folder / name, 5 * 2**30)
        with pytest.raises(BundleError, match=f"{name}: .*(not a plain file|more than any bundle has)") as refused:
            bundle.load(folder)
        seen(str(refused.value).removeprefix(f"{folder}/"))
