"""The simulated plant, with a broker, a model and live alerts or by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.learn import train_bundles, train_settings
from pipeline.cli.words import BudgetText
from pipeline.console import out, sentences
from pipeline.core.thresholds import Budget

if TYPE_CHECKING:
    from pipeline.adapters.files import Series

DEMO_BUDGET = "5/20000/sensor"  # its faults are small


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
        train_bundles(series, models, train_settings("auto", 1.0, None, {}))

    options = DemoOptions(duration, sensors, seed, budget, bootstrap_servers, picture)
    with sentences(DemoError, EmbeddedBrokerError, wrong=(ValueError,)):
        Budget.parse(budget)
        if duration <= 0:
            raise ValueError(f"a demo lasts longer than {duration:g} s")
        verdict = run_demo(out, options, learn)
    out.print(verdict_tables(verdict))
    if json_file is not None:
        json_file.write_text(json.dumps(verdict.as_json(), indent=1), encoding="utf-8")


def plant(
    history: Annotated[Path | None, typer.Option(help="Write the plant's fault-free history here, and end.")] = None,
    bootstrap_servers: Annotated[str, typer.Option(help="Stream the plant to this broker.")] = "localhost:9092",
    sensors: Annotated[int, typer.Option(help="How many the plant has.")] = 40,
    seed: Annotated[int, typer.Option(help="Of the plant and its faults.")] = 0,
    rate: Annotated[float, typer.Option(help="Readings a second, of the whole plant.")] = 200.0,
) -> None:
    """The simulated plant by itself: its history as files, or its readings, faults among them, without end."""
    from pipeline.adapters.files import DataError
    from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError
    from pipeline.demo.producer import stream_plant, write_history
    from pipeline.settings_schema import KafkaSettings

    with sentences(DataError, KafkaAwayError, KafkaSetupError, OSError, wrong=(ValueError,)):
        if history is not None:
            write_history(sensors, seed, history)
        else:
            stream_plant(sensors, seed, KafkaSettings(bootstrap_servers=bootstrap_servers), rate)
