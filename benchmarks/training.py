"""A network of its own for each of many sensors: all in one graph, beside one Keras fit after the other.

The same network, the same rows to learn, the same loss on the same rows held back. A Keras fit ends as soon as it
forecasts as well as the sensor's network in the graph, within 2 %: what is compared is the time to equal error. The
separate fits are timed on a few sensors; each of the others would take as long again.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks.asked import Asked
from benchmarks.figures import Figure, Goal, Measured
from pipeline.core.model import Array

SENSORS, ROWS, HELD = 256, 4000, 600  # held: rows at the end, of which nothing is learnt
SAMPLED = 3  # sensors that Keras is timed on
HORIZONS = (1, 12, 48)
WINDOW, STRIDE = 128, 16  # readings of a window that Keras learns, and from one to the next
BATCH = 32  # windows, Keras' default
EPOCHS = 60  # at most
RATE = 5e-3  # falls to zero along a cosine, as ours
RATIO, WORSE = Goal(25, at_most=False), Goal(1.02)


def measure(asked: Asked) -> Iterator[Figure]:
    """How many times as long the separate fits take, and how their errors compare."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    training = {name: importlib.import_module(f"training.{name}") for name in ("fit", "sequences", "keras_model")}
    values = _signals()
    train, held = values[:, : ROWS - HELD], values[:, ROWS - HELD - training["fit"].SETTLING :]
    settings = training["fit"].FitSettings(hidden=asked.hidden, weights="own", horizons=HORIZONS)
    began = time.perf_counter()
    network = training["fit"].fit(_sequences(training, train), _sequences(training, held), settings).network
    grouped = time.perf_counter() - began
    took, ours, theirs = [], [], []
    for i in range(SAMPLED):
        ours.append(_loss(training, training["keras_model"].build(network, i), held[i]))
        loss, seconds = _keras(training, train[i], held[i], asked.hidden, WORSE.bound * ours[-1])
        theirs.append(loss)
        took.append(seconds)
    each, worse = Measured.of(took), float(np.mean(ours) / np.mean(theirs))
    name = f"{SENSORS} sensors x {ROWS:,} readings"
    remark = f"{grouped:.0f} s against {each.value:.1f} s a sensor, timed on {SAMPLED} and multiplied"
    yield Figure(
        f"{name}: separate Keras fits over one graph", each.value * SENSORS / grouped, "x", each.spread, RATIO,
        remark=remark,
    )  # fmt: skip
    yield Figure(
        "validation loss, one graph over separate Keras fits", worse, "x", goal=WORSE,
        remark=f"Huber's, {np.mean(ours):.4f} against {np.mean(theirs):.4f}, mean of {SAMPLED} sensors",
    )  # fmt: skip


def _keras(training: Mapping[str, Any], train: Array, held: Array, hidden: int, enough: float) -> tuple[float, float]:
    """A fit to windows of one sensor: the loss it came to, and the seconds it took, without those of judging it."""
    keras = importlib.import_module("keras")
    network = importlib.import_module("training.network").untrained(
        cell="lstm", mode="carried", window=256, horizons=HORIZONS, inputs=2, targets=1, hidden=hidden, layers=1, seed=0
    )
    best, judging, began = np.inf, 0.0, time.perf_counter()
    model = training["keras_model"].build(network)
    x, y = _windows(training, train)
    rates = keras.optimizers.schedules.CosineDecay(RATE, EPOCHS * -(-len(x) // BATCH))
    model.compile(keras.optimizers.Adam(rates, clipnorm=1.0), keras.losses.Huber(training["fit"].HUBER_DELTA))

    def judge(*_: object) -> None:
        nonlocal best, judging
        asked = time.perf_counter()
        best = min(best, _loss(training, model, held))
        model.stop_training = best <= enough
        judging += time.perf_counter() - asked

    model.fit(x, y, BATCH, EPOCHS, verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=judge)])
    return best, time.perf_counter() - began - judging


def _windows(training: Mapping[str, Any], values: Array) -> tuple[Array, Array]:
    """Inputs (n, WINDOW, 2) and the steps ahead of each reading (n, WINDOW, horizons), without those beyond the end."""
    segment = values[:, None]
    steps, known = training["sequences"].steps_ahead(segment, np.array([0]), HORIZONS)
    rows = int(known.all(axis=1).sum())
    first = np.arange(0, rows - WINDOW + 1, STRIDE)[:, None] + np.arange(WINDOW)
    return training["sequences"].network_inputs(segment)[first], steps[..., 0][first]


def _loss(training: Mapping[str, Any], model: Any, held: Array) -> float:
    """Huber's loss of the forecasts of rows held back, behind those on which the state settles."""
    segment = held[:, None]
    steps, known = training["sequences"].steps_ahead(segment, np.array([0]), HORIZONS)
    forecast = model.predict(training["sequences"].network_inputs(segment)[None], verbose=0)[0]
    miss = np.abs(forecast - steps[..., 0])
    near = np.minimum(miss, training["fit"].HUBER_DELTA)
    counts = known & (np.arange(len(held)) >= training["fit"].SETTLING)[:, None]
    return float((near * (miss - near / 2))[counts].mean())


def _signals() -> Array:
    """(sensors, rows): two periods and noise, other ones for each sensor, of mean 0 and spread 1."""
    rng = np.random.default_rng(0)
    at, period, phase = np.arange(ROWS), rng.uniform(20, 90, (SENSORS, 2, 1)), rng.uniform(0, 6, (SENSORS, 2, 1))
    waves = (np.sin(2 * np.pi * at / period + phase) * [[1.0], [0.5]]).sum(axis=1)
    noisy = waves + 0.1 * rng.standard_normal((SENSORS, ROWS))
    scaled: Array = ((noisy - noisy.mean(axis=1, keepdims=True)) / noisy.std(axis=1, keepdims=True)).astype(np.float32)
    return scaled


def _sequences(training: Mapping[str, Any], values: Array) -> Any:
    """Each sensor one segment of one channel."""
    return training["sequences"].Sequences(tuple((row[:, None],) for row in values), np.array([0]))
