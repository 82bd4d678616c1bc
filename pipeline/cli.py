"""The `foreshock` command. Nothing is decided here: each command reads its words and calls whoever does the work.

What only training needs is imported inside the commands that train, so that the service never loads it.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from pipeline import bundle
from pipeline.bundle import BundleError
from pipeline.console import FAILED, WRONG_WORDS, Stages, err, out, sentences
from pipeline.core.readings import SECOND
from pipeline.core.thresholds import Budget

if TYPE_CHECKING:
    from pipeline.adapters.files import Series
    from pipeline.settings import Settings
    from training.evaluate import Figures
    from training.train import Trained, TrainSettings

app = typer.Typer(
    help="Watches sensors: learns how each signal moves, follows it live from Kafka, alerts when it stops doing so.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
sensor_app = typer.Typer(help="One sensor of a running service.", no_args_is_help=True)
checkpoint_app = typer.Typer(help="What a restart continues from.", no_args_is_help=True)
model_app = typer.Typer(help="Model bundles in a folder.", no_args_is_help=True)
app.add_typer(sensor_app, name="sensor")
app.add_typer(checkpoint_app, name="checkpoint")
app.add_typer(model_app, name="model")

Data = Annotated[Path, typer.Argument(metavar="DATA", help="CSV or Parquet, a file or a folder; wide or long.")]
ModelDir = Annotated[Path, typer.Option("--model", help="Folder of model bundles.")]
Config = Annotated[Path | None, typer.Option("--config", help="foreshock.toml; the environment goes on top of it.")]
Url = Annotated[str, typer.Option("--url", help="Where the service answers.")]
BudgetText = Annotated[str, typer.Option("--budget", help="False alarms that are bearable, e.g. 1/week/sensor.")]
Weights = Literal["shared", "own", "auto"]
DEFAULT_URL = "http://127.0.0.1:9108"
DEFAULT_BUDGET = "1/10000/sensor"
DEMO_BUDGET = "5/20000/sensor"  # its faults are small


@app.command()
def run(config: Config = None) -> None:
    """The long-running service: readings from Kafka in, alerts to Kafka out."""
    from pipeline.adapters.columns import DataError
    from pipeline.adapters.kafka_connection import KafkaSetupError
    from pipeline.app import build
    from pipeline.ports import PartitionsChangedError
    from pipeline.web import WebError

    with sentences(BundleError, DataError, KafkaSetupError, PartitionsChangedError, WebError):
        build(_settings(config)).run()


@app.command()
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
) -> None:
    """Learn how each sensor moves, and serve what was learned: one bundle a group of like sensors."""
    from pipeline.adapters.files import DataError, read

    with sentences(DataError, BundleError, wrong=(ValueError,)), threadpool_limits(limits=1, user_api="blas"):
        series = read(data, timezone)  # before TensorFlow, which takes seconds to load
        words = {"cell": cell, "layers": layers, "hidden": hidden, "mode": mode, "updates": updates, "seed": seed}
        _show_trained(_train(series, model, _train_settings(weights, fraction, max_rows, words)))


@app.command()
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
    failures = (RetrainError, DataError, BundleError, KafkaAwayError, KafkaSetupError, OSError)
    with sentences(*failures, wrong=(ValueError,)), threadpool_limits(limits=1, user_api="blas"), Stages() as stages:
        asked = RetrainSettings(weights, updates, seed)
        if data is not None:
            path = data
            outcome = next_version(lambda: from_files(path, alerts=alerts), model, asked, stages, textfile)
        else:
            settings, begin = _settings(config), parse_since(since, datetime.now(UTC))
            future = round(settings.detection.max_future_seconds * SECOND)
            asked = replace(asked, patterns=settings.model.groups)
            outcome = next_version(
                lambda: topic_past(settings.kafka, begin, max_future=future, topic=from_topic),
                model,
                asked,
                stages,
                textfile,
            )
    for group in outcome.groups:
        out.print(f"{group.group}: {group.reason}", markup=False, soft_wrap=True)
    for note in outcome.notes:
        err.print(note, markup=False, soft_wrap=True)


@app.command()
def replay(
    data: Data,
    model: ModelDir,
    scores: Annotated[Path, typer.Option(help="Folder for a CSV of scores for each sensor.")],
    alerts: Annotated[Path | None, typer.Option(help="File for the alerts, a line of JSON each.")] = None,
    budget: BudgetText = DEFAULT_BUDGET,
    sensors: Annotated[Path | None, typer.Option(help="sensors.csv, for physical limits.")] = None,
    timezone: Annotated[str, typer.Option(help="Of time stamps that name none.")] = "UTC",
) -> None:
    """Files through the live detector: a score for every row, and the alerts that would have been raised."""
    from pipeline.adapters.files import DataError, read
    from pipeline.adapters.sensors import read_sensors_csv
    from pipeline.codecs.json import encode_alert
    from pipeline.core.events import Rules
    from pipeline.replay import replay

    with sentences(DataError, BundleError, OSError, wrong=(ValueError,)), threadpool_limits(limits=1, user_api="blas"):
        rules = Rules(budget=Budget.parse(budget))
        limits = read_sensors_csv(sensors) if sensors is not None else []
        series, models = read(data, timezone), bundle.load_all(model)
        with Stages() as stages:
            stages.stage("replay", f"{len(series)} sensors", sum(map(len, series)))
            replayed = replay(series, models, rules, limits, stages.advance)
        replayed.write(scores, budget)
        if alerts is not None:
            alerts.write_bytes(b"".join(encode_alert(a) + b"\n" for a in replayed.alerts))
        told = ", ".join(f"{n} {what}" for what, n in sorted(replayed.counts.items()))
        out.print(f"{len(replayed.sensors)} sensors: {told}; {len(replayed.alerts)} alert messages; scores in {scores}")


@app.command()
def evaluate(
    scores: Annotated[Path, typer.Argument(help="Folder that `foreshock replay` wrote.")],
    labels: Annotated[Path, typer.Argument(help="JSON of known anomalies; its form is in docs/data.md.")],
    report: Annotated[Path | None, typer.Option(help="Write an HTML report with pictures here.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here as JSON; -: to standard output.")
    ] = None,
    nab: Annotated[bool, typer.Option(help="Also the score of the Numenta Anomaly Benchmark.")] = False,
    vus: Annotated[bool, typer.Option(help="Also VUS-PR, which takes longest.")] = True,
    head: Annotated[int | None, typer.Option(help="Rows at each start that are known to be normal.")] = None,
) -> None:
    """Figures from labels: how well it ranks, how it alarms, how soon, at what cost.

    A table on a terminal; where standard output goes to a file or a pipe, that gets JSON and the table goes to
    standard error.
    """
    from pipeline.adapters.files import DataError
    from pipeline.adapters.replay_folder import read_run, read_signals
    from training.evaluate import evaluate
    from training.evaluation_report import evaluation_report
    from training.labelled import load

    with sentences(DataError, OSError, wrong=(ValueError,)), Stages() as stages:
        replays = load(scores, labels)
        figures = evaluate(replays, with_vus=vus, with_nab=nab, head=head, progress=stages.report)
        if report is not None:
            html = evaluation_report(
                figures, replays, read_run(scores), lambda r: read_signals(scores, r.sensor, len(r)), stages.report
            )
            report.write_text(html, encoding="utf-8")
    to_stdout = json_file == Path("-") or not out.is_terminal
    _show_figures(figures, err if to_stdout else out)
    if to_stdout:
        out.print_json(figures.as_json())
    if json_file is not None and json_file != Path("-"):
        json_file.write_text(figures.as_json(), encoding="utf-8")


@app.command()
def demo(
    duration: Annotated[float, typer.Option(help="Seconds of live readings.")] = 60.0,
    sensors: Annotated[int, typer.Option(help="How many the plant has.")] = 72,
    seed: Annotated[int, typer.Option(help="Of the plant and its faults.")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the verdict here.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Write the last view here, as SVG.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="A broker; by default an embedded one.")] = None,
    budget: BudgetText = DEMO_BUDGET,
) -> None:
    """A plant, a broker, a model, live alerts: one command, nothing else needed."""
    from pipeline.adapters.embedded import EmbeddedBrokerError
    from pipeline.demo.session import DemoError, DemoOptions, run_demo
    from pipeline.demo.view import verdict_tables

    def learn(series: list[Series], models: Path) -> None:
        _train(series, models, _train_settings("auto", 1.0, None, {}))

    options = DemoOptions(duration, sensors, seed, budget, bootstrap_servers, picture)
    with sentences(DemoError, EmbeddedBrokerError, wrong=(ValueError,)):
        Budget.parse(budget)
        if duration <= 0:
            raise ValueError(f"a demo lasts longer than {duration:g} s")
        verdict = run_demo(out, options, learn)
    out.print(verdict_tables(verdict))
    if json_file is not None:
        json_file.write_text(json.dumps(verdict.as_json(), indent=1), encoding="utf-8")


@app.command()
def plant(
    history: Annotated[Path | None, typer.Option(help="Write the plant's fault-free history here, and end.")] = None,
    bootstrap_servers: Annotated[str, typer.Option(help="Stream the plant to this broker.")] = "localhost:9092",
    sensors: Annotated[int, typer.Option(help="How many the plant has.")] = 40,
    seed: Annotated[int, typer.Option(help="Of the plant and its faults.")] = 0,
    rate: Annotated[float, typer.Option(help="Readings a second, of the whole plant.")] = 200.0,
) -> None:
    """The simulated plant by itself: its history as files, or its readings, faults among them, without end."""
    from pipeline.adapters.files import DataError
    from pipeline.adapters.kafka_connection import KafkaAwayError
    from pipeline.demo.producer import stream_plant, write_history
    from pipeline.settings_schema import KafkaSettings

    with sentences(DataError, KafkaAwayError, OSError, wrong=(ValueError,)):
        if history is not None:
            write_history(sensors, seed, history)
        else:
            stream_plant(sensors, seed, KafkaSettings(bootstrap_servers=bootstrap_servers), rate)


@app.command()
def alerts(
    is_open: Annotated[bool, typer.Option("--open", help="Those that are open now; there are no others to ask for.")],
    url: Url = DEFAULT_URL,
) -> None:
    """The open alerts of a running service."""
    if not is_open:
        err.print("foreshock alerts --open lists what is open; the past is in the topic sensor.alerts")
        raise typer.Exit(WRONG_WORDS)
    table = Table("since", "sensor", "channel", "kind", "severity", "score or measure", "threshold or limit", box=None)
    for a in _ask(url, "/alerts"):
        measured = a["score"] if a["score"] is not None else a["measure"]
        limit = a["threshold"] if a["threshold"] is not None else a["limit"]
        figures = (f"{x:.4g}" if x is not None else "" for x in (measured, limit))
        table.add_row(_when(a["start"]), a["sensor"], a["channel"], a["kind"], a["severity"], *figures)
    out.print(table if table.row_count else "no alert is open")


@sensor_app.command("show")
def sensor_show(sensor: Annotated[str, typer.Argument(metavar="ID")], url: Url = DEFAULT_URL) -> None:
    """What a running service knows of a sensor: state, score, scale, limits."""
    out.print_json(json.dumps(_ask(url, f"/sensors/{urllib.parse.quote(sensor)}")))


@app.command()
def doctor(
    config: Config = None,
    create_topics: Annotated[bool, typer.Option(help="First create missing topics, unreplicated.")] = False,
) -> None:
    """Look for what would keep the service from running: broker, topics, model, clock, permissions."""
    from pipeline.adapters.kafka_connection import KafkaAwayError
    from pipeline.adapters.kafka_topics import ensure_topics
    from pipeline.doctor import READINGS_PARTITIONS, checks

    settings = _settings(config)
    topics = settings.kafka.topics
    if create_topics:
        with sentences(KafkaAwayError):
            others = filter(None, (topics.alerts, topics.dead_letter, topics.scores))
            wide = {topics.readings, *([topics.checkpoints] if settings.checkpoints.store == "topic" else [])}
            wanted = dict.fromkeys(others, 1) | dict.fromkeys(wide, READINGS_PARTITIONS)
            ensure_topics(settings.kafka, wanted, {topics.checkpoints})
    found = checks(settings)
    table = Table("", "check", "found", "what to do", box=None)
    for check in found:
        table.add_row(
            "ok" if check.ok else "[red]FAILED[/red]", check.name, check.detail, "" if check.ok else check.remedy
        )
    out.print(table)
    if not all(check.ok for check in found):
        raise typer.Exit(FAILED)


@checkpoint_app.command("repartition")
def checkpoint_repartition(
    config: Config = None,
    accept_unread: Annotated[
        bool, typer.Option(help="Though messages wait: of a sensor that moves, those start it afresh.")
    ] = False,
) -> None:
    """After the topic of the readings was widened: every sensor's state goes to its new partition."""
    from pipeline.adapters.checkpoints import FolderCheckpoints
    from pipeline.adapters.kafka_checkpoints import TopicCheckpoints
    from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError
    from pipeline.adapters.kafka_group import IdleGroup, place_of
    from pipeline.ports import CheckpointError, CheckpointStore
    from pipeline.repartition import repartitioned, sources

    settings = _settings(config)
    kept, topic = settings.checkpoints, settings.kafka.topics.readings
    with sentences(CheckpointError, KafkaAwayError, KafkaSetupError, OSError), ExitStack() as opened:
        group = IdleGroup(settings.kafka)
        opened.callback(group.close)
        committed = group.committed()
        if not committed:
            raise CheckpointError(f"group {settings.kafka.group_id}: has read nothing, so there is nothing to do")
        if (unread := group.unread(committed)) and not accept_unread:
            raise CheckpointError(
                f"{topic}: {unread} messages wait in partitions that were read before; a sensor that moves would be "
                "read in two of them; widen a topic that was read to its end, or give --accept-unread"
            )
        store: CheckpointStore = FolderCheckpoints(kept.dir, kept.keep_days)
        if kept.store == "topic":
            store = TopicCheckpoints(settings.kafka, group.consumer, err.print, outside=True)
            opened.callback(store.close)
        wider = repartitioned(sources(store, topic, committed, group.partitions), group.partitions, place_of)
        store.save_all(wider)
        group.commit({c.partition: c.position for c in wider})
    sensors = sum(len(arrays["names"]) for c in wider for arrays in c.groups.values())
    out.print(f"{sensors} sensors in {len(wider)} partitions; start the service")


