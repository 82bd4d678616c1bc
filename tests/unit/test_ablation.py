"""Each row differs from the whole detector in what it says, and the table says where the network is not needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from benchmarks.ablation import controls
from benchmarks.ablation.__main__ import app
from benchmarks.ablation.controls import carrying
from benchmarks.ablation.parts import WHOLE, Fit, Silent, by_group_alone, parts, prior_as_trained
from benchmarks.ablation.study import Study, Terms
from benchmarks.ablation.verdict import Rows, sentence, table
from pipeline import bundle
from pipeline.adapters.files import read
from pipeline.core.detector import Detector
from pipeline.core.events import Rules
from pipeline.core.features import MANY_CHANNELS, ONE_CHANNEL
from pipeline.core.lstm import Steps
from pipeline.core.model import Array, Model
from pipeline.core.readings import FloatArray
from pipeline.core.scoring import Weights
from pipeline.core.table import BLOCKS, Level, layout
from pipeline.replay import replay
from tests.models import INTERVAL, START, learnt, model, one, stream, waves
from training.calibrate import calibrate
from training.evaluate import EventFigures, Figures, evaluate
from training.fit import FitSettings
from training.labelled import load
from training.sequences import Sequences, network_inputs
from training.train import Silence, TrainSettings, train

HORIZONS = (1, 12, 48)
FITS = (controls.last_value, controls.ewma, controls.ridge)
BY_NAME = pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.__name__)
NOTHING = EventFigures(0.0, 0.0, 0.0, 0, 1, 0, 0.0, 0.0, None)


def readings(z: FloatArray) -> Array:
    """Scaled readings (T, channels) with these asinh."""
    return np.sinh(z).astype(np.float32)


def histories(*z: FloatArray) -> Sequences:
    """A sensor each, all of whose channels are forecast."""
    return Sequences(tuple((readings(one),) for one in z), np.arange(z[0].shape[1]))


def correlated(share: float, rows: int = 3000, seed: int = 0) -> FloatArray:
    """z[t] = share z[t-1] + noise of deviation 0.1, (rows, 1)."""
    noise = 0.1 * np.random.default_rng(seed).standard_normal(rows)
    z = np.zeros(rows)
    for t in range(1, rows):
        z[t] = share * z[t - 1] + noise[t]
    return z[:, None]


def forecasts(control: Steps, z: FloatArray, which: int = 0) -> Array:
    """Its steps after each reading, (T, horizons, targets)."""
    state, told = np.zeros((1, control.state_size), np.float32), []
    for reading in network_inputs(readings(z)):
        state, steps = control.step(state, reading[None], np.array([which], np.int32))
        told.append(steps[0])
    return np.array(told)


def test_the_last_value_forecasts_a_step_of_zero() -> None:
    z = correlated(0.9, 200)
    assert (forecasts(controls.last_value(histories(z, z), HORIZONS), z, which=2) == 0).all()


def test_an_ewma_finds_the_rate_of_the_process_it_is_the_best_forecast_of() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, 4000, 1))
    level = np.cumsum(np.array([0.3, 0.8])[:, None, None] * noise, axis=1) - np.array([0.3, 0.8])[:, None, None] * noise
    fitted = controls.ewma(histories(*(level + noise)), HORIZONS)
    assert isinstance(fitted, controls.Ewma)
    np.testing.assert_allclose(fitted.rates[1:], [0.3, 0.8])
    assert fitted.rates[1] < fitted.rates[0] <= fitted.rates[2]  # of both sensors together


def test_an_ewma_expects_its_mean_at_every_horizon() -> None:
    steps = forecasts(controls.Ewma(np.array([0.25], np.float32), np.array([0]), 3), np.array([[1.0], [1.0], [5.0]]))
    np.testing.assert_allclose(steps[:, :, 0], np.array([0.0, 0.0, 2.0 - 5.0])[:, None] * np.ones(3), atol=1e-5)


def test_a_ridge_finds_the_process_of_each_sensor() -> None:
    quick, slow = correlated(0.3), correlated(0.9, seed=1)
    fitted = controls.ridge(histories(quick, slow), HORIZONS)
    for which, share in ((1, 0.3), (2, 0.9)):
        steps = forecasts(fitted, slow[:500], which)[100:, :, 0]
        expected = (share ** np.array(HORIZONS) - 1) * slow[100:500]
        assert np.abs(steps - expected).mean() < 0.03, which
        assert np.abs(expected).mean() > 0.1


def test_a_ridge_reads_what_one_channel_says_of_another() -> None:
    first = np.random.default_rng(0).standard_normal(2000) * 0.1
    both = np.stack([first, np.r_[0.0, first[:-1]]], axis=1)  # the second follows the first
    steps = forecasts(controls.ridge(histories(both), (1,)), both)[:-1, 0, 1]
    came = np.diff(both[:, 1])
    assert np.abs(steps - came)[10:].mean() < 0.1 * np.abs(came).mean()


def test_a_short_history_gets_fewer_lags() -> None:
    fitted = controls.ridge(histories(correlated(0.5, 60), correlated(0.5, 900)), (1,))
    assert isinstance(fitted, controls.Regression)
    assert [int((weights != 0).any(axis=1).sum()) for weights in fitted.weights] == [64, 6, 64]


@BY_NAME
def test_a_state_rebuilt_from_a_window_is_the_one_that_was_carried(fit: Fit) -> None:
    z = np.concatenate([correlated(0.7, 300), correlated(0.2, 300, seed=1)], axis=1)
    control = fit(histories(z), HORIZONS)
    inputs, ones = network_inputs(readings(z[:40])), np.ones(2, np.int32)
    windows = np.stack([inputs, np.concatenate([np.full_like(inputs[:15], 9), inputs[:25]])])
    _, steps = control.rebuild(windows, ones, np.array([40, 25]))
    carried = forecasts(control, z[:40], which=1)
    np.testing.assert_allclose(steps, carried[[39, 24]], rtol=1e-5, atol=1e-6)


@BY_NAME
def test_a_control_serves_in_the_networks_place(fit: Fit) -> None:
    values = waves(2, 150, 2)
    served = model(2)
    control = fit(histories(*np.arcsinh(np.nan_to_num(values - 20)).swapaxes(0, 1)), served.network.horizons)
    placed = replace(served, network=carrying(served.network, control))
    assert layout(placed)["carried"].shape == (control.state_size,)
    outcome = Detector(placed, forecaster=control).step(stream(values))
    assert np.isfinite(outcome.scores).all()
    assert np.isfinite(outcome.expected[-1]).all()
    assert outcome.scores[-1] != 0


def test_of_the_last_value_the_detector_expects_the_last_value() -> None:
    served = model()
    control = controls.last_value(histories(correlated(0.5, 100)), served.network.horizons)
    values = waves(1, 200)[:, 0, 0]
    outcome = Detector(replace(served, network=carrying(served.network, control)), forecaster=control).step(one(values))
    later = np.flatnonzero(np.isfinite(outcome.expected[:, 0]) & np.isfinite(np.roll(values, 1)))
    assert len(later) > 100
    np.testing.assert_allclose(outcome.expected[later, 0], values[later - 1], rtol=1e-5)


def test_silent_features_count_for_nothing_and_the_others_as_before_among_each_other() -> None:
    for targets, names in ((1, ONE_CHANNEL), (5, MANY_CHANNELS)):
        for unseen in (False, True):
            usual = Weights().of(targets, unseen)
            left = Silent(features=frozenset({"bias", names[4]})).of(targets, unseen)
            assert left[2] == left[4] == 0
            assert left.sum() == pytest.approx(1)
            heard = [0, 1, 3, 5, 6]
            np.testing.assert_allclose(left[heard] / left[0], usual[heard] / usual[0], rtol=1e-5)


def test_there_is_a_row_for_every_part_and_every_control() -> None:
    common = {"errors only", "novelty only", "group's episodes alone", "last value", "EWMA"}
    named = {
        tuple(part.name for part in parts([model(channels)], unseen)) for channels, unseen in ((1, False), (3, True))
    }
    single, many = sorted(named, key=lambda names: "AR ridge" not in names)
    assert {*common, "without novelty", "AR ridge", *(f"without {f}" for f in ONE_CHANNEL)} == set(single)
    several = {
        "mean of channels alone",
        "prior of trained sensors",
        "VAR ridge",
        *(f"without {f}" for f in MANY_CHANNELS),
    }
    assert common | several == set(many)
    mixed = [part.name for part in parts([model(1), model(3)], unseen=False)]
    assert {*single, *many} - {"prior of trained sensors", "AR ridge", "VAR ridge"} | {"AR/VAR ridge"} == set(mixed)
    assert len(mixed) == len(set(mixed))


def test_no_row_is_the_whole_detector_again() -> None:
    for part in parts([model(1), model(3)], unseen=True):
        differs = (part.weights, part.tables, part.control) != (WHOLE.weights, WHOLE.tables, WHOLE.control)
        assert differs, part.name


def test_judged_by_the_group_alone_no_episode_of_its_own_moves_a_sensor() -> None:
    known = by_group_alone(learnt(model(), stream(waves(3, 400))))
    usual = known.sensors.arrays["level"]
    assert len(np.unique(usual, axis=0)) == 1
    detector = Detector(known)
    detector.step(stream(waves(4, 1000, seed=5)))  # of which one is new
    level = detector.snapshot(0)["level"]
    np.testing.assert_allclose(level[:3, : Level.EXCESS + 1], usual[:, : Level.EXCESS + 1], rtol=1e-4)
    np.testing.assert_allclose(level[3, : Level.EXCESS + 1], known.prior["level"][: Level.EXCESS + 1], rtol=1e-4)
    assert np.isfinite(detector.snapshot(0)["blocks"]).sum() > BLOCKS // 8


def test_a_prior_as_trained_has_the_tails_and_the_usual_episode_of_the_trained() -> None:
    known = learnt(model(), stream(waves(3, 800)))
    prior = prior_as_trained(known).prior
    tails = known.sensors.arrays["tail"].sum(axis=0)
    np.testing.assert_allclose(prior["tail"] / prior["tail"][..., :1], tails / tails[..., :1], atol=1e-3)
    assert prior["level"][Level.USUAL] == np.median(known.sensors.arrays["level"][:, Level.USUAL])


def judged(vus: float, f1: float, best: float) -> Figures:
    events, oracle = replace(NOTHING, f1=f1), replace(NOTHING, f1=best)
    return Figures(1, 1, vus, events, oracle, None, None, None, None, {})


def compared(*found: tuple[float, float, float], whole: tuple[float, float, float] = (0.5, 0.5, 0.5)) -> str:
    names = ("last value", "EWMA", "AR ridge")
    figures = {name: judged(*figures) for name, figures in zip(names, found, strict=False)}
    return sentence(Rows(judged(*whole), {}, "LSTM", figures))


def test_the_table_says_where_the_network_does_not_earn_its_place() -> None:
    assert compared((0.4, 0.4, 0.4), (0.45, 0.3, 0.47)) == (
        "The LSTM earns its place here by VUS-PR (0.500, EWMA 0.450), event F1 (0.500, last value 0.400) "
        "and best F1 (0.500, EWMA 0.470)."
    )
    assert compared((0.4, 0.6, 0.4)) == (
        "The LSTM earns its place here by VUS-PR (0.500, last value 0.400) and best F1 (0.500, last value 0.400); "
        "it does not by event F1 (0.500, last value 0.600)."
    )
    assert compared((0.4, 0.6, 0.4), (0.6, 0.4, 0.4), (0.4, 0.4, 0.49)).startswith(
        "The LSTM does not earn its place here: no better than a control by VUS-PR (0.500, EWMA 0.600), event F1 "
    )
    assert "is not known" in compared()


def test_the_table_has_every_row_and_only_the_columns_that_were_asked_for() -> None:
    rows = Rows(judged(0.5, 0.5, 0.5), {"without bias": judged(0.4, 0.4, 0.4)}, "GRU", {"EWMA": judged(0.3, 0.3, 0.3)})
    for markdown in (False, True):
        console = Console(width=160)
        with console.capture() as capture:
            console.print(table("plant", rows, markdown))
        printed = capture.get()
        for row in ("whole detector", "without bias", "forecaster: GRU", "forecaster: EWMA"):
            assert printed.count(row) == 1
        assert "VUS-PR" in printed
        assert "NAB" not in printed


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sensors with history, a third without; a jump in each, and a model of them in `models`."""
    folder = tmp_path_factory.mktemp("plant")
    rng = np.random.default_rng(0)
    labels = {}
    for k, name in enumerate(("a", "b", "new")):
        values = 20 + 3 * np.sin(np.arange(900) / 9 + k) + 0.3 * rng.standard_normal(900)
        values[700:730] += 8
        times = START + INTERVAL * np.arange(900, dtype=np.int64)
        if name != "new":
            write(folder / "train", name, times[:400], values[:400])
        write(folder / "test", name, times[400:], values[400:])
        stamps = np.array([times[700], times[729]]).astype("datetime64[us]").astype(str).tolist()
        labels[name] = [stamps]
    (folder / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    settings = TrainSettings(FitSettings(hidden=4, updates=3, window=64), "shared")
    for trained in train(read(folder / "train"), folder / "models", settings):
        bundle.serve(trained.folder)
    return folder


def write(folder: Path, name: str, times: np.ndarray, values: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    stamps = times.astype("datetime64[us]").astype(str)
    lines = [f"{stamp}Z,{value!r}" for stamp, value in zip(stamps.tolist(), values.tolist(), strict=True)]
    (folder / f"{name}.csv").write_text("\n".join(["timestamp,flow", *lines]), encoding="utf-8")


def test_the_whole_detector_is_the_one_that_is_served(plant: Path, tmp_path: Path) -> None:
    study = Study(plant, Terms(vus=False), Silence(), plant / "models")
    assert study.unseen
    replayed = replay(read(plant / "test"), bundle.load_all(plant / "models"), Rules())
    replayed.write(tmp_path, "1/10000/sensor")
    assert study.figures(WHOLE) == evaluate(load(tmp_path, plant / "labels.json"), with_vus=False)


def test_what_serves_has_calibrated_itself(plant: Path) -> None:
    """A control's detector reads the histories and the stretches, not only the test."""
    [trained] = Study(plant, Terms(), Silence(), plant / "models").trained
    made: list[Detector] = []

    def detector_of(served: Model) -> Detector:
        made.append(Detector(served))
        return made[-1]

    calibrate(trained.model, trained.sensors, detector_of=detector_of)
    assert len(made) == 3  # the histories, then the stretches twice


def test_without_a_prior_the_known_sensors_are_calibrated_as_with_one(plant: Path) -> None:
    [trained] = Study(plant, Terms(), Silence(), plant / "models").trained
    (whole, _), (known, _) = (calibrate(trained.model, trained.sensors, prior=prior) for prior in (True, False))
    assert whole.prior
    assert not known.prior
    assert not by_group_alone(known).prior
    for name, found in known.sensors.arrays.items():
        np.testing.assert_array_equal(found, whole.sensors.arrays[name], err_msg=name)


def test_every_row_that_is_asked_for_is_made(plant: Path, tmp_path: Path) -> None:
    words = ["--model", str(plant / "models"), "--no-vus", "--head", "300", "--json", str(tmp_path / "found.json")]
    only = [word for name in ("new value", "trained", "ridge") for word in ("--only", name)]
    ran = CliRunner().invoke(app, [str(plant), *words, *only])
    assert ran.exit_code == 0, ran.output
    assert "The LSTM" in ran.output
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["data"][plant.name]
    names = ["whole detector", "without new value", "prior of trained sensors", "AR ridge"]
    assert list(found["rows"]) == names
    assert found["says"].startswith("The LSTM")
    distinct = {json.dumps(figures) for figures in found["rows"].values()}
    assert len(distinct) > 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--only", "nonsense"], 2, "no row is called nonsense"),
        (["--budget", "much"], 2, "is not a budget"),
        (["--model", "nowhere"], 1, "no model bundle serves here"),
    ],
)
def test_what_cannot_be_done_is_said(plant: Path, words: Sequence[str], code: int, said: str) -> None:
    ran = CliRunner().invoke(app, [str(plant), "--model", str(plant / "models"), "--no-vus", *words])
    assert ran.exit_code == code
    assert said in ran.output


def test_models_of_another_history_are_refused(plant: Path, tmp_path: Path) -> None:
    """Without train/ the history is the beginning of each test file, and one of those the models do not know."""
    for name in ("labels.json", "test"):
        (tmp_path / name).symlink_to(plant / name)
    ran = CliRunner().invoke(app, [str(tmp_path), "--model", str(plant / "models")])
    assert ran.exit_code == 1
    assert "holds no model that was trained on the group flow-1min of this history" in ran.output


def test_a_folder_without_labels_is_no_data(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, [str(tmp_path)])
    assert ran.exit_code == 1
    assert "needs labels.json and test/" in ran.output
