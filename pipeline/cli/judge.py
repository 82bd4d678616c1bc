"""Replay and evaluate: what would it have said, and how good was that?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from pipeline import bundle
from pipeline.bundle import BundleError
from pipeline.cli.span import Asked, replay_span
from pipeline.cli.words import Config, Join, Tag, settings_of
from pipeline.console import WRONG_WORDS, Stages, err, needs_extra, out, sentences
from pipeline.core.table import NEVER, Clock
from pipeline.core.thresholds import Budget
from pipeline.fast import Kernel, walkers

if TYPE_CHECKING:
    from pipeline.adapters.files import Series
    from pipeline.core.model import Model
    from training.evaluate import Figures

DEFAULT_BUDGET = "1/10000/sensor"


def replay(
    data: Annotated[
        Path | None, typer.Argument(metavar="[DATA]", help="CSV or Parquet, wide or long; or give --from-topic.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of model bundles; of a topic, by default model.dir.")
    ] = None,
    scores: Annotated[Path | None, typer.Option(help="Folder for a CSV of scores for each sensor.")] = None,
    alerts: Annotated[Path | None, typer.Option(help="File for the alerts, a line of JSON each.")] = None,
    budget: Annotated[
        str | None, typer.Option(help=f"With DATA: false alarms that are bearable; by default {DEFAULT_BUDGET}.")
    ] = None,
    sensors: Annotated[Path | None, typer.Option(help="With DATA: sensors.csv, for physical limits.")] = None,
    timezone: Annotated[str | None, typer.Option(help="With DATA: of time stamps that name none; else UTC.")] = None,
    join: Join = False,
    tag: Tag = None,
    kernel: Annotated[
        Literal["numpy", "numba"] | None,
        typer.Option(help="With DATA: what computes the scores; numba needs the extra `fast`."),
    ] = None,
    from_topic: Annotated[
        str | None, typer.Option(help="Replay this topic, under the settings of the service.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="With --from-topic: an RFC 3339 time, a span such as 2h, or offset:N.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="Likewise; by default the end of the topic.")] = None,
    partition: Annotated[int | None, typer.Option(help="With --from-topic: this one only.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="With --from-topic: compare with the alerts that were published.")
    ] = False,
    config: Config = None,
) -> None:
    """Readings through the live detector: a score for each, and the alerts that would have been raised.

    Of a topic it begins from the newest checkpoint before --start. With --verify it ends with 1 where an alert differs.
    """
    if from_topic is None:
        if data is None or model is None or scores is None or start or end or partition is not None or verify or config:
            _wrong("replay needs DATA, --model and --scores; or --from-topic and --start")
        from pipeline.adapters.joined import read

        def series() -> list[Series]:
            return read(data, timezone or "UTC", join=join, tag=tag)

        _replay_files(series, model, scores, alerts, budget or DEFAULT_BUDGET, sensors, kernel or "numpy")
        return
    if start is None or data is not None:
        _wrong("replay --from-topic needs --start, and no DATA")
    if join or (budget, sensors, timezone, tag, kernel) != (None,) * 5:
        _wrong("a topic is replayed under the settings of the service, not --budget, --sensors, --timezone, --join, "
               "--tag or --kernel; change them by --config or in the environment, e.g. "
               "FORESHOCK_MODEL__JOIN=true")  # fmt: skip
    settings = settings_of(config)
    if model is not None:
        settings = settings.model_copy(update={"model": settings.model.model_copy(update={"dir": model})})
    replay_span(settings, Asked(from_topic, start, end, partition, verify, scores, alerts))


def _wrong(sentence: str) -> NoReturn:
    err.print(sentence)
    raise typer.Exit(WRONG_WORDS)


def _replay_files(
    read: Callable[[], list[Series]],
    model: Path,
    scores: Path,
    alerts: Path | None,
    budget: str,
    sensors: Path | None,
    kernel: Kernel,
) -> None:
    """Files through the live detector."""
    from pipeline.adapters.files import DataError
    from pipeline.adapters.sensors import read_sensors_csv
    from pipeline.codecs.json import encode_alert
    from pipeline.core.detector import Detector
    from pipeline.core.events import Rules
    from pipeline.replay import replay

    with sentences(DataError, BundleError, OSError, wrong=(ValueError,)), threadpool_limits(limits=1, user_api="blas"):
        rules = Rules(budget=Budget.parse(budget))
        limits = read_sensors_csv(sensors) if sensors is not None else []
        detector_of = partial(Detector, walkers=walkers(kernel))
        series, models = read(), bundle.load_all(model)
        with Stages() as stages:
            stages.stage("replay", f"{len(series)} sensors", sum(map(len, series)))
            replayed = replay(series, models, rules, limits, stages.advance, detector_of)
        replayed.write(scores, budget)
        if alerts is not None:
            alerts.write_bytes(b"".join(encode_alert(a) + b"\n" for a in replayed.alerts))
        told = ", ".join(f"{n} {what}" for what, n in sorted(replayed.counts.items()))
        out.print(f"{len(replayed.sensors)} sensors: {told}; {len(replayed.alerts)} alert messages; scores in {scores}")
        if trained_on := rows_trained_on(series, models.values()):
            err.print(
                f"{trained_on} of {sum(map(len, series))} rows were trained on, and none of them is alerted. Train on "
                "a first part (train --fraction 0.7), or replay what came after",
                markup=False,
            )


def rows_trained_on(series: Iterable[Series], models: Iterable[Model]) -> int:
    """How many readings are from before the end of their sensor's training history."""
    learned_to = {
        name: int(clock[Clock.LEARN_FROM])
        for model in models
        for name, clock in zip(model.sensors.names, model.sensors.arrays.get("clock", ()), strict=True)
    }
    return sum(int((one.times < learned_to.get(one.sensor, NEVER)).sum()) for one in series)


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

    with needs_extra("evaluate"):
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
