"""Served forecasts are those of Keras, and do not depend on what shares their batch."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tensorflow as tf

from pipeline.core.lstm import TILE, Forecaster
from pipeline.core.model import Array, Cell, Mode, Network
from training.keras_model import build, load, save
from training.network import forward, stack, untrained, weights, with_weights, zero_state

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

INPUTS, TARGETS, WINDOW = 6, 2, 64
CELLS = get_args(Cell)


def used_network(cell: Cell, layers: int, networks: int, mode: Mode = "carried") -> Network:
    """Networks with no weight at zero, as training leaves them."""
    horizons, rng = (1, 12, 48), np.random.default_rng(layers)
    fresh = [
        untrained(
            cell=cell, mode=mode, window=WINDOW, horizons=horizons, inputs=INPUTS, targets=TARGETS, hidden=32,
            layers=layers, seed=seed,
        )
        for seed in range(networks)
    ]  # fmt: skip
    group = stack(fresh)
    return with_weights(group, [w + rng.normal(scale=0.1, size=w.shape).astype(np.float32) for w in weights(group)])


def readings(*shape: int) -> Array:
    """Inputs as large as they come: |z| up to 8 and its changes."""
    return np.clip(np.random.default_rng(0).normal(scale=2, size=shape), -8, 8).astype(np.float32)


def keras_forecasts(network: Network, index: int, inputs: Array) -> Array:
    """What Keras makes of the inputs, (n, T, F) -> (n, T, horizons * targets)."""
    return np.asarray(build(network, index).predict_on_batch(inputs))


def carried(network: Network, inputs: Array, which: np.ndarray) -> Array:
    """One reading after the other, (n, T, F) -> (n, T, horizons * targets)."""
    forecaster = Forecaster(network)
    state = np.zeros((len(inputs), forecaster.state_size), np.float32)
    steps = []
    for t in range(inputs.shape[1]):
        state, step = forecaster.step(state, inputs[:, t], which)
        steps.append(step.reshape(len(inputs), -1))
    return np.stack(steps, axis=1)


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_carried_forecasts_equal_those_of_keras_over_300_readings(cell: Cell, layers: int, networks: int) -> None:
    network, inputs = used_network(cell, layers, networks), readings(6, 300, INPUTS)
    which = np.arange(6, dtype=np.int32) % networks
    served = carried(network, inputs, which)
    for index in range(networks):
        np.testing.assert_allclose(
            served[which == index], keras_forecasts(network, index, inputs[which == index]), atol=1e-5
        )


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_windowed_forecasts_equal_those_of_keras_over_the_window(cell: Cell, layers: int, networks: int) -> None:
    network, windows = used_network(cell, layers, networks, "windowed"), readings(5, WINDOW, INPUTS)
    which, lengths = np.arange(5, dtype=np.int32) % networks, np.array([WINDOW, 1, 2, 40, WINDOW])
    _, steps = Forecaster(network).rebuild(windows, which, lengths)
    for window, index, length, step in zip(windows, which, lengths, steps, strict=True):
        expected = keras_forecasts(network, int(index), window[None, -length:])[0, -1]
        np.testing.assert_allclose(step.ravel(), expected, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_training_steps_the_network_that_is_served(cell: Cell, layers: int) -> None:
    network, inputs = used_network(cell, layers, networks=3), readings(3, 50, INPUTS)
    carry = np.ones((3, 50, 1, 1), np.float32)
    trained, _ = forward(cell, weights(network), inputs[:, :, None], carry, zero_state(network, 1))
    np.testing.assert_allclose(trained[:, :, 0], carried(network, inputs, np.arange(3, dtype=np.int32)), atol=1e-5)


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_a_forecast_is_bitwise_the_same_in_any_batch(cell: Cell, networks: int) -> None:
    rows, rng = 3 * TILE + 7, np.random.default_rng(1)
    forecaster = Forecaster(used_network(cell, 2, networks))
    state = rng.uniform(-1, 1, (rows, forecaster.state_size)).astype(np.float32)
    inputs, which = readings(rows, INPUTS), rng.integers(networks, size=rows).astype(np.int32)
    all_states, all_steps = forecaster.step(state, inputs, which)
    for size in (1, 2, 17, TILE - 1, TILE, TILE + 1, rows):
        chosen = rng.permutation(rows)[:size]
        some_states, some_steps = forecaster.step(state[chosen], inputs[chosen], which[chosen])
        np.testing.assert_array_equal(some_states, all_states[chosen])
        np.testing.assert_array_equal(some_steps, all_steps[chosen])


@pytest.mark.parametrize("cell", CELLS)
def test_a_network_comes_back_from_its_keras_file(cell: Cell, tmp_path: Path) -> None:
    network = used_network(cell, 2, networks=1)
    save(network, tmp_path / "network.keras")
    again = load(tmp_path / "network.keras", mode=network.mode, window=network.window, horizons=network.horizons)
    assert (again.cell, again.mode, again.window, again.horizons) == (cell, "carried", WINDOW, (1, 12, 48))
    for mine, theirs in zip(weights(network), weights(again), strict=True):
        np.testing.assert_array_equal(mine, theirs)
