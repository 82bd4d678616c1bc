"""One data folder: its history trained on once, then calibrated, replayed and evaluated anew for every row."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.ablation.controls import carrying
from benchmarks.ablation.parts import Part
from pipeline import bundle
from pipeline.adapters.files import DataError, Series, read
from pipeline.adapters.replay_folder import Run, write_run, write_scores
from pipeline.core.detector import Detector
from pipeline.core.events import Rules
from pipeline.core.lstm import Steps
from pipeline.core.model import Model
from pipeline.core.readings import SECOND
from pipeline.core.table import Count
from pipeline.core.thresholds import Budget
from pipeline.replay import replay
from training.calibrate import Sensor, calibrate
from training.contest import scales_of
from training.dataset import Group, plausible, prepare, training_part
from training.evaluate import Figures, evaluate
from training.labelled import load
from training.sequences import Sequences
from training.train import Progress, TrainSettings, sequences, train_group

TEST_FRACTION, TEST_ROWS = 0.15, 750  # of each test file are its history, where none lies apart


@dataclass(frozen=True, slots=True)
class Terms:
    """How the rows are made and judged."""

    budget: str = "1/10000/sensor"  # in the operator's words
    fraction: float | None = None  # of each series' history; None: all of train/, or what the benchmarks agree on
    max_rows: int | None = None
    vus: bool = True
    nab: bool = False
    head: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """A group's network and what it is calibrated on."""

    model: Model
    sensors: tuple[Sensor, ...]
    learn: Sequences  # the fit part of those sensors that are long enough
    learners: tuple[str, ...]  # their names

    def serving(self, fits: bool) -> tuple[Sensor, ...]:
        """The sensors, each with its network or, with `fits`, with the number of its control's fit."""
        own = {name: i + 1 for i, name in enumerate(self.learners)}
        return tuple(replace(s, network=own.get(s.history.sensor, 0)) for s in self.sensors) if fits else self.sensors


class Study:
    """A folder with `labels.json`, `test/` and, where history lies apart, `train/`."""

    def __init__(self, folder: Path, terms: Terms, progress: Progress, models: Path | None = None) -> None:
        """Trains, unless a folder of `models` is given; DataError where they are not of this history."""
        self.name, self._labels, self._terms, self._progress = folder.name, folder / "labels.json", terms, progress
        if not (folder / "test").is_dir() or not self._labels.is_file():
            raise DataError(f"{folder}: needs labels.json and test/, and may have train/")
        self._rules = Rules(budget=Budget.parse(terms.budget))
        self._test = read(folder / "test")
        groups = _groups(folder, self._test, terms)
        self.trained = _trained(groups, progress) if models is None else _of(groups, models)

    @property
    def models(self) -> list[Model]:
        """Each group's."""
        return [one.model for one in self.trained]

    @property
    def unseen(self) -> bool:
        """Whether a test series is of a sensor that was not trained on."""
        known = {s.history.sensor for one in self.trained for s in one.sensors}
        return any(series.sensor not in known for series in self._test)

    def figures(self, part: Part) -> Figures:
        """Calibrated, replayed and evaluated as the whole detector is, but for what the part changes."""
        forecasters: dict[str, Steps] = {}

        def detector_of(model: Model, rules: Rules | None = None) -> Detector:
            return Detector(model, rules, weights=part.weights, forecaster=forecasters.get(model.group))

        longest = [max(len(s.history) for s in one.sensors) for one in self.trained]
        self._progress.stage(self.name, part.name, sum(longest) + sum(map(len, self._test)))
        models, done = {}, 0
        for one, rows in zip(self.trained, longest, strict=True):
            model = one.model
            if part.control is not None:
                control = part.control(one.learn, model.network.horizons)
                forecasters[model.group] = control
                model = replace(model, network=carrying(model.network, control))
            said = _further(self._progress, done)
            sensors = one.serving(part.control is not None)
            calibrated, _ = calibrate(model, sensors, said, detector_of, prior=self.unseen)
            models[model.group] = part.tables(calibrated)
            done += rows
        said = _further(self._progress, done)
        replayed = replay(self._test, models, self._rules, on_readings=said, detector_of=detector_of)
        terms = self._terms
        with tempfile.TemporaryDirectory() as folder:
            scores = Path(folder)
            for sensor in replayed.sensors:
                write_scores(scores, sensor.series, sensor.scores, sensor.alerting)
            write_run(scores, Run(terms.budget, replayed.fleet, replayed.groups))
            judged = load(scores, self._labels)
        return evaluate(judged, with_vus=terms.vus, with_nab=terms.nab, head=terms.head)


def _groups(folder: Path, test: Sequence[Series], terms: Terms) -> tuple[Group, ...]:
    """The history as `foreshock train` groups it."""
    apart = (folder / "train").is_dir()
    history = read(folder / "train") if apart else test
    fraction = terms.fraction if terms.fraction is not None else 1.0 if apart else TEST_FRACTION
    rows = terms.max_rows if terms.max_rows is not None or apart else TEST_ROWS
    now = int(time.time() * SECOND)
    return prepare(training_part([plausible(series, now)[0] for series in history], fraction, rows)).groups


def _trained(groups: Sequence[Group], progress: Progress) -> list[Learned]:
    with tempfile.TemporaryDirectory() as folder:
        about: dict[str, list[str]] = {"left_out": []}
        return [_ready(g, train_group(g, Path(folder), TrainSettings(), progress, about).model) for g in groups]


def _of(groups: Sequence[Group], folder: Path) -> list[Learned]:
    models = bundle.load_all(folder)
    for group in groups:
        model = models.get(group.name)
        names = {h.sensor for h in group.histories}
        if model is None or not names <= set(model.sensors.names) or model.channels != group.channels:
            raise DataError(f"{folder}: holds no model that was trained on the group {group.name} of this history")
    return [_ready(group, models[group.name]) for group in groups]


def _ready(group: Group, model: Model) -> Learned:
    scales = scales_of(model)
    networks = dict(zip(model.sensors.names, model.sensors.arrays["count"][:, Count.NETWORK].tolist(), strict=True))
    sensors = tuple(Sensor(h, scales[h.sensor], networks[h.sensor]) for h in group.histories)
    long = [h for h in group.histories if h.enough]
    return Learned(model, sensors, sequences(group, long, scales, "fit"), tuple(h.sensor for h in long))


def _further(progress: Progress, done: int) -> Callable[[int], None]:
    return lambda step: progress.advance(done + step)
