"""The recurrent step against the textbook's equations, and the state rebuilt from a window."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.core.lstm import INPUT_CLIP, Forecaster, features
from pipeline.core.model import Array, Cell, Network
from tests import models

Float = npt.NDArray[np.float64]
CELLS: tuple[Cell, Cell] = ("lstm", "gru")
FIRST = np.zeros(64, np.int32)


def sigmoid(a: Float) -> Float:
    out: Float = 1 / (1 + np.exp(-a))
    return out


def textbook_step(network: Network, state: Float, x: Float) -> tuple[Float, Float]:
    """One layer, one row, float64: the equations of Hochreiter, Gers and Cho as Keras lays them out."""
    [layer] = network.layers
    kernel, recurrent, bias = (m[0].astype(np.float64) for m in (layer.kernel, layer.recurrent, layer.bias))
    size = len(recurrent)
    if network.cell == "lstm":
        h, c = state[:size], state[size:]
        i, f, g, o = np.split(x @ kernel + h @ recurrent + bias[0], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        state = np.concatenate([h, c])
    else:
        (xz, xr, xg), (hz, hr, hg) = np.split(x @ kernel + bias[0], 3), np.split(state @ recurrent + bias[1], 3)
        z, r = sigmoid(xz + hz), sigmoid(xr + hr)
        state = h = z * state + (1 - z) * np.tanh(xg + r * hg)
    return state, np.concatenate([h, x]) @ network.head[0] + network.head_bias[0, 0]


def inputs(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def walk(forecaster: Forecaster, rows: Array, which: npt.NDArray[np.int32]) -> tuple[Array, Array]:
    """State and forecast after stepping through rows (n, T, F) from zero."""
    state = np.zeros((len(rows), forecaster.state_size), np.float32)
    for t in range(rows.shape[1]):
        state, steps = forecaster.step(state, rows[:, t], which)
    return state, steps


@pytest.mark.parametrize("cell", CELLS)
def test_a_step_follows_the_equations(cell: Cell) -> None:
    network = models.network(cell=cell, hidden=5)
    forecaster, rows = Forecaster(network), inputs(1, 40, 2)
    state, served = np.zeros(forecaster.state_size), np.zeros((1, forecaster.state_size), np.float32)
    for t in range(40):
        state, expected = textbook_step(network, state, rows[0, t].astype(np.float64))
        served, steps = forecaster.step(served, rows[:, t], FIRST[:1])
        np.testing.assert_allclose(served[0], state, atol=1e-6)
        np.testing.assert_allclose(steps[0].ravel(), expected, atol=1e-6)


def test_the_network_sees_asinh_of_the_value_and_its_change_clipped() -> None:
    now, before = np.array([[0.0, np.sinh(2.0), 1e6]]), np.array([[0.0, np.sinh(-1.0), -1e6]])
    seen = features(now, before)
    assert seen.dtype == np.float32
    assert seen[0] == pytest.approx([0, 2, INPUT_CLIP, 0, 3, 2 * INPUT_CLIP], abs=1e-6)


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_a_rebuilt_state_is_that_of_stepping_through_the_last_rows(cell: Cell, layers: int, networks: int) -> None:
    forecaster = Forecaster(models.network(cell=cell, layers=layers, networks=networks))
    windows, lengths = inputs(5, 64, 2), np.array([64, 1, 0, 17, 63])
    which = np.arange(5, dtype=np.int32) % networks
    states, steps = forecaster.rebuild(windows, which, lengths)
    for row, length in enumerate(lengths.tolist()):
        if length:
            state, step = walk(forecaster, windows[row : row + 1, 64 - length :], which[row : row + 1])
            np.testing.assert_array_equal(states[row], state[0])
            np.testing.assert_array_equal(steps[row], step[0])
        else:
            assert not states[row].any()
            assert not steps[row].any()


def test_rows_before_a_window_s_length_do_not_matter() -> None:
    forecaster, windows = Forecaster(models.network()), inputs(2, 64, 2)
    spoilt = windows.copy()
    spoilt[:, :24] = 1e6
    lengths = np.array([40, 40])
    for mine, theirs in zip(
        forecaster.rebuild(windows, FIRST[:2], lengths), forecaster.rebuild(spoilt, FIRST[:2], lengths), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_each_row_is_served_by_its_own_network_and_a_shared_one_by_the_first() -> None:
    three = models.network(networks=3)
    rows, which = inputs(6, 10, 2), np.array([2, 0, 1, 2, 0, 1], np.int32)
    _, steps = walk(Forecaster(three), rows, which)
    for index in range(3):
        alone = Network(
            three.cell, three.mode, three.window, three.horizons,
            tuple(type(la)(*(w[index : index + 1] for w in (la.kernel, la.recurrent, la.bias))) for la in three.layers),
            three.head[index : index + 1], three.head_bias[index : index + 1],
        )  # fmt: skip
        _, expected = walk(Forecaster(alone), rows[which == index], FIRST[:2])
        np.testing.assert_allclose(steps[which == index], expected, atol=1e-6)


def test_a_step_changes_neither_the_state_nor_the_inputs_it_is_given() -> None:
    forecaster, rows = Forecaster(models.network()), inputs(3, 2)
    state = np.full((3, forecaster.state_size), 0.1, np.float32)
    given = state.copy(), rows.copy()
    forecaster.step(state, rows, FIRST[:3])
    np.testing.assert_array_equal(state, given[0])
    np.testing.assert_array_equal(rows, given[1])