@model_app.command("list")
def model_list(root: Annotated[Path, typer.Argument(metavar="DIR")]) -> None:
    """Every version of every group; the one that serves is marked."""
    table = Table("group", "version", "serves", "sensors", "trained", box=None)
    for path in sorted(root.glob(f"*/*/{bundle.MANIFEST}")):
        with sentences(BundleError):
            manifest, _ = bundle.read_manifest(path.parent)
        pointer = path.parent.parent / bundle.SERVING
        serves = pointer.exists() and pointer.read_text(encoding="utf-8").strip() == manifest.version
        trained = str(manifest.about.get("trained_at", ""))
        table.add_row(manifest.group, manifest.version, "yes" if serves else "", str(manifest.sensors), trained)
    if not table.row_count:
        err.print(f"{root}: no bundle here; train one: foreshock train DATA --model {root}", markup=False)
        raise typer.Exit(FAILED)
    out.print(table)


@model_app.command("show")
def model_show(folder: Annotated[Path, typer.Argument(metavar="DIR/GROUP/VERSION")]) -> None:
    """The manifest of one version."""
    with sentences(BundleError):
        bundle.read_manifest(folder)
    out.print_json((folder / bundle.MANIFEST).read_text(encoding="utf-8"))


@model_app.command("verify")
def model_verify(folder: Annotated[Path, typer.Argument(metavar="DIR/GROUP/VERSION")]) -> None:
    """Hashes, shapes and the golden vector, as the service checks them before it serves."""
    with sentences(BundleError), threadpool_limits(limits=1, user_api="blas"):
        model = bundle.load(folder)
    out.print(f"{folder}: sound; group {model.group}, {len(model.sensors.names)} sensors, sha256 {model.ref.sha256}")


