"""What a forecast must beat: no change at all, and a ridge regression on the last readings; all in the same steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.linear_model import Ridge

from pipeline.core.lstm import Forecaster, squash
from pipeline.core.model import Array, Network
from pipeline.core.readings import BoolArray, FloatArray
from training.sequences import Sequences, network_inputs, steps_ahead

Errors = FloatArray  # (horizons,) mean squared error of the steps in z, NaN where none is known
Trial = tuple[
    Array, Array, BoolArray
]  # a segment's forecast steps, true steps (T, horizons, targets), known (T, horizons)
Lesson = tuple[Array, Array, BoolArray]  # a segment's last readings (T, channels, lags), true steps, known

AR_LAGS = 64  # of a sensor with one channel
VAR_LAGS = 4  # of one with many
ROWS_PER_LAG = 10  # at least: a short history gets fewer lags
RIDGE_ROWS = 20_000  # evenly drawn from a longer history
WINDOWS_AT_ONCE = 1024  # rebuilt together in windowed mode; bounds the memory


def evaluate_baselines(train: Sequences, validation: Sequences, horizons: Sequence[int]) -> dict[str, Errors]:
    """Error of each baseline on the validation rows, fitted to the same sensor's training rows."""
    lags, name = (AR_LAGS, "AR ridge") if train.channels == 1 else (VAR_LAGS, "VAR ridge")
    return {
        "last value": mean_squares(_last_value(validation, horizons), len(horizons)),
        name: mean_squares(_ridge(train, validation, horizons, lags), len(horizons)),
    }


def forecast_error(network: Network, validation: Sequences, which: npt.NDArray[np.int32]) -> Errors:
    """Error of the network on the same rows, as it will be served; `which` of its M serves each sensor, (sensors,)."""
    return mean_squares(served(network, validation, which), len(network.horizons))


def mean_squares(trials: Iterable[Trial], horizons: int) -> Errors:
    """Over the rows that are known and the targets, for each horizon."""
    total, count = np.zeros(horizons), np.zeros(horizons)
    for forecast, steps, known in trials:
        missed = np.square(forecast - steps, dtype=np.float64).mean(axis=2)  # (T, horizons)
        total += np.where(known, missed, 0.0).sum(axis=0)
        count += known.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _last_value(validation: Sequences, horizons: Sequence[int]) -> Iterator[Trial]:
    for segment in validation.segments():
        steps, known = steps_ahead(segment, validation.target_columns, horizons)
        yield np.zeros_like(steps), steps, known


def _ridge(train: Sequences, validation: Sequences, horizons: Sequence[int], lags: int) -> Iterator[Trial]:
    """A regression for each sensor and horizon: direct forecasts, as the network's are."""
    for seen, held, rows in zip(train.sensors, validation.sensors, train.rows, strict=True):
        order = int(np.clip(rows // ROWS_PER_LAG, 1, lags))
        every = -(-int(rows) // RIDGE_ROWS) or 1
        taught = [_lesson(segment, train.target_columns, horizons, order, every) for segment in seen]
        models = [_fit_ridge(taught, k) for k in range(len(horizons))]
        for segment in held:
            steps, known = steps_ahead(segment, validation.target_columns, horizons)
            forecast = np.zeros_like(steps)
            for k, model in enumerate(models):
                if model is not None:
                    forecast[:, k] = model.predict(_flat(_lagged(segment, order))).reshape(len(segment), -1)
            yield forecast, steps, known


def _lesson(segment: Array, targets: npt.NDArray[np.intp], horizons: Sequence[int], order: int, every: int) -> Lesson:
    """Every so many rows of a segment: what was read, the steps that followed, and which are known."""
    steps, known = steps_ahead(segment, targets, horizons)
    return _lagged(segment, order)[::every], steps[::every], known[::every]


def _fit_ridge(taught: Sequence[Lesson], horizon: int) -> Ridge | None:
    """None where no training row sees that far ahead."""
    x = [_flat(lagged[known[:, horizon]]) for lagged, _, known in taught]
    y = [steps[known[:, horizon], horizon] for _, steps, known in taught]
    return Ridge().fit(np.concatenate(x), np.concatenate(y)) if sum(map(len, y)) else None


def _lagged(segment: Array, order: int) -> Array:
    """A view of the last `order` readings at each row, (T, channels, order); before the first there was the first."""
    z = squash(segment)
    return sliding_window_view(np.concatenate([np.repeat(z[:1], order - 1, axis=0), z]), order, axis=0)


def _flat(lagged: Array) -> FloatArray:
    rows, channels, order = lagged.shape
    return lagged.reshape(rows, channels * order).astype(np.float64)


def served(network: Network, validation: Sequences, which: npt.NDArray[np.int32]) -> Iterator[Trial]:
    """What the network forecasts on each segment, as it will be served; `which` network for each sensor, (sensors,)."""
    forecast = _carried if network.mode == "carried" else _windowed
    inputs = [network_inputs(segment) for segment in validation.segments()]
    by = np.repeat(which, [len(segments) for segments in validation.sensors]).astype(np.int32)
    for segment, steps_forecast in zip(validation.segments(), forecast(network, inputs, by), strict=True):
        steps, known = steps_ahead(segment, validation.target_columns, network.horizons)
        yield steps_forecast, steps, known


def _carried(network: Network, inputs: Sequence[Array], which: npt.NDArray[np.int32]) -> list[Array]:
    """All segments side by side, the longest first, so that those still running are always the first rows."""
    forecaster = Forecaster(network)
    lengths = np.array([len(x) for x in inputs])
    order = np.argsort(-lengths, kind="stable")
    horizons = len(network.horizons)
    forecasts = [np.empty((n, horizons, network.head.shape[2] // horizons), np.float32) for n in lengths]
    state = np.zeros((len(inputs), forecaster.state_size), np.float32)
    for t in range(max(lengths, default=0)):
        live = order[: np.count_nonzero(lengths > t)]
        state[live], steps = forecaster.step(state[live], np.stack([inputs[i][t] for i in live]), which[live])
        for i, step in zip(live, steps, strict=True):
            forecasts[i][t] = step
    return forecasts


def _windowed(network: Network, inputs: Sequence[Array], which: npt.NDArray[np.int32]) -> list[Array]:
    """Each forecast from the window that ends at its reading; the first ones have less to read."""
    forecaster, forecasts = Forecaster(network), []
    for x, network_index in zip(inputs, which, strict=True):
        before = np.zeros((network.window - 1, x.shape[1]), np.float32)
        windows = sliding_window_view(np.concatenate([before, x]), network.window, axis=0).swapaxes(1, 2)
        lengths = np.minimum(np.arange(len(x)) + 1, network.window)
        steps = [
            forecaster.rebuild(windows[rows], np.full(len(windows[rows]), network_index, np.int32), lengths[rows])[1]
            for rows in (slice(at, at + WINDOWS_AT_ONCE) for at in range(0, len(x), WINDOWS_AT_ONCE))
        ]
        forecasts.append(np.concatenate(steps))
    return forecasts
