"""What a fit leaves behind, as the numbers of its report page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import scaling
from pipeline.core.engine import LARGEST_FORECAST
from pipeline.core.events import Rules
from pipeline.core.lstm import squash
from pipeline.core.model import Array, Model
from pipeline.core.readings import FloatArray
from training.baselines import served
from training.dataset import History
from training.fit import FitResult
from training.report import Example, TrainingReport
from training.sequences import Sequences

MOST_EXAMPLES = 3
EXAMPLE_ROWS = 400
SHOWN_HORIZONS = 2  # the first two: further ahead a line no longer shows anything
BUDGET = "1/10000/sensor"


def summary(
    model: Model,
    fitted: FitResult,
    held: Sequences,
    which: npt.NDArray[np.int32],
    scales: Mapping[str, FloatArray],
    histories: Sequence[History],
    scores: FloatArray,
    errors: Mapping[str, FloatArray],
    about: Mapping[str, Any],
) -> TrainingReport:
    """The report of one group; `histories` are those of `held`, in its order."""
    ahead = [forecast for forecast, _, _ in served(fitted.network, held, which)]
    segments = [segment for of_sensor in held.sensors for segment in of_sensor]
    owners = [i for i, of_sensor in enumerate(held.sensors) for _ in of_sensor]
    targets = held.target_columns
    missed = [
        x[1:, targets] - _ahead(x[:-1, targets], f[:-1, 0]) for x, f in zip(segments, ahead, strict=True) if len(x) > 1
    ]
    longest = sorted(range(len(segments)), key=lambda i: -len(segments[i]))
    chosen = {owners[i]: i for i in reversed(longest)}  # the longest segment of each sensor
    examples = [
        _example(model, histories[sensor], segments[i], ahead[i], scales[histories[sensor].sensor])
        for sensor, i in sorted(chosen.items())[:MOST_EXAMPLES]
    ]
    rules = Rules()
    steps = model.network.horizons
    return TrainingReport(
        title=f"{model.group}, version {model.ref.version}",
        facts=_facts(model, about),
        loss=fitted.loss.mean(axis=1).astype(np.float64),
        measured_at=fitted.measured_at,
        validation=_mean_over_networks(fitted.validation),
        best_update=int(np.median(fitted.best_update)),
        examples=examples,
        errors=np.concatenate([m.ravel() for m in missed]).astype(np.float64) if missed else np.empty(0),
        scores=scores,
        threshold=rules.budget.threshold(model.interval, len(histories)),
        budget=BUDGET,
        forecasters={name: dict(zip(steps, error.tolist(), strict=True)) for name, error in errors.items()},
        masked=about.get("masked_spans", ()),
        notes=[*about["notes"], *about["left_out"]],
    )


def _facts(model: Model, about: Mapping[str, Any]) -> dict[str, str]:
    network = model.network
    return {
        "sensors": f"{len(model.sensors.names)}, {about['readings']:,} readings",
        "span": " to ".join(about["span"]),
        "channels": f"{len(model.channels)}, of which {len(model.targets)} forecast",
        "interval": f"{model.interval / 1e6:g} s",
        "network": f"{len(network.layers)} x {network.cell.upper()}({network.hidden}), {network.mode}",
        "weights": about["weights"],
        "horizons": ", ".join(f"{h} steps" for h in network.horizons),
        "trained": about["trained_at"],
    }


def _mean_over_networks(losses: Array) -> FloatArray:
    """(measures, M) -> (measures,); a network without held-out rows has no say."""
    known = ~np.isnan(losses)
    total: FloatArray = np.where(known, losses, 0).sum(axis=1, dtype=np.float64)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)


def _ahead(now: Array, step: Array) -> Array:
    """x forecast from x now and the step of z = asinh(x)."""
    x: Array = np.sinh(np.clip(squash(now) + step, -LARGEST_FORECAST, LARGEST_FORECAST))
    return x


def _example(model: Model, history: History, x: Array, ahead: Array, scales: FloatArray) -> Example:
    """The last rows of a segment's first target, with what had been forecast for each."""
    column = int(model.target_columns[0])
    shown = min(EXAMPLE_ROWS, len(x))
    rows = next(s for s in history.held_out_segments() if s.stop - s.start == len(x))
    forecasts = {}
    for h, steps in list(enumerate(model.network.horizons))[:SHOWN_HORIZONS]:
        made = np.full(len(x), np.nan)
        if len(x) > steps:
            made[steps:] = scaling.unscaled(_ahead(x[:-steps, column], ahead[:-steps, h, 0]), scales[column])
        forecasts[steps] = made[-shown:]
    return Example(
        sensor=history.sensor,
        channel=model.targets[0],
        unit="",
        times=history.times[rows][-shown:],
        actual=history.values[rows, column][-shown:],
        forecasts=forecasts,
    )
