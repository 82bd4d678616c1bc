"""The recurrent forecaster in numpy: one carried step for many sensors, or the state rebuilt from a window.

Hochreiter & Schmidhuber, "Long Short-Term Memory", 1997, with the forget gate of Gers et al., 2000;
Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, for the GRU (reset after the product).

A reading's forecast must not depend on which other readings shared its batch. BLAS picks its kernel by shape, and
two kernels round differently, so a shared network runs on tiles of exactly `TILE` rows, padded with zeros, and a
sensor's own network on that sensor's row alone. The caller keeps BLAS on one thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.core.model import Array, Layer, Network

TILE = 64
Which = npt.NDArray[np.int32] | None  # the network of each row, (n,); None: all rows share the first
INPUT_CLIP = np.float32(8.0)  # asinh(x) of about 1500 robust deviations


def features(scaled: npt.NDArray[np.float64] | Array, previous: npt.NDArray[np.float64] | Array) -> Array:
    """Network input from scaled channels x and those of the reading before, (n, channels) -> (n, 2 * channels).

    The squashed value z = asinh(x), clipped, followed by its change.
    """
    z = squash(scaled)
    return np.concatenate([z, z - squash(previous)], axis=1)


def squash(scaled: npt.NDArray[np.float64] | Array) -> Array:
    """z = asinh(x), clipped to what the network is shown, as float32."""
    z = np.arcsinh(np.ascontiguousarray(scaled, dtype=np.float32))
    return np.minimum(np.maximum(z, -INPUT_CLIP, out=z), INPUT_CLIP, out=z)


class Steps(ABC):
    """What forecasts, a reading at a time: the network of the model, or what an experiment puts in its place.

    Stateless: the caller owns the state rows, (n, state_size) float32, 0 before the first reading.
    """

    state_size: int
    shape: tuple[int, int]  # horizons, targets

    @abstractmethod
    def step(self, state: Array, inputs: Array, which: npt.NDArray[np.int32]) -> tuple[Array, Array]:
        """One step: state (n, state_size), inputs (n, F), which network serves each row (n,).

        Returns the next state and the forecast steps (n, horizons, targets): z at t+h minus z at t.
        """

    def rebuild(
        self, windows: Array, which: npt.NDArray[np.int32], lengths: npt.NDArray[np.int64]
    ) -> tuple[Array, Array]:
        """State and forecast after reading the last `lengths` rows of windows (n, window, F) from a zero start."""
        n, window, _ = windows.shape
        state, steps = np.zeros((n, self.state_size), np.float32), np.zeros((n, *self.shape), np.float32)
        for t in range(window):
            live = np.flatnonzero(t >= window - lengths)
            if len(live):
                state[live], steps[live] = self.step(state[live], windows[live, t], which[live])
        return state, steps


class Forecaster(Steps):
    """Serves one `Network`."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._layers = tuple(halved(layer, network.cell) for layer in network.layers)
        self.state_size = sum(
            layer.recurrent.shape[1] * (2 if network.cell == "lstm" else 1) for layer in network.layers
        )
        self.shape = len(network.horizons), network.head.shape[2] // len(network.horizons)

    def step(self, state: Array, inputs: Array, which: npt.NDArray[np.int32]) -> tuple[Array, Array]:
        """As `Steps.step`."""
        rows = len(inputs)
        if self.network.networks > 1:  # each row has a product of its own, whatever stands beside it
            after, steps = self._advance(state, inputs, which)
            return after, steps.reshape(rows, *self.shape)
        padded = -(-max(rows, 1) // TILE) * TILE
        tiled_state = np.zeros((padded, self.state_size), np.float32)
        tiled_inputs = np.zeros((padded, inputs.shape[1]), np.float32)
        tiled_state[:rows] = state
        tiled_inputs[:rows] = inputs
        steps = np.empty((padded, self.network.head.shape[2]), np.float32)
        for start in range(0, padded, TILE):
            tile = slice(start, start + TILE)
            tiled_state[tile], steps[tile] = self._advance(tiled_state[tile], tiled_inputs[tile], None)
        return tiled_state[:rows], steps[:rows].reshape(rows, *self.shape)

    def _advance(self, state: Array, inputs: Array, which: Which) -> tuple[Array, Array]:
        lstm = self.network.cell == "lstm"
        signal, kept, at = inputs, [], 0
        for layer in self._layers:
            hidden = layer.recurrent.shape[1]
            size = 2 * hidden if lstm else hidden
            kept.append((_lstm if lstm else _gru)(layer, state[:, at : at + size], signal, which))
            signal = kept[-1][:, :hidden]
            at += size
        top = np.concatenate([signal, inputs], axis=1)
        return np.concatenate(kept, axis=1), _product(top, self.network.head, self.network.head_bias[:, 0], which)


def _product(x: Array, weights: Array, bias: Array, which: Which) -> Array:
    """x @ W + b, (rows, in) -> (rows, out); with `which`, each row by its own weights."""
    if which is None:
        shared: Array = x @ weights[0] + bias[0]
        return shared
    out: Array = np.matmul(x[:, None, :], weights[which])[:, 0] + bias[which]
    return out


def _lstm(layer: Layer, state: Array, x: Array, which: Which) -> Array:
    """(h, c) -> (h, c). One tanh for all gates: sigmoid(a) = 0.5 tanh(0.5 a) + 0.5, the inner 0.5 is in the weights."""
    size = layer.recurrent.shape[1]
    h, c = state[:, :size], state[:, size:]
    gates = np.tanh(_product(np.concatenate([x, h], axis=1), layer.kernel, layer.bias[:, 0], which))
    half = np.float32(0.5)
    i, f, g, o = (gates[:, k * size : (k + 1) * size] for k in range(4))
    c = (f * half + half) * c + (i * half + half) * g
    h = (o * half + half) * np.tanh(c)
    return np.concatenate([h, c], axis=1)


def _gru(layer: Layer, state: Array, x: Array, which: Which) -> Array:
    """h -> h, Keras' reset_after form; z and r by the same halved tanh."""
    size = layer.recurrent.shape[1]
    from_x = _product(x, layer.kernel, layer.bias[:, 0], which)
    from_h = _product(state, layer.recurrent, layer.bias[:, 1], which)
    half = np.float32(0.5)
    zr = np.tanh(from_x[:, : 2 * size] + from_h[:, : 2 * size]) * half + half
    z, r = zr[:, :size], zr[:, size:]
    candidate = np.tanh(from_x[:, 2 * size :] + r * from_h[:, 2 * size :])
    out: Array = z * state + (np.float32(1) - z) * candidate
    return out


def halved(layer: Layer, cell: str) -> Layer:
    """Fold the sigmoid's 0.5 into its columns; an LSTM's two matrices become one, so that a step is one product."""
    size = layer.recurrent.shape[1]
    scale = np.full(layer.recurrent.shape[2], 0.5, np.float32)
    tanh_gate = slice(2 * size, 3 * size)  # LSTM: c of i, f, c, o; GRU: h of z, r, h
    scale[tanh_gate] = 1.0
    kernel, recurrent = layer.kernel * scale, layer.recurrent * scale
    if cell == "lstm":
        kernel = np.concatenate([kernel, recurrent], axis=1)
    return replace(layer, kernel=kernel, recurrent=recurrent, bias=layer.bias * scale)
