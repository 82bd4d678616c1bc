"""What others need for the same work: River's half-space trees, and a Keras model asked once a window."""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from functools import partial

import numpy as np

from benchmarks.figures import Measured, processor_us
from benchmarks.fleets import Fleet
from benchmarks.parts import apart

SENSORS, READINGS = 16, 300  # of River: more than the 250 readings in which it only learns
WINDOW = 250  # readings of a window, as Telemanom's `l_s`
Rows = list[list[dict[str, float]]]  # readings of each sensor, by channel


def half_space_trees(fleet: Fleet, repeats: int) -> Measured | None:
    """µs a reading, scored and then learned, a forest a sensor; None where River is not installed.

    Tan, Ting & Liu, "Fast anomaly detection for streaming data", 2011; River's defaults, scaled as its manual says.
    """
    if importlib.util.find_spec("river") is None:
        return None
    river = {name: importlib.import_module(f"river.{name}") for name in ("anomaly", "preprocessing")}
    models = [river["preprocessing"].MinMaxScaler() | river["anomaly"].HalfSpaceTrees(seed=0) for _ in range(SENSORS)]

    def rows() -> Rows:
        told = []
        for _ in range(READINGS):
            fleet.tick()
            values = fleet.row(range(SENSORS)).values.tolist()
            told.append([dict(zip(fleet.model.channels, of_sensor, strict=True)) for of_sensor in values])
        return told

    def follow(told: Rows) -> None:
        for row in told:
            for model, values in zip(models, row, strict=True):
                model.score_one(values)
                model.learn_one(values)

    follow(rows())
    batches = [rows() for _ in range(repeats)]
    return Measured.of([processor_us(partial(follow, told), SENSORS * READINGS, 1).value for told in batches])


def predict_per_window(hidden: int, repeats: int) -> Measured:
    """µs on the clock for `model.predict` of the one window that a reading ends, as detectors of the kind do live."""
    return apart(_predict_per_window, hidden, repeats)


def _predict_per_window(hidden: int, repeats: int) -> Measured:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keras = importlib.import_module("keras")
    model = keras.Sequential([keras.Input((WINDOW, 1)), keras.layers.LSTM(hidden), keras.layers.Dense(10)])
    window = np.random.default_rng(0).standard_normal((1, WINDOW, 1)).astype(np.float32)
    model.predict(window, verbose=0)

    def once() -> float:
        began = time.perf_counter()
        for _ in range(5):
            model.predict(window, verbose=0)
        return (time.perf_counter() - began) / 5 * 1e6

    return Measured.of([once() for _ in range(repeats)])
