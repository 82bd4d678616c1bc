"""Fits the forecaster: back-propagation through time, truncated, over streams that carry their state.

Williams & Peng, "An efficient gradient-based algorithm for on-line training of recurrent networks", 1990.
All networks of a group are one graph and one sum of losses; what one learns depends on no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from pipeline.core.model import Array, Cell, Mode, Network
from pipeline.core.readings import IntArray
from training.backend import keras, tf
from training.network import State, forward, repeat, untrained, weights, with_weights, zero_state
from training.sequences import Batch, Sequences, Tapes, endless

UNROLL = 32  # readings a gradient reaches back
WINDOWED_UNROLL = 64  # at most; there the state is only ever a window old
HUBER_DELTA = 2.0  # in z: beyond it an error pulls no harder
ROWS_PER_STREAM = 1000  # of a sensor, which has 4 to 16: short series overfit with more, long ones gain (SMD: 5 %)
MOST_STREAMS = 128  # of one network
VALIDATION_STREAMS = 64  # of all networks together
VALIDATION_ROWS = 1024  # of one stream
SETTLING = 128  # readings after a zero start until the forecast is that of a long memory (median 104 to 127)

Progress = Callable[[int, int, float, float | None], None]  # update, updates, loss, validation loss where measured


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How to fit; the defaults are the ones measured on the public sets."""

    cell: Cell = "lstm"
    hidden: int = 32
    layers: int = 1
    horizons: tuple[int, ...] = (1, 12, 48)  # steps ahead
    mode: Mode = "carried"
    window: int = 256  # readings the state is rebuilt from
    weights: Literal["shared", "own"] = "shared"
    updates: int | None = None  # None: from the rows, see `updates_for`
    learning_rate: float = 5e-3  # falls to zero along a cosine
    clipnorm: float = 1.0  # for each variable of each network, as Keras' clipnorm
    restarts: float = 0.05  # share of the streams that start from zero at an update
    validate_every: int = 25  # updates
    patience: int = 150  # updates without a better validation loss
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cell not in get_args(Cell):
            raise ValueError(
                f"cell must be lstm or gru, not {self.cell!r}; a bidirectional network reads the future, "
                "which a live stream does not have"
            )
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode must be carried or windowed, not {self.mode!r}")
        if not 1 <= self.layers <= 3:
            raise ValueError(f"layers must be 1, 2 or 3, not {self.layers}")
        if self.horizons[:1] != (1,) or sorted(set(self.horizons)) != list(self.horizons):
            raise ValueError(f"horizons must rise from 1, as 1,12,48 does, not {self.horizons}")
        if self.updates is not None and self.updates < 1:
            raise ValueError(f"updates must be at least 1, not {self.updates}")
        for name in ("hidden", "window", "validate_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def rebuilt_from(self) -> int | None:
        """Readings after which a stream starts from zero: those of a window, or None where state is carried on."""
        return self.window if self.mode == "windowed" else None

    @property
    def unroll(self) -> int:
        """Readings of a batch; a window is a whole number of them."""
        return UNROLL if self.mode == "carried" else -(-self.window // -(-self.window // WINDOWED_UNROLL))

    def updates_for(self, rows_per_sensor: float) -> int:
        """More updates overfit short series: 150 were best at 1500 rows, 700 at 7000 and more."""
        return self.updates if self.updates is not None else int(np.clip(rows_per_sensor / 10, 150, 700))


@dataclass(frozen=True, slots=True, eq=False)
class FitResult:
    """The networks at their best, and how they got there."""

    network: Network
    loss: Array  # (updates, M) training loss
    measured_at: IntArray  # (measures,) updates behind each validation
    validation: Array  # (measures, M); NaN where a network has no validation rows
    best_update: IntArray  # (M,) whose weights were kept


def fit(
    train: Sequences,
    validation: Sequences | None,
    settings: FitSettings,
    initial: Network | None = None,
    on_update: Progress | None = None,
) -> FitResult:
    """Fit one network to all sensors, or one to each; `initial` is what to start from instead of chance.

    With validation rows each network keeps the weights that forecast them best, its first ones among them, and the
    fit ends when none has improved for `patience` updates. A network without any keeps its last weights.
    """
    if not train.rows.any():
        raise ValueError("there are no readings to fit a network to")
    own = settings.weights == "own"
    tapes = Tapes.lay(train, settings.horizons, own)
    held = Tapes.lay(validation, settings.horizons, own) if validation is not None and validation.rows.any() else None
    network = _start(tapes, settings, initial)
    updates = settings.updates_for(float(train.rows.mean()))
    streams = _streams(train, own)

    variables = [tf.Variable(w) for w in weights(network)]
    adam = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(settings.learning_rate, updates))
    adam.build(variables)

    def learn(batch: Batch, state: State) -> tuple[tf.Tensor, State]:
        slopes, loss, state = gradients(network.cell, variables, batch, state, settings.clipnorm)
        adam.apply(slopes, variables)
        return loss, state

    def judge(batch: Batch, state: State) -> tuple[tf.Tensor, tf.Tensor, State]:
        return errors(network.cell, variables, batch, state)

    learn_graph, judge_graph = tf.function(learn), tf.function(judge)
    best = weights(network)
    best_loss = _validation_loss(judge_graph, network, held, settings)
    best_update = np.zeros(len(best_loss), np.int64)
    unmeasured, improving = np.isnan(best_loss), np.ones(len(best_loss), bool)
    losses, measures = [], [(0, best_loss)]
    state = zero_state(network, streams)
    batches = endless(tapes, streams, settings.unroll, settings.seed, settings.restarts, settings.rebuilt_from)
    for update in range(1, updates + 1):
        loss, state = learn_graph(next(batches), state)
        losses.append(loss.numpy())
        if due := update % settings.validate_every == 0 or update == updates:
            measured = _validation_loss(judge_graph, network, held, settings)
            measures.append((update, measured))
            better = improving & (unmeasured | (measured < best_loss))
            best = [np.where(better[:, None, None], v.numpy(), w) for v, w in zip(variables, best, strict=True)]
            best_loss = np.where(better, measured, best_loss)
            best_update = np.where(better, update, best_update)
            improving &= update - best_update < settings.patience  # one that stopped keeps what it had
        if on_update is not None:
            on_update(update, updates, float(losses[-1].mean()), _mean(measured) if due else None)
        if not improving.any():
            break

    return FitResult(
        network=with_weights(network, best),
        loss=np.stack(losses),
        measured_at=np.array([at for at, _ in measures]),
        validation=np.stack([loss for _, loss in measures]),
        best_update=best_update,
    )


def errors(
    cell: Cell, variables: Sequence[tf.Variable], batch: Batch, state: State
) -> tuple[tf.Tensor, tf.Tensor, State]:
    """Huber's loss summed over what counts, how much that is, each (M,), and the state after the batch."""
    carry = tf.cast(batch.carry, tf.float32)[..., None]  # (M, T, B, 1)
    known = tf.cast(batch.known, tf.float32)[..., None]  # (M, T, B, horizons, 1)
    forecast, state = forward(cell, variables, tf.convert_to_tensor(batch.inputs), carry, state)
    miss = tf.abs(tf.reshape(forecast, tf.shape(batch.steps)) - batch.steps)  # (M, T, B, horizons, targets)
    near = tf.minimum(miss, HUBER_DELTA)
    lost = tf.reduce_sum(known * near * (miss - near / 2), axis=[1, 2, 3, 4])
    return lost, tf.reduce_sum(known, axis=[1, 2, 3, 4]) * batch.steps.shape[-1], state


def gradients(
    cell: Cell, variables: Sequence[tf.Variable], batch: Batch, state: State, clipnorm: float
) -> tuple[list[tf.Tensor], tf.Tensor, State]:
    """Slope of each network's mean loss by its own weights, no longer than `clipnorm` in any variable; losses (M,)."""
    with tf.GradientTape() as tape:
        lost, counted, state = errors(cell, variables, batch, state)
        loss = lost / tf.maximum(counted, 1.0)
        total = tf.reduce_sum(loss)  # a network's weights touch its own term alone
    slopes = tape.gradient(total, variables)
    return [tf.clip_by_norm(slope, clipnorm, axes=[1, 2]) for slope in slopes], loss, state


def _streams(train: Sequences, own: bool) -> int:
    """How many streams teach one network."""
    per_sensor = int(np.clip(train.rows.mean() // ROWS_PER_STREAM, 4, 16))
    return per_sensor if own else min(per_sensor * len(train.sensors), MOST_STREAMS)


def _start(tapes: Tapes, settings: FitSettings, initial: Network | None) -> Network:
    """The network to start from, once for each tape, in the settings' mode."""
    fresh = untrained(
        cell=settings.cell,
        mode=settings.mode,
        window=settings.window,
        horizons=settings.horizons,
        inputs=tapes.inputs.shape[1],
        targets=tapes.steps.shape[2],
        hidden=settings.hidden,
        layers=settings.layers,
        seed=settings.seed,
    )
    count = len(tapes.length)
    if initial is None:
        return repeat(fresh, count)
    if (initial.cell, initial.horizons) != (fresh.cell, fresh.horizons) or _shapes(initial) != _shapes(fresh):
        raise ValueError(
            f"cannot start from a network of another shape: it is {_describe(initial)}, asked is {_describe(fresh)}"
        )
    if initial.networks not in (1, count):
        raise ValueError(f"cannot start {count} networks from {initial.networks}: give one, or one for each")
    warm = initial if initial.networks == count else repeat(initial, count)
    return with_weights(repeat(fresh, count), weights(warm))


def _shapes(network: Network) -> list[tuple[int, ...]]:
    return [w.shape[1:] for w in weights(network)]


def _describe(network: Network) -> str:
    return (
        f"{len(network.layers)} x {network.cell} of {network.hidden}, {network.inputs} inputs, "
        f"{network.head.shape[2]} outputs, horizons {network.horizons}"
    )


def _validation_loss(
    judge: Callable[[Batch, State], tuple[tf.Tensor, tf.Tensor, State]],
    network: Network,
    held: Tapes | None,
    settings: FitSettings,
) -> Array:
    """Mean loss of each network on the rows held back, (M,), NaN where it has none."""
    if held is None:
        return np.full(network.networks, np.nan, np.float32)
    streams = max(1, VALIDATION_STREAMS // network.networks)
    window = settings.rebuilt_from
    burn_in = window // 4 if window else SETTLING
    longest = window - burn_in if window else VALIDATION_ROWS
    state = zero_state(network, streams)
    lost, counted = np.zeros(network.networks), np.zeros(network.networks)
    for batch in held.sweep(streams, burn_in, longest, settings.unroll):
        batch_lost, batch_counted, state = judge(batch, state)
        lost, counted = lost + batch_lost.numpy(), counted + batch_counted.numpy()
    return np.where(counted > 0, lost / np.maximum(counted, 1), np.nan).astype(np.float32)


def _mean(measured: Array) -> float | None:
    """Over the networks that have validation rows."""
    finite = measured[np.isfinite(measured)]
    return float(finite.mean()) if len(finite) else None
