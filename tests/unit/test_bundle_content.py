"""What a bundle says is not believed: manifest, weights, tables and golden vector are checked, and refused in words."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import bundle
from pipeline.bundle import GOLDEN, MANIFEST, SENSORS, WEIGHTS, Tensors
from pipeline.core.table import Count, Level
from tests.bundles import Change, assert_refused, edit, npz, reseal, retensor, saved

NAN = float("nan")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good bundle."""
    return saved(tmp_path)


# -- a manifest that must not be believed


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"bidirectional": True}, "claims a bidirectional network, which reads readings that have not happened yet"),
        ({"cell": "bidirectional_lstm"}, "a live forecast can only be unidirectional"),
        ({"cell": "BiLSTM"}, "a live forecast can only be unidirectional"),
        ({"cell": "rnn"}, "cell 'rnn', mode 'carried'; known: lstm, gru; carried, windowed"),
        ({"mode": "psychic"}, "mode 'psychic'"),
        ({"format": 1}, "format 1, this build reads 3; train the model again"),
        ({"targets": ["c7"]}, "targets ['c7'] are not among distinct channels"),
        ({"targets": []}, "are not among distinct channels"),
        ({"channels": ["c0", "c0"], "targets": ["c0"]}, "are not among distinct channels"),
        ({"horizons": []}, "horizons [] must rise from 1 to at most the window, 64"),
        ({"horizons": [2, 12, 48]}, "must rise from 1"),
        ({"horizons": [1, 48, 12]}, "must rise from 1"),
        ({"horizons": [1, 12, 65]}, "must rise from 1"),
        ({"window": 63}, "window (64 to 4096)"),
        ({"window": 4097}, "window (64 to 4096)"),
        ({"layers": 0}, "layers (1 to 3)"),
        ({"layers": 4}, "layers (1 to 3)"),
        ({"layers": 1}, "expected 1 layers and a head"),
        ({"interval_us": 0}, "an interval of 0 µs"),
        ({"interval_us": 10**30}, "at most a year"),
        ({"group": "../../evil"}, "cannot name a folder"),
        ({"version": "a/b"}, "cannot name a folder"),
        ({"version": ".."}, "cannot name a folder"),
        ({"sensors": 3}, "its names are not those of the manifest's 3 sensors"),
        ({"sha256": {}}, "its SHA-256 is not the one in the manifest"),
        ({"run": "rm -rf"}, "not a manifest: Object contains unknown field `run`"),
        ({"window": "64"}, "not a manifest: Expected `int`"),
    ],
)
def test_a_manifest_that_cannot_be_served_is_refused_with_the_reason(
    changes: dict[str, object], sentence: str, folder: Path
) -> None:
    edit(folder, **changes)
    assert_refused(folder, sentence)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b"\x80\x04pickle", b'{"format": 1, "group": "\xb5"}', b'{"about":' + b"[" * 200_000]
)  # fmt: skip
def test_what_is_no_manifest_is_refused(content: bytes, folder: Path) -> None:
    (folder / MANIFEST).write_bytes(content)
    assert_refused(folder, "manifest.json: not a manifest: ")


def test_a_manifest_of_a_cell_it_is_not_does_not_fit_its_weights(folder: Path) -> None:
    edit(folder, cell="gru")
    assert_refused(folder, "the manifest asks for float32")


# -- weights and tables with the right hash and the wrong content


def put(name: str, where: Any, value: float) -> Change:
    """Write a value into a tensor."""

    def change(tensors: Tensors) -> None:
        tensors[name][where] = value

    return change


