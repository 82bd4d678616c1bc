"""A model bundle on disk: data, never code, checked by hash and by a golden vector before it serves.

DIR/GROUP/VERSION/manifest.json weights.safetensors sensors.safetensors golden.npz
DIR/GROUP/serving                the version that serves, as text
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from pipeline.core.alerts import ModelRef
from pipeline.core.lstm import INPUT_CLIP, Forecaster
from pipeline.core.model import Layer, Model, Network, SensorTables
from pipeline.core.readings import DAY
from pipeline.core.scaling import LARGEST_RAW, SMALLEST_SCALE
from pipeline.core.table import Clock, Count, Lane, Level, Tally, layout

FORMAT: Final = 3
MOST_BYTES = 2**32  # of one file; a bundle of a million sensors of one channel takes 2.5 GB
MANIFEST, WEIGHTS, SENSORS, GOLDEN, SERVING = (
    "manifest.json", "weights.safetensors", "sensors.safetensors", "golden.npz", "serving",
)  # fmt: skip
NAME = re.compile(r"[\w+-][\w.+-]*")  # of a group or a version: one folder, never a path
LONGEST_INTERVAL = 366 * DAY  # µs
MOST_GOLDEN_BYTES = 2**26  # unpacked
GOLDEN_TOLERANCE = 1e-4  # another CPU rounds differently; other weights differ by far more
Tensors = dict[str, npt.NDArray[Any]]


class BundleError(Exception):
    """A bundle that must not serve, and why."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """manifest.json; fields that serving does not need are in `about`."""

    format: int
    group: str
    version: str
    channels: list[str]
    targets: list[str]
    interval_us: int
    cell: str
    mode: str
    bidirectional: bool
    window: int
    horizons: list[int]
    layers: int
    sensors: int
    sha256: dict[str, str]
    about: dict[str, Any] = {}


def save(model: Model, root: Path, about: Mapping[str, Any], golden: npt.NDArray[np.float32]) -> Path:
    """Write DIR/GROUP/VERSION; `golden` is an input (n, window, inputs) whose forecast the loader must reproduce."""
    if not NAME.fullmatch(model.group) or not NAME.fullmatch(model.ref.version):
        raise BundleError(f"{model.group!r} version {model.ref.version!r} cannot name a folder; use letters and digits")
    folder = root / model.group / model.ref.version
    folder.mkdir(parents=True, exist_ok=False)
    files = {
        WEIGHTS: save_tensors(_network_tensors(model.network)),
        SENSORS: save_tensors(_sensor_tensors(model)),
        GOLDEN: _packed(inputs=golden, forecast=_golden_forecast(model.network, golden)),
    }
    for name, content in files.items():
        _write(folder / name, content)
    manifest = Manifest(
        format=FORMAT,
        group=model.group,
        version=model.ref.version,
        channels=list(model.channels),
        targets=list(model.targets),
        interval_us=model.interval,
        cell=model.network.cell,
        mode=model.network.mode,
        bidirectional=False,
        window=model.network.window,
        horizons=list(model.network.horizons),
        layers=len(model.network.layers),
        sensors=len(model.sensors.names),
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        about=dict(about),
    )
    _write(folder / MANIFEST, json.dumps(msgspec.to_builtins(manifest), indent=1).encode())
    return folder


def serve(folder: Path) -> None:
    """Point DIR/GROUP/serving at this version; a reader sees the old one or the new one."""
    pointer = folder.parent / SERVING
    _write(pointer.with_suffix(".new"), folder.name.encode())
    pointer.with_suffix(".new").replace(pointer)


def load_all(root: Path) -> dict[str, Model]:
    """The serving version of every group below `root`."""
    models = {}
    for pointer in sorted(root.glob(f"*/{SERVING}")):
        group, version = pointer.parent.name, _read(pointer).decode(errors="replace").strip()
        if not NAME.fullmatch(version):
            raise BundleError(f"{pointer}: {version[:40]!r} is not the name of a version")
        model = models[group] = load(pointer.parent / version)
        if (model.group, model.ref.version) != (group, version):
            raise BundleError(f"{pointer}: the bundle there is version {model.ref.version} of group {model.group}")
    if not models:
        raise BundleError(f"{root}: no model bundle serves here; train one: foreshock train DATA --model {root}")
    return models


def load_by_hash(root: Path, group: str, sha256: str) -> Model | None:
    """The version of a group whose manifest has this hash, whether it serves or not; None where there is none."""
    for path in sorted(root.glob(f"{group}/*/{MANIFEST}")):
        if hashlib.sha256(_read(path)).hexdigest() == sha256:
            return load(path.parent)
    return None


def load(folder: Path) -> Model:
    """Read and verify one version; BundleError says what is wrong with it."""
    manifest, digest = read_manifest(folder)
    tensors = {name: _tensors(folder / name, manifest.sha256) for name in (WEIGHTS, SENSORS)}
    network = _network(manifest, tensors[WEIGHTS], folder / WEIGHTS)
    model = Model(
        ref=ModelRef(manifest.group, manifest.version, digest),
        group=manifest.group,
        channels=tuple(manifest.channels),
        targets=tuple(manifest.targets),
        interval=manifest.interval_us,
        network=network,
        sensors=_sensors(tensors[SENSORS], manifest.sensors, folder / SENSORS),
        prior={k.removeprefix("prior."): v for k, v in tensors[SENSORS].items() if k.startswith("prior.")},
    )
    _check_tables(model, folder / SENSORS)
    _check_golden(network, folder / GOLDEN, manifest.sha256)
    return model


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The checked manifest and its SHA-256; the files it names are not read."""
    path = folder / MANIFEST
    content = _read(path)
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: not a manifest: {error}") from error
    if manifest.format != FORMAT:
        raise BundleError(f"{path}: format {manifest.format}, this build reads {FORMAT}; train the model again")
    if manifest.bidirectional or manifest.cell.lower().startswith("bi"):
        raise BundleError(
            f"{path}: claims a bidirectional network, which reads readings that have not happened yet; "
            "a live forecast can only be unidirectional"
        )
    if manifest.cell not in ("lstm", "gru") or manifest.mode not in ("carried", "windowed"):
        raise BundleError(
            f"{path}: cell {manifest.cell!r}, mode {manifest.mode!r}; known: lstm, gru; carried, windowed"
        )
    if not NAME.fullmatch(manifest.group) or not NAME.fullmatch(manifest.version):
        raise BundleError(f"{path}: group {manifest.group!r} or version {manifest.version!r} cannot name a folder")
    unknown = set(manifest.targets) - set(manifest.channels)
    if unknown or not manifest.targets or len(set(manifest.channels)) != len(manifest.channels):
        raise BundleError(f"{path}: targets {sorted(manifest.targets)} are not among distinct channels")
    horizons = manifest.horizons
    if not horizons or horizons[0] != 1 or sorted(set(horizons)) != horizons or horizons[-1] > manifest.window:
        raise BundleError(f"{path}: horizons {horizons} must rise from 1 to at most the window, {manifest.window}")
    if not 0 < manifest.interval_us <= LONGEST_INTERVAL:
        raise BundleError(f"{path}: an interval of {manifest.interval_us} µs; it is above 0 and at most a year")
    if not 64 <= manifest.window <= 4096 or not 1 <= manifest.layers <= 3:
        raise BundleError(f"{path}: window (64 to 4096) or layers (1 to 3) out of range")
    return manifest, hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or a device may have no end
            raise BundleError(f"{path}: not a plain file; is this a bundle folder?")
        if found.st_size > MOST_BYTES:
            raise BundleError(f"{path}: {found.st_size} bytes, more than any bundle has")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}; is this a bundle folder?") from error


