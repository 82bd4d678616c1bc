"""Train and retrain."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from pipeline import bundle
from pipeline.bundle import BundleError
from pipeline.cli.words import Config, Data, Join, ModelDir, Tag, settings_of
from pipeline.console import WRONG_WORDS, Stages, err, needs_extra, out, sentences
from pipeline.core.readings import SECOND

if TYPE_CHECKING:
    from pipeline.adapters.files import Series
    from training.train import Trained, TrainSettings

Weights = Literal["shared", "own", "auto"]


def train(
    data: Data,
    model: ModelDir,
    fraction: Annotated[float, typer.Option(help="Train on this first part of each file.")] = 1.0,
    max_rows: Annotated[int | None, typer.Option(help="Train on at most so many rows of each file.")] = None,
    weights: Annotated[Weights, typer.Option(help="Shared by a group, own for each sensor, or the better.")] = "auto",
    cell: Annotated[str, typer.Option(help="lstm or gru.")] = "lstm",
    layers: Annotated[int, typer.Option(help="Recurrent layers, 1 to 3.")] = 1,
    hidden: Annotated[int, typer.Option(help="Units of a layer.")] = 32,
    mode: Annotated[str, typer.Option(help="carried (the state goes on) or windowed.")] = "carried",
    updates: Annotated[int | None, typer.Option(help="Updates of a fit; by default from the rows.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 0,
    timezone: Annotated[str, typer.Option(help="Of time stamps that name none.")] = "UTC",
    join: Join = False,
    tag: Tag = None,
) -> None:
    """Learn how each sensor moves, and serve what was learned: one bundle a group of like sensors."""
    from pipeline.adapters.files import DataError
    from pipeline.adapters.joined import read

    with sentences(DataError, BundleError, wrong=(ValueError,)), threadpool_limits(limits=1, user_api="blas"):
        series = read(data, timezone, join=join, tag=tag)  # before TensorFlow, which takes seconds to load
        words = {"cell": cell, "layers": layers, "hidden": hidden, "mode": mode, "updates": updates, "seed": seed}
        _show_trained(train_bundles(series, model, train_settings(weights, fraction, max_rows, words)))


def retrain(
    model: ModelDir,
    data: Annotated[Path | None, typer.Argument(metavar="[DATA]", help="As for train; or give --from-topic.")] = None,
    from_topic: Annotated[str | None, typer.Option(help="Learn from this topic; its alerts are masked.")] = None,
    since: Annotated[str, typer.Option(help="How far back in the topic, e.g. 30d, or an RFC 3339 time.")] = "30d",
    alerts: Annotated[Path | None, typer.Option(help="With DATA: alerts to mask, as replay writes them.")] = None,
    weights: Annotated[Weights, typer.Option(help="Shared by a group, own for each sensor, or the better.")] = "auto",
    updates: Annotated[int | None, typer.Option(help="Updates of a fit; by default from the rows.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 0,
    textfile: Annotated[Path | None, typer.Option(help="Write metrics here, for Prometheus' node exporter.")] = None,
    join: Join = False,
    tag: Tag = None,
    config: Config = None,
) -> None:
    """The next version of a model, without the spans under alert; it serves only if it forecasts no worse."""
    from pipeline.adapters.files import DataError
    from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError
    from pipeline.adapters.kafka_history import parse_since
    from training.past import from_files
    from training.past import from_topic as topic_past
    from training.retrain import RetrainError, RetrainSettings
    from training.retrain import retrain as next_version

    if (data is None) == (from_topic is None):
        err.print("retrain needs either DATA or --from-topic")
        raise typer.Exit(WRONG_WORDS)
    if from_topic is not None and (join or tag):
        err.print("a topic is joined under the settings of the service, model.join and model.tag, not --join or --tag")
        raise typer.Exit(WRONG_WORDS)
    failures = (RetrainError, DataError, BundleError, KafkaAwayError, KafkaSetupError, OSError)
    with sentences(*failures, wrong=(ValueError,)), threadpool_limits(limits=1, user_api="blas"), Stages() as stages:
        asked = RetrainSettings(weights, updates, seed)
        if data is not None:
            path = data
            outcome = next_version(
                lambda: from_files(path, alerts=alerts, join=join, tag=tag), model, asked, stages, textfile
            )
        else:
            settings, begin = settings_of(config), parse_since(since, datetime.now(UTC))
            future = round(settings.detection.max_future_seconds * SECOND)
            asked = replace(asked, patterns=settings.model.groups)
            outcome = next_version(
                lambda: topic_past(
                    settings.kafka, begin, future, from_topic, join=settings.model.join, tag=settings.model.tag
                ),
                model,
                asked,
                stages,
                textfile,
            )
    for group in outcome.groups:
        out.print(f"{group.group}: {group.reason}", markup=False, soft_wrap=True)
    for note in outcome.notes:
        err.print(note, markup=False, soft_wrap=True)


def train_settings(weights: Weights, fraction: float, max_rows: int | None, words: dict[str, Any]) -> TrainSettings:
    """How to train, from the words of a command; ValueError where they make no sense."""
    with needs_extra("train"):
        from training.fit import FitSettings
        from training.train import TrainSettings

    return TrainSettings(FitSettings(**words), weights, fraction, max_rows)


def train_bundles(series: list[Series], root: Path, settings: TrainSettings) -> list[Trained]:
    """Train a bundle for each group of like sensors, and let it serve."""
    from training.train import train

    with Stages() as stages:
        trained = train(series, root, settings, stages)
    for one in trained:
        bundle.serve(one.folder)
    return trained


def _show_trained(trained: list[Trained]) -> None:
    """Held-out error of each forecaster by horizon, in squared steps of asinh(x)."""
    horizons = trained[0].model.network.horizons
    table = Table("group", "sensors", "weights", "forecaster", *(f"error at {h}" for h in horizons), "bundle", box=None)
    for one in trained:
        first = [one.model.group, str(len(one.model.sensors.names)), one.weights], str(one.folder)
        for name, errors in one.errors.items():
            table.add_row(*first[0], name, *(f"{e:.4f}" for e in errors), first[1])
            first = ["", "", ""], ""
    out.print(table)
    for note in [note for one in trained for note in one.notes]:
        err.print(note, markup=False, soft_wrap=True)
