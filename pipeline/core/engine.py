"""One step of the forecaster and the score for distinct sensors: windows, forecasts, features, tails, score.

Live, replay, evaluation and calibration all come through `Engine.advance`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core import episodes, imputed, scoring
from pipeline.core import features as reading_features
from pipeline.core.features import Lanes
from pipeline.core.lstm import Forecaster, Steps, features, squash
from pipeline.core.model import Array, Model
from pipeline.core.novelty import MEMORY_DELAY
from pipeline.core.readings import BoolArray, FloatArray
from pipeline.core.scoring import Weights
from pipeline.core.table import UNSEEN, Columns, Count, Lane, Level, Tally

SETTLING = 50  # readings after a start or a gap in which no score may exceed SETTLING_SCORE
SETTLING_SCORE = 1.0
LARGEST_FORECAST = np.float32(14.0)  # in asinh(x): 600,000 robust deviations
TRUST_RATE = np.float32(0.03)
FIRST_TRUST = np.float32(0.01)  # squared steps in asinh(x) that an unseen sensor's network is granted to begin with


class Step(NamedTuple):
    """What `advance` saw, one row a sensor."""

    scores: FloatArray  # (n,)
    voices: Array  # (n, targets) each channel's surprise
    expected: Array  # (n, targets) one-step forecast of x, NaN where there was none
    usual_error: Array  # (n, targets) the error 95 % of readings stay below, in x


class Engine:
    """Moves table rows by one reading. Owns no state."""

    def __init__(self, model: Model, weights: Weights | None = None, forecaster: Steps | None = None) -> None:
        self.model = model
        self.weights = weights or Weights()
        self.forecaster = forecaster or Forecaster(model.network)
        self.targets = model.target_columns
        self.window = model.network.window
        self.horizons = np.array(model.network.horizons, np.int64)
        self._slots = np.concatenate([[0], np.cumsum(self.horizons)[:-1]])

    def advance(
        self, arrays: Columns, rows: npt.NDArray[np.intp], x: Array, present: BoolArray, learns: BoolArray
    ) -> Step:
        """Score, then learn, scaled values x (n, channels) of distinct rows; `present` (n, channels) has a value.

        What is missing is filled with its forecast, or the last value, so that the window has no hole, and is never
        learned. The error of the first value after missing ones is spread over the steps it took to come.
        """
        n, targets = len(rows), len(self.targets)
        count, level = arrays.count, arrays.level
        seen = count[rows, Count.SEEN].astype(np.int64)
        since = count[rows, Count.SINCE].astype(np.int64)
        slots = self._slots + seen[:, None] % self.horizons  # (n, horizons)
        due = arrays.forecast.transpose(0, 2, 1)[rows[:, None], slots]  # (n, horizons, targets)
        bounded = np.minimum(np.maximum(np.ascontiguousarray(due), -LARGEST_FORECAST), LARGEST_FORECAST)
        forecast = np.sinh(bounded)
        forecast[:, 0] += arrays.lane[rows, :, Lane.OFFSET]
        made = since[:, None] >= self.horizons  # (n, horizons)

        window = arrays.window
        before = np.where((seen > 0)[:, None], window[rows, (seen - 1) % self.window], x)
        filled = before.copy()
        filled[:, self.targets] = np.where(made[:, :1], forecast[:, 0], before[:, self.targets])
        x = np.where(present, x, np.where(np.isfinite(filled), filled, np.float32(0)))
        before = np.where((seen > 0)[:, None], before, x)
        then = window[rows, (seen - MEMORY_DELAY) % self.window][:, self.targets]
        window[rows, seen % self.window] = x

        values, here = x[:, self.targets], present[:, self.targets]
        at = np.flatnonzero(here)
        sensor = at // max(targets, 1)
        steps_taken, then_came = self._fill(arrays, rows, seen, here)
        on = Lanes(
            at,
            (rows[:, None] * targets + np.arange(targets)).ravel()[at],
            seen[sensor],
            count[rows[sensor], Count.LEARNED],
            learns[sensor],
            count[rows[sensor], Count.FITTED] == UNSEEN,
            np.flatnonzero(then_came.ravel()[at]),
        )
        unseen = np.flatnonzero(count[rows, Count.FITTED] == UNSEEN)
        if len(unseen):
            seen_through = here[unseen] & made[unseen, :1] & (steps_taken[unseen] == 1)
            moved = squash(values[unseen]) - squash(before[unseen][:, self.targets])
            _earn(arrays.lane, rows[unseen], moved, seen_through)
        usual_error = np.exp(np.ascontiguousarray(arrays.lane[rows, :, Lane.LOG_ERROR]))
        errors = (values[:, None, :] - forecast).transpose(1, 0, 2).reshape(len(self.horizons), -1)[:, at]
        errors[0] /= steps_taken.ravel()[at]
        seen_features = reading_features.features(
            arrays, on, values.ravel()[at], then.ravel()[at], np.ascontiguousarray(errors), made.T[:, sensor], targets
        )
        surprise, voices = scoring.combine(arrays, on, seen_features, n, targets, self.weights)
        scores = episodes.score(surprise, level[rows, Level.USUAL], level[rows, Level.EXCESS])
        scores = np.where(since < SETTLING, np.minimum(scores, SETTLING_SCORE), scores)

        episodes.learn(arrays, rows[learns], surprise[learns])
        state, steps = self._forecast(arrays, rows, seen, x, before)
        arrays.carried[rows] = state
        if len(unseen):
            steps[unseen] = _entrusted(arrays.lane, rows[unseen], steps[unseen])
        ahead = squash(values)[:, None, :] + steps  # (n, horizons, targets)
        arrays.forecast.transpose(0, 2, 1)[rows[:, None], slots] = ahead
        count[rows, Count.SEEN] += 1
        count[rows, Count.SINCE] += 1
        count[rows[learns], Count.LEARNED] += 1
        expected = np.where(made[:, :1], forecast[:, 0], np.float32(np.nan))
        return Step(scores, voices, expected, usual_error)

    def _fill(
        self, arrays: Columns, rows: npt.NDArray[np.intp], seen: npt.NDArray[np.int64], here: BoolArray
    ) -> tuple[Array, BoolArray]:
        """Mark what is missing now, where `here` is not.

        How many steps each value (n, targets) took to come, and whether the one MEMORY_DELAY readings ago did come.
        """
        taken, came = np.ones(here.shape, np.float32), np.repeat((seen >= MEMORY_DELAY)[:, None], here.shape[1], axis=1)
        holes = np.flatnonzero((arrays.count[rows, Count.FILLED] > 0) | ~here.all(axis=1))
        if len(holes):
            sparse, present = rows[holes], here[holes]
            came[holes] &= ~imputed.marked(arrays, sparse, (seen[holes] - MEMORY_DELAY) % self.window)
            imputed.mark(arrays, sparse, seen[holes] % self.window, ~present)
            missed = arrays.tally[sparse, :, Tally.MISSED]
            taken[holes] = missed + 1
            arrays.tally[sparse, :, Tally.MISSED] = np.where(present, 0, missed + 1)
        return taken, came

    def _forecast(
        self, arrays: Columns, rows: npt.NDArray[np.intp], seen: npt.NDArray[np.int64], x: Array, before: Array
    ) -> tuple[Array, Array]:
        """The next state and the forecast steps: carried, or rebuilt from the rolling window at every reading."""
        which = arrays.count[rows, Count.NETWORK]
        if self.model.network.mode == "carried":
            return self.forecaster.step(arrays.carried[rows], features(x, before), which)
        order = (seen[:, None] + 1 + np.arange(self.window)) % self.window  # oldest first; the newest is x itself
        windows = arrays.window[rows[:, None], order]
        lengths = np.minimum(seen + 1, self.window)
        return self.forecaster.rebuild(window_features(windows, lengths), which, lengths)


def _earn(lane: Array, rows: npt.NDArray[np.intp], moved: Array, present: BoolArray) -> None:
    """Compare the step that was forecast with the one that came, in asinh(x), (n, targets)."""
    state = lane[rows]
    step = state[..., Lane.STEP]
    agreed, size = state[..., Lane.MOVED], state[..., Lane.STEPPED]
    agreed += np.where(present, TRUST_RATE * (step * moved - agreed), np.float32(0))
    size += np.where(present, TRUST_RATE * (step * step - size), np.float32(0))
    lane[rows] = state


def _entrusted(lane: Array, rows: npt.NDArray[np.intp], steps: Array) -> Array:
    """Forecast steps (n, horizons, targets) cut down to the share of them that has come true lately.

    A network that never saw a sensor can be wrong about it for good, far outside the range it was trained on; its
    least-squares gain, between 0 (the last value) and 1 (the network's word), is what it has earned there.
    Widrow & Hoff, "Adaptive switching circuits", 1960, with exponential forgetting.
    """
    lane[rows, :, Lane.STEP] = steps[:, 0]
    gain = lane[rows, :, Lane.MOVED] / np.maximum(lane[rows, :, Lane.STEPPED], np.float32(1e-9))
    earned: Array = (steps * np.clip(gain, 0, 1)[:, None]).astype(np.float32)
    return earned


def window_features(windows: Array, lengths: npt.NDArray[np.int64]) -> Array:
    """Network inputs of whole windows (n, window, channels), whose last `lengths` rows count; the first change is 0."""
    n, window, channels = windows.shape
    before = np.concatenate([windows[:, :1], windows[:, :-1]], axis=1)
    first = window - lengths
    before[np.arange(n), first] = windows[np.arange(n), first]
    return features(windows.reshape(-1, channels), before.reshape(-1, channels)).reshape(n, window, -1)
