"""The controls beside the network: cheap, honest, and asked exactly what the network is asked."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from pipeline.core.lstm import squash
from pipeline.core.model import Array, Layer, Network
from training.baselines import evaluate_baselines, forecast_error
from training.sequences import Sequences

TARGET = np.array([0])


def silent(mode: str = "carried", bias: float = 0.0, networks: int = 1, channels: int = 1) -> Network:
    """A network that forecasts `bias` plus its index, whatever it reads."""
    zero = [np.zeros((networks, *shape), np.float32) for shape in ((2 * channels, 16), (4, 16), (1, 16))]
    head_bias = np.broadcast_to(np.arange(networks, dtype=np.float32)[:, None, None] + bias, (networks, 1, 2))
    head = np.zeros((networks, 4 + 2 * channels, 2), np.float32)
    return Network("lstm", mode, 16, (1, 6), (Layer(*zero),), head, head_bias)  # type: ignore[arg-type]


def random_walk(rows: int, channels: int = 1, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(scale=0.1, size=(rows, channels)).cumsum(axis=0).astype(np.float32)


def test_last_value_is_the_mean_square_of_the_steps_that_lie_in_a_segment() -> None:
    parts = random_walk(50), random_walk(4, seed=1)
    found = evaluate_baselines(Sequences((parts,), TARGET), Sequences((parts,), TARGET), (1, 6))["last value"]
    z = [squash(part)[:, 0].astype(float) for part in parts]
    one = np.concatenate([np.diff(part) for part in z])
    six = z[0][6:] - z[0][:-6]
    np.testing.assert_allclose(found, [np.square(one).mean(), np.square(six).mean()], rtol=1e-5)


def test_a_network_that_forecasts_no_change_errs_as_the_last_value_does() -> None:
    held = Sequences(((random_walk(50), random_walk(9, seed=1)), (random_walk(33, seed=2),)), TARGET)
    expected = evaluate_baselines(held, held, (1, 6))["last value"]
    for mode in ("carried", "windowed"):
        np.testing.assert_allclose(forecast_error(silent(mode), held, np.zeros(2, np.int32)), expected, rtol=1e-6)


def test_each_sensor_is_forecast_by_its_own_network() -> None:
    still = np.zeros((20, 1), np.float32)
    held = Sequences(((still, still[:10]), (still,)), TARGET)
    for mode in ("carried", "windowed"):
        found = forecast_error(silent(mode, networks=3), held, np.array([0, 2], np.int32))
        np.testing.assert_allclose(found, [4 * 19 / (19 + 9 + 19), 4 * 14 / (14 + 4 + 14)], rtol=1e-6)


def test_ridge_learns_what_is_linear() -> None:
    t = np.arange(900)[:, None]
    pair = np.sin(2 * np.pi * t / 30 + np.array([0, 1])).astype(np.float32)
    for series, name in ((pair[:, :1], "AR ridge"), (pair, "VAR ridge")):
        train, held = Sequences(((series[:600],),), TARGET), Sequences(((series[600:],),), TARGET)
        errors = evaluate_baselines(train, held, (1, 12, 48))
        assert (errors[name] < 0.1 * errors["last value"]).all()


def test_a_sensor_too_short_to_learn_from_is_forecast_to_stay() -> None:
    short, held = random_walk(3), random_walk(40)
    errors = evaluate_baselines(Sequences(((short,), ()), TARGET), Sequences(((held,), (held,)), TARGET), (12,))
    np.testing.assert_allclose(errors["AR ridge"], errors["last value"])


def test_a_horizon_that_no_held_out_row_reaches_has_no_error() -> None:
    held = Sequences(((random_walk(5),),), TARGET)
    assert np.isnan(evaluate_baselines(held, held, (1, 12))["last value"]).tolist() == [False, True]


def test_baselines_load_no_tensorflow() -> None:
    code = "import sys, training.baselines; assert not {'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
