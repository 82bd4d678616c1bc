"""`foreshock sensor`: one sensor of a running service."""

from __future__ import annotations

import json
import urllib.parse
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from pipeline.cli.asking import DEFAULT_URL, Url, ask
from pipeline.cli.words import Config, settings_of
from pipeline.console import out, sentences

Sensor = Annotated[str, typer.Argument(metavar="ID")]
Everywhere = Annotated[
    bool, typer.Option(help="In every partition: where keys are not hashed with murmur2, or were moved.")
]


def show(sensor: Sensor, url: Url = DEFAULT_URL) -> None:
    """What a running service knows of a sensor: state, score, scale, limits."""
    out.print_json(json.dumps(ask(url, f"/sensors/{urllib.parse.quote(sensor)}")))


def retire(
    sensor: Sensor,
    config: Config = None,
    everywhere: Everywhere = False,
) -> None:
    """It is gone for good: its open alerts end as `retired`, its state is dropped. Who speaks again begins anew."""
    from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError
    from pipeline.adapters.kafka_events import send_event
    from pipeline.codecs.events import encode_retirement

    settings = settings_of(config)
    with sentences(KafkaAwayError, KafkaSetupError, wrong=(ValueError,)):
        value, headers = encode_retirement(sensor)
        stored = send_event(settings.kafka, sensor, value, headers, everywhere=everywhere)
    out.print(f"{sensor}: retired in {settings.kafka.topics.readings}, {_places(stored)}", markup=False)


def maintenance(
    sensor: Sensor,
    hours: Annotated[float, typer.Option(min=0, max=8784, help="From then on; 0 ends what was said before.")],
    start: Annotated[datetime | None, typer.Option("--from", help="A time, UTC; by default, now.")] = None,
    config: Config = None,
    everywhere: Everywhere = False,
) -> None:
    """Somebody works on it: its readings of that time are as if they had come with the quality `maintenance`."""
    from pipeline.adapters.kafka_connection import KafkaAwayError, KafkaSetupError
    from pipeline.adapters.kafka_events import send_event
    from pipeline.codecs.events import encode_maintenance

    settings = settings_of(config)
    begin = datetime.now(UTC) if start is None else start.replace(tzinfo=UTC)
    end = begin + timedelta(hours=hours)
    with sentences(KafkaAwayError, KafkaSetupError, wrong=(ValueError,)):
        value, headers = encode_maintenance(sensor, round(begin.timestamp() * 1e6), round(end.timestamp() * 1e6))
        stored = send_event(settings.kafka, sensor, value, headers, everywhere=everywhere)
    until = end.isoformat(timespec="seconds")
    out.print(
        f"{sensor}: maintenance until {until} in {settings.kafka.topics.readings}, {_places(stored)}", markup=False
    )


def _places(stored: list[tuple[int, int]]) -> str:
    return ", ".join(f"partition {partition} at offset {offset}" for partition, offset in stored)
