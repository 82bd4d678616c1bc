"""One step of the forecaster: `core.lstm` for one row, in a fixed order of additions."""

from __future__ import annotations

import numpy as np

from pipeline.core.lstm import INPUT_CLIP
from pipeline.core.model import Array
from pipeline.fast.compile import compiled
from pipeline.fast.state import Net, Scratch

ONE, HALF, LARGEST = np.float32(1), np.float32(0.5), np.float32(7.9)  # there tanh is 1 in a float32
# odd polynomial over even polynomial, in float32 within 3e-7 of tanh
P1, P3, P5 = np.float32(4.89352455891786e-03), np.float32(6.37261928875436e-04), np.float32(1.48572235717979e-05)
P7, P9 = np.float32(5.12229709037114e-08), np.float32(-8.60467152213735e-11)
P11, P13 = np.float32(2.00018790482477e-13), np.float32(-2.76076847742355e-16)
Q0, Q2 = np.float32(4.89352518554385e-03), np.float32(2.26843463243900e-03)
Q4, Q6 = np.float32(1.18534705686654e-04), np.float32(1.19825839466702e-06)


@compiled
def tanh(a: np.float32) -> np.float32:
    """By arithmetic alone, so that a loop over gates takes eight of them at a time."""
    x = min(max(a, -LARGEST), LARGEST)
    s = x * x
    odd = x * (P1 + s * (P3 + s * (P5 + s * (P7 + s * (P9 + s * (P11 + s * P13))))))
    return odd / (Q0 + s * (Q2 + s * (Q4 + s * Q6)))


@compiled
def squash(x: np.float32) -> np.float32:
    """As `core.lstm.squash`."""
    return np.float32(min(max(np.arcsinh(x), -INPUT_CLIP), INPUT_CLIP))


@compiled
def step(net: Net, which: int, carried: Array, scratch: Scratch) -> None:
    """Move a row's state (h, c) by one reading, and leave its forecast steps in `scratch.steps`."""
    inputs, gates, steps = scratch.inputs, scratch.gates, scratch.steps
    channels, hidden = len(scratch.x), len(carried) // 2
    for c in range(channels):
        z = squash(scratch.x[c])
        inputs[c] = z
        inputs[channels + c] = z - squash(scratch.before[c])
    for k in range(hidden):
        inputs[2 * channels + k] = carried[k]
    product(inputs, net.kernel[which], net.bias[which], gates)
    for j in range(4 * hidden):
        gates[j] = tanh(gates[j])
    for k in range(hidden):
        i, f = gates[k] * HALF + HALF, gates[hidden + k] * HALF + HALF
        c = f * carried[hidden + k] + i * gates[2 * hidden + k]
        carried[hidden + k] = c
        carried[k] = (gates[3 * hidden + k] * HALF + HALF) * tanh(c)
    head = net.head[which]
    for o in range(len(steps)):
        steps[o] = net.head_bias[which, o]
    for k in range(hidden):
        for o in range(len(steps)):
            steps[o] += carried[k] * head[k, o]
    for k in range(2 * channels):
        for o in range(len(steps)):
            steps[o] += inputs[k] * head[hidden + k, o]


@compiled
def product(x: Array, weights: Array, bias: Array, out: Array) -> None:
    """x @ weights + bias, (k,) @ (k, n) -> (n,): four rows of the weights at a time, vectorised over n."""
    n = len(out)
    for j in range(n):
        out[j] = bias[j]
    whole = len(x) // 4 * 4
    for k in range(0, whole, 4):
        a, b, c, d = x[k], x[k + 1], x[k + 2], x[k + 3]
        for j in range(n):
            out[j] += a * weights[k, j] + b * weights[k + 1, j] + c * weights[k + 2, j] + d * weights[k + 3, j]
    for k in range(whole, len(x)):
        for j in range(n):
            out[j] += x[k] * weights[k, j]