def become(name: str, tensor: Callable[[Any], Any]) -> Change:
    """Replace a tensor by what is made of it."""

    def change(tensors: Tensors) -> None:
        tensors[name] = tensor(tensors.get(name))

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("0.kernel", (0, 0, 0), NAN), "0.kernel holds a number that is not finite"),
        (put("head", (0, 0, 0), np.inf), "head holds a number that is not finite"),
        (put("head", (0, 0, 0), 1e38), "the network does not reproduce its golden forecast"),
        (put("1.recurrent", ..., 0), "the network does not reproduce its golden forecast; the bundle is damaged"),
        (
            become("1.bias", lambda t: t.astype(np.float64)),
            "1.bias is float64(1, 1, 16), the manifest asks for float32",
        ),
        (become("0.kernel", lambda t: t[:, :3]), "0.kernel is float32(1, 3, 16), the manifest asks for"),
        (become("0.recurrent", lambda t: t[0]), "0.kernel is float32(1, 4, 16), the manifest asks for"),
        (become("head", lambda t: t[0, 0, 0]), "holds no network"),
        (become("head", lambda t: t[:0]), "holds no network"),
        (become("2.kernel", lambda _: np.zeros(1, np.float32)), "expected 2 layers and a head"),
        (lambda tensors: tensors.pop("0.bias"), "expected 2 layers and a head"),
    ],
)
def test_weights_that_are_not_this_network_s_are_refused(change: Change, sentence: str, folder: Path) -> None:
    retensor(folder, WEIGHTS, change)
    assert_refused(folder, sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (become("names", lambda _: np.frombuffer(b"s1s0", np.uint8)), "sensors are not in order, or named twice"),
        (become("names", lambda _: np.frombuffer(b"s0s0", np.uint8)), "sensors are not in order, or named twice"),
        (become("names", lambda _: np.frombuffer(b"s0s\xff", np.uint8)), "a sensor's name is not UTF-8"),
        (lambda tensors: tensors.pop("names"), "has no names"),
        (become("name_ends", lambda t: t[:1]), "its names are not those of the manifest's 2 sensors"),
        (become("name_ends", lambda t: t - 1), "its names are not those"),
        (become("name_ends", lambda t: t[::-1]), "its names are not those"),
        (become("name_ends", lambda t: t.astype(np.float64)), "its names are not those"),
        (become("sensor.window", lambda _: np.zeros(1)), "holds tables"),
        (lambda tensors: tensors.pop("sensor.tail"), "holds tables"),
        (become("sensor.tail", lambda t: t[:1]), "sensor.tail is uint16(1, 2, "),
        (become("sensor.raw", lambda _: np.zeros((2, 2))), "holds tables"),
        (become("sensor.scale", lambda t: t.astype(np.float32)), "sensor.scale is float32(2, 2, 2), expected float64"),
        (put("sensor.scale", (1, 0, 1), 0.0), "column 1 of sensor.scale is not within 1e-09 and 1e+37"),
        (put("sensor.scale", (1, 0, 0), NAN), "column 0 of sensor.scale is not within"),
        (put("sensor.count", (0, Count.NETWORK), 1), "column 0 of sensor.count is not within 0 and 0"),
        (put("sensor.count", (0, Count.NETWORK), -1), "column 0 of sensor.count is not within"),
        (put("sensor.level", (0, Level.EXCESS), 0.0), "of sensor.level is not within"),
        (put("sensor.level", (0, Level.USUAL), NAN), "of sensor.level is not within"),
        (put("sensor.lane", (0, 1, 0), 1e30), "column 0 of sensor.lane is not within"),
        (put("sensor.level", (1, Level.OWN_USUAL), NAN), "column 2 of sensor.level is not within"),
        (put("sensor.level", (1, Level.OWN_EXCESS), 0.0), "column 3 of sensor.level is not within"),
        (put("sensor.level", (1, Level.OWN_BLOCKS), 0.0), "column 4 of sensor.level is not within 1 and 1e+06"),
        (put("sensor.count", (0, Count.FITTED), 2), "column 1 of sensor.count is not within 1 and 1"),
        (become("sensor.blocks", lambda _: np.zeros((2, 64), np.float32)), "holds tables"),
        (put("prior.level", Level.USUAL, NAN), "of prior.level is not within"),
        (put("prior.count", Count.FITTED, 1), "column 1 of prior.count is not within 0 and 0"),
        (become("prior.scale", lambda _: np.ones((2, 2))), "prior.scale is no field of a sensor"),
        (become("prior.clock", lambda t: t[None]), "prior.clock is int64(1, 3), expected int64(3,)"),
    ],
)
def test_tables_that_the_detector_could_not_use_are_refused(change: Change, sentence: str, folder: Path) -> None:
    retensor(folder, SENSORS, change)
    assert_refused(folder, sentence)


class Payload:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_in_the_golden_vector_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    reseal(folder, GOLDEN, npz(inputs=np.array([Payload(trap)], object), forecast=np.zeros(1)))
    assert_refused(folder, "golden.npz: not a golden vector: Object arrays cannot be loaded")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("inputs", "forecast"),
    [
        (np.zeros((0, 8, 4), np.float32), np.zeros((2, 0, 3, 2), np.float32)),  # nothing to check is no check
        (np.zeros((1, 0, 4), np.float32), np.zeros((2, 1, 3, 2), np.float32)),
        (np.zeros((1, 65, 4), np.float32), np.zeros((2, 1, 3, 2), np.float32)),
        (np.zeros((1, 8, 3), np.float32), np.zeros((2, 1, 3, 2), np.float32)),
        (np.zeros((1, 8, 4), np.float64), np.zeros((2, 1, 3, 2), np.float32)),
        (np.zeros((8, 4), np.float32), np.zeros((2, 1, 3, 2), np.float32)),
        (np.full((1, 8, 4), NAN, np.float32), np.full((2, 1, 3, 2), NAN, np.float32)),
        (np.full((1, 8, 4), 1e9, np.float32), np.zeros((2, 1, 3, 2), np.float32)),
    ],
)
def test_a_golden_vector_that_checks_nothing_is_none(inputs: Any, forecast: Any, folder: Path) -> None:
    reseal(folder, GOLDEN, npz(inputs=inputs, forecast=forecast))
    assert_refused(folder, "golden.npz: holds no golden vector for this network")


@pytest.mark.parametrize("forecast", [np.zeros((2, 2, 3, 2), np.float32), np.zeros(3), np.full((2, 2, 3, 2), NAN)])
def test_a_golden_forecast_that_is_not_reproduced_is_refused(forecast: Any, folder: Path) -> None:
    inputs = np.load(folder / GOLDEN)["inputs"]
    reseal(folder, GOLDEN, npz(inputs=inputs, forecast=forecast))
    assert_refused(folder, "the network does not reproduce its golden forecast")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY\x01\x00", npz(inputs=np.zeros(3)), b"\x80\x04K\x01."])
def test_what_is_no_golden_vector_is_refused(content: bytes, folder: Path) -> None:
    reseal(folder, GOLDEN, content)
    assert_refused(folder, "golden.npz: not a golden vector")


def test_a_golden_vector_that_unpacks_to_more_than_any_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, inputs=np.zeros(10**6), forecast=np.zeros(1))
    monkeypatch.setattr(bundle, "MOST_GOLDEN_BYTES", 10**6)
    reseal(folder, GOLDEN, file.getvalue())
    assert len(file.getvalue()) < 20_000
    assert_refused(folder, "bytes unpacked, more than any golden vector has")
