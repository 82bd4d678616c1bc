"""The recurrent layers in training's hands: the written-out slopes are the derivatives, blocks change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from pipeline.core.model import Cell
from training import network
from training.network import forward, repeat, untrained, weights
from training.recurrence import layer


def test_the_written_out_slopes_of_an_lstm_are_those_of_finite_differences_across_restarts() -> None:
    rng = np.random.default_rng(0)
    steps, networks, streams, hidden = 5, 2, 3, 4
    told = [
        tf.constant(rng.normal(size=shape), tf.float64)
        for shape in (
            (steps, networks, streams, 4 * hidden), (networks, hidden, 4 * hidden),
            (networks, streams, hidden), (networks, streams, hidden),
        )
    ]  # fmt: skip
    carry = tf.constant(rng.random((steps, networks, streams, 1)) > 0.3, tf.float64)
    weigh = [tf.constant(rng.normal(size=shape)) for shape in ((steps, *told[2].shape), told[2].shape, told[2].shape)]

    def said(inputs: tf.Tensor, across: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> tf.Tensor:
        everything, after = layer("lstm", inputs, across, tf.zeros(()), carry, (h, c))
        return sum(tf.reduce_sum(w * x) for w, x in zip(weigh, (everything, *after), strict=True))

    with tf.GradientTape() as tape:
        tape.watch(told)
        total = said(*told)
    slopes = tape.gradient(total, told)
    for which, slope in enumerate(slopes):
        for place in rng.integers(tf.size(slope), size=8).tolist():
            nudge = np.zeros(int(tf.size(slope)))
            nudge[place] = 1e-6
            up, down = (
                said(*[x + sign * nudge.reshape(x.shape) if k == which else x for k, x in enumerate(told)])
                for sign in (1, -1)
            )
            assert np.ravel(slope)[place] == pytest.approx(float(up - down) / 2e-6, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_networks_that_run_in_blocks_say_what_they_say_at_once(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    one = untrained(
        cell=cell, mode="carried", window=8, horizons=(1,), inputs=2, targets=1, hidden=4, layers=2, seed=0
    )  # fmt: skip
    many = repeat(one, 5)
    rng = np.random.default_rng(0)
    variables = [tf.Variable(w + rng.normal(scale=0.1, size=w.shape).astype(np.float32)) for w in weights(many)]
    inputs = tf.constant(rng.normal(size=(5, 6, 3, 2)), tf.float32)
    carry = tf.constant(rng.random((5, 6, 3, 1)) > 0.2, tf.float32)

    def run() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            said, after = forward(cell, variables, inputs, carry, network.zero_state(many, 3))
            total = tf.reduce_sum(said**2)
        return [*tf.nest.flatten((said, after)), *tape.gradient(total, variables)]

    at_once = run()
    monkeypatch.setattr(network, "NETWORKS_AT_ONCE", 2)
    for mine, theirs in zip(run(), at_once, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
