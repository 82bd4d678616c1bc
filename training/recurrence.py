"""Recurrent layers over T steps of B streams for M networks at once, time first: (T, M, B, ...).

The LSTM's slopes are written out (Werbos, "Backpropagation through time: what it does and how to do it", 1990). Left to
automatic differentiation, every step adds a matrix of its own to the slope of the recurrent weights, of every network;
here they are one product at the end, and a batch costs about half of the processor time.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.core.model import Cell
from training.backend import tf

LayerState = tuple[tf.Tensor, ...]  # (h, c) for LSTM, (h,) for GRU, each (M, B, H)
Backward = Callable[..., tuple[tf.Tensor, tf.Tensor, None, tf.Tensor, tf.Tensor]]


def layer(
    cell: Cell, from_inputs: tf.Tensor, across: tf.Tensor, bias: tf.Tensor, carry: tf.Tensor, state: LayerState
) -> tuple[tf.Tensor, LayerState]:
    """One layer: the inputs' part of the gates (T, M, B, gates * H) -> h of each step (T, M, B, H), state behind it.

    across (M, H, gates * H); bias (M, B or 1, gates * H) of the recurrent part, which an LSTM does not have;
    carry (T, M, B, 1): 0 where the state before the step is zero.
    """
    if cell == "lstm":
        hidden, *after = _lstm(from_inputs, across, carry, *state)
        return hidden, tuple(after)
    return _gru(from_inputs, across, bias, carry, state)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _lstm(
    from_inputs: tf.Tensor, across: tf.Tensor, carry: tf.Tensor, h: tf.Tensor, c: tf.Tensor
) -> tuple[tuple[tf.Tensor, ...], Backward]:
    """h of each step, the last h and the last c; and how slopes come back through them."""
    before, gates, hidden = [], [], []  # what each step began with, its gates and tanh(c), what it ended with
    keeps = tf.unstack(carry)
    for from_input, keep in zip(tf.unstack(from_inputs), keeps, strict=True):
        h, c = h * keep, c * keep
        before.append((h, c))
        i, f, g, o = tf.split(from_input + tf.matmul(h, across), 4, axis=-1)
        i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
        c = f * c + i * g
        squashed = tf.tanh(c)
        h = o * squashed
        gates.append((i, f, g, o, squashed))
        hidden.append(h)

    def backward(
        d_hidden: tf.Tensor, d_h: tf.Tensor, d_c: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, None, tf.Tensor, tf.Tensor]:
        d_gates: list[tf.Tensor] = []
        steps = zip(before, gates, keeps, tf.unstack(d_hidden), strict=True)
        for (_, c_before), (i, f, g, o, squashed), keep, d_said in reversed(list(steps)):
            d_h += d_said
            d_c += d_h * o * (1 - squashed * squashed)
            parts = (
                d_c * g * i * (1 - i), d_c * c_before * f * (1 - f), d_c * i * (1 - g * g), d_h * squashed * o * (1 - o)
            )  # fmt: skip
            d_gates.append(tf.concat(parts, axis=-1))
            d_h = tf.matmul(d_gates[-1], across, transpose_b=True) * keep
            d_c = d_c * f * keep
        d_gates.reverse()
        rows = tf.concat([h for h, _ in before], axis=1)  # (M, T * B, H)
        d_across = tf.matmul(rows, tf.concat(d_gates, axis=1), transpose_a=True)
        return tf.stack(d_gates), d_across, None, d_h, d_c

    return (tf.stack(hidden), h, c), backward


def _gru(
    from_inputs: tf.Tensor, across: tf.Tensor, bias: tf.Tensor, carry: tf.Tensor, state: LayerState
) -> tuple[tf.Tensor, LayerState]:
    """Reset after the product, as in Keras; its slopes are left to automatic differentiation."""
    (h,) = state
    hidden = []
    for from_input, keep in zip(tf.unstack(from_inputs), tf.unstack(carry), strict=True):
        h *= keep
        input_z, input_r, input_h = tf.split(from_input, 3, axis=-1)
        hidden_z, hidden_r, hidden_h = tf.split(tf.matmul(h, across) + bias, 3, axis=-1)
        z = tf.sigmoid(input_z + hidden_z)
        h = z * h + (1 - z) * tf.tanh(input_h + tf.sigmoid(input_r + hidden_r) * hidden_h)
        hidden.append(h)
    return tf.stack(hidden), (h,)
