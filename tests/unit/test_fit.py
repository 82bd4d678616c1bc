"""The trainer: it learns, repeats itself, stops in time, and nothing leaks between sensors, segments or streams."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import tensorflow as tf

from pipeline.core.model import Array, Network
from training.baselines import evaluate_baselines, forecast_error
from training.fit import FitResult, FitSettings, fit, gradients
from training.network import forward, stack, untrained, weights, zero_state
from training.sequences import Batch, Sequences, Tapes, endless, network_inputs

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

QUICK = FitSettings(hidden=8, horizons=(1, 6), updates=30, validate_every=10)
TARGET = np.array([0])


def wave(rows: int, period: float = 25.0, seed: int = 0, channels: int = 1) -> Array:
    """A sine with noise, (rows, channels)."""
    noise = np.random.default_rng(seed).normal(scale=0.2, size=(rows, channels))
    wave: Array = (2 * np.sin(2 * np.pi * np.arange(rows)[:, None] / period) + noise).astype(np.float32)
    return wave


def one_segment_each(*series: Array) -> Sequences:
    return Sequences(tuple((x,) for x in series), TARGET)


def network_like(settings: FitSettings, seed: int, inputs: int = 2) -> Network:
    return untrained(
        cell=settings.cell,
        mode=settings.mode,
        window=settings.window,
        horizons=settings.horizons,
        inputs=inputs,
        targets=1,
        hidden=settings.hidden,
        layers=settings.layers,
        seed=seed,
    )


def assert_same_network(a: Network, b: Network, tolerance: float = 0.0) -> None:
    for mine, theirs in zip(weights(a), weights(b), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("settings", [FitSettings(), FitSettings(cell="gru", mode="windowed", window=64, layers=2)])
def test_what_is_learned_of_a_sine_in_noise_beats_the_last_value(settings: FitSettings) -> None:
    train, held = one_segment_each(wave(900)), one_segment_each(wave(300, seed=1))
    result = fit(train, held, settings)
    assert result.loss[-20:].mean() < 0.5 * result.loss[:5].mean()
    served = forecast_error(result.network, held, np.zeros(1, np.int32))
    assert (served < 0.7 * evaluate_baselines(train, held, settings.horizons)["last value"]).all()


def test_a_seed_gives_the_same_weights_again_and_another_gives_others() -> None:
    train = one_segment_each(wave(200), wave(150, seed=1))
    first = fit(train, None, QUICK).network
    assert_same_network(first, fit(train, None, QUICK).network)
    other = fit(train, None, replace(QUICK, seed=1)).network
    assert not np.allclose(first.layers[0].kernel, other.layers[0].kernel)


@pytest.mark.parametrize("mode", ["carried", "windowed"])
def test_a_group_fitted_as_one_graph_equals_fits_one_by_one(mode: str) -> None:
    settings = FitSettings(hidden=8, horizons=(1, 6), updates=30, validate_every=5, patience=10, weights="own")
    settings = replace(settings, mode=mode, window=48)  # type: ignore[arg-type]
    train = [wave(200), wave(317, period=11, seed=1), wave(90, period=40, seed=2)]
    held = [wave(80, seed=3), wave(40, period=14, seed=4), wave(150, period=40, seed=5)]
    together = fit(one_segment_each(*train), one_segment_each(*held), settings)
    alone = [fit(one_segment_each(x), one_segment_each(y), settings) for x, y in zip(train, held, strict=True)]
    assert_same_network(together.network, stack([one.network for one in alone]), tolerance=1e-4)
    assert together.best_update.tolist() == [int(one.best_update[0]) for one in alone]


def test_what_a_network_learns_does_not_depend_on_the_length_or_readings_of_its_neighbours() -> None:
    settings = replace(QUICK, weights="own")
    beside_short = fit(one_segment_each(wave(200), wave(60, seed=1)), None, settings).network
    beside_long = fit(one_segment_each(wave(200), 50 * wave(777, seed=2)), None, settings).network
    for mine, theirs in zip(weights(beside_short), weights(beside_long), strict=True):
        np.testing.assert_array_equal(mine[0], theirs[0])


def test_early_stopping_gives_back_the_weights_that_were_best_on_the_held_out_rows() -> None:
    held = one_segment_each(wave(200, period=3, seed=1))  # another signal: what is learned soon hurts here
    settings = replace(QUICK, updates=200, validate_every=5, patience=40, learning_rate=2e-2)
    stopped = fit(one_segment_each(wave(400)), held, settings)
    assert len(stopped.loss) < 200
    assert stopped.best_update[0] == len(stopped.loss) - 40 == stopped.measured_at[stopped.validation[:, 0].argmin()]
    again = fit(one_segment_each(wave(400)), held, replace(settings, updates=1), initial=stopped.network)
    np.testing.assert_allclose(again.validation[0], stopped.validation.min(axis=0), rtol=1e-6)


def test_an_exploding_gradient_is_cut_to_norm_one_and_a_quiet_network_beside_it_keeps_its_own() -> None:
    loud, quiet = (network_like(replace(QUICK, layers=2), seed) for seed in (0, 1))
    network = stack([replace(loud, head=loud.head * 1000), quiet])
    variables = [tf.Variable(w) for w in weights(network)]
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, 16, 4, 2)).astype(np.float32) * np.array([8, 0.01], np.float32).reshape(2, 1, 1, 1)
    steps = np.stack([np.full((16, 4, 2, 1), 1e6), np.zeros((16, 4, 2, 1))]).astype(np.float32)
    batch = Batch(inputs, steps, np.ones((2, 16, 4, 2), bool), np.ones((2, 16, 4), bool))

    def slopes(clipnorm: float) -> list[Array]:
        return [s.numpy() for s in gradients("lstm", variables, batch, zero_state(network, 4), clipnorm)[0]]

    def norms(of: list[Array]) -> Array:
        return np.array([np.sqrt(np.square(s).sum(axis=(1, 2))) for s in of])  # (variables, networks)

    free, clipped = slopes(1e9), slopes(1.0)
    assert norms(free)[:, 0].max() > 10
    np.testing.assert_allclose(norms(clipped), np.minimum(norms(free), 1), rtol=1e-5)
    assert norms(free)[:, 1].max() < 1
    for before, after in zip(free, clipped, strict=True):
        np.testing.assert_allclose(before[1], after[1], rtol=1e-6)


def test_neither_state_nor_target_crosses_a_gap() -> None:
    parts = wave(40), 3 * wave(25, seed=1)
    cut = Sequences((parts,), TARGET)
    tapes = Tapes.lay(cut, (1, 6), own=False)
    batch = tapes.read(np.array([[0]]), 65)
    known = [[row + h < end for h in (1, 6)] for end, rows in ((40, range(40)), (65, range(40, 65))) for row in rows]
    np.testing.assert_array_equal(batch.known[0, :, 0], known)

    network = network_like(QUICK, 0)
    network = replace(network, head=network.head + np.float32(0.1))
    carry = batch.carry[..., None].astype(np.float32)
    whole, _ = forward("lstm", weights(network), batch.inputs, carry, zero_state(network, 1))
    inputs = network_inputs(parts[1])[None, :, None]
    second, _ = forward("lstm", weights(network), inputs, np.ones((1, 25, 1, 1), np.float32), zero_state(network, 1))
    np.testing.assert_allclose(whole[:, 40:], second, atol=1e-6)


def test_a_sweep_counts_every_row_once() -> None:
    sequences = Sequences(((wave(40), wave(7)), (wave(123),), (wave(2),)), TARGET)
    tapes = Tapes.lay(sequences, (1, 6), own=True)
    swept = sum(batch.known.sum(axis=(1, 2)) for batch in tapes.sweep(streams=4, burn_in=10, longest=99, count=16))
    np.testing.assert_array_equal(swept, [[39 + 6, 34 + 1], [122, 117], [1, 0]])


def test_a_windowed_stream_starts_from_zero_once_a_window_and_its_first_quarter_does_not_count() -> None:
    tapes = Tapes.lay(one_segment_each(wave(1000)), (1,), own=False)
    batches = list(islice(endless(tapes, 4, 16, seed=0, restarts=0.0, window=64), 40))
    carry = np.concatenate([b.carry for b in batches[4:]], axis=1)[0]  # (T, streams)
    known = np.concatenate([b.known for b in batches[4:]], axis=1)[0, :, :, 0]
    for stream in range(4):
        starts = np.flatnonzero(~carry[:, stream])
        assert set(np.arange(starts[0] % 64, len(carry), 64)) <= set(starts)  # the tape's seam starts from zero too
    assert 0.7 < known.mean() <= 0.75


@pytest.mark.parametrize("weights_of", ["shared", "own"])
def test_sixty_rows_and_a_sensor_that_never_moves_are_fitted_to_finite_weights(weights_of: str) -> None:
    still = np.zeros((60, 2), np.float32)
    train = Sequences(((wave(60, channels=2),), (still,), (still[:1],)), TARGET)
    settings = replace(QUICK, horizons=(1, 48), weights=weights_of)  # type: ignore[arg-type]
    network = fit(train, Sequences(((still[:20],), (), ()), TARGET), settings).network
    assert network.networks == (1 if weights_of == "shared" else 3)
    assert all(np.isfinite(w).all() for w in weights(network))


def test_the_first_forecasts_are_close_to_no_change() -> None:
    held = one_segment_each(wave(300))
    network = network_like(FitSettings(), 0)
    served = forecast_error(network, held, np.zeros(1, np.int32))
    assert not network.head[:, network.hidden :].any()
    np.testing.assert_allclose(served, evaluate_baselines(held, held, network.horizons)["last value"], rtol=0.05)


def test_each_update_is_told_with_its_loss() -> None:
    told: list[tuple[int, int, float, float | None]] = []
    held = one_segment_each(wave(50))
    result: FitResult = fit(held, held, QUICK, on_update=lambda *seen: told.append(seen))
    assert [t[:2] for t in told] == [(update, 30) for update in range(1, 31)]
    np.testing.assert_allclose([t[2] for t in told], result.loss[:, 0], rtol=1e-6)
    assert [t[0] for t in told if t[3] is not None] == result.measured_at[1:].tolist() == [10, 20, 30]


def test_a_fit_starts_from_one_network_for_all_and_refuses_one_of_another_shape() -> None:
    train = one_segment_each(wave(100), wave(100, seed=1))
    start = network_like(QUICK, 7)
    warm = fit(train, train, replace(QUICK, weights="own", learning_rate=1e-12), initial=start).network
    assert_same_network(warm, stack([start, start]), tolerance=1e-6)
    with pytest.raises(ValueError, match="network of another shape: it is 1 x lstm of 8"):
        fit(train, None, replace(QUICK, hidden=16), initial=start)
    with pytest.raises(ValueError, match="cannot start 2 networks from 3"):
        fit(train, None, replace(QUICK, weights="own"), initial=stack([start] * 3))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cell": "bidirectional"}, "reads the future"),
        ({"mode": "stateless"}, "carried or windowed"),
        ({"layers": 4}, "1, 2 or 3"),
        ({"horizons": (2, 12)}, "rise from 1"),
        ({"horizons": (1, 12, 12)}, "rise from 1"),
        ({"updates": 0}, "updates must be at least 1"),
        ({"window": 0}, "window must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_reason(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FitSettings(**wrong)  # type: ignore[arg-type]


def test_there_must_be_something_to_learn_from() -> None:
    with pytest.raises(ValueError, match="no readings"):
        fit(Sequences(((),), TARGET), None, QUICK)
