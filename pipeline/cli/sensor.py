"""`foreshock sensor`: one sensor of a running service."""

from __future__ import annotations

import json
import urllib.parse
from typing import Annotated

import typer

from pipeline.cli.asking import DEFAULT_URL, Url, ask
from pipeline.cli.words import Config, settings_of
from pipeline.console import out, sentences

Sensor = Annotated[str, typer.Argument(metavar="ID")]


def show(sensor: Sensor, url: Url = DEFAULT_URL) -> None:
    """What a running service knows of a sensor: state, score, scale, limits."""
    out.print_json(json.dumps(ask(url, f"/sensors/{urllib.parse.quote(sensor)}")))


def retire(
    sensor: Sensor,
    config: Config = None,
    everywhere: Annotated[
        bool, typer.Option(help="In every partition: where keys are not hashed with murmur2, or were moved.")
    ] = False,
) -> None:
    """It is gone for good: its open alerts end as `retired`, its state is dropped. Who speaks again begins anew."""
    from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError
    from pipeline.adapters.kafka_events import send_event
    from pipeline.codecs.events import encode_retirement

    settings = settings_of(config)
    with sentences(KafkaAwayError, KafkaSetupError, wrong=(ValueError,)):
        value, headers = encode_retirement(sensor)
        stored = send_event(settings.kafka, sensor, value, headers, everywhere=everywhere)
    where = ", ".join(f"partition {partition} at offset {offset}" for partition, offset in stored)
    out.print(f"{sensor}: retired in {settings.kafka.topics.readings}, {where}", markup=False)