def _verified(path: Path, hashes: Mapping[str, str]) -> bytes:
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != hashes.get(path.name):
        raise BundleError(f"{path}: its SHA-256 is not the one in the manifest; copy the bundle again")
    return content


def _tensors(path: Path, hashes: Mapping[str, str]) -> Tensors:
    try:
        return load_tensors(_verified(path, hashes))
    except (SafetensorError, ValueError) as error:
        raise BundleError(f"{path}: not a safetensors file: {error}") from error


def _network_tensors(network: Network) -> Tensors:
    tensors = {"head": network.head, "head_bias": network.head_bias}
    for i, layer in enumerate(network.layers):
        tensors |= {f"{i}.kernel": layer.kernel, f"{i}.recurrent": layer.recurrent, f"{i}.bias": layer.bias}
    return {name: np.ascontiguousarray(t, np.float32) for name, t in tensors.items()}


def _network(manifest: Manifest, tensors: Tensors, path: Path) -> Network:
    gates, biases = (4, 1) if manifest.cell == "lstm" else (3, 2)
    inputs, outputs = 2 * len(manifest.channels), len(manifest.horizons) * len(manifest.targets)
    names = {f"{i}.{part}" for i in range(manifest.layers) for part in ("kernel", "recurrent", "bias")}
    if set(tensors) != names | {"head", "head_bias"}:
        raise BundleError(f"{path}: holds {sorted(tensors)}, expected {manifest.layers} layers and a head")
    networks, width = (len(tensors["head"]) if tensors["head"].ndim else 0), inputs
    if networks == 0:
        raise BundleError(f"{path}: holds no network")
    for i in range(manifest.layers):
        hidden = tensors[f"{i}.recurrent"].shape[1] if tensors[f"{i}.recurrent"].ndim == 3 else 0
        _expect(path, tensors, f"{i}.kernel", (networks, width, gates * hidden))
        _expect(path, tensors, f"{i}.recurrent", (networks, hidden, gates * hidden))
        _expect(path, tensors, f"{i}.bias", (networks, biases, gates * hidden))
        width = hidden
    _expect(path, tensors, "head", (networks, width + inputs, outputs))
    _expect(path, tensors, "head_bias", (networks, 1, outputs))
    layers = tuple(
        Layer(tensors[f"{i}.kernel"], tensors[f"{i}.recurrent"], tensors[f"{i}.bias"]) for i in range(manifest.layers)
    )
    cell, mode = manifest.cell, manifest.mode
    return Network(cell, mode, manifest.window, tuple(manifest.horizons), layers, tensors["head"], tensors["head_bias"])  # type: ignore[arg-type]


