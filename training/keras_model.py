"""One network as a Keras model: kept beside the bundle for a warm start, and the yardstick of what is served."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pipeline.core.model import Layer, Mode, Network
from training.backend import keras


def build(network: Network, index: int = 0) -> keras.Model:
    """Network `index` of the stack: inputs (B, T, F) -> steps (B, T, horizons * targets), from a zero start."""
    recurrent = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[network.cell]
    inputs = signal = keras.Input((None, network.inputs))
    stack = []
    for layer in network.layers:
        stack.append(recurrent(layer.recurrent.shape[1], return_sequences=True))
        signal = stack[-1](signal)
    head = keras.layers.Dense(network.head.shape[2], name="head")
    model = keras.Model(inputs, head(keras.layers.Concatenate()([signal, inputs])), name="forecaster")
    for into, layer in zip(stack, network.layers, strict=True):
        bias = layer.bias[index]
        into.set_weights([layer.kernel[index], layer.recurrent[index], bias[0] if len(bias) == 1 else bias])
    head.set_weights([network.head[index], network.head_bias[index, 0]])
    return model


def save(network: Network, path: Path) -> None:
    """Write the first network of the stack, the one a group shares, as a `.keras` file."""
    with _old_numpy_protocol():
        build(network).save(path)


def load(path: Path, *, mode: Mode, window: int, horizons: Sequence[int]) -> Network:
    """What `save` wrote, to start a fit from; a Keras file does not say how its forecaster is served."""
    with _old_numpy_protocol():
        model = keras.saving.load_model(path)
        recurrent = [layer for layer in model.layers if isinstance(layer, (keras.layers.LSTM, keras.layers.GRU))]
        layers = [layer.get_weights() for layer in recurrent]
        head, head_bias = model.get_layer("head").get_weights()
    return Network(
        cell="lstm" if isinstance(recurrent[0], keras.layers.LSTM) else "gru",
        mode=mode,
        window=window,
        horizons=tuple(horizons),
        layers=tuple(Layer(w[None], r[None], np.atleast_2d(b)[None]) for w, r, b in layers),
        head=head[None],
        head_bias=head_bias[None, None],
    )


@contextmanager
def _old_numpy_protocol() -> Iterator[None]:
    """Keras 3.15 makes arrays of its variables as numpy 1 did, of which numpy 2 warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        yield
