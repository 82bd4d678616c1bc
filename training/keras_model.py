"""One network as a Keras model: kept beside the bundle for a warm start, and the yardstick of what is served."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from pipeline.core.model import Layer, Mode, Network


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


def read(model: keras.Model, *, mode: Mode, window: int, horizons: Sequence[int]) -> Network:
    """What `build` built, or what was loaded from its file, as the arrays a fit starts from."""
    recurrent = [layer for layer in model.layers if isinstance(layer, (keras.layers.LSTM, keras.layers.GRU))]
    kernel, bias = model.get_layer("head").get_weights()
    return Network(
        cell="lstm" if isinstance(recurrent[0], keras.layers.LSTM) else "gru",
        mode=mode,
        window=window,
        horizons=tuple(horizons),
        layers=tuple(
            Layer(kernel=w[None], recurrent=r[None], bias=np.atleast_2d(b)[None])
            for w, r, b in (layer.get_weights() for layer in recurrent)
        ),
        head=kernel[None],
        head_bias=bias[None, None],
    )