def _expect(path: Path, tensors: Tensors, name: str, shape: tuple[int, ...]) -> None:
    found = tensors[name]
    if found.shape != shape or found.dtype != np.float32:
        raise BundleError(f"{path}: {name} is {found.dtype}{found.shape}, the manifest asks for float32{shape}")
    if not np.isfinite(found).all():
        raise BundleError(f"{path}: {name} holds a number that is not finite")


def _sensor_tensors(model: Model) -> Tensors:
    encoded = [name.encode() for name in model.sensors.names]
    tensors: Tensors = {
        "names": np.frombuffer(b"".join(encoded), np.uint8),
        "name_ends": np.cumsum([len(e) for e in encoded], dtype=np.int64),
    }
    tensors |= {f"sensor.{k}": np.ascontiguousarray(v) for k, v in model.sensors.arrays.items()}
    return tensors | {f"prior.{k}": np.ascontiguousarray(v) for k, v in model.prior.items()}


def _sensors(tensors: Tensors, sensors: int, path: Path) -> SensorTables:
    if not {"names", "name_ends"} <= set(tensors):
        raise BundleError(f"{path}: has no names")
    blob, ends = tensors["names"].tobytes(), tensors["name_ends"]
    edges = [0, *ends.ravel().tolist()]
    if ends.dtype != np.int64 or sorted(edges) != edges or edges[-1] != len(blob) or len(edges) != sensors + 1:
        raise BundleError(f"{path}: its names are not those of the manifest's {sensors} sensors")
    try:
        names = tuple(blob[a:b].decode() for a, b in pairwise(edges))
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: a sensor's name is not UTF-8") from error
    if list(names) != sorted(set(names)):
        raise BundleError(f"{path}: sensors are not in order, or named twice")
    arrays = {k.removeprefix("sensor."): v for k, v in tensors.items() if k.startswith("sensor.")}
    return SensorTables(names, arrays)


