"""The network in training's hands: its first weights, its weights as a list, and many networks stepped as one graph.

M networks are stacked along the first axis of every weight, so that a group trains in the time of a few.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.core.model import Array, Cell, Layer, Mode, Network
from training.backend import keras, tf
from training.recurrence import LayerState, layer

GATES: dict[Cell, int] = {"lstm": 4, "gru": 3}
HEAD_SCALE = 0.1  # of Glorot's: the first forecasts are close to "no change"

NETWORKS_AT_ONCE = 64  # of one block, on a processor: blocks run side by side on its cores, and stay in its caches
State = list[LayerState]


def untrained(
    *,
    cell: Cell,
    mode: Mode,
    window: int,
    horizons: Sequence[int],
    inputs: int,
    targets: int,
    hidden: int,
    layers: int,
    seed: int,
) -> Network:
    """One network with Keras' first weights, but for the head: small, and its skip from the input zero."""
    dice = keras.random.SeedGenerator(seed)
    glorot, orthogonal = keras.initializers.GlorotUniform(dice), keras.initializers.Orthogonal(seed=dice)
    width = GATES[cell] * hidden
    bias = np.zeros((1, 1 if cell == "lstm" else 2, width), np.float32)
    if cell == "lstm":
        bias[..., hidden : 2 * hidden] = 1.0  # the forget gate starts open (Jozefowicz et al., 2015)
    head = np.zeros((1, hidden + inputs, len(horizons) * targets), np.float32)
    head[0, :hidden] = HEAD_SCALE * np.asarray(glorot((hidden, head.shape[2])))
    return Network(
        cell=cell,
        mode=mode,
        window=window,
        horizons=tuple(horizons),
        layers=tuple(
            Layer(
                kernel=np.asarray(glorot((fan_in, width)))[None],
                recurrent=np.asarray(orthogonal((hidden, width)))[None],
                bias=bias.copy(),
            )
            for fan_in in [inputs] + [hidden] * (layers - 1)
        ),
        head=head,
        head_bias=np.zeros((1, 1, head.shape[2]), np.float32),
    )


def weights(network: Network) -> list[Array]:
    """Kernel, recurrent weights and bias of each layer, then the head and its bias: Keras' order, each (M, ., .)."""
    recurrent = [w for layer in network.layers for w in (layer.kernel, layer.recurrent, layer.bias)]
    return [*recurrent, network.head, network.head_bias]


def with_weights(network: Network, arrays: Sequence[Array]) -> Network:
    """The same architecture with other weights, listed as `weights` lists them."""
    *recurrent, head, head_bias = arrays
    layers = tuple(Layer(*recurrent[k : k + 3]) for k in range(0, len(recurrent), 3))
    return replace(network, layers=layers, head=head, head_bias=head_bias)


def stack(networks: Sequence[Network]) -> Network:
    """Several networks of one architecture as one, in their order: the shared one first, then the sensors' own."""
    return with_weights(networks[0], [np.concatenate(same) for same in zip(*map(weights, networks), strict=True)])


def repeat(network: Network, count: int) -> Network:
    """One network `count` times, for as many to start from."""
    return with_weights(network, [np.repeat(w, count, axis=0) for w in weights(network)])


def zero_state(network: Network, streams: int) -> State:
    """What every stream starts from."""
    zero = tf.zeros((network.networks, streams, network.hidden))
    return [(zero, zero) if network.cell == "lstm" else (zero,) for _ in network.layers]


def forward(
    cell: Cell, variables: Sequence[tf.Variable], inputs: tf.Tensor, carry: tf.Tensor, state: State
) -> tuple[tf.Tensor, State]:
    """T steps of B streams for each of M networks, the state carried in and out.

    inputs (M, T, B, F), carry (M, T, B, 1) float: 0 where the state before the step is zero -> (M, T, B, outputs).
    """
    blocks = 1 if tf.config.list_physical_devices("GPU") else -(-len(inputs) // NETWORKS_AT_ONCE)
    if blocks == 1:
        return _forward(cell, variables, inputs, carry, state)
    sizes = [len(part) for part in np.array_split(np.arange(len(inputs)), blocks)]
    told = (list(map(tf.convert_to_tensor, variables)), inputs, carry, state)
    parts = [tf.split(tensor, sizes) for tensor in tf.nest.flatten(told)]
    one = tf.function(functools.partial(_forward, cell))  # traced once for all blocks of a size
    done = [one(*tf.nest.pack_sequence_as(told, [of[k] for of in parts])) for k in range(blocks)]
    outputs, after = tf.nest.map_structure(lambda *of: tf.concat(of, axis=0), *done)
    return outputs, after


def _forward(
    cell: Cell, variables: Sequence[tf.Tensor], inputs: tf.Tensor, carry: tf.Tensor, state: State
) -> tuple[tf.Tensor, State]:
    *recurrent, head, head_bias = variables
    carried = tf.transpose(carry, [1, 0, 2, 3])
    signal, after = inputs, []
    for depth, layer_state in enumerate(state):
        kernel, across, bias = recurrent[3 * depth : 3 * depth + 3]
        from_inputs = tf.transpose(_product(signal, kernel) + bias[:, None, :1], [1, 0, 2, 3])
        hidden, layer_state = layer(cell, from_inputs, across, bias[:, 1:], carried, layer_state)
        signal = tf.transpose(hidden, [1, 0, 2, 3])  # (M, T, B, H)
        after.append(layer_state)
    return _product(tf.concat([signal, inputs], axis=-1), head) + head_bias[:, None], after


def _product(x: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    return tf.einsum("mtbi,mio->mtbo", x, matrix)  # each network by its own weights
