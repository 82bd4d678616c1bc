"""History in, a served bundle out: the whole batch job, group by group."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from pipeline import bundle
from pipeline.adapters.files import Series
from pipeline.core import scaling
from pipeline.core.alerts import ModelRef
from pipeline.core.model import Array, Model, Network, SensorTables
from pipeline.core.readings import SECOND
from pipeline.core.table import Count
from training import keras_model
from training.baselines import evaluate_baselines, forecast_error
from training.calibrate import Sensor, calibrate
from training.dataset import Group, History, plausible, prepare, sensor_statistics, training_part
from training.fit import FitResult, FitSettings, fit
from training.network import stack
from training.report import training_report
from training.sequences import Sequences
from training.summary import summary

MOST_OWN = 1000  # sensors of a group for which `auto` still tries a network each
GOLDEN_WINDOWS = 2

Which = npt.NDArray[np.int32]


class Progress(Protocol):
    """Told what is being done, so that a person can watch."""

    def stage(self, group: str, what: str, steps: int) -> None:
        """A stage of so many steps begins."""

    def advance(self, step: int, said: str = "") -> None:
        """It has come to this step."""


class Silence:
    """Nobody watches."""

    def stage(self, group: str, what: str, steps: int) -> None:
        """Nothing."""

    def advance(self, step: int, said: str = "") -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What a run of the job can be told."""

    fit: FitSettings = field(default_factory=FitSettings)
    weights: Literal["shared", "own", "auto"] = "auto"
    fraction: float = 1.0  # of each sensor's rows, from the first
    max_rows: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """One group's new bundle and how good its forecasts are."""

    model: Model
    folder: Path
    weights: Literal["shared", "own"]
    errors: Mapping[str, npt.NDArray[np.float64]]  # forecaster -> mean squared error of the steps, (horizons,)
    notes: tuple[str, ...]


def train(
    series: Sequence[Series],
    root: Path,
    settings: TrainSettings,
    progress: Progress | None = None,
    about: Mapping[str, Any] | None = None,
) -> list[Trained]:
    """Train every group of `series` and write its next version below `root`; DataError where nothing can be learned.

    The new version does not serve yet: that is `bundle.serve`, for the caller to decide.
    """
    now = int(datetime.now(UTC).timestamp() * SECOND)
    checked = [plausible(one, now) for one in series]
    dataset = prepare(training_part([one for one, _ in checked], settings.fraction, settings.max_rows))
    left_out = [*dataset.left_out, *(sentence for _, sentence in checked if sentence)]
    watched = progress or Silence()
    told = {**(about or {}), "left_out": left_out}
    trained = [train_group(group, root, settings, watched, told) for group in dataset.groups]
    return [replace(trained[0], notes=(*trained[0].notes, *left_out)), *trained[1:]]


def train_group(
    group: Group,
    root: Path,
    settings: TrainSettings,
    progress: Progress,
    about: Mapping[str, Any],
    before: Model | None = None,
) -> Trained:
    """Train one group and write its next version; sensors that it lacks stay as the version `before` knows them.

    `about` goes into the manifest and the report: `left_out`, and where something was masked `masked_spans`.
    """
    scales = {h.sensor: scaling.location_and_scale(sensor_statistics(h)) for h in group.histories}
    long = [h for h in group.histories if h.enough]
    learn, held = (sequences(group, long, scales, part) for part in ("fit", "held out"))
    fitted, weights = _fit(group, learn, held, settings, progress)
    own = {h.sensor: i + 1 for i, h in enumerate(long)} if weights == "own" else {}
    which = np.array([own.get(h.sensor, 0) for h in long], np.int32)
    errors = {"LSTM" if fitted.network.cell == "lstm" else "GRU": forecast_error(fitted.network, held, which)}
    errors |= evaluate_baselines(learn, held, settings.fit.horizons)

    version = str(1 + max((int(p.name) for p in (root / group.name).glob("[0-9]*") if p.name.isdigit()), default=0))
    model = Model(
        ref=ModelRef(group.name, version, ""),
        group=group.name,
        channels=group.channels,
        targets=group.targets,
        interval=group.interval,
        network=fitted.network,
        sensors=SensorTables((), {}),
    )
    sensors = [Sensor(h, scales[h.sensor], own.get(h.sensor, 0)) for h in group.histories]
    progress.stage(group.name, "calibrating", max(len(h) for h in group.histories))
    model, scores = calibrate(model, sensors, progress.advance)
    if before is not None:
        model = replace(model, sensors=_with_absent(model.sensors, before.sensors))
    told = {
        **about,
        "trained_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "span": _span(group.histories),
        "readings": sum(map(len, group.histories)),
        "weights": weights,
        "seed": settings.fit.seed,
        "metrics": {name: [float(e) for e in error] for name, error in errors.items()},
        "notes": list(group.notes),
        "libraries": {name: installed(name) for name in ("tensorflow", "keras", "numpy", "scikit-learn")},
        "python": platform.python_version(),
    }
    folder = bundle.save(model, root, told, _golden(fitted.network))
    keras_model.save(fitted.network, folder / "network.keras")  # for warm starts; serving never reads it
    page = summary(model, fitted, held, which, scales, long, scores, errors, told)
    (folder / "report.html").write_text(training_report(page), encoding="utf-8")
    return Trained(bundle.load(folder), folder, weights, errors, group.notes)