def _check_tables(model: Model, path: Path) -> None:
    """Every table has the shape and type that the detector will copy into its rows."""
    fields, sensors = layout(model), len(model.sensors.names)
    expected = {
        name: (f.shape if f.learned < 0 else (*f.shape[:-1], f.learned), np.dtype(f.dtype))
        for name, f in fields.items()
        if f.learned
    }
    if sensors and set(model.sensors.arrays) != set(expected):
        raise BundleError(f"{path}: holds tables {sorted(model.sensors.arrays)}, expected {sorted(expected)}")
    for prefix, tables, leading in (("sensor", model.sensors.arrays, (sensors,)), ("prior", model.prior, ())):
        for name, table in tables.items():
            if name not in expected or (name == "scale" and prefix == "prior"):  # its first readings give it one
                raise BundleError(f"{path}: {prefix}.{name} is no field of a sensor")
            shape, dtype = expected[name]
            if table.shape != (*leading, *shape) or table.dtype != dtype:
                raise BundleError(f"{path}: {prefix}.{name} is {table.dtype}{table.shape}, expected {dtype}{shape}")
    _check_numbers("sensor", model.sensors.arrays, model.network.networks, path)
    _check_numbers("prior", model.prior, model.network.networks, path)


def _check_numbers(prefix: str, tables: Mapping[str, npt.NDArray[Any]], networks: int, path: Path) -> None:
    """What the detector divides by, takes the exponential of, or indexes with."""
    for name, column, low, high in (
        ("clock", Clock.GAP_LIMIT, 0, 2**60),
        ("clock", Clock.USUAL_STEP, 0, 2**60),
        ("count", Count.NETWORK, 0, networks - 1),
        ("clock", Clock.LEARN_FROM, -(2**62), 2**53),  # µs: the year 2255
        ("count", Count.FITTED, *((1, 1) if prefix == "sensor" else (0, 0))),
        ("tally", Tally.STUCK_LIMIT, 0, 2**30),
        ("tally", Tally.SEEN, 0, 2**30),
        ("level", Level.USUAL, -1e3, 1e3),
        ("level", Level.EXCESS, 1e-3, 1e3),
        ("level", Level.OWN_USUAL, -1e3, 1e3),
        ("level", Level.OWN_EXCESS, 1e-3, 1e3),
        ("level", Level.OWN_BLOCKS, 1, 1e6),
        ("scale", 0, -LARGEST_RAW, LARGEST_RAW),
        ("scale", 1, SMALLEST_SCALE, LARGEST_RAW),
        ("lane", Lane.LOG_ERROR, -50, 50),
        ("lane", Lane.LOW, -1e9, 1e9),
        ("lane", Lane.HIGH, -1e9, 1e9),
    ):
        found = tables[name][..., column] if name in tables else np.full(1, low)
        if not ((found >= low) & (found <= high)).all():  # also where it is not a number
            raise BundleError(f"{path}: column {column} of {prefix}.{name} is not within {low:g} and {high:g}")


def _golden_forecast(network: Network, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Forecasts of the first and the last network after reading the golden windows."""
    n, window, _ = inputs.shape
    lengths = np.full(n, window, np.int64)
    ends = [
        Forecaster(network).rebuild(inputs, np.full(n, which, np.int32), lengths)[1]
        for which in (0, network.networks - 1)
    ]
    return np.stack(ends)


def _packed(**arrays: npt.NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _unpacked(content: bytes) -> Tensors:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > MOST_GOLDEN_BYTES:
        raise ValueError(f"{unpacked} bytes unpacked, more than any golden vector has")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in ("inputs", "forecast")}


def _check_golden(network: Network, path: Path, hashes: Mapping[str, str]) -> None:
    content = _verified(path, hashes)
    try:
        golden = _unpacked(content)
    except Exception as error:  # zipfile and numpy raise a dozen kinds for a damaged file
        raise BundleError(f"{path}: not a golden vector: {error}") from error
    inputs, expected = golden["inputs"], golden["forecast"]
    fits = inputs.ndim == 3 and inputs.shape[1] <= network.window and inputs.shape[2] == network.inputs
    says = inputs.size > 0 and inputs.dtype == np.float32
    if not fits or not says or not np.abs(inputs).max() <= 2 * INPUT_CLIP:  # also where it is not a number
        raise BundleError(f"{path}: holds no golden vector for this network")
    with np.errstate(all="ignore"):  # wild weights overflow here, and then do not reproduce anything
        found = _golden_forecast(network, inputs)
    same = (
        found.size and found.shape == expected.shape and found.dtype == expected.dtype and np.isfinite(expected).all()
    )
    if not same or not np.allclose(found, expected, atol=GOLDEN_TOLERANCE):
        raise BundleError(f"{path}: the network does not reproduce its golden forecast; the bundle is damaged")


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