def _settings(config: Path | None) -> Settings:
    from pipeline.settings import SettingsError, load

    with sentences(wrong=(SettingsError,)):
        return load(config, os.environ)


def _train_settings(weights: Weights, fraction: float, max_rows: int | None, words: dict[str, Any]) -> TrainSettings:
    from training.fit import FitSettings
    from training.train import TrainSettings

    return TrainSettings(FitSettings(**words), weights, fraction, max_rows)


def _train(series: list[Series], root: Path, settings: TrainSettings) -> list[Trained]:
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


def _show_figures(figures: Figures, console: Console) -> None:
    """What alerts and scores came to, and what that means."""
    from training import explained

    table = Table("", "as raised", "best threshold", "what it says", box=None)
    table.columns[1].justify = table.columns[2].justify = "right"
    for line in explained.lines(figures):
        table.add_row(*line)
    console.print(explained.headline(figures), markup=False)
    console.print(table)
    console.print(explained.BEST_THRESHOLD, style="dim")


def _ask(url: str, path: str) -> Any:
    try:
        with urllib.request.urlopen(url + path, timeout=5) as answer:  # noqa: S310 - the operator's own URL
            return json.load(answer)
    except urllib.error.HTTPError as error:
        err.print(f"{url}{path}: {error.read(500).decode(errors='replace')}", style="red", markup=False)
    except (OSError, HTTPException, ValueError) as error:
        err.print(f"{url} does not answer: {error}; is the service running? give --url", style="red", markup=False)
    raise typer.Exit(FAILED)


def _when(milliseconds: float) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def main() -> None:
    """Entry point of the distribution."""
    app()


if __name__ == "__main__":
    main()
