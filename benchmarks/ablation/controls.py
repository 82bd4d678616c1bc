"""What the network must beat, in its place in the detector: last value, EWMA, a ridge regression on the last readings.

Each has a fit of its own for every sensor that is trained on, and one to all of them for a sensor that is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge

from pipeline.core.lstm import Steps
from pipeline.core.model import Array, Layer, Network
from pipeline.core.readings import BoolArray, FloatArray
from training.baselines import AR_LAGS, RIDGE_ROWS, ROWS_PER_LAG, VAR_LAGS
from training.sequences import Sequences, network_inputs, steps_ahead

RATES = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0], np.float32)

Which = npt.NDArray[np.int32]  # (n,) which fit serves each row: 0 that of all sensors, i + 1 that of sensor i


class Ewma(Steps):
    """The exponentially weighted mean of z, whatever the horizon.

    Muth, "Optimal properties of exponentially weighted forecasts", 1960.
    """

    def __init__(self, rates: Array, targets: npt.NDArray[np.intp], horizons: int) -> None:
        """`rates` (M,): the weight of the newest reading, in each fit; `targets`: their places among the channels."""
        self.rates, self.targets = rates, targets
        self.state_size = 1 + len(targets)  # whether there was a reading, the means
        self.shape = horizons, len(targets)

    def step(self, state: Array, inputs: Array, which: Which) -> tuple[Array, Array]:
        """From z to its mean."""
        z = inputs[:, self.targets]
        mean = np.where(state[:, :1] > 0, state[:, 1:], z)
        rate = self.rates[which][:, None]
        mean = rate * z + (1 - rate) * mean  # z itself at a rate of 1
        after = np.concatenate([np.ones((len(z), 1), np.float32), mean], axis=1)
        return after, np.repeat((mean - z)[:, None], self.shape[0], axis=1)


class Regression(Steps):
    """Linear in the last readings of all channels, each horizon by itself; before the first there was the first."""

    def __init__(self, weights: Array, bias: Array, channels: int, horizons: int) -> None:
        """`weights` (M, channels * lags, horizons * targets), the oldest reading of a channel first; `bias` (M, …)."""
        self.weights, self.bias = weights, bias
        self.past = channels, weights.shape[1] // channels
        self.state_size = 1 + weights.shape[1]  # whether there was a reading, the last ones
        self.shape = horizons, weights.shape[2] // horizons

    def step(self, state: Array, inputs: Array, which: Which) -> tuple[Array, Array]:
        """Each row by a product of its own, so that it does not depend on the batch."""
        n, (channels, lags) = len(inputs), self.past
        z = inputs[:, :channels, None]
        past = np.where(state[:, :1, None] > 0, state[:, 1:].reshape(n, channels, lags), z)
        past = np.concatenate([past[:, :, 1:], z], axis=2).reshape(n, channels * lags)
        steps = np.matmul(past[:, None, :], self.weights[which])[:, 0] + self.bias[which]
        return np.concatenate([np.ones((n, 1), np.float32), past], axis=1), steps.reshape(n, *self.shape)


def last_value(learn: Sequences, horizons: Sequence[int]) -> Steps:
    """Nothing will change, in any sensor: an EWMA of rate 1."""
    return Ewma(np.ones(1 + len(learn.sensors), np.float32), learn.target_columns, len(horizons))


def ewma(learn: Sequences, horizons: Sequence[int]) -> Steps:
    """Of `RATES` those with the least squared error one step ahead."""
    missed = np.array([_missed(segments, learn.target_columns) for segments in learn.sensors])  # (sensors, rates)
    best = np.concatenate([[missed.sum(axis=0).argmin()], missed.argmin(axis=1)])
    return Ewma(RATES[best], learn.target_columns, len(horizons))


def ridge(learn: Sequences, horizons: Sequence[int]) -> Steps:
    """As many lags as a sensor's history carries; a shorter memory has weights of 0 on what is older."""
    most = AR_LAGS if learn.channels == 1 else VAR_LAGS
    orders = np.clip(learn.rows // ROWS_PER_LAG, 1, most).tolist()
    longest = max(orders)
    lessons = [_lesson(segments, learn.target_columns, horizons, longest) for segments in learn.sensors]
    fits = [
        _fitted(lessons, longest),
        *(_fitted([lesson], order) for lesson, order in zip(lessons, orders, strict=True)),
    ]
    weights, bias = (np.stack(parts).astype(np.float32) for parts in zip(*fits, strict=True))
    return Regression(weights, bias, learn.channels, len(horizons))


def carrying(network: Network, control: Steps) -> Network:
    """A network of the same window and horizons that carries as many numbers a sensor as `control`; it never runs."""
    size, inputs, outputs = control.state_size, network.inputs, network.head.shape[2]
    kernel, recurrent, bias, head, head_bias = (
        np.zeros((1, *shape), np.float32)
        for shape in ((inputs, 3 * size), (size, 3 * size), (2, 3 * size), (size + inputs, outputs), (1, outputs))
    )
    layer = Layer(kernel, recurrent, bias)
    return replace(network, cell="gru", mode="carried", layers=(layer,), head=head, head_bias=head_bias)


def _read(control: Steps, segment: Array, which: Which) -> Iterator[tuple[Array, Array]]:
    """State (n, state_size) and steps (n, horizons, targets) after each reading, by each of n fits."""
    state = np.zeros((len(which), control.state_size), np.float32)
    for reading in network_inputs(segment):
        state, steps = control.step(state, np.repeat(reading[None], len(which), axis=0), which)
        yield state, steps


def _missed(segments: Sequence[Array], targets: npt.NDArray[np.intp]) -> FloatArray:
    """Squared error one step ahead under each of `RATES`, summed over the readings, (rates,)."""
    trial, every = Ewma(RATES, targets, 1), np.arange(len(RATES), dtype=np.int32)
    total = np.zeros(len(RATES))
    for segment in segments:
        came, known = steps_ahead(segment, targets, (1,))
        for (_, steps), step in zip(_read(trial, segment, every), came[known[:, 0], 0], strict=False):
            total += np.square(steps[:, 0] - step, dtype=np.float64).mean(axis=1)
    return total


class _Lesson(NamedTuple):
    past: Array  # (T, channels, lags) as the state holds it
    steps: Array  # (T, horizons, targets)
    known: BoolArray  # (T, horizons)


def _lesson(segments: Sequence[Array], targets: npt.NDArray[np.intp], horizons: Sequence[int], lags: int) -> _Lesson:
    """What a sensor's readings teach; of a long history RIDGE_ROWS of them, evenly drawn."""
    channels, only = segments[0].shape[1], np.zeros(1, np.int32)
    remembers = Regression(np.zeros((1, channels * lags, 1), np.float32), np.zeros((1, 1), np.float32), channels, 1)
    past = np.concatenate([state[:, 1:] for segment in segments for state, _ in _read(remembers, segment, only)])
    steps, known = (np.concatenate(p) for p in zip(*(steps_ahead(s, targets, horizons) for s in segments), strict=True))
    every = -(-len(past) // RIDGE_ROWS)
    return _Lesson(past.reshape(-1, channels, lags)[::every], steps[::every], known[::every])


def _fitted(lessons: Sequence[_Lesson], order: int) -> tuple[FloatArray, FloatArray]:
    """Weights (channels * lags, horizons * targets) and bias; 0 where no reading sees so far ahead."""
    _, channels, lags = lessons[0].past.shape
    _, horizons, targets = lessons[0].steps.shape
    weights, bias = np.zeros((channels, lags, horizons, targets)), np.zeros((horizons, targets))
    for h in range(horizons):
        x = np.concatenate([one.past[one.known[:, h], :, lags - order :] for one in lessons])
        y = np.concatenate([one.steps[one.known[:, h], h] for one in lessons])
        if len(y):
            fit = Ridge().fit(x.reshape(len(x), -1).astype(np.float64), y)
            weights[:, lags - order :, h] = fit.coef_.reshape(targets, channels, order).transpose(1, 2, 0)
            bias[h] = fit.intercept_
    return weights.reshape(channels * lags, -1), bias.ravel()