def sequences(group: Group, histories: Sequence[History], scales: Mapping[str, np.ndarray], part: str) -> Sequences:
    """The fit part or the held-out part of each history, scaled, in stretches without a gap."""
    targets = np.array([group.channels.index(t) for t in group.targets], np.intp)
    rows = []
    for history in histories:
        x = scaling.scaled(history.values, scales[history.sensor])
        segments = history.fit_segments() if part == "fit" else history.held_out_segments()
        rows.append(tuple(x[segment] for segment in segments))
    return Sequences(tuple(rows), targets)


def _fit(
    group: Group, learn: Sequences, held: Sequences, settings: TrainSettings, progress: Progress
) -> tuple[FitResult, Literal["shared", "own"]]:
    """The shared network; with `own`, or where `auto` finds it forecasts better, one for each sensor beside it.

    A sensor that the model has not seen is forecast by the shared network, which therefore is always there.
    """

    def run(weights: Literal["shared", "own"]) -> FitResult:
        chosen = replace(settings.fit, weights=weights)

        def watch(update: int, updates: int, loss: float, _validation: float | None) -> None:
            if update == 1:
                progress.stage(group.name, f"fitting {weights} weights", updates)
            progress.advance(update, f"loss {loss:.4f}")

        return fit(learn, held, chosen, on_update=watch)

    sensors = len(learn.sensors)
    shared = run("shared")
    if settings.weights == "shared" or sensors == 1 or (settings.weights == "auto" and sensors > MOST_OWN):
        return shared, "shared"
    own = run("own")
    each = np.arange(sensors, dtype=np.int32)
    if settings.weights == "auto":
        error = forecast_error(own.network, held, each), forecast_error(shared.network, held, np.zeros_like(each))
        if error[0].sum() >= error[1].sum():
            return shared, "shared"
    return replace(own, network=stack([shared.network, own.network])), "own"


def _with_absent(new: SensorTables, old: SensorTables) -> SensorTables:
    """The sensors of both, an old one only where there is no new one; it is forecast by the shared network."""
    absent = sorted(set(old.names) - set(new.names))
    places = {name: row for row, name in enumerate(old.names)}
    rows = np.array([places[name] for name in absent], np.intp)
    names = [*new.names, *absent]
    order = sorted(range(len(names)), key=names.__getitem__)
    joined = {field: np.concatenate([array, old.arrays[field][rows]]) for field, array in new.arrays.items()}
    joined["count"][len(new.names) :, Count.NETWORK] = 0
    return SensorTables(tuple(names[i] for i in order), {field: array[order] for field, array in joined.items()})


def _golden(network: Network) -> Array:
    """Random walks as input: they exercise every weight, and come from no customer's data."""
    rng = np.random.default_rng(0)
    walks = rng.standard_normal((GOLDEN_WINDOWS, network.window, network.inputs)).cumsum(axis=1) * 0.1
    return np.clip(walks, -4, 4).astype(np.float32)


def _span(histories: Sequence[History]) -> list[str]:
    """First and last instant of the history, RFC 3339."""
    ends = min(h.times[0] for h in histories), max(h.times[-1] for h in histories)
    return [datetime.fromtimestamp(int(time) / 1e6, UTC).isoformat() for time in ends]
